"""The queue over both sockets: any part of it, in any order, by the typed client."""

from __future__ import annotations

import httpx
import pytest
from control_room import NAME, Room

from clinic_ai import waiting
from clinic_ai.control.terminal_client import TerminalClient
from clinic_ai.domain import GuardAction, QueueSort
from clinic_ai.errors import ClinicError


def test_the_client_gets_what_it_asks_for(room: Room) -> None:
    ids = [room.add_study(state="DONE", modality=modality) for modality in ("US", "CT", "MR")]
    held = room.add_study(state="DONE", modality="DX", wait=waiting.held("test.rule", "Because."))
    room.add_result(held, GuardAction.HOLD)
    waits = room.add_study(state="UNROUTED", modality="XA", wait=waiting.no_rule())
    with TerminalClient(room.home) as client, TerminalClient(room.home, monitor=True) as monitor:
        page = client.queue(sort=QueueSort.MODALITY)
        assert [row.facts.modalities[0] for row in page.studies] == ["CT", "DX", "MR", "US", "XA"]
        assert page == monitor.queue(sort=QueueSort.MODALITY)
        part = client.queue(sort=QueueSort.MODALITY, reverse=True, offset=1, limit=2, study_id=ids[1], version=1)
        assert [row.study_id for row in part.studies] == [ids[0], ids[2]]
        assert (part.offset, part.total, part.place) == (1, 5, 4)
        [row] = client.queue(words="dx HELD").studies
        assert (row.study_id, row.verdict, row.rejected, row.urgent, row.critical) == (
            held,
            "hold",
            False,
            False,
            False,
        )
        [row] = client.queue(words="no rule").studies
        assert row.wait is not None
        assert waits in row.wait.remedy
        assert client.queue(words="lemur").total == 0
        client.prioritise(waits, 50)
        first = client.queue().studies[0]
        assert (first.study_id, first.urgent, first.priority_reason.startswith("set by ")) == (waits, True, True)
        client.reroute(waits)
        assert client.queue(words="closed").studies[0].study_id == waits


def test_it_tells_no_name(room: Room) -> None:
    room.add_study()
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(room.home.control_socket)), base_url="http://x") as http:
        assert NAME not in http.get("/v1/queue").text


@pytest.mark.parametrize(
    "asked", [{"limit": 501}, {"limit": 0}, {"offset": -1}, {"words": "x" * 201}, {"version": 0}], ids=str
)
def test_what_cannot_be_asked_is_refused_in_words(room: Room, asked: dict[str, object]) -> None:
    with TerminalClient(room.home) as client, pytest.raises(ClinicError, match=str(next(iter(asked)))):
        client.queue(**asked)
