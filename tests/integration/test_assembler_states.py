"""The assembler through arrivals, closings, late arrivals, priorities and restarts, in whatever order these come."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from pathlib import Path

from header_site import HeaderSite, slice_header
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from clinic_ai.domain import CloseCode, Fate, StudyState
from clinic_ai.ingest.completeness import assess
from clinic_ai.ingest.urgency import TERMS
from clinic_ai.store import arrivals, audit, groups, ledger, studies

LONG = 3600.0
ANNOUNCED = 4
"""What study 0 announces; the others announce nothing."""

_salt = itertools.count(1)
_folder = Path(tempfile.mkdtemp())
_site: list[HeaderSite] = []


def site() -> HeaderSite:
    """Return the site that all runs share, each with study UIDs of its own: making one takes longer than a run."""
    if not _site:
        _site.append(HeaderSite(_folder / "h", quiet_period_s=LONG))
    return _site[0]


def teardown_module() -> None:
    site().close()
    shutil.rmtree(_folder)


class Assembler(RuleBasedStateMachine):
    """Beside the site: what was given for each study, and the most urgent term in it."""

    @initialize()
    def start(self) -> None:
        self.salt = next(_salt)
        self.given: dict[int, set[int]] = {}
        self.terms: dict[int, set[str]] = {}
        self.said: dict[tuple[int, int], str] = {}
        self.files = 0

    def uid(self, study: int) -> str:
        return f"1.2.{self.salt}.{study}"

    @rule(
        study=st.integers(0, 2),
        numbers=st.lists(st.integers(1, 6), min_size=1, max_size=5),
        term=st.sampled_from(["", *TERMS]),
    )
    def instances_arrive(self, study: int, numbers: list[int], term: str) -> None:
        paths = []
        for number in numbers:
            # What an instance is, its number says: the same number is the same bytes, and a duplicate.
            known = number in self.given.get(study, set())
            said = self.said.get((study, number), term) if known else term
            self.said[study, number] = said
            header = slice_header(
                self.uid(study),
                number,
                requested_procedure_priority=said,
                number_of_study_related_instances=ANNOUNCED if study == 0 else None,
            )
            paths.append(_folder / f"{self.salt}-{self.files}")
            paths[-1].write_text(header.model_dump_json())
            self.files += 1
            self.given.setdefault(study, set()).add(number)
            self.terms.setdefault(study, set()).add(said)
        site().intake.take(paths, "inbox")
        for path in paths:
            path.unlink()

    @rule()
    def a_pass_is_made(self) -> None:
        site().intake.closing.close_due(time.monotonic(), lambda _: float("inf"))

    @rule()
    def everything_has_been_quiet_for_long(self) -> None:
        site().intake.closing.close_due(time.monotonic() + 2 * LONG, lambda _: float("inf"))

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def a_person_closes_one(self, data: st.DataObject) -> None:
        study = data.draw(st.sampled_from(sorted(self.given)))
        for found in site().studies():
            if found.study_instance_uid == self.uid(study) and found.state is StudyState.RECEIVING:
                site().intake.closing.close(found.study_id, "anna")

    @rule()
    def the_daemon_is_started_again(self) -> None:
        old = _site.pop()
        old.close()
        _site.append(HeaderSite(_folder / "h", quiet_period_s=LONG))

    @invariant()
    def each_study_has_what_was_given_once_and_in_its_newest_version(self) -> None:
        if not hasattr(self, "given"):
            return
        with site().database.read() as connection:
            assert not ledger.counts(connection)[Fate.CLAIMED]
            for study, numbers in self.given.items():
                group = groups.find_group(connection, f"dicom:{self.uid(study)}")
                assert group is not None
                every = studies.versions_of(connection, group.study_id)
                newest = every[-1]
                have = studies.instances_of(connection, group.study_id, newest.version)
                assert sorted(one.header.instance_number or 0 for one in have) == sorted(numbers)
                self.check_versions([(one.version, one.state) for one in every])
                said = {TERMS[term] for term in self.terms[study] if term}
                assert newest.priority == (max(said) if said else 0)
                if newest.close_code is CloseCode.EXPECTED:
                    assert len(numbers) == ANNOUNCED
                assert bool(newest.closed_reason) == (newest.state is StudyState.CLOSED)

    @staticmethod
    def check_versions(every: list[tuple[int, StudyState]]) -> None:
        assert [version for version, _ in every] == list(range(1, len(every) + 1))
        *before, (_, newest) = every
        assert newest in {StudyState.RECEIVING, StudyState.CLOSED}
        if newest is StudyState.CLOSED:
            assert {state for _, state in before} <= {StudyState.SUPERSEDED}
        else:  # the version before stands until this one is closed
            assert [state for _, state in before[-1:]] in ([], [StudyState.CLOSED])

    @invariant()
    def what_is_counted_in_memory_is_what_the_store_has(self) -> None:
        with site().database.read() as connection:
            receiving = studies.studies_in(connection, StudyState.RECEIVING)
            counted = dict(site().intake.closing._open)
            assert counted.keys() == {study.study_id for study in receiving}
            for study in receiving:
                tally = counted[study.study_id].tally
                have = studies.instances_of(connection, study.study_id, study.version)
                assert arrivals.stamp(connection, study.study_id, study.version).instances == len(have)
                assert (tally.instances, tally.complete) == (len(have), assess(have).tally.complete)

    def teardown(self) -> None:
        site().intake.flush()
        with site().database.read() as connection:
            assert not studies.studies_in(connection, StudyState.RECEIVING)
            assert audit.first_break(connection) is None


TestAssembler = Assembler.TestCase
TestAssembler.settings = settings(
    max_examples=15, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
