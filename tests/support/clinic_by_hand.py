"""A whole appliance in one process without threads of its own: the test says what it does next."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pydicom
from scans import write_ct_slice
from whole import QUARANTINED, STORED, Drop, Drops, digest

from clinic_ai.appliance import Appliance
from clinic_ai.contract import Condition, PluginManifest
from clinic_ai.domain import Fate, JobKind, Study, StudyState
from clinic_ai.domain.reviews import Passage, ReviewDecision
from clinic_ai.home import Home, init_home
from clinic_ai.plugins import PluginCatalogue, find_plugins
from clinic_ai.results.reviewing import Order
from clinic_ai.settings import load_settings
from clinic_ai.store import artefacts, jobs, ledger, studies
from clinic_ai.store.ledger import LedgerEntry

SETTINGS = """
[[inbox]]
name = "inbox"
path = "inbox"
settle_s = 0.01

[ingest]
rescan_s = 0.1
quiet_period_s = 0.1
adaptive_quiet = false

[execution]
backoff_s = [0.01]
max_attempts = 2
max_restarts = 1000
memory_mb = 8192

[guard]
pack = "torture"

[[routing.rule]]
name = "torture"
plugins = ["willing"]
when = { study_description = ["torture: *"] }
"""

RULES = """
[[rule]]
id = "torture-{action}"
row = 8
hazard = "Only in tests."
audiences = ["clinician"]
when = {{ detector = "pattern", pattern = '\\bplease {action}\\b', what = "a wish" }}
action = "{action}"
message = "The test wants it so."
"""
CASES = """
[[case]]
rule = "torture-{action}"
kind = "firing"
audience = "clinician"
text = "Please {action} it."
action = "{action}"

[[case]]
rule = "torture-{action}"
kind = "non_firing"
audience = "clinician"
text = "Seen."

[[case]]
rule = "torture-{action}"
kind = "mutation"
audience = "clinician"
text = "It is said twice: PLEASE {action} it."
"""

WILLING = PluginManifest(
    name="willing",
    version="1",
    summary="Does what a study asks for in its description.",
    claims=(Condition(station=("nowhere",)),),
    needs_model=False,
    memory_mb=64,
    timeout_s=30.0,
    engine="willing_engine:WillingEngine",
)


def prepare(path: Path) -> Home:
    """Make a home with the settings and the policy pack of the torture."""
    home = init_home(path)
    home.clinic_toml.write_text(SETTINGS)
    pack = home.policies / "torture"
    shutil.copytree(home.policies / "default", pack)
    for name, text in (("policy.toml", RULES), ("cases.toml", CASES)):
        with (pack / name).open("a") as file:
            file.writelines(text.format(action=action) for action in ("hold", "block"))
    with_tables = by_hand(home)
    with_tables.database.open()
    with_tables.database.close()
    return home


def by_hand(home: Home) -> Appliance:
    """Return an appliance with the echo plugin and the willing one."""
    manifests = {"echo": find_plugins().manifests["echo"], "willing": WILLING}
    return Appliance(home, load_settings(home.clinic_toml), PluginCatalogue(manifests, []))


class Clinic:
    """One life of the appliance. ``tag`` makes the files of this life its own."""

    def __init__(self, home: Home, drops: Drops, tag: int) -> None:
        self.home = home
        self.drops = drops
        self.tag = tag
        self.made = 0
        self.appliance = by_hand(home)
        self.appliance.guard.load = lambda: None  # type: ignore[method-assign]  # when a report needs it is soon enough

    def open(self) -> None:
        """Recover and be ready."""
        load = type(self.appliance.guard).load
        self.appliance.open()
        self.appliance.guard.load = load.__get__(self.appliance.guard)  # type: ignore[method-assign]

    # ------------------------------------------------------------ what comes in

    def study(
        self,
        *instances: int,
        wish: str = "",
        modality: str = "CT",
        seed: int = 0,
        side: int = 16,
        fates: tuple[str, ...] = STORED,
    ) -> int:
        """Drop slices of one study, a new one or that of ``seed``; return its seed.

        With another ``side`` the same instances have other pixels.
        """
        self.made += 1
        seed = seed or self.tag * 1000 + self.made
        for instance in instances:
            name = f"{seed}-{instance} ({self.tag}.{self.made}).dcm"
            aside = self.home.path / f".{name}"
            uid = write_ct_slice(aside, seed=seed, instance=instance, side=side)
            if wish or modality != "CT":
                dataset = pydicom.dcmread(aside)
                dataset.StudyDescription, dataset.Modality = wish and f"torture: {wish}", modality
                dataset.save_as(aside)
            self.drop(aside, name, study=uid, fates=fates)
        return seed

    def drop(
        self, aside: Path, name: str, *, study: str = "", fates: tuple[str, ...] = STORED, kept: bool = True
    ) -> Path:
        """Move a file into the inbox, written down before."""
        self.drops.note(Drop(name, digest(aside), study, fates, kept))
        place = self.home.inbox / name
        aside.rename(place)
        return place

    def junk(self, name: str, *, fates: tuple[str, ...] = QUARANTINED) -> Path:
        """Drop a text."""
        aside = self.home.path / ".junk"
        aside.write_text(f"no scan {self.tag} {name}")
        return self.drop(aside, f"{self.tag} {name}", fates=fates)

    def link(self) -> None:
        """Put a symbolic link into the inbox."""
        name = f"{self.tag} link.dcm"
        self.drops.note(Drop(name, "", fates=("IGNORED",)))
        os.symlink("/etc/hostname", self.home.inbox / name)

    # ------------------------------------------------------------ what is done

    def take_in(self) -> None:
        """Make passes until everything in the inbox has its fate and every study is closed."""
        self.until(lambda: not self._lying() and not self._in(StudyState.RECEIVING), self.appliance.intake.cycle)

    def route(self) -> None:
        """Route what is closed."""
        self.appliance.execution.route_closed()

    def analyse(self) -> None:
        """Do all analyses that are queued."""
        self._work(JobKind.ANALYSE)

    def report(self) -> None:
        """Do all reports that are queued."""
        self._work(JobKind.REPORT)

    def sign(self) -> None:
        """Make all signed reports that are queued."""
        self._work(JobKind.SIGN)

    def review(self, seed: int, decision: ReviewDecision) -> None:
        """Let a person decide about the newest result of a study; amended, it says something else."""
        study, reviews = self.newest(seed), self.appliance.reviews
        with self.appliance.database.read() as connection:
            newest = artefacts.artefacts_of(connection, study.study_id, study.version)[-1]
        shown = reviews.show(newest.artefact_id, "tester")
        said = (Passage(statement_id="n_1", text="The image was looked at."),)
        reviews.decide(
            Order(
                artefact_id=newest.artefact_id,
                decision=decision,
                digest=shown.digest,
                said=said if decision is ReviewDecision.AMEND else None,
                reason="the test wants it so",
            ),
            user="tester",
            name="tester",
        )

    def deliver(self) -> None:
        """Deliver what is to be delivered."""
        while self.appliance.courier.step():
            pass

    def all(self) -> None:
        """Do everything there is to do."""
        while True:
            self.take_in()
            self.route()
            self.analyse()
            self.report()
            self.sign()
            self.deliver()
            if not (self._in(StudyState.CLOSED) or any(map(self._queued, JobKind))):
                return

    def newest(self, seed: int) -> Study:
        """Return the newest version of the study of this seed."""
        with self.appliance.database.read() as connection:
            rows = connection.exec_driver_sql(
                "SELECT study_id FROM files WHERE name GLOB ? AND study_id IS NOT NULL", (f"{seed}-*",)
            ).scalars()
            return studies.get_study(connection, str(next(iter(rows))))

    def quarantined(self) -> list[LedgerEntry]:
        """Return what this life dropped and ingest quarantined, oldest first."""
        with self.appliance.database.read() as connection:
            rows = ledger.list_files(connection, fates=[Fate.QUARANTINED], limit=1000)
        mine = (f"({self.tag}.", f"{self.tag} ")
        return [row for row in reversed(rows) if mine[0] in row.name or row.name.startswith(mine[1])]

    def until(self, done: Callable[[], object], act: Callable[[], object], limit_s: float = 30.0) -> None:
        """Repeat ``act`` until ``done``. Raise TimeoutError if that takes too long."""
        deadline = time.monotonic() + limit_s
        while not done():
            if time.monotonic() > deadline:
                raise TimeoutError("it never comes to its end")
            act()

    def _work(self, kind: JobKind) -> None:
        self.until(lambda: not self._queued(kind), lambda: self.appliance.execution.step(kind))

    def _lying(self) -> bool:
        return any(path.is_file() and not path.is_symlink() for path in self.home.inbox.rglob("*"))

    def _in(self, state: StudyState) -> int:
        with self.appliance.database.read() as connection:
            return len(studies.studies_in(connection, state))

    def _queued(self, kind: JobKind) -> list[str]:
        with self.appliance.database.read() as connection:
            return jobs.waiting_plugins(connection, kind)
