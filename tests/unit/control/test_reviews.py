"""What the control room tells of reviews: who signs, what goes first, and why a result is held."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from control_room import Room, control_room

from clinic_ai.control.review_client import ReviewClient
from clinic_ai.control.review_views import SignersView, SubjectRow
from clinic_ai.control.views import Role
from clinic_ai.domain import GuardAction
from clinic_ai.errors import NotAllowed
from clinic_ai.settings import ReviewSettings

SIGNER = "Dr. Ada Example"


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with control_room(tmp_path / "h") as served:
        yield served


def sign_with(room: Room, *names: str) -> None:
    room.shared.settings = room.shared.settings.model_copy(update={"review": ReviewSettings(reviewers=names)})


def test_the_names_that_sign_are_told_and_the_one_used_unasked(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    with ReviewClient(room.home) as client:
        assert client.signers() == SignersView(names=(), own=""), "root is no particular person"
        sign_with(room, SIGNER)
        assert client.signers() == SignersView(names=(SIGNER,), own="")
        monkeypatch.setattr("clinic_ai.control.door.user_name", lambda _uid: SIGNER)
        assert client.signers() == SignersView(names=(SIGNER,), own=SIGNER)
        monkeypatch.setattr("clinic_ai.control.door.role_of", lambda *_: Role.TECHNICIAN)
        with pytest.raises(NotAllowed):
            client.signers()


def test_a_row_says_whose_it_is_and_why_it_goes_first(room: Room) -> None:
    study_id = room.add_study(state="DONE")
    room.add_result(study_id, GuardAction.HOLD)
    with ReviewClient(room.home) as client:
        client.prioritise(study_id, 60)
        [row] = client.reviews(10)
        [listed] = client.studies().studies
    assert (row.study_id, row.modality, row.pseudonym) == (study_id, "CT", listed.pseudonym)
    assert (row.priority, row.priority_reason) == (60, listed.priority_reason)
    assert row.priority_reason


def test_a_held_result_says_which_rule_held_it_and_of_which_statement(room: Room) -> None:
    room.guard.load()
    study_id = room.add_study(state="DONE", stored=True)
    room.add_finding(study_id)
    room.add_result(study_id, GuardAction.HOLD)
    with ReviewClient(room.home) as client:
        [row] = client.reviews(10)
        shown = client.review(row.artefact_id, SIGNER)
    [held] = shown.original_decisions
    assert (held.statement_id, held.rule, held.action, held.reason) == ("s1", "test.rule", "hold", "Because.")
    assert "test.rule" not in {decision.rule for decision in shown.decisions}, (
        "in the reviewer's own name it is let out"
    )


def test_whom_a_result_is_about_is_said_as_people_read_it() -> None:
    who = SubjectRow(
        patient_name="Doe^Jane^^Dr.=どう^じぇーん",
        patient_id="4711",
        birth_date="19700131",
        study_dates=("20261121", "unknown"),
        modalities=("CT", "SR"),
        body_parts=(),
    )
    assert who.patient == "Doe, Jane, Dr. / どう, じぇーん, ID 4711, born 1970-01-31"
    assert (who.exam, who.dates) == ("CT, SR body part not known", "2026-11-21, unknown")
    nobody = who.model_copy(update={"patient_name": "^", "patient_id": "", "birth_date": "", "study_dates": ()})
    assert nobody.patient == "name not known, ID not known, birth date not known"
    assert nobody.dates == "not known"
