"""Whatever is sent, the answer is a problem in words and never a mistake of the program."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest
from control_room import Room, control_room
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

_METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"])
_PATHS = (
    "/healthz",
    "/metrics",
    "/v1/status",
    "/v1/studies",
    "/v1/studies/{}",
    "/v1/studies/{}/route",
    "/v1/studies/{}/retry",
    "/v1/studies/{}/reroute",
    "/v1/studies/{}/categories",
    "/v1/studies/{}/category",
    "/v1/studies/{}/questions",
    "/v1/studies/{}/preview",
    "/v1/studies/{}/series",
    "/v1/studies/{}/findings",
    "/v1/studies/{}/history",
    "/v1/files",
    "/v1/alerts",
    "/v1/alerts/{}/acknowledge",
    "/v1/models/verify",
    "/v1/models/promote",
    "/v1/models/rollback",
    "/v1/models/import",
    "/v1/models/bench",
    "/v1/models/check",
    "/v1/models/evaluate",
    "/v1/models/approve",
    "/v1/models/canary",
    "/v1/models/record",
    "/v1/models/stats",
    "/v1/datasets",
    "/v1/datasets/{}",
    "/v1/datasets/{}/check",
    "/v1/runs",
    "/v1/runs/check",
    "/v1/runs/{}/stop",
    "/v1/runs/{}/pause",
    "/v1/runs/{}/resume",
    "/v1/runs/{}/forecast",
    "/v1/runs/{}/history",
    "/v1/runs/outlook",
    "/v1/models/shelf",
    "/v1/runs/tonight",
    "/v1/runs/spending",
    "/v1/plugins",
    "/{}",
)
_WORDS = st.one_of(
    st.text(min_size=1, max_size=30), st.integers().map(str), st.floats().map(str), st.just("S-20261121-7F3K9QXB")
)
_KEYS = st.sampled_from(
    [
        "limit",
        "before",
        "state",
        "fate",
        "study",
        "plugin",
        "name",
        "version",
        "directory",
        "category",
        "question",
        "x",
        "since",
        "hours",
        "most",
        "reviewer",
        "reason",
        "at_once",
        "recipe",
        "sources",
        "drop",
        "target",
        "picture",
    ]
)
_LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), _WORDS)
_BODIES = st.one_of(st.dictionaries(_KEYS, _LEAVES, max_size=4), st.lists(_LEAVES, max_size=3), _LEAVES)


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with control_room(tmp_path_factory.mktemp("r") / "h") as room:
        made: Room = room
        made.add_study(state="UNROUTED")
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(made.home.control_socket)), base_url="http://x", timeout=30
        ) as client:
            yield client


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=_METHODS,
    path=st.sampled_from(_PATHS),
    word=_WORDS,
    query=st.dictionaries(_KEYS, _WORDS, max_size=3),
    body=_BODIES,
)
def test_rubbish_is_answered_in_words(
    http: httpx.Client, method: str, path: str, word: str, query: dict[str, str], body: object
) -> None:
    url = httpx.URL(f"http://x{path.format(quote(word, safe=''))}", params=query)
    answer = http.request(method, url, json=None if method in {"GET", "HEAD"} else body)
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400 and method != "HEAD":
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]
