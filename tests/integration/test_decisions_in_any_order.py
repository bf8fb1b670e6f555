"""Any sequence of arrivals, decisions, crashes and restarts keeps every file in one place with one fate.

Real SQLite, real files, the real intake; only headers are not read by a child but lie in the files as JSON.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from intake_site import Site

from clinic_ai.domain import Fate, FileDecision, FileKind, InstanceHeader, PatientIdentity
from clinic_ai.errors import Conflict
from clinic_ai.ingest import undecided
from clinic_ai.ingest.assemble import IN_QUARANTINE
from clinic_ai.ingest.quarantine import Quarantine
from clinic_ai.settings import IngestSettings
from clinic_ai.store import alerts, audit, ledger, studies
from clinic_ai.store.database import Database
from clinic_ai.store.ledger import LedgerEntry
from clinic_ai.tasks import ParsedFile, Problem

BROKEN = Problem(code="damaged", sentence="It is damaged.", remedy="Send it again.")


# What there is to be picked depends on timing: so a number is drawn, and not the thing.
PICK = st.integers(0, 1000)


def one_of(rows: Sequence[LedgerEntry], pick: int) -> LedgerEntry | None:
    return rows[pick % len(rows)] if rows else None


def choice_for(row: LedgerEntry, pick: int) -> FileDecision:
    choices = undecided.choices_of(row.reason_code)
    return choices[pick % len(choices)]


def scan(study: int, uid: int, patient: str, content: int) -> str:
    header = InstanceHeader(
        kind=FileKind.DICOM,
        modality="CT",
        study_instance_uid=f"1.2.{study}",
        series_instance_uid=f"1.2.{study}.1",
        sop_instance_uid=f"1.2.{study}.1.{uid}" if uid else "",
        identity=PatientIdentity(patient_id=patient),
    )
    return f"{header.model_dump_json()}\n{content}"


SCANS = st.builds(
    scan,
    study=st.sampled_from([1, 1, 2]),
    uid=st.integers(0, 2),
    patient=st.sampled_from(["A", "A", "B", ""]),
    content=st.integers(1, 3),
)


class Crash(BaseException):
    """Stands for a power cut: nothing catches it."""


class Reader:
    """Reads headers that lie in the files."""

    def read(self, paths: Sequence[Path], _: IngestSettings, **_options: object) -> list[ParsedFile]:
        found = []
        for path in paths:
            line = path.read_text().partition("\n")[0]
            if line == "broken":
                found.append(ParsedFile(path=str(path), problem=BROKEN))
            else:
                found.append(ParsedFile(path=str(path), header=InstanceHeader.model_validate_json(line)))
        return found

    def close(self) -> None:
        """Nothing to close."""


@contextlib.contextmanager
def crash_at(step: int) -> Iterator[None]:
    """Raise Crash at the n-th sync of a file or folder or edge of a transaction."""
    taken = 0
    sync, write = os.fsync, Database.write

    def count() -> None:
        nonlocal taken
        taken += 1
        if taken == step:
            raise Crash

    def fsync(descriptor: int) -> None:
        count()
        sync(descriptor)

    @contextlib.contextmanager
    def counted(database: Database) -> Iterator[Any]:
        with write(database) as connection:
            yield connection
            count()  # everything is said and nothing committed
        count()

    os.fsync, Database.write = fsync, counted  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        os.fsync, Database.write = sync, write  # type: ignore[method-assign]


class Clinic(RuleBasedStateMachine):
    """A home to which files come and in which people decide."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp())
        self.sent = 0
        self.made: dict[tuple[str, int], frozenset[str]] = {}
        self.open()

    def open(self) -> None:
        self.site = Site(self.path / "h", quiet_period_s=3600.0, adaptive_quiet=False)
        self.site.intake._filing._reader = Reader()  # type: ignore[assignment]
        self.quarantine = Quarantine(self.site.home.quarantine)

    def teardown(self) -> None:
        self.site.close()
        shutil.rmtree(self.path)

    def rows(self) -> list[LedgerEntry]:
        with self.site.database.read() as connection:
            return ledger.list_files(connection, limit=1000)

    def waiting(self) -> list[LedgerEntry]:
        return [row for row in self.rows() if row.fate is Fate.QUARANTINED]

    # ------------------------------------------------------------ what may happen

    @initialize(contents=st.permutations([scan(1, 1, "A", 1), scan(1, 1, "A", 2), scan(1, 2, "B", 1), "broken\n1"]))
    def something_waits(self, contents: list[str]) -> None:
        self.files_come(contents)

    @rule(contents=st.lists(SCANS | st.sampled_from(["broken\n1", "broken\n2"]), min_size=1, max_size=6))
    def files_come(self, contents: list[str]) -> None:
        folder = self.path / f"drop {self.sent}"
        folder.mkdir()
        for number, text in enumerate(contents):
            (folder / f"{number}.dcm").write_text(text)
        self.sent += len(contents)
        self.site.intake.take([folder], "hand")

    @rule(
        pick=PICK,
        how=st.sampled_from(["accept", "accept all", "discard"]),
        fails_at=st.sampled_from([0, 0, 0, 1, 2, 3]),
    )
    def a_person_decides(self, pick: int, how: str, fails_at: int) -> None:
        """Maybe the power fails meanwhile: before the commit (1), after it (2), or when a place was removed (3)."""
        chosen = one_of(self.waiting(), pick)
        if chosen is None:
            return
        decisions, decision = self.site.intake.decisions, choice_for(chosen, pick)
        study_id = chosen.study_id if how == "accept all" and chosen.reason_code in undecided.CONFLICTS else None
        with self.power(fails_at):
            if how == "discard":
                decisions.discard([chosen.file_id], None, "not wanted", "eva")
            else:
                decisions.accept([chosen.file_id], study_id, decision, "eva")

    @rule(fails_at=st.just(0) | st.integers(1, 40))
    def decisions_are_carried_out(self, fails_at: int) -> None:
        with self.power(fails_at):
            self.site.intake.cycle()

    @contextlib.contextmanager
    def power(self, fails_at: int) -> Iterator[None]:
        """Let the power fail at a step, and the daemon start again; never, if ``fails_at`` is 0."""
        try:
            with crash_at(fails_at):
                yield
        except Crash:
            self.the_daemon_restarts()

    @rule(pick=PICK, decision=st.sampled_from(FileDecision))
    def a_person_decides_what_cannot_be_decided(self, pick: int, decision: FileDecision) -> None:
        row = one_of(self.rows(), pick)
        if row is None:
            return
        if row.fate is Fate.QUARANTINED and decision in undecided.choices_of(row.reason_code):
            return
        try:
            self.site.intake.decisions.accept([row.file_id], None, decision, "eva")
        except Conflict:
            return
        raise AssertionError("it was accepted")

    @rule()
    def studies_are_complete(self) -> None:
        self.site.intake.flush()
        with self.site.database.read() as connection:
            for study in studies.list_studies(connection, limit=1000):
                found = studies.instances_of(connection, study.study_id, study.version)
                self.made[study.study_id, study.version] = frozenset(instance.sha256 for instance in found)

    @rule()
    def the_daemon_restarts(self) -> None:
        self.site.close()
        self.open()

    # ------------------------------------------------------------ what always holds

    @invariant()
    def every_file_has_one_fate_and_lies_in_one_place(self) -> None:
        rows = self.rows()
        assert len(rows) == self.sent
        for row in rows:
            quarantined = self.quarantine.holds(row.file_id, row.seen_at)
            spooled = (self.site.home.spool / str(row.file_id)).exists()
            match row.fate:
                case Fate.QUARANTINED:
                    assert quarantined
                    assert not spooled
                case Fate.CLAIMED:
                    assert quarantined != spooled
                case Fate.STORED | Fate.DUPLICATE:
                    assert not quarantined
                    assert not spooled
                    assert row.reason_code == IN_QUARANTINE or self.site.objects.verify(row.sha256 or "")
                case Fate.DISCARDED:
                    assert not quarantined
                    assert not spooled
                case _:
                    raise AssertionError(f"file {row.file_id} is {row.fate}")

    @invariant()
    def a_study_is_of_one_patient_and_names_each_object_once(self) -> None:
        with self.site.database.read() as connection:
            for study in studies.list_studies(connection, limit=1000):
                found = studies.instances_of(connection, study.study_id, study.version)
                uids = [instance.header.sop_instance_uid for instance in found]
                assert len(set(uids)) == len(uids)
                assert len({i.header.identity.patient_id for i in found} - {""}) <= 1
                assert all(self.site.objects.has(instance.sha256) for instance in found)

    @invariant()
    def a_closed_version_stays_what_it_was(self) -> None:
        with self.site.database.read() as connection:
            for (study_id, version), hashes in self.made.items():
                found = studies.instances_of(connection, study_id, version)
                assert {instance.sha256 for instance in found} == hashes
            assert audit.first_break(connection) is None

    @invariant()
    def there_is_an_alert_exactly_while_something_waits(self) -> None:
        with self.site.database.read() as connection:
            raised = {(alert.code, alert.subject) for alert in alerts.open_alerts(connection)}
        expected = {
            (undecided.CONFLICT, row.study_id)
            if row.reason_code in undecided.CONFLICTS
            else (undecided.QUARANTINED, row.source)
            for row in self.waiting()
        }
        assert {one for one in raised if one[0] in {undecided.CONFLICT, undecided.QUARANTINED}} == expected


Clinic.TestCase.settings = settings(
    max_examples=6,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
test_any_order = Clinic.TestCase
