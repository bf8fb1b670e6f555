"""The composition root: makes the rooms of one home, starts them in order and stops them in reverse."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial

import psutil
import structlog

from clinic_ai import __version__
from clinic_ai.analyses import AnalyseRunner, sweep_job_directories
from clinic_ai.category_files import FOLDER as CATEGORIES
from clinic_ai.category_files import add_categories
from clinic_ai.clock import SystemClock
from clinic_ai.conditions import FOLDER as CONDITIONS
from clinic_ai.conditions import add_conditions
from clinic_ai.contract import PluginManifest
from clinic_ai.control.app import Services
from clinic_ai.control.topics import Topics
from clinic_ai.critical.errand import EMAIL, WEBHOOK
from clinic_ai.critical.herald import Herald, Messenger
from clinic_ai.critical.matching import unknown_conditions
from clinic_ai.deidentification import Deidentifier
from clinic_ai.disk.keeper import Keeper
from clinic_ai.disk.room import MIB, Room
from clinic_ai.engines import Engines, engine_settings
from clinic_ai.errors import HomeError, PolicyError, SettingsError
from clinic_ai.execution import Execution
from clinic_ai.guard.client import Guard
from clinic_ai.guard.examples import FOLDER, REMEDY, load_examples
from clinic_ai.guard.intents import HealthyExample
from clinic_ai.hardware import Devices, Machine, Sampler
from clinic_ai.heads.head import HeadKeeper
from clinic_ai.home import Home
from clinic_ai.ingest.comparison import Comparer
from clinic_ai.ingest.imports import Imports
from clinic_ai.ingest.intake import Intake
from clinic_ai.ingest.quarantine import Quarantine
from clinic_ai.ingest.receiving import Receiver
from clinic_ai.lanes import Lane, Wake, places
from clinic_ai.logs import RECENT, configure
from clinic_ai.plugins import PluginCatalogue, PluginProblem
from clinic_ai.processes import Crew
from clinic_ai.questions import Questions
from clinic_ai.results.codes import table
from clinic_ai.results.courier import Courier
from clinic_ai.results.previews import PREVIEWER_IDLE_S, Previews
from clinic_ai.results.reporting import ReportRunner, policy_hash
from clinic_ai.results.reviewing import Reviews
from clinic_ai.results.signing import SignRunner
from clinic_ai.settings import CriticalSettings, Settings, load_settings
from clinic_ai.showing import Showing
from clinic_ai.store import alerts
from clinic_ai.store.audit import record
from clinic_ai.store.database import Database
from clinic_ai.store.objects import ObjectStore
from clinic_ai.training.canary import Canary
from clinic_ai.training.gate import Gate
from clinic_ai.training.night import Night
from clinic_ai.training.patients import Patients
from clinic_ai.training.registry import Registry
from clinic_ai.training.runs import Runs
from clinic_ai.training.scaling import Forecasts

log = structlog.get_logger()

STOP_GRACE_S = 20.0
"""How long running jobs may go on after SIGTERM before they are re-queued."""
RENDERER_IDLE_S = 60.0


class Appliance:
    """Everything between the inbox and the outbox, in one home whose lock the caller holds."""

    def __init__(self, home: Home, settings: Settings, catalogue: PluginCatalogue) -> None:
        self.home = home
        self.settings = settings
        self.catalogue = catalogue
        self.started_at = time.time()
        self.boot_id = secrets.token_hex(8)
        self.wake = Wake()
        self.topics = Topics()
        self.crew = Crew()
        self.database = Database(home.database)
        self.objects = ObjectStore(home.objects)
        self.guard = Guard(
            self.crew,
            home.policies / settings.guard.pack,
            timeout_s=settings.guard.timeout_s,
            archive=home.state / "policies",
            on_alert=self._alert,
            max_restarts=settings.execution.max_restarts,
            restart_window_s=settings.execution.restart_window_s,
        )
        self.registry = Registry(home, self.database, catalogue.manifests, self.crew)
        self.deidentifier = Deidentifier(
            crew=self.crew,
            database=self.database,
            objects=self.objects,
            directory=home.jobs,
            max_pixels=lambda: self.settings.ingest.max_pixels,
        )
        self.gate = Gate(home, self.database, self.registry, self.crew, self.guard, lambda: self.settings)
        self.machine = Machine(home.path)
        devices = Devices(self.machine)
        # Sensors of its own: power is the mean since the reading before, and the night counts energy by that.
        self._watched = Machine(home.path)
        self.sampler = Sampler(
            self._watched,
            memory=self._memory,
            on_sample=partial(self.topics.touch, "machine"),
            gpu_problem=lambda: self._watched.gpu_problem,
        )
        self.runs = Runs(
            home,
            self.database,
            self.registry,
            catalogue.manifests,
            self.crew,
            settings,
            self.deidentifier,
            self.gate,
            devices,
            on_progress=partial(self.topics.touch, "runs"),
        )
        self.night = Night(
            runs=self.runs,
            database=self.database,
            settings=lambda: self.settings.training,
            sensors=self.machine,
            directory=home.runs,
            wake=self.wake,
            signs=self._signs(),
        )
        self.engines = Engines(self.crew, lambda: engine_settings(self.settings.execution), devices)
        self.reports = ReportRunner(
            database=self.database,
            objects=self.objects,
            job_directories=home.jobs,
            crew=self.crew,
            guard=self.guard,
            models=self.registry,
            settings=lambda: self.settings,
            manifests=self._manifests,
        )
        analyses = AnalyseRunner(
            database=self.database,
            objects=self.objects,
            job_directories=home.jobs,
            engines=self.engines,
            models=self.registry,
            manifests=self._manifests,
            guard=self.guard,
            policy_hash=lambda: policy_hash(self.guard),
            deidentifier=self.deidentifier,
            critical=self._critical,
            rules=lambda: self.settings.category,
            questions=lambda: self.settings.questions,
        )
        self.canary = Canary(
            directories=home.jobs,
            database=self.database,
            registry=self.registry,
            manifests=self._manifests,
            tasks=analyses.tasks,
            crew=self.crew,
            guard=self.guard,
            settings=lambda: self.settings,
            waiting=Patients(self.database, SystemClock(), self._signs()).waiting,
        )
        self.execution = Execution(
            database=self.database,
            settings=lambda: self.settings,
            manifests=self._manifests,
            runners=(analyses, self.reports, SignRunner(self.database, self.reports)),
            owner=self.boot_id,
            wake=self.wake,
        )
        self.reviews = Reviews(self.database, self.objects, self.reports, lambda: self.settings.review, self.wake)
        self.questions = Questions(
            database=self.database,
            engines=self.engines,
            models=self.registry,
            guard=self.guard,
            router=self.execution,
            showing=Showing(self.objects, self.deidentifier),
            manifests=self._manifests,
            settings=lambda: self.settings,
            examples=self._examples,
            on_asked=self.night.make_way,
        )
        self.previews = Previews(self.database, self.objects, self.crew)
        self.courier = Courier(self.database, self.objects, lambda: home.path / self.settings.results.outbox)
        self.room = Room(home.state, lambda: self.settings.disk.reserve_mb * MIB)
        self.intake = Intake(
            home=home,
            settings=lambda: self.settings,
            database=self.database,
            objects=self.objects,
            crew=self.crew,
            on_closed=self.wake,
            on_arrival=self.night.make_way,
            room=self.room,
            on_inboxes=partial(self.topics.touch, "inboxes"),
        )
        self.imports = Imports(
            folder=home.imports,
            database=self.database,
            room=self.room,
            max_file_bytes=lambda: self.settings.ingest.max_file_mb << 20,
            on_received=self.intake.wake,
        )
        self.keeper = Keeper(
            home=home,
            settings=lambda: self.settings,
            database=self.database,
            objects=self.objects,
            room=self.room,
            on_room=self.intake.wake,
        )
        self.comparer = Comparer(
            crew=self.crew,
            database=self.database,
            objects=self.objects,
            quarantine=Quarantine(home.quarantine),
            settings=lambda: self.settings.ingest,
        )
        self.receiver = Receiver(
            home=home,
            settings=lambda: self.settings,
            database=self.database,
            crew=self.crew,
            on_received=self.intake.wake,
            room=self.room,
        )
        self.herald = Herald(self.database, lambda: self.settings, self.wake)
        messengers = [
            Messenger(c, self.crew, self.database, lambda: self.settings, home.path) for c in (WEBHOOK, EMAIL)
        ]
        self.heads = HeadKeeper(home, self.database)
        self._network = Lane("network", self.receiver.step, self.wake)
        self._lanes = [
            Lane("delivery", self.courier.step, self.wake),
            Lane("housekeeping", self._keep_house, self.wake, idle_s=5.0),
            Lane("disk", self.keeper.step, self.wake),
            Lane("night", self.night.step, self.wake),
            Lane("critical", self.herald.step, self.wake),
            Lane("audit", self.heads.step, self.wake, idle_s=5.0),
            *(Lane(messenger.channel, messenger.step, self.wake) for messenger in messengers),
        ]
        self._opened = False
        self._reloading = threading.Lock()
        self._stop_intake = threading.Event()
        self._intake = threading.Thread(target=self.intake.run, args=(self._stop_intake,), name="ingest", daemon=True)

    def _signs(self) -> tuple[Callable[[], bool], ...]:
        """Return what tells of patients that the database does not know yet."""
        return (lambda: self.intake.arriving, lambda: self.questions.being_asked)

    def _manifests(self) -> Mapping[str, PluginManifest]:
        return self.catalogue.manifests

    # ------------------------------------------------------------ life

    def open(self) -> None:
        """Open the store, undo what a crash left half-done, load the policy and the reference models.

        Raise ClinicError if one of these cannot be done.
        """
        self.database.open()
        self._opened = True
        try:
            self.heads.open()
        except HomeError as error:  # studies go on: what is decided of them stands in the log, if unsigned
            self._alert("audit_unsigned", error.message, error.remedy)
        self.objects.sweep()
        sweep_job_directories(self.home.jobs)
        self.imports.sweep()
        self.intake.recover()
        self.execution.recover()
        try:
            self.guard.load()
        except PolicyError:
            pass  # the guard raised the alert; studies are taken in and wait, and nothing goes out
        with self.database.write() as connection:
            record(connection, actor="clinic-ai", action="daemon.started", subject=__version__, details=self._facts())
        self._refuse_unknown_conditions()
        add_conditions(self.catalogue, self.home.path / CONDITIONS, table())
        add_categories(self.catalogue, self.home.path / CATEGORIES)
        self._check_critical()
        self._examples()
        for problem in self.catalogue.problems:
            self._alert("plugin_unusable", problem.sentence, "Repair or uninstall it; the other plugins work.")
        self.registry.install_reference_models("clinic-ai")
        self.runs.recover()

    def _refuse_unknown_conditions(self) -> None:
        """Put aside plugins that judge conditions the reviewed table of codes does not have."""
        for manifest in list(self.catalogue.manifests.values()):
            unknown = [c.code for c in manifest.conditions if c.code not in table()]
            if unknown:
                del self.catalogue.manifests[manifest.name]
                sentence = f"Plugin {manifest.name} judges {', '.join(unknown)}; the table of codes lacks that."
                self.catalogue.problems.append(PluginProblem(manifest.name, sentence))

    def _critical(self) -> tuple[CriticalSettings, ...]:
        """Return the clinic's list, and what its conditions say of themselves where the list is silent."""
        named = {entry.condition for entry in self.settings.critical}
        conditions = {c.code: c for manifest in self.catalogue.manifests.values() for c in manifest.conditions}
        return (
            *self.settings.critical,
            *(
                CriticalSettings(condition=condition.code, category=condition.critical)
                for condition in conditions.values()
                if condition.critical and condition.code not in named
            ),
        )

    def _check_critical(self) -> None:
        """Say which entries of the clinic's list can never be met; the others are in force."""
        unknown = unknown_conditions(self.settings.critical, table())
        if unknown:
            sentence = f"[[critical]] of clinic.toml names {', '.join(unknown)}, which no finding is called."
            self._alert("critical_unknown", sentence, "Write a key of codes.toml, see docs/critical-findings.md.")

    def _examples(self) -> tuple[HealthyExample, ...]:
        """Return the clinic's healthy examples; an alert says which of them can not be shown."""
        examples, problems = load_examples(self.home.path / FOLDER)
        if problems:
            self._alert("example_unusable", " ".join(problems), REMEDY)
        return examples

    def _facts(self) -> dict[str, object]:
        return {"boot": self.boot_id, "policy": policy_hash(self.guard), "plugins": sorted(self.catalogue.manifests)}

    def start(self, *, watch: bool = True) -> None:
        """Start working; with ``watch`` the inboxes too."""
        self.execution.start()
        self.sampler.start()
        for lane in self._lanes:
            lane.start()
        if watch:
            self._intake.start()
            self._network.start()

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Finish or re-queue what runs, end every child, close the store; also after ``open`` was refused."""
        # All are told before any is waited for, so that nothing new begins meanwhile.
        self._stop_intake.set()
        self.execution.ask_to_stop()
        for lane in (*self._lanes, self._network):
            lane.ask_to_stop()
        with ExitStack() as steps:  # from the last to the first, and each whatever became of those before it
            steps.callback(self.database.close)
            if self._opened:
                steps.callback(self._note_stop)
            steps.callback(self.machine.close)
            steps.callback(self._watched.close)
            steps.callback(self.sampler.close)
            steps.callback(self.crew.close)
            steps.callback(self.guard.close)
            steps.callback(self.reports.press.renderer.close)
            steps.callback(self.previews.child.close)
            steps.callback(self.engines.close)
            steps.callback(self._end_intake)
            steps.callback(self.receiver.close)
            steps.callback(self.night.close)
            steps.callback(self._end_lanes)
            steps.callback(self.execution.stop, grace_s, self.crew.close)
            steps.callback(self.runs.close)

    def _end_lanes(self) -> None:
        for lane in (*self._lanes, self._network):
            lane.join(10.0)

    def _end_intake(self) -> None:
        if self._intake.ident is not None:
            self._intake.join(timeout=10.0)
        self.intake.close()

    def _note_stop(self) -> None:
        with self.database.write() as connection:
            record(connection, actor="clinic-ai", action="daemon.stopped", subject=__version__)
        self.heads.close()

    def reload(self) -> tuple[str, ...]:
        """Read clinic.toml and the policy pack again; keep what is in force if they are wrong.

        Return the problems, none if all of it is in force now.
        """
        with self._reloading:  # a signal and a person may ask at the same time
            return self._reload()

    def _reload(self) -> tuple[str, ...]:
        try:
            fresh = load_settings(self.home.clinic_toml)
        except SettingsError as error:
            for problem in error.problems:
                log.error("settings.refused", problem=problem)
            self._alert(
                "settings_refused", error.message, "Correct clinic.toml and reload; the old settings are in force."
            )
            return error.problems or (error.message,)
        try:
            self.guard.reload(self.home.policies / fresh.guard.pack)
        except PolicyError as error:
            log.error("policy.refused", problem=error.message)
            return (error.message,)  # the guard itself raised the alert
        self.settings = fresh
        self.guard.timeout_s, self.guard.max_restarts = fresh.guard.timeout_s, fresh.execution.max_restarts
        self.guard.restart_window_s = fresh.execution.restart_window_s
        self.runs.settings = fresh.training
        self.execution.follow_settings()
        configure(fresh.log.level, fresh.log.format)
        with self.database.write() as connection:
            alerts.withdraw(connection, "settings_refused", "appliance")
            alerts.withdraw(connection, "policy_rejected", "appliance")
            alerts.withdraw(connection, "critical_unknown", "appliance")
            alerts.withdraw(connection, "example_unusable", "appliance")
            record(
                connection, actor="clinic-ai", action="settings.reloaded", subject="clinic.toml", details=self._facts()
            )
        self._check_critical()
        self._examples()
        self.wake()
        log.info("settings.reloaded")
        return ()

    def _memory(self) -> tuple[int, int]:
        """Return what the daemon and its children take, in MiB."""
        children = sum(child.resident_bytes() for child in self.crew.living())
        return psutil.Process().memory_info().rss // MIB, children // MIB

    def _keep_house(self) -> bool:
        self.engines.evict_idle()
        self.reports.press.renderer.end_if_idle(RENDERER_IDLE_S)
        self.deidentifier.child.end_if_idle(RENDERER_IDLE_S)
        self.previews.child.end_if_idle(PREVIEWER_IDLE_S)
        self.crew.bury_dead()
        return False

    def _alert(self, code: str, sentence: str, remedy: str) -> None:
        log.error("alert", code=code, sentence=sentence)
        try:
            with self.database.write() as connection:
                alerts.raise_alert(connection, code, "appliance", sentence, remedy)
        except Exception as error:  # noqa: BLE001 - it must not stop what raised it; the log has it
            log.error("alert.not_stored", code=code, error=type(error).__name__, at=places(error))

    def services(self) -> Services:
        """Return what the control room may see and do."""
        return Services(
            home=self.home,
            database=self.database,
            execution=self.execution,
            engines=self.engines,
            registry=self.registry,
            promotions=self.gate.promotions,
            canary=self.canary,
            runs=self.runs,
            night=self.night,
            forecasts=Forecasts(self.home, self.database, self.crew, lambda: self.settings.training.budget),
            guard=self.guard,
            crew=self.crew,
            machine=self.sampler,
            receiver=self.receiver,
            decisions=self.intake.decisions,
            comparer=self.comparer,
            reviews=self.reviews,
            questions=self.questions,
            previews=self.previews,
            inboxes=self.intake.lookout,
            imports=self.imports,
            closing=self.intake.closing,
            deidentifier=self.deidentifier,
            disk=self.keeper,
            catalogue=self.catalogue,
            settings=lambda: self.settings,
            started_at=self.started_at,
            reload=self.reload,
            topics=self.topics,
            log=RECENT,
        )
