"""The HTTP API: routes that translate between requests and the desk, and errors into problem documents.

Handlers are plain functions and run in threads. Who asks, from which socket and how much, the door has settled
before a route is reached; ``docs/monitoring.md`` lists what is there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi import Path as FromPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from clinic_ai import __version__
from clinic_ai.control import (
    alert_desk,
    audit_desk,
    category_desk,
    dataset_desk,
    desk,
    file_desk,
    folders,
    forecast_desk,
    guard_desk,
    log_desk,
    machine_desk,
    metrics,
    night_desk,
    preview_desk,
    problems,
    promotion_desk,
    questions,
    queue_desk,
    reviews,
    shelf_desk,
    stats_desk,
    study_desk,
)
from clinic_ai.control.asking import Administrator, Anyone, Clinician, Having, Id, needs
from clinic_ai.control.bench_views import BenchOrder, BenchView
from clinic_ai.control.disk_views import DiskView, RemovalRow, SlicesChoice, VerifiedView
from clinic_ai.control.door import Door, Refusals
from clinic_ai.control.evaluation_views import EvaluateOrder, EvaluationView
from clinic_ai.control.events import Feed
from clinic_ai.control.file_views import AcceptOrder, ComparisonView, DecidedView, DiscardOrder, FileView
from clinic_ai.control.model_views import ModelChoice, ModelImport, ModelRollback
from clinic_ai.control.night_views import SpendingView, TonightView
from clinic_ai.control.orders import ModelDesk, RunDesk
from clinic_ai.control.pace import Pace
from clinic_ai.control.pages import ModelPage, RunPage
from clinic_ai.control.paging import Before, Limit, page_of
from clinic_ai.control.people import Peer
from clinic_ai.control.policy_views import PolicyTest
from clinic_ai.control.services import Services
from clinic_ai.control.slowly import COMPARISONS, ORDERS, slowly
from clinic_ai.control.training_views import CheckOrder, CheckView, ResumeOrder, RunOrder
from clinic_ai.control.views import (
    DoneView,
    FilePage,
    PluginsView,
    PolicyView,
    PriorityOrder,
    ProblemView,
    Role,
    RouteView,
    RunRow,
    StatusView,
    StudyPage,
    StudyView,
    VerifyView,
)
from clinic_ai.domain import Fate, FileDecision, StudyState
from clinic_ai.errors import ClinicError
from clinic_ai.store import audit
from clinic_ai.tasks import CaseReport

__all__ = ["Services", "create_app"]

MAX_NUMBER = 2**63 - 1
"""Largest number of a row."""

FileNumber = Annotated[int, FromPath(ge=0, le=MAX_NUMBER)]


class _Api(FastAPI):
    """FastAPI, whose description of itself knows the document of every refusal."""

    def openapi(self) -> dict[str, Any]:
        """Return the description, made once."""
        if self.openapi_schema is None:
            described = super().openapi()
            described["components"]["schemas"]["ProblemView"] = ProblemView.model_json_schema(mode="serialization")
        return super().openapi()


def create_app(services: Services, pace: Pace | None = None) -> FastAPI:
    """Return the API over these services. Only ``control.server`` can serve it: the door needs the socket's peer."""
    app = _Api(
        title="clinic-ai",
        version=__version__,
        summary="Control API on two Unix sockets: control.sock may change things, monitor.sock only reads.",
        docs_url=None,  # its pages load scripts from the internet
        redoc_url=None,
        responses=problems.documented(),
    )
    app.state.services = services
    app.state.refusals = Refusals(services)
    app.state.feed = Feed(services.database, services.topics)
    services.log.watch(lambda: services.topics.touch("log"))
    for router in (
        _machine,
        machine_desk.router,
        _studies,
        queue_desk.router,
        category_desk.router,
        folders.router,
        reviews.router,
        questions.router,
        preview_desk.router,
        study_desk.router,
        alert_desk.router,
        audit_desk.router,
        log_desk.router,
        guard_desk.router,
        stats_desk.router,
        _models,
        promotion_desk.router,
        shelf_desk.router,
        _training,
        night_desk.router,
        forecast_desk.router,
        dataset_desk.router,
        _guard,
    ):
        app.include_router(router)
    app.add_exception_handler(ClinicError, _clinic_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_middleware(Door, services=services, refusals=app.state.refusals, pace=pace or Pace())
    return app


# ---------------------------------------------------------------- who and what


def _model_desk(services: Having, person: Administrator) -> ModelDesk:
    return ModelDesk(services.registry, person.name)


def _run_desk(services: Having, person: Administrator) -> RunDesk:
    return RunDesk(services.runs, person.name, services.night)


Models = Annotated[ModelDesk, Depends(_model_desk)]
Runs = Annotated[RunDesk, Depends(_run_desk)]

# ---------------------------------------------------------------- the machine

_machine = APIRouter(tags=["machine"])


@_machine.get("/healthz", response_class=PlainTextResponse)
def healthz() -> str:
    """Say that the daemon answers."""
    return "ok\n"


@_machine.get("/metrics", response_class=PlainTextResponse)
def get_metrics(services: Having) -> Response:
    """Return counts, ages and sizes for Prometheus; no personal data."""
    return Response(metrics.exposition(services), media_type=metrics.CONTENT_TYPE)


@_machine.get("/v1/status")
def get_status(services: Having, person: Anyone, request: Request) -> StatusView:
    """Return everything at a glance."""
    peer: Peer = request.state.peer
    return desk.status(services, person, may_change=not peer.readonly)


@_machine.get("/v1/events", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}})
def get_events(request: Request, last_event_id: Annotated[int | None, Header(ge=0, le=MAX_NUMBER)] = None) -> Response:
    """Stream what changes as server-sent events; ``Last-Event-ID`` resumes."""
    feed: Feed = request.app.state.feed
    peer: Peer = request.state.peer
    return feed.follow(peer, last_event_id)


@_machine.get("/v1/plugins")
def get_plugins(services: Having) -> PluginsView:
    """Return the plugins and why some are not usable."""
    return desk.plugins(services)


@_machine.get("/v1/disk")
def get_disk(services: Having) -> DiskView:
    """Return what takes how much room, and what waits for room."""
    return DiskView.model_validate(services.disk.state())


@_machine.get("/v1/disk/plan")
def get_retention_plan(services: Having) -> list[RemovalRow]:
    """Return the studies whose originals retention would remove now, the oldest first; nothing is removed."""
    return [
        RemovalRow(
            study_id=removal.candidate.study.study_id,
            delivered_at=removal.candidate.study.delivered_at,
            objects=removal.candidate.objects,
            frees_bytes=removal.candidate.frees_bytes,
            why=removal.why,
        )
        for removal in services.disk.plan()
    ]


@_machine.post("/v1/disk/verify")
@slowly(ORDERS)
def verify_objects(order: SlicesChoice, services: Having, person: Administrator) -> VerifiedView:  # noqa: ARG001 - the role
    """Read the stored objects of slices and compare each with its hash; stops after some seconds and says where."""
    return VerifiedView.model_validate(services.disk.verify(order.prefixes))


@_machine.post("/v1/reload")
def reload(services: Having, person: Administrator) -> DoneView:
    """Read clinic.toml and the policy pack again, as SIGHUP does."""
    with services.database.write() as connection:
        audit.record(connection, actor=person.name, action="settings.reload_asked", subject="clinic.toml")
    found = services.reload()
    if found:
        raise ClinicError("\n".join(("What was in force stays.", *found)), remedy="Correct it and reload again.")
    return DoneView(sentence="clinic.toml and the policy pack are in force as they are now.")


# ---------------------------------------------------------------- studies and files

_studies = APIRouter(tags=["studies"])


@_studies.get("/v1/studies")
def get_studies(
    services: Having,
    state: Annotated[list[StudyState] | None, Query(description="Only these states; else all but SUPERSEDED.")] = None,
    limit: Limit = 100,
    before: Before = None,
) -> StudyPage:
    """Return study versions, newest first."""
    return desk.list_studies(services, state, limit, before)


@_studies.get("/v1/studies/{study_id}")
def get_study(study_id: Id, services: Having, person: Anyone, request: Request) -> StudyView:
    """Return a study with its versions, jobs, artefacts and files; released text for clinicians, on control.sock."""
    peer: Peer = request.state.peer
    return desk.get_study(services, study_id, person, readonly=peer.readonly)


@_studies.get("/v1/studies/{study_id}/route")
def get_route(study_id: Id, services: Having) -> RouteView:
    """Return where the present rules send a study, and why."""
    return desk.explain(services, study_id)


@_studies.post("/v1/studies/{study_id}/close")
def close_study(study_id: Id, services: Having, person: Anyone) -> DoneView:
    """Hold a study that is arriving to be complete, in the name of the person who asks."""
    return DoneView(sentence=services.closing.close(study_id, person.name))


@_studies.post("/v1/studies/{study_id}/priority")
def prioritise(study_id: Id, order: PriorityOrder, services: Having, person: Anyone) -> DoneView:
    """Set the priority of a study and of its jobs that wait."""
    return DoneView(sentence=services.execution.prioritise(study_id, order.priority, person.name))


@_studies.post("/v1/studies/{study_id}/retry")
def retry(study_id: Id, services: Having, person: Anyone) -> DoneView:
    """Try a study again by the rules as they are now."""
    return DoneView(sentence=services.execution.retry(study_id, person.name))


@_studies.post("/v1/studies/{study_id}/reroute")
def reroute(study_id: Id, services: Having, person: Anyone) -> DoneView:
    """Route a study again even if it is in work."""
    return DoneView(sentence=services.execution.reroute(study_id, person.name))


@_studies.get("/v1/files")
def get_files(
    services: Having,
    fate: Annotated[list[Fate] | None, Query(description="Only these fates.")] = None,
    study: Annotated[str | None, Query(max_length=100, description="Only files of this study.")] = None,
    source: Annotated[str | None, Query(max_length=200, description="Only files from this inbox or sender.")] = None,
    limit: Limit = 100,
    before: Annotated[int | None, Query(ge=0, le=MAX_NUMBER, description="next_before of the page before.")] = None,
) -> FilePage:
    """Return the ledger of files, newest first."""
    return file_desk.list_files(services, fate, study, source, limit, before)


@_studies.get("/v1/files/{file_id}")
def get_file(file_id: FileNumber, services: Having) -> FileView:
    """Return one file, where its bytes lie and how it may be accepted."""
    return file_desk.get_file(services, file_id)


@_studies.get("/v1/files/{file_id}/comparison")
@slowly(COMPARISONS)
def compare_file(file_id: FileNumber, services: Having) -> ComparisonView:
    """Read a quarantined file beside what it contradicts, in a child process, and say what differs."""
    return file_desk.compare(services, file_id)


@_studies.post("/v1/files/accept")
def accept_files(order: AcceptOrder, services: Having, person: Anyone, request: Request) -> DecidedView:
    """Let files out of the quarantine; what is of which study or patient, clinicians decide."""
    if order.decision is not FileDecision.AGAIN:
        needs(Role.CLINICIAN)(request)
    return file_desk.accept(services, order, person)


@_studies.post("/v1/files/discard")
def discard_files(order: DiscardOrder, services: Having, person: Clinician) -> DecidedView:
    """Remove the bytes of quarantined files for good; their rows stay, with the reason."""
    return file_desk.discard(services, order, person)


# ---------------------------------------------------------------- models

_models = APIRouter(prefix="/v1/models", tags=["models"])


@_models.get("")
def get_models(services: Having, limit: Limit = 100, before: Before = None) -> ModelPage:
    """Return the models of the registry, by plugin, slot and time of import."""
    rows, goes_on = page_of(desk.models(services), limit, before, lambda m: f"{m.plugin}/{m.name}/{m.version}")
    return ModelPage(models=rows, next_before=goes_on)


@_models.post("/import")
@slowly(ORDERS)
def import_model(order: ModelImport, models: Models) -> DoneView:
    """Verify a model directory and copy it into the registry."""
    return models.import_model(order.directory)


@_models.post("/verify")
@slowly(ORDERS)
def verify_model(order: ModelChoice, models: Models) -> VerifyView:
    """Check the files of a model against its manifest."""
    return models.verify_model(order.plugin, order.name, order.version)


@_models.post("/rollback")
@slowly(ORDERS)
def rollback_model(order: ModelRollback, models: Models) -> DoneView:
    """Take back the newest promotion of a slot."""
    return models.rollback_model(order.plugin, order.slot, order.retires)


@_models.post("/bench")
@slowly(ORDERS)
def bench_model(order: BenchOrder, runs: Runs) -> BenchView:
    """Measure a model on this machine, and an int8 version of it if there are labelled images."""
    return runs.bench_model(order)


@_models.post("/evaluate")
def evaluate_model(order: EvaluateOrder, runs: Runs) -> EvaluationView:
    """Score a model on the test part of a frozen dataset; nothing is changed."""
    return runs.evaluate_model(order)


# ---------------------------------------------------------------- training

_training = APIRouter(prefix="/v1/runs", tags=["training"])


@_training.get("")
def get_runs(services: Having, limit: Limit = 100, before: Before = None) -> RunPage:
    """Return training runs, newest first."""
    return desk.runs(services, limit, before)


@_training.post("", status_code=201)
@slowly(ORDERS)
def start_run(order: RunOrder, runs: Runs) -> RunRow:
    """Freeze the dataset, plan and start a run."""
    return runs.start_run(order)


@_training.post("/check")
@slowly(ORDERS)
def check_labels(order: CheckOrder, runs: Runs) -> CheckView:
    """Say what a run would learn from a folder of labelled images, and what is wrong with it; nothing is started."""
    return runs.check_labels(order)


@_training.post("/{run_id}/stop")
def stop_run(run_id: Id, runs: Runs) -> DoneView:
    """Stop a run at its next safe point."""
    return runs.stop_run(run_id)


@_training.post("/{run_id}/pause")
def pause_run(run_id: Id, runs: Runs) -> DoneView:
    """Pause a running run; its process is gone afterwards."""
    return runs.pause_run(run_id)


@_training.post("/{run_id}/resume")
def resume_run(run_id: Id, runs: Runs, order: ResumeOrder | None = None) -> DoneView:
    """Go on with a run."""
    return runs.resume_run(run_id, at_once=order is not None and order.at_once)


@_training.post("/tonight")
@slowly(ORDERS)
def foresee_tonight(runs: Runs) -> TonightView:
    """Say what will be trained in the next window, why or why not, and what it will cost; nothing is started."""
    return runs.tonight()


@_training.get("/spending")
def get_spending(services: Having) -> SpendingView:
    """Return what training may use, what it has used, and the ledger."""
    return SpendingView.model_validate(services.night.spending())


# ---------------------------------------------------------------- guard

_guard = APIRouter(prefix="/v1/policy", tags=["guard"])


@_guard.get("")
def get_policy(services: Having) -> PolicyView:
    """Return the policy pack in force."""
    return desk.policy(services)


@_guard.post("/test")
@slowly(ORDERS)
def check_policy(order: PolicyTest, services: Having, person: Administrator) -> CaseReport:  # noqa: ARG001 - the role
    """Run the cases of a pack in a child of its own; the pack in force stays."""
    named = services.home.policies / services.settings().guard.pack
    return services.guard.check(Path(order.directory) if order.directory else named)


# ---------------------------------------------------------------- errors


def _clinic_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, ClinicError):
        raise error
    return problems.response(problems.problem_of(error))


def _http_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return problems.response(problems.problem(error.status_code, str(error.detail)))


def _invalid(_: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    # Where and why, without the value: it is somebody's input.
    wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
    return problems.response(problems.problem(422, f"The request is not understood: {wrong}.", error="InvalidRequest"))
