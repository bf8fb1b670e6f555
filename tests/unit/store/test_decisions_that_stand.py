"""Which decision about an artefact stands, whatever the clock did between two of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from control_room import Room, control_room
from decided import add_reported, decide
from sqlalchemy import Connection

from clinic_ai.domain.reviews import Review, ReviewDecision
from clinic_ai.store import jobs, reviews


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with control_room(tmp_path / "h") as served:
        yield served


def give_up(c: Connection, review: Review) -> None:
    assert review.job_id is not None
    jobs.lease(c, jobs.get_job(c, review.job_id), "test", (), "")
    jobs.give_up(c, review.job_id, "The guard does not release it.")


@pytest.mark.parametrize("clock", [(1000.0, 900.0), (900.0, 1000.0), (1000.0, 1000.0)])
def test_a_decision_whose_job_lives_stands_also_after_the_clock_was_set_back(
    room: Room, clock: tuple[float, float]
) -> None:
    study_id = room.add_study(state="DONE")
    with room.database.write() as c:
        artefact_id = add_reported(c, study_id)
        first = decide(c, artefact_id, at=clock[0])
        give_up(c, first)
        assert reviews.standing_review(c, artefact_id) is None
        second = decide(c, artefact_id, ReviewDecision.AMEND, at=clock[1])
        assert reviews.standing_review(c, artefact_id) == second
        assert reviews.reviews_of(c, artefact_id) == [first, second]


def test_an_older_decision_whose_job_lives_stands_when_the_newer_one_was_given_up(room: Room) -> None:
    study_id = room.add_study(state="DONE")
    with room.database.write() as c:
        artefact_id = add_reported(c, study_id)
        living = decide(c, artefact_id)
        give_up(c, decide(c, artefact_id))
        assert reviews.standing_review(c, artefact_id) == living


def test_a_rejection_stands(room: Room) -> None:
    study_id = room.add_study(state="DONE")
    with room.database.write() as c:
        artefact_id = add_reported(c, study_id)
        given_up = decide(c, artefact_id, at=1000.0)
        give_up(c, given_up)
        rejected = decide(c, artefact_id, ReviewDecision.REJECT, at=900.0)
        assert reviews.standing_review(c, artefact_id) == rejected
