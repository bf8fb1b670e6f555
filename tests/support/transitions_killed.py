"""Drives one home through SIGKILL at the transitions of the state tables: each life ends at one not yet died at.

``python -m transitions_killed HOME MOMENTS [PART PARTS]`` where MOMENTS is ``before,after`` (of the commit), or
``either`` to die once for each row; of several PARTS, each of which has a home of its own, one takes every n-th
scenario and the rows that those lead to. The lives are forks of this process, which opens nothing itself. A scenario
says which rows it leads to and is lived again, with files of its own each time, until all of them were died at. One
more life finishes what there is to do. Prints one JSON line: what was died at, what was never reached, and every fault
of the home.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clinic_by_hand import Clinic, prepare
from transition_killer import ROWS, Killer, Row
from whole import Drops, faults

from clinic_ai.analyses import AnalyseRunner
from clinic_ai.disk.retention import Candidate, Removal, Retention
from clinic_ai.domain import FileDecision, Job, StudyState
from clinic_ai.domain.reviews import ReviewDecision
from clinic_ai.errors import ChildDied
from clinic_ai.home import Home, lock_home
from clinic_ai.ingest.spool import Spool
from clinic_ai.store import ledger, originals
from clinic_ai.store.database import Database

NOT_REACHED = {
    "STUDY RECEIVING supersede": "a version that still receives takes late objects itself; no newer one is opened",
    "DELIVERY SENT receipt": "the outbox gives no receipts",
    "DELIVERY FAILED requeue": "no verb sends again what was given up",
}
"""Rows that nothing in the appliance leads to yet, and why; one that is reached after all is a fault of this list."""

UNROUTED = "DX"
"""A modality that no plugin here claims: such a study is taken in and costs no analysis."""
MAX_LIVES = 12
"""Lives of one scenario at most."""
LIFE_S = 120


@dataclass(frozen=True)
class Scenario:
    """``live`` makes happen what leads to the rows; ``meanwhile`` is what somebody does after a death."""

    reaches: tuple[str, ...]
    live: Callable[[Clinic], None]
    meanwhile: Callable[[Home], None] | None = None
    dies_at: str = ""
    """Row after which this scenario has to die even if it was died at before."""


# ---------------------------------------------------------------- the scenarios


def files_of_all_kinds(clinic: Clinic) -> None:
    clinic.study(1, 2, modality=UNROUTED)
    clinic.junk("junk.txt")
    clinic.link()
    clinic.take_in()


def resend(clinic: Clinic) -> None:
    seed = clinic.study(1, modality=UNROUTED)
    clinic.take_in()
    clinic.study(1, modality=UNROUTED, seed=seed)
    clinic.take_in()


def taken_back(clinic: Clinic) -> None:
    """Somebody takes a file back between the ledger's note and the move."""
    place = clinic.junk("taken back.txt", fates=("VANISHED", "QUARANTINED"))
    take = Spool.take

    def too_late(*arguments: Any) -> Any:
        place.unlink(missing_ok=True)
        return take(*arguments)

    Spool.take = too_late  # type: ignore[method-assign]
    clinic.take_in()


def unreadable(clinic: Clinic) -> None:
    """Somebody takes away the right to read a file that lies in the spool."""
    clinic.junk("unreadable.txt")
    take = Spool.take

    def and_lock(spool: Spool, *arguments: Any) -> Any:
        taken = take(spool, *arguments)
        for number in spool.numbers():
            spool.path(number).chmod(0)
        return taken

    Spool.take = and_lock  # type: ignore[method-assign]
    clinic.take_in()


def robbed(clinic: Clinic) -> None:
    clinic.junk("to be stolen.txt", fates=("VANISHED", "QUARANTINED"))
    clinic.take_in()


def empty_the_spool(home: Home) -> None:
    database = Database(home.database)
    with database.read() as connection:
        claimed = [row for row in ledger.pending(connection) if row.name.endswith("to be stolen.txt")]
    database.close()
    for row in claimed:
        (home.spool / str(row.file_id)).unlink(missing_ok=True)


def no_rule(clinic: Clinic) -> None:
    seed = clinic.study(1, modality=UNROUTED)
    clinic.take_in()
    clinic.route()
    clinic.appliance.execution.reroute(clinic.newest(seed).study_id, "tester")
    clinic.route()
    clinic.study(2, modality=UNROUTED, seed=seed)
    clinic.take_in()


def late_before_routing(clinic: Clinic) -> None:
    seed = clinic.study(1)
    clinic.take_in()
    clinic.study(2, seed=seed)
    clinic.take_in()


def late_while_queued(clinic: Clinic) -> None:
    seed = clinic.study(1)
    clinic.take_in()
    clinic.route()
    clinic.study(2, seed=seed)
    clinic.take_in()
    clinic.route()


def late_while_analysed(clinic: Clinic) -> None:
    """The engine fails, and meanwhile late slices made a newer version."""
    seed = clinic.study(1)
    clinic.take_in()
    clinic.route()
    run = AnalyseRunner.run

    def slow(runner: AnalyseRunner, job: Job) -> object:
        if job.study_id != study_id or job.version > 1:
            return run(runner, job)
        clinic.study(2, seed=seed)
        clinic.take_in()
        raise ChildDied("as was wished for")

    study_id = clinic.newest(seed).study_id
    AnalyseRunner.run = slow  # type: ignore[method-assign, assignment]
    clinic.analyse()
    AnalyseRunner.run = run  # type: ignore[method-assign]


def to_the_end_and_again(clinic: Clinic) -> None:
    seed = clinic.study(1)
    clinic.all()
    clinic.study(2, seed=seed)
    clinic.all()


def late_before_delivery(clinic: Clinic) -> None:
    seed = clinic.study(1)
    clinic.take_in()
    clinic.route()
    clinic.analyse()
    clinic.report()
    clinic.study(2, seed=seed)
    clinic.take_in()
    clinic.route()
    clinic.deliver()


def late_after_retention(clinic: Clinic) -> None:
    """Retention removes the bytes of a delivered study, and then more of it comes."""
    seed = clinic.study(1)
    clinic.all()
    database = clinic.appliance.database
    with database.read() as connection:
        delivered = originals.delivered_studies(connection, before=time.time() + 1, limit=1000)
    mine = next(one for one in delivered if one.study_id == clinic.newest(seed).study_id)
    settings = clinic.appliance.settings
    retention = Retention(database, clinic.appliance.objects, lambda: settings, lambda: None, unsettled_s=0.0)
    retention.remove([Removal(Candidate(mine, 1, 1), "age")])
    clinic.study(2, seed=seed)
    clinic.take_in()
    clinic.route()


def failing(clinic: Clinic) -> None:
    seed = clinic.study(1, wish="fail")
    clinic.all()
    assert clinic.newest(seed).state is StudyState.FAILED
    clinic.study(2, wish="fail", seed=seed)
    clinic.take_in()


def _guarded(wish: str) -> Callable[[Clinic], None]:
    def live(clinic: Clinic) -> None:
        seed = clinic.study(1, wish=wish)
        clinic.all()
        clinic.study(2, wish=wish, seed=seed)
        clinic.take_in()
        clinic.route()

    return live


def decided(clinic: Clinic) -> None:
    """A person has a contradiction take the old one's place, has junk judged again, and wants another one not."""
    undecided = ("QUARANTINED", "STORED")
    seed = clinic.study(1, modality=UNROUTED)
    clinic.take_in()
    clinic.study(1, modality=UNROUTED, seed=seed, side=8, fates=undecided)
    clinic.junk("again.txt")
    clinic.junk("not wanted.txt", fates=("QUARANTINED", "DISCARDED"))
    clinic.take_in()
    decisions = clinic.appliance.intake.decisions
    for row in clinic.quarantined():
        if row.name.endswith("not wanted.txt"):
            decisions.discard([row.file_id], None, "the test wants it so", "tester")
        else:
            how = FileDecision.AGAIN if row.name.endswith(".txt") else FileDecision.REPLACE
            decisions.accept([row.file_id], None, how, "tester")
    clinic.take_in()


def _reviewed(wish: str, *decisions: ReviewDecision) -> Callable[[Clinic], None]:
    """A person decides about the result of a study, and what follows is done; then late slices come."""

    def live(clinic: Clinic) -> None:
        seed = clinic.study(1, wish=wish)
        clinic.all()
        for decision in decisions:
            clinic.review(seed, decision)
            clinic.sign()
            clinic.deliver()
        clinic.study(2, seed=seed, wish=wish)
        clinic.take_in()
        clinic.route()

    return live


SCENARIOS = {
    "files of all kinds": Scenario(
        (
            "FILE CLAIMING confirm",
            "FILE CLAIMING ignore",
            "FILE CLAIMED store",
            "FILE CLAIMED quarantine",
            "STUDY RECEIVING close",
        ),
        files_of_all_kinds,
    ),
    "confirmed again": Scenario(("FILE CLAIMED confirm",), files_of_all_kinds, dies_at="FILE CLAIMING confirm"),
    "resend": Scenario(("FILE CLAIMED note_duplicate",), resend),
    "taken back": Scenario(("FILE CLAIMING vanish",), taken_back),
    "unreadable": Scenario(("FILE CLAIMING quarantine",), unreadable),
    "robbed": Scenario(("FILE CLAIMED vanish",), robbed, empty_the_spool, dies_at="FILE CLAIMING confirm"),
    "decided": Scenario(("FILE QUARANTINED accept", "FILE QUARANTINED discard"), decided),
    "no rule": Scenario(("STUDY CLOSED no_rule", "STUDY UNROUTED reroute", "STUDY UNROUTED supersede"), no_rule),
    "late before routing": Scenario(("STUDY CLOSED supersede",), late_before_routing),
    "late while queued": Scenario(
        ("STUDY CLOSED route", "STUDY ROUTED supersede", "JOB QUEUED cancel"), late_while_queued
    ),
    "late while analysed": Scenario(("JOB QUEUED lease", "JOB LEASED cancel"), late_while_analysed),
    "to the end and again": Scenario(
        (
            "JOB LEASED succeed",
            "ARTEFACT DRAFT release",
            "DELIVERY PENDING send",
            "STUDY ROUTED finish",
            "STUDY DONE supersede",
            "ARTEFACT PRELIMINARY supersede",
        ),
        to_the_end_and_again,
    ),
    "late before delivery": Scenario(("DELIVERY PENDING give_up",), late_before_delivery),
    "late after retention": Scenario(("STUDY CLOSED lack_originals",), late_after_retention),
    "failing": Scenario(
        ("JOB LEASED retry", "JOB LEASED give_up", "STUDY ROUTED fail", "STUDY FAILED supersede"), failing
    ),
    "accepted, then amended": Scenario(
        ("ARTEFACT PRELIMINARY sign", "ARTEFACT FINAL supersede"),
        _reviewed("", ReviewDecision.ACCEPT, ReviewDecision.AMEND),
    ),
    "held and amended": Scenario(("ARTEFACT HELD accept",), _reviewed("hold", ReviewDecision.AMEND)),
    "held and rejected": Scenario(("ARTEFACT HELD reject",), _reviewed("hold", ReviewDecision.REJECT)),
    "rejected": Scenario(("ARTEFACT PRELIMINARY reject",), _reviewed("", ReviewDecision.REJECT)),
    "held": Scenario(("ARTEFACT DRAFT hold", "ARTEFACT HELD supersede"), _guarded("hold")),
    "blocked": Scenario(("ARTEFACT DRAFT block", "ARTEFACT BLOCKED supersede"), _guarded("block")),
    "interrupted": Scenario(("JOB LEASED interrupt",), late_before_delivery, dies_at="JOB QUEUED lease"),
}


# ---------------------------------------------------------------- the lives


class Journal:
    """One home, what was dropped into it, and what was died at there."""

    def __init__(self, home: Home, moments: str, rows: tuple[Row, ...]) -> None:
        self.home = home
        self.rows = rows
        self.drops = Drops(home.path / "dropped")
        self.died: list[tuple[Row, str]] = []
        self.lives = 0
        self.either = moments == "either"
        self.moments = ("before", "after") if self.either else tuple(moments.split(","))

    def left(self, row: Row, when: str) -> bool:
        """Return whether somebody has yet to die there. With ``either`` the moments take turns."""
        if row not in self.rows:
            return False
        if self.either:
            return all(died != row for died, _ in self.died) and when == self.moments[ROWS.index(row) % 2]
        return when in self.moments and (row, when) not in self.died

    def lefts(self, scenario: Scenario) -> bool:
        return any(str(row) in scenario.reaches and self.left(row, when) for row in ROWS for when in self.moments)

    def live(self, act: Callable[[Clinic], None], *, dies_at: str = "", immortal: bool = False) -> int:
        """Live once, in a fork; return how it ended."""
        self.lives += 1
        reading, writing = os.pipe()
        if (pid := os.fork()) == 0:
            os.close(reading)
            os._exit(self._life(act, writing, dies_at=dies_at, immortal=immortal))
        os.close(writing)
        with os.fdopen(reading) as last_words:
            for line in last_words:
                self.died += [(Row(*row), when) for row, when in json.loads(line)]
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _life(self, act: Callable[[Clinic], None], words: int, *, dies_at: str, immortal: bool) -> int:
        def wanted(row: Row, when: str) -> bool:
            return not immortal and (self.left(row, when) or (when == "after" and str(row) == dies_at))

        signal.alarm(LIFE_S)
        Killer(wanted, lambda died: os.write(words, json.dumps(died).encode() + b"\n")).install()
        try:
            with lock_home(self.home):
                clinic = Clinic(self.home, self.drops, self.lives)
                clinic.open()
                act(clinic)
                clinic.appliance.stop(grace_s=0.0)
        except BaseException:
            traceback.print_exc()
            return 1
        return 0


def rows_of(part: int, parts: int) -> tuple[Row, ...]:
    """Return the rows that a part has to die at, and those that no scenario leads to: every part looks out for them."""
    led_to = {reached: index % parts for index, one in enumerate(SCENARIOS.values()) for reached in one.reaches}
    return tuple(row for row in ROWS if led_to.get(str(row), part) == part)


def main(path: Path, moments: str, part: int = 0, parts: int = 1) -> None:
    """Live the scenarios of a part, finish, and tell."""
    journal = Journal(prepare(path), moments, rows_of(part, parts))
    broken = []
    for name, scenario in list(SCENARIOS.items())[part::parts]:
        for _ in range(MAX_LIVES):
            if not journal.lefts(scenario):
                break
            if journal.live(scenario.live, dies_at=scenario.dies_at) != -signal.SIGKILL:
                broken.append(name)
                break
            if scenario.meanwhile is not None:
                scenario.meanwhile(journal.home)
    end = journal.live(Clinic.all, immortal=True)
    died = {(row, when) for row, when in journal.died}
    never = [
        f"{row} {when}"
        for row in journal.rows
        for when in journal.moments
        if str(row) not in NOT_REACHED and journal.left(row, when)
    ]
    print(
        json.dumps(
            {
                "died": sorted(f"{row} {when}" for row, when in died),
                "lives": journal.lives,
                "never": never,
                "stale": sorted({str(row) for row, _ in died} & set(NOT_REACHED)),
                "broken": broken,
                "end": end,
                "faults": faults(journal.home, journal.drops.all()),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
