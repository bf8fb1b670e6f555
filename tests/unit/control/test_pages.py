"""Lists that grow come in pages: nothing is lost or told twice between them, whatever comes in meanwhile."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from control_room import Room
from sqlalchemy import insert

from clinic_ai.control.dataset_client import DatasetClient
from clinic_ai.control.paging import page_of
from clinic_ai.control.terminal_client import TerminalClient
from clinic_ai.domain import AskedQuestion, Audience, GuardAction, QuestionDocument, QuestionOutcome
from clinic_ai.errors import NotFound
from clinic_ai.store import runs, tables
from clinic_ai.store.questions import add_question


@pytest.fixture
def http(room: Room) -> httpx.Client:
    transport = httpx.HTTPTransport(uds=str(room.home.control_socket))
    return httpx.Client(transport=transport, base_url="http://x", timeout=30)


def walk(http: httpx.Client, path: str, name: str, limit: int) -> list[Any]:
    """Return the rows of all pages."""
    found: list[Any] = []
    before: str | None = None
    while True:
        page = http.get(path, params={"limit": limit} | ({} if before is None else {"before": before})).json()
        assert len(page[name]) <= limit
        found += page[name]
        before = page["next_before"]
        if before is None:
            return found


def add_datasets(room: Room, count: int) -> list[str]:
    """Store datasets, two of a moment each; return their ids, newest first."""
    made = [(f"D-{number:03d}", float(number // 2)) for number in range(count)]
    with room.database.write() as c:
        for dataset_id, at in made:
            digest = hashlib.sha256(dataset_id.encode()).hexdigest()
            document = json.dumps({"dataset_id": dataset_id, "plugin": "echo", "digest": digest, "examples": []})
            values = {"plugin": "echo", "digest": digest, "document": document, "created_at": at}
            c.execute(insert(tables.datasets).values(dataset_id=dataset_id, **values))
    return [dataset_id for dataset_id, at in sorted(made, key=lambda row: (-row[1], row[0]))]


def add_runs(room: Room, count: int) -> list[str]:
    add_datasets(room, 1)
    with room.database.write() as c:
        made = [(runs.add_run(c, "echo", "D-000", {}, "ada", at=1.0 + n // 2), 1.0 + n // 2) for n in range(count)]
    return [run_id for run_id, at in sorted(made, key=lambda row: (-row[1], row[0]))]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
def test_runs_of_one_moment_are_neither_lost_nor_told_twice(room: Room, http: httpx.Client, limit: int) -> None:
    made = add_runs(room, 7)
    assert [row["run_id"] for row in walk(http, "/v1/runs", "runs", limit)] == made
    with room.client() as client:
        assert [row.run_id for row in client.runs()] == made
        assert client.runs_page(limit=2).next_before == made[1]


@pytest.mark.parametrize("limit", [2, 3, 5])
def test_datasets_too(room: Room, http: httpx.Client, limit: int) -> None:
    made = add_datasets(room, 5)
    assert [row["dataset_id"] for row in walk(http, "/v1/datasets", "datasets", limit)] == made
    with DatasetClient(room.home) as client:
        assert [row.dataset_id for row in client.datasets()] == made


def test_what_comes_in_meanwhile_shifts_nothing(room: Room) -> None:
    made = add_runs(room, 4)
    with room.client() as client:
        first = client.runs_page(limit=2)
        with room.database.write() as c:
            runs.add_run(c, "echo", "D-000", {}, "ada")
        second = client.runs_page(limit=2, before=first.next_before)
    assert [row.run_id for row in (*first.runs, *second.runs)] == made


@pytest.mark.parametrize("limit", [1, 2, 4, 5])
def test_reviews_come_with_held_ones_first(room: Room, http: httpx.Client, limit: int) -> None:
    for action in (GuardAction.ALLOW, GuardAction.HOLD, GuardAction.ALLOW, GuardAction.HOLD):
        room.add_result(room.add_study(), action)
    with TerminalClient(room.home) as client:
        whole = client.reviews(100)
        assert [row.state for row in whole] == ["HELD", "HELD", "PRELIMINARY", "PRELIMINARY"]
        assert [row.artefact_id for row in client.all_reviews()] == [row.artefact_id for row in whole]
    assert [row["artefact_id"] for row in walk(http, "/v1/reviews", "reviews", limit)] == [
        row.artefact_id for row in whole
    ]


def test_questions_of_a_study_come_oldest_first(room: Room, http: httpx.Client) -> None:
    study_id = room.add_study()
    with room.database.write() as c:
        for number in range(5):
            add_question(
                c,
                AskedQuestion(
                    question_id=f"Q-{number}",
                    study_id=study_id,
                    version=1,
                    audience=Audience.CLINICIAN,
                    asked_by="ada",
                    asked_at=float(number),
                    question="Is it there?",
                    outcome=QuestionOutcome.REFUSED,
                    policy_hash="",
                    document=QuestionDocument(image=1),
                ),
            )
    found = walk(http, f"/v1/studies/{study_id}/questions", "questions", 2)
    assert [row["question_id"] for row in found] == [f"Q-{number}" for number in range(5)]
    with TerminalClient(room.home) as client:
        assert len(client.questions(study_id)) == 5


def test_models_are_paged_by_their_name() -> None:
    rows = list("abcde")
    seen: list[str] = []
    before: str | None = None
    while True:
        page, before = page_of(rows, 2, before, str)
        seen += page
        if before is None:
            break
    assert seen == rows
    assert page_of(rows, 5, None, str) == (("a", "b", "c", "d", "e"), None)
    assert page_of((), 5, None, str) == ((), None)
    with pytest.raises(NotFound, match="go on after is gone"):
        page_of(rows, 2, "x", str)


@pytest.mark.parametrize(
    ("path", "before"),
    [("runs", "R-1"), ("datasets", "D-1"), ("models", "a/b/c"), ("reviews", "HELD"), ("reviews", "x~y~z")],
)
def test_a_page_after_nothing_is_refused_in_words(http: httpx.Client, path: str, before: str) -> None:
    answer = http.get(f"/v1/{path}", params={"before": before})
    assert answer.status_code == 404
    assert answer.json()["remedy"]


@pytest.mark.parametrize("path", ["runs", "datasets", "models", "reviews", "studies/S-1/questions"])
def test_an_empty_or_endless_page_is_refused(http: httpx.Client, path: str) -> None:
    codes: Sequence[int] = [http.get(f"/v1/{path}", params={"limit": limit}).status_code for limit in (0, 1001)]
    assert codes == [422, 422]
