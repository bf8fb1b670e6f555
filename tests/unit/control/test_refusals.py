"""Refused access stands in the audit, from either socket, and a flood of it is counted instead of written."""

from __future__ import annotations

import json

import pytest
from control_room import Room
from pydantic import ValidationError

from clinic_ai.control import door
from clinic_ai.control.review_views import AcceptReview, AmendReview, RejectReview
from clinic_ai.control.views import Role
from clinic_ai.errors import NotAllowed
from clinic_ai.store import audit


def refused(room: Room) -> list[tuple[str, str, int]]:
    with room.database.read() as connection:
        rows = [row for row in audit.rows(connection, after=0, limit=1000) if row.action == "access.refused"]
    details = [json.loads(row.details) for row in rows]
    return [(row.subject, said["reason"], said["since_the_last"]) for row, said in zip(rows, details, strict=True)]


@pytest.mark.parametrize("hidden", ["\x1b[2J", "\x07", "\n", "\x9b", "\u202e", "\u2066", "\u200b"])
def test_reasons_and_names_hold_nothing_that_steers_a_terminal(hidden: str) -> None:
    digest = "a" * 64
    for order, words in (
        (AmendReview, {"reason": f"wrong{hidden}side"}),
        (RejectReview, {"reason": f"wrong{hidden}side"}),
        (AcceptReview, {"reviewer": f"Dr. A.{hidden}"}),
    ):
        with pytest.raises(ValidationError):
            order.model_validate({"digest": digest, **words})
        plain = {key: value.replace(hidden, " ") for key, value in words.items()}
        assert order.model_validate({"digest": digest, **plain})
    assert AmendReview.model_validate({"digest": digest}).reason == ""


@pytest.mark.parametrize("monitor", [False, True])
def test_a_stranger_is_written_down_at_both_doors(room: Room, monitor: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "role_of", lambda *_: None)
    with room.client(monitor=monitor) as client, pytest.raises(NotAllowed):
        client.alerts()
    assert refused(room) == [("/v1/alerts", "unknown person", 0)]


def test_what_a_role_does_not_permit_is_written_down_and_repeats_are_counted(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "role_of", lambda *_: Role.TECHNICIAN)
    with room.client() as client:
        for _ in range(4):
            with pytest.raises(NotAllowed):
                client.critical()
        monkeypatch.setattr(door, "REPEAT_S", 0.0)
        with pytest.raises(NotAllowed):
            client.critical()
    assert refused(room) == [
        ("/v1/alerts/critical", "not clinician", 0),
        ("/v1/alerts/critical", "not clinician", 3),
    ]
