"""How fast a user may ask: generous, by user and socket, and refused in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import known_curves
import pytest
from control_room import Room, control_room

from clinic_ai.control.forecast_views import ForecastOrder
from clinic_ai.control.pace import AT_ONCE, PER_SECOND, Pace
from clinic_ai.control.problems import LONGEST, error_of, problem
from clinic_ai.errors import Conflict, TooManyRequests
from clinic_ai.store.audit import rows


class Hands:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.second = 100.0

    def __call__(self) -> float:
        return self.second


@pytest.fixture
def hands() -> Hands:
    return Hands()


def test_a_full_bucket_lets_many_through_and_then_one_a_moment(hands: Hands) -> None:
    pace = Pace(8, 5, hands)
    assert [pace.take(1, readonly=False) for _ in range(5)] == [0.0] * 5
    assert pace.take(1, readonly=False) == pytest.approx(0.125)
    hands.second += 0.0625
    assert pace.take(1, readonly=False) == pytest.approx(0.0625)
    hands.second += 0.0625
    assert pace.take(1, readonly=False) == 0.0
    hands.second += 3600
    assert [pace.take(1, readonly=False) for _ in range(6)].count(0.0) == 5


def test_users_and_sockets_count_apart(hands: Hands) -> None:
    pace = Pace(10, 1, hands)
    assert pace.take(1, readonly=True) == 0.0
    assert pace.take(1, readonly=True) > 0
    assert pace.take(1, readonly=False) == 0.0
    assert pace.take(2, readonly=True) == 0.0


def test_a_clock_that_goes_back_takes_nothing_away(hands: Hands) -> None:
    pace = Pace(10, 2, hands)
    pace.take(1, readonly=False)
    hands.second -= 50
    assert pace.take(1, readonly=False) == 0.0


def test_many_users_do_not_make_it_grow_but_none_gets_away(hands: Hands) -> None:
    pace = Pace(10, 2, hands)
    for _ in range(3):
        pace.take(7, readonly=False)
    for uid in range(1000, 2000):
        pace.take(uid, readonly=False)
    assert pace.take(7, readonly=False) > 0
    hands.second += 3600
    pace.take(5, readonly=False)
    assert len(pace._buckets) == 1


def test_a_terminal_while_much_happens_stays_far_below() -> None:
    # The feed fetches at most once in 0.15 s and asks twice then; ten terminals of one user ask so often:
    assert PER_SECOND * 2 > 10 * 2 / 0.15
    assert AT_ONCE >= 5 * 60


@pytest.fixture
def room(tmp_path: Path, hands: Hands) -> Iterator[Room]:
    with control_room(tmp_path / "h", pace=Pace(1, 3, hands)) as served:
        yield served


def test_who_asks_too_often_is_told_to_wait_and_it_is_written_down(room: Room, hands: Hands) -> None:
    with room.client() as client:
        for _ in range(3):
            client.status()
        with pytest.raises(TooManyRequests, match="asks too often") as refused:
            client.status()
        assert "slow scripts down" in refused.value.remedy
        assert refused.value.retryable
        with room.client(monitor=True) as monitor:
            monitor.status()
        hands.second += 1
        client.status()
    with room.database.read() as connection:
        [noted] = [entry for entry in rows(connection, after=0, limit=1000) if entry.action == "access.refused"]
    assert json.loads(noted.details)["reason"] == "too many requests"


def test_the_answer_is_a_problem_with_the_seconds_to_wait(room: Room) -> None:
    transport = httpx.HTTPTransport(uds=str(room.home.control_socket))
    with httpx.Client(transport=transport, base_url="http://x", timeout=30) as http:
        for _ in range(3):
            http.get("/healthz")
        answer = http.get("/healthz")
        assert answer.status_code == 429
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["title"] == "Too many requests"
        # The files of an import are as many as a medium holds, and have limits of their own.
        assert http.put("/v1/imports/I-20261121-7F3K9QXB/files", content=b"").status_code != 429


def test_the_client_knows_it_as_a_conflict_that_passes() -> None:
    told = error_of(problem(429, "Too often.", remedy="Wait.", error="TooManyRequests"))
    assert isinstance(told, TooManyRequests)
    assert isinstance(told, Conflict)


# ---------------------------------------------------------------- what a refusal repeats


def test_an_endless_sentence_is_cut() -> None:
    view = problem(404, "x" * 100_000, remedy="y" * 100_000)
    assert len(view.detail) <= LONGEST + 2
    assert view.detail.endswith("…")
    assert len(view.remedy) <= LONGEST + 2


def test_an_endless_id_is_not_repeated(tmp_path: Path) -> None:
    with control_room(tmp_path / "h") as room:
        transport = httpx.HTTPTransport(uds=str(room.home.control_socket))
        with httpx.Client(transport=transport, base_url="http://x", timeout=30) as http:
            for path in ("studies/{}", "runs/{}/forecast", "datasets/{}", "reviews/{}", "studies/{}/questions"):
                answer = http.get(f"/v1/{path}".format("A" * 10_000))
                assert answer.status_code == 422, path
                assert len(answer.content) < 1000, path


def test_one_forecast_is_made_at_a_time(tmp_path: Path) -> None:
    with control_room(tmp_path / "h") as room:
        forecasts = room.server._app.state.services.forecasts
        run_id = known_curves.add_run(room.database, known_curves.losses(60))
        assert forecasts._making.acquire(blocking=False)
        try:
            with room.client(monitor=True) as client, pytest.raises(Conflict, match="Another forecast is being made"):
                client.forecast_run(run_id, ForecastOrder())
        finally:
            forecasts._making.release()
