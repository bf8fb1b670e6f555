"""The control room served for real: home, SQLite, sockets and execution; nothing that needs a model runs."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from copies import open_deidentifier

from clinic_ai.contract import Condition, PluginManifest
from clinic_ai.control.client import Client
from clinic_ai.control.pace import Pace
from clinic_ai.control.server import ControlServer
from clinic_ai.control.services import Services
from clinic_ai.control.topics import Topics
from clinic_ai.disk.keeper import Keeper
from clinic_ai.disk.room import MIB
from clinic_ai.disk.room import Room as DiskRoom
from clinic_ai.domain import (
    Analysis,
    Audience,
    CloseCode,
    Decision,
    Finding,
    GuardAction,
    GuardVerdict,
    InstanceHeader,
    JobKind,
    PatientIdentity,
    Presence,
    Released,
    StudyFacts,
    WaitReason,
)
from clinic_ai.engines import Engines, EngineSettings
from clinic_ai.execution import Execution
from clinic_ai.guard.client import Guard
from clinic_ai.hardware import Machine, Sampler
from clinic_ai.home import Home, init_home
from clinic_ai.ingest import undecided
from clinic_ai.ingest.closing import Closing
from clinic_ai.ingest.comparison import Comparer
from clinic_ai.ingest.decisions import Decisions
from clinic_ai.ingest.imports import Imports
from clinic_ai.ingest.lookout import Lookout
from clinic_ai.ingest.quarantine import Quarantine, Reason, utc
from clinic_ai.ingest.receiving import Receiver
from clinic_ai.ingest.watch import ignore_pattern, inbox_of
from clinic_ai.lanes import Wake
from clinic_ai.plugins import PluginCatalogue
from clinic_ai.processes import Crew
from clinic_ai.questions import Questions
from clinic_ai.results.previews import Previews
from clinic_ai.results.reporting import ReportRunner
from clinic_ai.results.reviewing import Reviews
from clinic_ai.settings import Settings, load_settings
from clinic_ai.showing import Showing
from clinic_ai.store import artefacts, jobs, ledger, studies
from clinic_ai.store.database import Database
from clinic_ai.store.objects import ObjectStore
from clinic_ai.training.night import Night
from clinic_ai.training.promotion import Promotions
from clinic_ai.training.registry import Registry
from clinic_ai.training.runs import Runs
from clinic_ai.training.scaling import Forecasts

ECHO = PluginManifest(
    name="echo", version="1.0", summary="Says what it got.", engine="a:B", claims=(Condition(modality=("CT",)),)
)
SECRET = "There is a suspicious shadow."
"""What the studies of these tests show; only clinicians may read it."""
NAME = "Doe^John"
_HASH = "c" * 64


@dataclass
class Shared:
    """What the services read anew at each request; ``settings`` may be replaced, as a reload would."""

    settings: Settings
    reload_problems: tuple[str, ...] = ()
    reloads: int = 0

    def reload(self) -> tuple[str, ...]:
        self.reloads += 1
        return self.reload_problems


@dataclass
class Room:
    """A served control room."""

    home: Home
    database: Database
    shared: Shared
    server: ControlServer
    lookout: Lookout
    closing: Closing
    guard: Guard
    catalogue: PluginCatalogue
    engines: Engines
    sampler: Sampler
    """It reads when a test tells it to."""
    previews: Previews

    def look(self) -> None:
        """Look at the inboxes once, as ingest does all the time."""
        for _ in self.lookout.rounds():
            pass

    def client(self, *, monitor: bool = False) -> Client:
        """Return a client of this room."""
        return Client(self.home, monitor=monitor)

    def allow(self, **control: object) -> None:
        """Change who may do what."""
        settings = self.shared.settings
        fresh = settings.control.model_copy(update=control)
        self.shared.settings = settings.model_copy(update={"control": fresh})

    def add_study(
        self,
        *,
        source: str = "ct room",
        modality: str = "CT",
        wait: WaitReason | None = None,
        state: str = "ROUTED",
        stored: bool = False,
    ) -> str:
        """Store a study with one file, in a state on its way: RECEIVING, CLOSED, UNROUTED, ROUTED or DONE.

        If ``stored``, its bytes are there, and its header says that it is a picture.
        """
        facts = StudyFacts(source=source, modalities=(modality,), body_parts=("CHEST",), slices=1)
        with self.database.write() as c:
            name = f"{modality}/{time.monotonic_ns()}.dcm"
            seen = ledger.Sighting(source=source, name=name, raw_name=name.encode(), size_bytes=10, mtime_ns=1)
            (file_id,) = ledger.begin_claims(c, [seen])
            sha256 = f"{file_id:064x}"
            if stored:
                sha256, _ = ObjectStore(self.home.objects).write_bytes(name.encode())
            study_id = studies.open_study(
                c,
                grouping_key=f"g{file_id}",
                study_instance_uid=f"1.2.{file_id}",
                pseudonym=f"P-{file_id:08d}",
                patient_key="d" * 64,
                source=source,
                facts=facts,
                identity=PatientIdentity(patient_name=NAME, patient_id="4711"),
                wait=wait,
            )
            header = InstanceHeader(
                kind="dicom",
                modality=modality,
                rows=64 if stored else 0,
                columns=64 if stored else 0,
                frames=1,
                sop_instance_uid=f"1.2.{file_id}.1",
            )
            new = studies.NewInstance(file_id=file_id, sha256=sha256, size_bytes=10, header=header)
            studies.add_instances(c, study_id, 1, [new], wait=wait)
            ledger.confirm_claims(c, [(file_id, sha256, 10)])
            ledger.decide(c, [ledger.Outcome(file_id, ledger.Fate.STORED, study_id=study_id)])
            events = {
                "RECEIVING": (),
                "CLOSED": (),
                "UNROUTED": ("no_rule",),
                "ROUTED": ("route",),
                "DONE": ("route", "finish"),
            }[state]
            if state != "RECEIVING":
                studies.close_version(
                    c, study_id, 1, facts=facts, code=CloseCode.QUIET, reason="nothing arrived for 5 s", actor="ingest"
                )
            for event in events:
                studies.move_study(c, study_id, 1, event, actor="test", wait=wait)
        return study_id

    def quarantine_file(
        self, content: bytes, *, name: str = "odd.dcm", code: str = "damaged", study_id: str | None = None
    ) -> int:
        """Put a file into the quarantine, as ingest would; return its number."""
        with self.database.write() as c:
            seen = ledger.Sighting(
                source="ct room", name=name, raw_name=name.encode(), size_bytes=len(content), mtime_ns=1
            )
            (file_id,) = ledger.begin_claims(c, [seen])
            entry = ledger.get_file(c, file_id)
            sha256 = hashlib.sha256(content).hexdigest()
            ledger.confirm_claims(c, [(file_id, sha256, len(content))])
            reason, remedy = "It is damaged.", "Send it again."
            ledger.decide(c, [ledger.Outcome(file_id, ledger.Fate.QUARANTINED, code, reason, remedy, study_id)])
            undecided.raise_alerts(c, {"ct room"}, {study_id} if study_id else set())
        path = self.home.spool / str(file_id)
        path.write_bytes(content)
        why = Reason(
            code=code,
            sentence=reason,
            remedy=remedy,
            file_number=file_id,
            original_name=name,
            source="ct room",
            sha256=sha256,
            size_bytes=len(content),
            seen_at=utc(entry.seen_at),
            quarantined_at=utc(entry.seen_at),
        )
        Quarantine(self.home.quarantine).put(path, entry.seen_at, why)
        return file_id

    def add_finding(self, study_id: str) -> None:
        """Store an analysis that found pneumonia, at 0.98 with a threshold of 0.47."""
        with self.database.write() as c:
            [image] = studies.instances_of(c, study_id, 1)
            found = Finding(
                condition="pneumonia",
                label="Pneumonia",
                probability=0.98,
                threshold=0.47,
                presence=Presence.PRESENT,
                instance_sha256=image.sha256,
                laterality="left",
            )
            job = jobs.get_job(c, jobs.add_job(c, kind=JobKind.ANALYSE, study_id=study_id, version=1, plugin="echo"))
            analysis = Analysis(plugin="echo", plugin_version="1", models=(), findings=(found,))
            jobs.save_analysis(c, jobs.lease(c, job, "test", (), ""), analysis, ())
            jobs.succeed(c, job.job_id)

    def add_result(self, study_id: str, action: GuardAction = GuardAction.ALLOW) -> None:
        """Store a report job and what the guard decided of it."""
        held = action.severity >= GuardAction.HOLD.severity
        released = Released(statement_id="s1", audience=Audience.CLINICIAN, text=SECRET, policy_hash=_HASH)
        verdict = GuardVerdict(
            audience=Audience.CLINICIAN,
            action=action,
            decisions=(Decision(statement_id="s1", rule="test.rule", action=action, reason="Because."),),
            released=() if held else (released,),
            marks=("For investigational use only.",),
            policy_hash=_HASH,
            policy_name="default",
        )
        with self.database.write() as c:
            job_id = jobs.add_job(c, kind=JobKind.REPORT, study_id=study_id, version=1)
            artefact_id, _ = artefacts.add_artefact(c, jobs.get_job(c, job_id), verdict)
            if not held:
                artefacts.add_delivery(c, artefact_id, "outbox")


@contextlib.contextmanager
def control_room(path: Path, *plugins: PluginManifest, pace: Pace | None = None) -> Iterator[Room]:
    """Serve a control room in a home of its own at ``path``; without ``plugins`` with one that is never run."""
    home = init_home(path)
    shared = Shared(load_settings(home.clinic_toml))
    database, crew, topics = Database(home.database), Crew(), Topics()
    database.open()
    catalogue = PluginCatalogue({plugin.name: plugin for plugin in plugins or (ECHO,)}, [])
    registry = Registry(home, database, catalogue.manifests, crew)
    guard = Guard(crew, home.policies / shared.settings.guard.pack, archive=home.state / "policies")
    deidentifier = open_deidentifier(home, database, crew)
    runs = Runs(home, database, registry, catalogue.manifests, crew, shared.settings, deidentifier)
    execution = Execution(
        database=database,
        settings=lambda: shared.settings,
        manifests=lambda: catalogue.manifests,
        runners=(),
        owner="test",
        wake=Wake(),
    )
    quarantine = Quarantine(home.quarantine)
    lookout = Lookout(
        home=home.path,
        database=database,
        inboxes=lambda: [inbox_of(inbox, shared.settings.ingest, home.path) for inbox in shared.settings.inbox],
        ignore=lambda: ignore_pattern(shared.settings.ingest.ignore),
        wake=lambda: None,
        on_change=partial(topics.touch, "inboxes"),
    )
    closing = Closing(database=database, settings=lambda: shared.settings.ingest, on_closed=lambda: None)
    imports = Imports(
        folder=home.imports,
        database=database,
        room=DiskRoom(home.state, lambda: shared.settings.disk.reserve_mb * MIB),
        max_file_bytes=lambda: shared.settings.ingest.max_file_mb << 20,
        on_received=lambda: None,
    )
    imports.sweep()
    reports = ReportRunner(
        database=database,
        objects=ObjectStore(home.objects),
        job_directories=home.jobs,
        crew=crew,
        guard=guard,
        models=registry,
        settings=lambda: shared.settings,
        manifests=lambda: catalogue.manifests,
    )
    engines = Engines(crew, lambda: EngineSettings(1024, 1, 60, 5, 60, 60))
    questions = Questions(
        database=database,
        engines=engines,
        models=registry,
        guard=guard,
        router=execution,
        showing=Showing(ObjectStore(home.objects), deidentifier),
        manifests=lambda: catalogue.manifests,
        settings=lambda: shared.settings,
    )
    machine = Machine(home.path)
    sampler = Sampler(machine, memory=lambda: (110, 0), on_sample=partial(topics.touch, "machine"))
    previews = Previews(database, ObjectStore(home.objects), crew)
    services = Services(
        home=home,
        database=database,
        execution=execution,
        engines=engines,
        registry=registry,
        promotions=Promotions(database, registry, lambda: shared.settings),
        canary=None,
        runs=runs,
        night=Night(
            runs=runs,
            database=database,
            settings=lambda: shared.settings.training,
            sensors=Machine(home.path),
            directory=home.runs,
        ),
        forecasts=Forecasts(home, database, crew, lambda: shared.settings.training.budget),
        guard=guard,
        crew=crew,
        decisions=Decisions(database=database, quarantine=quarantine, wake=lambda: None),
        reviews=Reviews(database, ObjectStore(home.objects), reports, lambda: shared.settings.review, lambda: None),
        questions=questions,
        previews=previews,
        comparer=Comparer(
            crew=crew,
            database=database,
            objects=ObjectStore(home.objects),
            quarantine=quarantine,
            settings=lambda: shared.settings.ingest,
        ),
        machine=sampler,
        receiver=Receiver(
            home=home, settings=lambda: shared.settings, database=database, crew=crew, on_received=lambda: None
        ),
        closing=closing,
        inboxes=lookout,
        imports=imports,
        deidentifier=deidentifier,
        disk=Keeper(
            home=home,
            settings=lambda: shared.settings,
            database=database,
            objects=ObjectStore(home.objects),
            room=DiskRoom(home.state, lambda: shared.settings.disk.reserve_mb * MIB),
            on_room=lambda: None,
        ),
        catalogue=catalogue,
        settings=lambda: shared.settings,
        started_at=time.time(),
        reload=shared.reload,
        topics=topics,
    )
    server = ControlServer(home, services, pace=pace)
    server.start()
    try:
        yield Room(home, database, shared, server, lookout, closing, guard, catalogue, engines, sampler, previews)
    finally:
        server.stop()
        previews.child.close()
        engines.close()
        lookout.close()
        machine.close()
        runs.close()
        guard.close()
        crew.close()
        database.close()
