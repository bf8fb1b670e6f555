"""The API through its typed client: what is asked is what the store says, and errors are sentences."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import known_curves
import pytest
from control_room import SECRET, Room
from pydantic import ValidationError
from sqlalchemy import Connection, Row, select
from starlette.requests import ClientDisconnect

from clinic_ai import errors
from clinic_ai.control import events as stream
from clinic_ai.control.bench_views import BenchOrder
from clinic_ai.control.client import Client
from clinic_ai.control.desk import MAX_ALERTS
from clinic_ai.control.evaluation_views import EvaluateOrder
from clinic_ai.control.forecast_views import ForecastOrder
from clinic_ai.control.pages import AlertPage
from clinic_ai.control.people import Peer
from clinic_ai.control.problems import error_of, problem_of
from clinic_ai.control.promotion_client import PromotionClient
from clinic_ai.control.promotion_views import ApproveOrder, CanaryOrder, PromoteOrder
from clinic_ai.control.stats_views import StatsOrder
from clinic_ai.control.topics import Topics
from clinic_ai.control.training_views import CheckOrder, RunOrder
from clinic_ai.control.views import TopicView
from clinic_ai.domain import GuardAction, StudyState
from clinic_ai.errors import ClinicError, Conflict, DatasetError, NotFound, PolicyError
from clinic_ai.home import Home
from clinic_ai.ingest.pace import Pace, Seen
from clinic_ai.store import alerts, tables
from clinic_ai.store.audit import first_break
from clinic_ai.store.pace import save_pace
from clinic_ai.waiting import addressed, no_rule


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def client(room: Room) -> Client:
    with room.client() as made:
        yield made


def test_status_counts_what_is_there(room: Room, client: Client) -> None:
    room.add_study(state="DONE")
    room.add_study(state="RECEIVING")
    room.look()
    found = client.status()
    assert (found.studies["DONE"], found.studies["RECEIVING"], found.studies["FAILED"]) == (1, 1, 0)
    assert found.files["STORED"] == 2
    assert found.plugins == ("echo",)
    assert [(inbox.name, inbox.online) for inbox in found.inboxes] == [("inbox", True)]
    assert found.may_change
    room.home.inbox.rmdir()
    room.look()
    assert not client.status().inboxes[0].online


def test_studies_come_in_pages_newest_first(room: Room, client: Client) -> None:
    made = [room.add_study(state="ROUTED") for _ in range(5)]
    seen, before = [], None
    while True:
        page = client.studies(limit=2, before=before)
        seen += [row.study_id for row in page.studies]
        before = page.next_before
        if before is None:
            break
    assert seen == made[::-1]
    assert client.studies(states=(StudyState.DONE,)).studies == ()
    for nowhere in ("", "soon~S~1", "1.0~S~x", "1.0~S~0", f"1.0~S~{2**63}"):
        with pytest.raises(NotFound, match="go on after"):
            client.studies(before=nowhere)


def test_study_shows_why_it_waits_and_its_files(room: Room, client: Client) -> None:
    study_id = room.add_study(state="UNROUTED", wait=no_rule())
    version = client.study(study_id).versions[0]
    assert version.study.wait == addressed(no_rule(), study_id)
    assert f"`clinic-ai study retry {study_id}`" in version.study.wait.remedy
    assert version.instances == 1
    assert [file.fate for file in client.study(study_id).files] == ["STORED"]


def test_retry_makes_a_new_version_and_names_who_asked(room: Room, client: Client) -> None:
    study_id = room.add_study(state="DONE")
    assert "version 2" in client.retry(study_id).sentence
    newest, oldest = client.study(study_id).versions
    assert (newest.study.version, oldest.study.state) == (2, "SUPERSEDED")
    assert client.status().person in newest.study.closed_reason
    with room.database.read() as c:
        assert first_break(c) is None


def test_a_technician_closes_a_study_by_name_and_only_once(room: Room, client: Client) -> None:
    room.allow(technicians=(client.status().person,))
    study_id = room.add_study(state="RECEIVING")
    said = client.close_study(study_id).sentence
    me = client.status().person
    assert said == f"Study {study_id} version 1 is closed: {me} closed it, 1 instance."
    study = client.study(study_id).versions[0].study
    assert (study.state, study.close_code, study.closed_reason) == ("CLOSED", "forced", f"{me} closed it, 1 instance")
    with room.database.read() as c:
        closed = [row for row in audit_of(c, study_id) if row.action == "study.close"]
        assert [(row.actor, "forced" in row.details) for row in closed] == [(me, True)]
        assert first_break(c) is None
    with pytest.raises(Conflict, match="is CLOSED and not arriving any more") as found:
        client.close_study(study_id)
    assert study_id in found.value.remedy
    with pytest.raises(NotFound):
        client.close_study("S-1")


def test_a_person_sets_the_priority_and_is_named_for_it(room: Room, client: Client) -> None:
    study_id = room.add_study(state="RECEIVING")
    assert "priority -20 now, 0 before" in client.prioritise(study_id, -20).sentence
    study = client.study(study_id).versions[0].study
    me = client.status().person
    assert (study.priority, study.priority_reason) == (-20, f"set by {me}")
    with room.database.read() as c:
        assert [row.actor for row in audit_of(c, study_id) if row.action == "study.priority"] == [me]
    with pytest.raises(NotFound):
        client.prioritise("S-1", 5)


def test_status_says_how_long_a_study_of_each_source_is_waited_for(room: Room, client: Client) -> None:
    with room.database.write() as c:
        save_pace(c, "ct room", Pace(studies=(Seen(pause_s=20.0, late=True),) * 10).model_dump_json())
    room.closing.recover()
    paces = {pace.source: pace for pace in client.status().paces}
    assert (paces["inbox"].quiet_s, paces["inbox"].line) == (5.0, "5 s")
    assert paces["ct room"].line == "30 s, learned from 10 studies; 10 went on after they were closed"


def audit_of(connection: Connection, subject: str) -> list[Row[Any]]:
    return list(connection.execute(select(tables.audit).where(tables.audit.c.subject == subject)))


def test_what_cannot_be_done_is_said_with_a_remedy(room: Room, client: Client) -> None:
    arriving = room.add_study(state="RECEIVING")
    with pytest.raises(Conflict, match="still arriving") as found:
        client.retry(arriving)
    assert found.value.remedy
    with pytest.raises(NotFound, match="S-1"):
        client.study("S-1")
    with pytest.raises(NotFound):
        client.study("../status")
    with pytest.raises(NotFound):
        client.stop_run("R-1")


def test_released_text_is_the_guards_and_held_text_is_not_there(room: Room, client: Client) -> None:
    open_one, held_one = room.add_study(state="DONE"), room.add_study(state="DONE")
    room.add_result(open_one)
    room.add_result(held_one, GuardAction.HOLD)
    released = client.study(open_one).versions[0].artefacts[0]
    assert [text.text for text in released.released or ()] == [SECRET]
    held = client.study(held_one).versions[0].artefacts[0]
    assert (held.state, held.released, held.decisions[0].rule) == ("HELD", None, "test.rule")


def test_route_explains_with_the_rules_of_now(room: Room, client: Client) -> None:
    found = client.route(room.add_study(modality="MR", state="UNROUTED"))
    assert found.plugins == ()
    assert any("wanted CT, the study has MR" in line for line in found.lines)


def test_files_by_fate(room: Room, client: Client) -> None:
    study_id = room.add_study()
    assert [file.study_id for file in client.files(fates=("STORED",)).files] == [study_id]
    assert client.files(fates=("QUARANTINED",)).files == ()
    with pytest.raises(ClinicError, match="not understood"):
        client.files(fates=("EATEN",))


def test_alert_is_acknowledged_by_name_and_once(room: Room, client: Client) -> None:
    with room.database.write() as c:
        alerts.raise_alert(c, "test", "appliance", "Something happened.", "Look at it.")
    (alert,) = client.alerts()
    assert client.status().person in client.acknowledge(alert.alert_id).sentence
    assert client.alerts() == ()
    with pytest.raises(NotFound):
        client.acknowledge(alert.alert_id)


def test_alerts_come_in_pages_and_the_status_counts_what_it_leaves_out(room: Room, client: Client) -> None:
    number = MAX_ALERTS + 3
    with room.database.write() as c:
        for subject in range(number):
            alerts.raise_alert(c, "test", str(subject), f"Number {subject}.", "Look at it.")
        c.execute(tables.alerts.update().values(last_at=1000.0))
        assert alerts.count_open(c) == (number, 0)
    assert [alert.subject for alert in client.alerts()] == [str(subject) for subject in reversed(range(number))]
    status = client.status()
    assert (len(status.alerts), status.more_alerts, status.more_critical) == (MAX_ALERTS, 3, 0)
    page = client._get("/v1/alerts", AlertPage, {"limit": 2})
    rest = client._get("/v1/alerts", AlertPage, {"limit": 2, "before": page.next_before})
    assert [alert.subject for alert in (*page.alerts, *rest.alerts)] == [str(number - n) for n in range(1, 5)]
    client.acknowledge(page.alerts[-1].alert_id)
    with pytest.raises(NotFound, match="go on after"):
        client._get("/v1/alerts", AlertPage, {"before": page.next_before})


def test_reload_tells_what_stays(room: Room, client: Client) -> None:
    assert client.reload().sentence
    room.shared.reload_problems = ("clinic.toml line 3: wrong",)
    with pytest.raises(ClinicError, match="line 3: wrong"):
        client.reload()
    assert room.shared.reloads == 2


def test_models_and_training_answer_through_the_real_rooms(room: Room, client: Client, tmp_path: Path) -> None:
    assert client.models() == ()
    assert client.runs() == ()
    with pytest.raises(ClinicError):
        client.import_model(str(tmp_path / "nothing"))
    with PromotionClient(room.home) as promotions:
        unknown = {"plugin": "echo", "name": "m", "version": "1"}
        for ask in (
            lambda: promotions.promote_model(PromoteOrder(**unknown)),
            lambda: promotions.approve_model(ApproveOrder(**unknown)),
            lambda: promotions.model_record("echo", "m", "1"),
        ):
            with pytest.raises(NotFound, match="no model echo/m/1"):
                ask()
        with pytest.raises(Conflict, match="has no trainer"):
            promotions.check_model("echo", "m", "1")
        with pytest.raises(Conflict, match="no daemon runs"):
            promotions.run_canary(CanaryOrder(**unknown))
    with pytest.raises((NotFound, Conflict, DatasetError)):
        client.start_run(RunOrder(plugin="echo", dataset=str(tmp_path)))
    with pytest.raises(Conflict, match="has no trainer"):
        client.check_labels(CheckOrder(plugin="echo", dataset=str(tmp_path)))
    bench = BenchOrder(plugin="echo", name="none", version="1")
    with pytest.raises(Conflict, match="has no trainer"):
        client.bench_model(bench)
    with pytest.raises(Conflict, match="has no trainer"):
        client.evaluate_model(EvaluateOrder(plugin="echo"))
    with pytest.raises(ValidationError, match="by its name and its version"):
        EvaluateOrder(plugin="echo", version="alone")
    with pytest.raises(Conflict, match="has no trainer"):
        client.model_stats(StatsOrder(plugin="echo"))
    with pytest.raises(ValidationError, match="by its name and its version"):
        StatsOrder(plugin="echo", name="alone")


def test_policy_is_tested_in_a_child_beside_the_one_in_force(room: Room, client: Client, tmp_path: Path) -> None:
    assert client.policy().pack is None
    assert "held" in client.policy().problem
    report = client.test_policy()
    assert report.outcomes
    assert all(outcome.passed for outcome in report.outcomes)
    with pytest.raises(PolicyError):
        client.test_policy(str(tmp_path))
    assert client.policy().pack is None


def test_metrics_count_and_name_nobody(room: Room, client: Client) -> None:
    room.add_study(state="UNROUTED")
    found = client.metrics()
    assert 'clinic_ai_studies{state="UNROUTED"} 1.0' in found
    assert 'clinic_ai_files{fate="STORED"} 1.0' in found
    assert "clinic_ai_policy_loaded 0.0" in found
    assert 'clinic_ai_jobs{state="FAILED"} 0.0' in found
    assert 'clinic_ai_artefacts{state="HELD"} 0.0' in found
    assert "S-" not in found
    assert "P-" not in found


# ---------------------------------------------------------------- events


def test_events_say_what_moved_and_resume(room: Room, client: Client) -> None:
    study_id = room.add_study(state="CLOSED")
    first = []
    for event in client.events(after=0):
        first.append(event)
        if len(first) == 3:
            break
    assert [event.action for event in first] == ["study.open", "study.receive", "study.close"]
    assert {event.subject for event in first} == {study_id}
    resumed = client.events(after=first[1].seq)
    assert next(resumed) == first[2]


def test_readers_of_events_are_limited(room: Room, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_READERS", 1)
    room.add_study()
    reading = client.events(after=0)
    next(reading)
    with room.client() as other, pytest.raises(Conflict, match="1 readers follow the events"):
        next(other.events(after=0))
    with room.client(monitor=True) as monitor:
        assert next(monitor.events(after=0)).action == "study.open"  # each socket has places of its own


def test_one_person_does_not_take_every_place(room: Room, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_OWN_READERS", 1)
    room.add_study()
    reading = client.events(after=0)
    next(reading)
    with room.client() as other, pytest.raises(Conflict, match="1 of your terminals follow the events"):
        next(other.events(after=0))


def test_a_reader_of_another_audit_is_told_so(room: Room, client: Client) -> None:
    room.add_study(state="CLOSED")
    with pytest.raises(NotFound, match="no change number 4711"):
        next(client.events(after=4711))
    [*_, last] = (event.seq for _, event in zip(range(3), client.events(after=0), strict=False))
    with closing(client.follow(last)) as news:
        assert next(news) == TopicView(topic="start")


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text='event: change\ndata: {"seq": "the next"}\n\n'),
        httpx.Response(200, text="data: no JSON\n\n"),
        httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(b"no gzip")),
    ],
)
def test_a_daemon_of_another_version_is_told_in_a_sentence(home: Home, answer: httpx.Response) -> None:
    other = Client(home)
    other._http = httpx.Client(transport=httpx.MockTransport(lambda _: answer), base_url="http://x")
    with other, pytest.raises(ClinicError, match="not understood"):
        list(other.follow())


def test_a_reader_who_left_before_the_first_event_gives_its_place_back(room: Room) -> None:
    async def gone(message: object) -> None:
        raise OSError("The reader is gone.")

    async def silent() -> dict[str, str]:
        return await asyncio.get_running_loop().create_future()

    async def come_and_go() -> None:
        feed, peer = stream.Feed(room.database, Topics()), Peer(pid=1, uid=1000, gid=1000, readonly=False)
        for _ in range(stream.MAX_READERS + 1):
            with pytest.raises(ClientDisconnect):
                await feed.follow(peer, 0)({"type": "http", "asgi": {"spec_version": "2.4"}}, silent, gone)

    asyncio.run(come_and_go())


# ---------------------------------------------------------------- shape


def test_openapi_describes_every_path_and_its_problems(room: Room) -> None:
    transport = httpx.HTTPTransport(uds=str(room.home.control_socket))
    with httpx.Client(transport=transport, base_url="http://x", timeout=60) as http:
        answer = http.get("/openapi.json")
        assert answer.status_code == 200
        found = answer.json()
        assert http.get("/docs").status_code == 404
        missing = http.get("/v1/nothing")
        assert missing.headers["content-type"] == "application/problem+json"
        wrong = http.post("/v1/models/import", json={"directory": "relative", "extra": 1})
        assert (wrong.status_code, wrong.json()["title"]) == (422, "Cannot be done")
        assert "relative" not in wrong.text
    expected = {
        "/healthz",
        "/metrics",
        "/v1/alerts",
        "/v1/alerts/critical",
        "/v1/alerts/{alert_id}/acknowledge",
        "/v1/audit/export",
        "/v1/audit/verify",
        "/v1/disk",
        "/v1/disk/plan",
        "/v1/disk/verify",
        "/v1/events",
        "/v1/files",
        "/v1/files/accept",
        "/v1/files/discard",
        "/v1/machine",
        "/v1/files/{file_id}",
        "/v1/files/{file_id}/comparison",
        "/v1/models",
        "/v1/models/approve",
        "/v1/models/bench",
        "/v1/models/canary",
        "/v1/models/check",
        "/v1/models/evaluate",
        "/v1/models/import",
        "/v1/models/promote",
        "/v1/models/record",
        "/v1/models/rollback",
        "/v1/models/shelf",
        "/v1/models/stats",
        "/v1/models/verify",
        "/v1/imports",
        "/v1/imports/{import_id}",
        "/v1/imports/{import_id}/end",
        "/v1/imports/{import_id}/files",
        "/v1/imports/{import_id}/here",
        "/v1/inboxes",
        "/v1/inboxes/accept",
        "/v1/plugins",
        "/v1/plugins/categories",
        "/v1/guard/check",
        "/v1/policy",
        "/v1/policy/test",
        "/v1/queue",
        "/v1/reload",
        "/v1/log",
        "/v1/changes",
        "/v1/reviews",
        "/v1/reviews/signers",
        "/v1/reviews/{artefact_id}",
        "/v1/reviews/{artefact_id}/accept",
        "/v1/reviews/{artefact_id}/amend",
        "/v1/reviews/{artefact_id}/reject",
        "/v1/reviews/{review_id}/consent",
        "/v1/datasets",
        "/v1/datasets/{dataset_id}",
        "/v1/datasets/{dataset_id}/check",
        "/v1/runs",
        "/v1/runs/check",
        "/v1/runs/outlook",
        "/v1/runs/{run_id}/forecast",
        "/v1/runs/{run_id}/history",
        "/v1/runs/{run_id}/pause",
        "/v1/runs/{run_id}/resume",
        "/v1/runs/{run_id}/stop",
        "/v1/runs/spending",
        "/v1/runs/tonight",
        "/v1/status",
        "/v1/studies",
        "/v1/studies/{study_id}",
        "/v1/studies/{study_id}/categories",
        "/v1/studies/{study_id}/category",
        "/v1/studies/{study_id}/copies/{sha256}",
        "/v1/studies/{study_id}/export",
        "/v1/studies/{study_id}/export/deidentified",
        "/v1/studies/{study_id}/originals/{sha256}",
        "/v1/studies/{study_id}/close",
        "/v1/studies/{study_id}/findings",
        "/v1/studies/{study_id}/history",
        "/v1/studies/{study_id}/preview",
        "/v1/studies/{study_id}/priority",
        "/v1/studies/{study_id}/questions",
        "/v1/studies/{study_id}/reroute",
        "/v1/studies/{study_id}/retry",
        "/v1/studies/{study_id}/route",
        "/v1/studies/{study_id}/series",
    }
    assert set(found["paths"]) == expected
    assert "ProblemView" in found["components"]["schemas"]


def test_a_forecast_is_told_to_whoever_may_read(room: Room) -> None:
    known = known_curves.add_run(room.database, known_curves.losses(60))
    with room.client(monitor=True) as monitor:
        found = monitor.forecast_run(known, ForecastOrder(target=0.34, watts=50.0))
        assert found.forecast.fit.points == 60
        assert found.rates.currency == "EUR"
        assert [bought.what for bought in found.purchases][1] == "a loss of 0.34"
        with pytest.raises(NotFound):
            monitor.forecast_run("R-20261121-7F3K9QXB", ForecastOrder())
        with pytest.raises(ClinicError, match="The loss curve has 0 points"):
            monitor.forecast_run(known, ForecastOrder(drop=1e6))


def test_every_error_survives_the_way_to_the_client() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, ClinicError)]
    plain = [k for k in kinds if k not in {errors.InputError, errors.ChildRefused}]
    assert len(plain) > 10
    for kind in plain:
        there = kind("It is so.", remedy="Do this.")
        back = error_of(problem_of(there))
        assert (type(back), back.message, back.remedy) == (kind, "It is so.", "Do this.")
    coded = error_of(problem_of(errors.InputError("code", "It is so.")))
    assert (type(coded), coded.message) == (ClinicError, "It is so.")


def test_client_and_screens_import_neither_store_nor_models() -> None:
    code = "import json, sys, clinic_ai.control.client, clinic_ai.tui.app; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert not loaded & {"sqlalchemy", "torch", "pydicom", "numpy", "onnxruntime", "fastapi", "uvicorn"}
