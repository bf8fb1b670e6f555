"""The typed client of the control API, for the command line and the terminal screens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from clinic_ai.control.alert_views import AckOrder, CriticalView
from clinic_ai.control.audit_views import AuditView
from clinic_ai.control.bench_views import BenchOrder, BenchView
from clinic_ai.control.category_views import CategoryOrder, CategoryRow, StudyCategories
from clinic_ai.control.disk_views import DiskView, RemovalRow, SlicesChoice, VerifiedView
from clinic_ai.control.evaluation_views import EvaluateOrder, EvaluationView
from clinic_ai.control.file_views import AcceptOrder, ComparisonView, DecidedView, DiscardOrder, FileView
from clinic_ai.control.forecast_views import ForecastOrder, ForecastView
from clinic_ai.control.model_views import ModelChoice, ModelImport, ModelRollback
from clinic_ai.control.night_views import SpendingView, TonightView
from clinic_ai.control.pages import AlertPage, ModelPage, RunPage
from clinic_ai.control.policy_views import PolicyTest
from clinic_ai.control.problems import MEDIA_TYPE, error_of
from clinic_ai.control.stats_views import StatsOrder, StatsView
from clinic_ai.control.training_views import CheckOrder, CheckView, ResumeOrder, RunOrder
from clinic_ai.control.views import (
    DoneView,
    EventView,
    FilePage,
    ModelRow,
    Order,
    PluginsView,
    PolicyView,
    PriorityOrder,
    ProblemView,
    RouteView,
    RunRow,
    StatusView,
    StudyPage,
    StudyView,
    TopicView,
    VerifyView,
)
from clinic_ai.domain import Alert, StudyState
from clinic_ai.errors import ClinicError, Conflict, NotAllowed, NotFound
from clinic_ai.home import Home
from clinic_ai.tasks import CaseReport

T = TypeVar("T")
Row = TypeVar("Row")

TIMEOUT_S = 30.0
LONG_S = 900.0
"""For orders that hash or test a model, or freeze a dataset, before they answer."""
MAX_PAGE = 1000
"""Rows of a page at most."""
BENCH_S = 7200.0
"""For measuring a model on images; the daemon ends it after its own ``training.max_seconds``."""
_EVENTS_SILENT_S = 45.0


class NoDaemon(ClinicError):
    """No daemon answers at the socket of this home."""


class Client:
    """Talks to the daemon of one home; ``monitor`` uses the socket that only reads.

    Every method raises NoDaemon if nobody answers, and otherwise the ClinicError that the daemon tells.
    """

    outlives_us = True
    """Training runs of the daemon go on when this process ends."""

    def __init__(self, home: Home, *, monitor: bool = False) -> None:
        self.home = home
        self.socket = home.monitor_socket if monitor else home.control_socket
        # There is no TLS on a socket of this machine, and loading certificates takes longer than most questions.
        transport = httpx.HTTPTransport(uds=str(self.socket), verify=False)
        self._http = httpx.Client(transport=transport, base_url="http://clinic-ai", timeout=TIMEOUT_S)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # ------------------------------------------------------------ the machine

    def status(self) -> StatusView:
        """Return everything at a glance."""
        return self._get("/v1/status", StatusView)

    def plugins(self) -> PluginsView:
        """Return the plugins and why some are not usable."""
        return self._get("/v1/plugins", PluginsView)

    def plugin_categories(self) -> list[CategoryRow]:
        """Return the categories of the plugins, and what answers about each."""
        return self._get("/v1/plugins/categories", list[CategoryRow])

    def alerts(self) -> tuple[Alert, ...]:
        """Return all alerts nobody acknowledged: about critical findings first, then the newest."""

        def fetch(before: str | None) -> tuple[Sequence[Alert], str | None]:
            page = self._get("/v1/alerts", AlertPage, page_query(before))
            return page.alerts, page.next_before

        return tuple(all_pages(fetch))

    def critical(self) -> list[CriticalView]:
        """Return the open alerts about critical findings, with what was found."""
        return self._get("/v1/alerts/critical", list[CriticalView])

    def acknowledge(self, alert_id: int, told_to: str = "", reviewer: str | None = None) -> DoneView:
        """Close an alert in one's own name, or that of a reviewer of clinic.toml, and say to whom it was told."""
        order = AckOrder(told_to=told_to, reviewer=reviewer)
        return self._post(f"/v1/alerts/{alert_id}/acknowledge", order, DoneView)

    def verify_audit(self) -> AuditView:
        """Let the daemon read the whole audit and say what is not as it was written."""
        return self._post("/v1/audit/verify", None, AuditView, timeout_s=LONG_S)

    def audit_export(self, form: str, *, names: bool) -> Iterator[bytes]:
        """Yield a copy of the audit; this is written into it. Raise NotAllowed if the person may not have names."""
        options: dict[str, Any] = {"params": {"form": form, "names": names}, "timeout": LONG_S}
        with self._talking(), self._http.stream("POST", "/v1/audit/export", **options) as answer:
            if not answer.is_success:
                answer.read()
                raise refused(answer)
            yield from answer.iter_bytes()

    def reload(self) -> DoneView:
        """Let the daemon read clinic.toml and the policy pack again."""
        return self._post("/v1/reload", None, DoneView, timeout_s=LONG_S)

    def disk(self) -> DiskView:
        """Return how the disk stands."""
        return self._get("/v1/disk", DiskView)

    def retention_plan(self) -> tuple[RemovalRow, ...]:
        """Return what retention would remove now."""
        return tuple(self._get("/v1/disk/plan", list[RemovalRow]))

    def verify_objects(self, prefixes: Sequence[str]) -> VerifiedView:
        """Let the daemon compare with their hash the stored objects whose hash begins with these pairs of digits.

        It stops after some seconds; ``slices`` says how many of them it has done.
        """
        return self._post("/v1/disk/verify", SlicesChoice(prefixes=tuple(prefixes)), VerifiedView, timeout_s=LONG_S)

    def metrics(self) -> str:
        """Return the figures for Prometheus."""
        return self._request("GET", "/metrics").text

    def events(self, after: int | None = None) -> Iterator[EventView]:
        """Yield what changes, from number ``after`` on (None: from now on), until the daemon ends the stream."""
        for news in self.follow(after):
            if isinstance(news, EventView):
                yield news

    def follow(self, after: int | None = None) -> Iterator[EventView | TopicView]:
        """Yield what changes as ``events`` does, and the topics that no row of the audit tells of.

        The first is the topic ``start``: nothing that changes from then on is missed.
        """
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        with (
            self._talking(),
            self._http.stream("GET", "/v1/events", headers=headers, timeout=_EVENTS_SILENT_S) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                answer.read()
                raise refused(answer)
            shape: type[EventView] | type[TopicView] = EventView
            for line in answer.iter_lines():
                if line.startswith(": events after"):
                    yield TopicView(topic="start")
                elif line.startswith("event: "):
                    shape = TopicView if line == "event: topic" else EventView
                elif line.startswith("data: "):
                    yield _read(line.removeprefix("data: "), shape)

    # ------------------------------------------------------------ studies

    def studies(self, *, states: tuple[StudyState, ...] = (), limit: int = 100, before: str | None = None) -> StudyPage:
        """Return one page of studies, newest first. Raise NotFound if ``before`` is no place of the list."""
        query: dict[str, Any] = {"limit": limit, "state": [state.value for state in states]}
        return self._get("/v1/studies", StudyPage, query | ({} if before is None else {"before": before}))

    def study(self, study_id: str) -> StudyView:
        """Return a study with its history. Raise NotFound."""
        return self._get(f"/v1/studies/{segment(study_id, 'study')}", StudyView)

    def route(self, study_id: str) -> RouteView:
        """Return where the present rules send a study. Raise NotFound."""
        return self._get(f"/v1/studies/{segment(study_id, 'study')}/route", RouteView)

    def close_study(self, study_id: str) -> DoneView:
        """Hold a study that is arriving to be complete. Raise NotFound or Conflict."""
        return self._post(f"/v1/studies/{segment(study_id, 'study')}/close", None, DoneView)

    def prioritise(self, study_id: str, priority: int) -> DoneView:
        """Set the priority of a study, -100 to 100. Raise NotFound."""
        order = PriorityOrder(priority=priority)
        return self._post(f"/v1/studies/{segment(study_id, 'study')}/priority", order, DoneView)

    def retry(self, study_id: str) -> DoneView:
        """Try a study again. Raise NotFound or Conflict."""
        return self._post(f"/v1/studies/{segment(study_id, 'study')}/retry", None, DoneView)

    def reroute(self, study_id: str) -> DoneView:
        """Route a study again even if it is in work. Raise NotFound or Conflict."""
        return self._post(f"/v1/studies/{segment(study_id, 'study')}/reroute", None, DoneView)

    def categories(self, study_id: str, plugin: str | None = None) -> StudyCategories:
        """Return which category each image of a study is of. Raise NotFound, or Conflict if several plugins say it."""
        query = {} if plugin is None else {"plugin": plugin}
        return self._get(f"/v1/studies/{segment(study_id, 'study')}/categories", StudyCategories, query)

    def choose_category(self, study_id: str, order: CategoryOrder) -> DoneView:
        """Say which category the images of a study are of. Raise NotFound or Conflict."""
        return self._post(f"/v1/studies/{segment(study_id, 'study')}/category", order, DoneView)

    def files(
        self,
        *,
        fates: tuple[str, ...] = (),
        study_id: str | None = None,
        source: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> FilePage:
        """Return one page of the ledger of files, newest first."""
        query: dict[str, Any] = {"limit": limit, "fate": list(fates)}
        optional = {"study": study_id, "source": source, "before": before}
        return self._get("/v1/files", FilePage, query | {k: v for k, v in optional.items() if v is not None})

    def file(self, file_id: int) -> FileView:
        """Return one file, where it lies and what may be decided about it. Raise NotFound."""
        return self._get(f"/v1/files/{file_id}", FileView)

    def compare_file(self, file_id: int) -> ComparisonView:
        """Return how a quarantined file differs from what it contradicts. Raise NotFound or Conflict."""
        return self._get(f"/v1/files/{file_id}/comparison", ComparisonView)

    def accept_files(self, order: AcceptOrder) -> DecidedView:
        """Let files out of the quarantine. Raise NotFound, NotAllowed or Conflict; then none was."""
        return self._post("/v1/files/accept", order, DecidedView)

    def discard_files(self, order: DiscardOrder) -> DecidedView:
        """Remove the bytes of quarantined files. Raise NotFound, NotAllowed or Conflict; then none was."""
        return self._post("/v1/files/discard", order, DecidedView)

    # ------------------------------------------------------------ models, training, guard

    def models(self) -> tuple[ModelRow, ...]:
        """Return all models of the registry."""

        def fetch(before: str | None) -> tuple[Sequence[ModelRow], str | None]:
            page = self._get("/v1/models", ModelPage, page_query(before))
            return page.models, page.next_before

        return tuple(all_pages(fetch))

    def import_model(self, directory: str) -> DoneView:
        """Import a model directory of the daemon's machine. Raise ModelError."""
        return self._post("/v1/models/import", ModelImport(directory=directory), DoneView, timeout_s=LONG_S)

    def verify_model(self, plugin: str, name: str, version: str) -> VerifyView:
        """Check the files of a model. Raise NotFound."""
        order = ModelChoice(plugin=plugin, name=name, version=version)
        return self._post("/v1/models/verify", order, VerifyView, timeout_s=LONG_S)

    def rollback_model(self, plugin: str, slot: str = "main", retires: str | None = None) -> DoneView:
        """Take back the newest promotion of a slot. Raise ModelError, or Conflict also if not ``retires`` is in use."""
        order = ModelRollback(plugin=plugin, slot=slot, retires=retires)
        return self._post("/v1/models/rollback", order, DoneView, timeout_s=LONG_S)

    def bench_model(self, order: BenchOrder) -> BenchView:
        """Measure a model on the daemon's machine. Raise DatasetError, NotFound, Conflict, or ChildError."""
        return self._post("/v1/models/bench", order, BenchView, timeout_s=BENCH_S)

    def evaluate_model(self, order: EvaluateOrder) -> EvaluationView:
        """Score a model on a frozen dataset. Raise DatasetError, NotFound, Conflict, or ChildError."""
        return self._post("/v1/models/evaluate", order, EvaluationView, timeout_s=BENCH_S)

    def model_stats(self, order: StatsOrder) -> StatsView:
        """Return what a model is made of and what its training takes. Raise NotFound, Conflict, or ChildError."""
        return self._post("/v1/models/stats", order, StatsView, timeout_s=LONG_S)

    def runs(self) -> tuple[RunRow, ...]:
        """Return all training runs, newest first."""

        def fetch(before: str | None) -> tuple[Sequence[RunRow], str | None]:
            page = self.runs_page(before=before)
            return page.runs, page.next_before

        return tuple(all_pages(fetch))

    def runs_page(self, *, limit: int = MAX_PAGE, before: str | None = None) -> RunPage:
        """Return one page of training runs, newest first. Raise NotFound."""
        return self._get("/v1/runs", RunPage, page_query(before, limit))

    def run(self, run_id: str) -> RunRow:
        """Return one training run. Raise NotFound."""
        for row in self.runs():
            if row.run_id == run_id:
                return row
        raise NotFound(f"There is no training run {run_id}.", remedy="`clinic-ai train list` shows the runs there are.")

    def check_labels(self, order: CheckOrder) -> CheckView:
        """Return what a run would learn from a folder. Raise NotFound, Conflict or ChildError."""
        return self._post("/v1/runs/check", order, CheckView, timeout_s=LONG_S)

    def start_run(self, order: RunOrder) -> RunRow:
        """Start a training run. Raise DatasetError, NotFound or Conflict."""
        return self._post("/v1/runs", order, RunRow, timeout_s=LONG_S)

    def stop_run(self, run_id: str) -> DoneView:
        """Stop a run at its next safe point. Raise NotFound or Conflict."""
        return self._post(f"/v1/runs/{segment(run_id, 'training run')}/stop", None, DoneView)

    def pause_run(self, run_id: str) -> DoneView:
        """Pause a training run. Raise NotFound or Conflict."""
        return self._post(f"/v1/runs/{segment(run_id, 'training run')}/pause", None, DoneView)

    def resume_run(self, run_id: str, *, at_once: bool = False) -> DoneView:
        """Go on with a run; ``at_once`` without waiting for a window. Raise NotFound or Conflict."""
        order = ResumeOrder(at_once=at_once)
        return self._post(f"/v1/runs/{segment(run_id, 'training run')}/resume", order, DoneView, timeout_s=LONG_S)

    def tonight(self) -> TonightView:
        """Return what will be trained in the next window, and why or why not."""
        return self._post("/v1/runs/tonight", None, TonightView, timeout_s=LONG_S)

    def spending(self) -> SpendingView:
        """Return what training may use and has used."""
        return self._get("/v1/runs/spending", SpendingView)

    def forecast_run(self, run_id: str, order: ForecastOrder) -> ForecastView:
        """Return what a run would bring if it went on. Raise NotFound, ClinicError if its loss tells nothing."""
        path, query = f"/v1/runs/{segment(run_id, 'training run')}/forecast", order.model_dump(exclude_none=True)
        return _understood(self._request("GET", path, params=query, timeout=LONG_S), ForecastView)

    def policy(self) -> PolicyView:
        """Return the policy pack in force."""
        return self._get("/v1/policy", PolicyView)

    def test_policy(self, directory: str | None = None) -> CaseReport:
        """Load and test a pack beside the one in force. Raise PolicyError."""
        return self._post("/v1/policy/test", PolicyTest(directory=directory), CaseReport, timeout_s=LONG_S)

    # ------------------------------------------------------------

    def _get(self, path: str, shape: type[T], query: Mapping[str, Any] | None = None) -> T:
        return _understood(self._request("GET", path, params=query), shape)

    def _post(self, path: str, order: Order | None, shape: type[T], *, timeout_s: float = TIMEOUT_S) -> T:
        body = None if order is None else order.model_dump(mode="json")
        return _understood(self._request("POST", path, json=body, timeout=timeout_s), shape)

    def _request(self, method: Literal["GET", "POST", "PUT"], path: str, **options: Any) -> httpx.Response:
        with self._talking():
            answer = self._http.request(method, path, **options)
        if not answer.is_success:
            raise refused(answer)
        return answer

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """Turn what can go wrong on a socket into sentences."""
        try:
            yield
        except httpx.ConnectError as error:
            raise self._unreachable(error) from error
        except httpx.TimeoutException as error:
            raise Conflict(f"The daemon at {self.socket} is too busy to answer.", remedy="Try again soon.") from error
        except httpx.DecodingError as error:
            raise _other_version() from error
        except httpx.TransportError as error:
            raise NoDaemon(
                f"The daemon at {self.socket} went away in the middle of the answer.",
                remedy="Look whether it runs; `clinic-ai run` starts it.",
            ) from error

    def _unreachable(self, error: httpx.ConnectError) -> ClinicError:
        if isinstance(_root(error), PermissionError):
            return NotAllowed(
                f"This user may not open {self.socket}.",
                remedy="An administrator adds the user to the group of the socket (control.group in clinic.toml).",
            )
        return NoDaemon(
            f"No daemon answers at {self.socket}.", remedy=f"Start it with `clinic-ai run --home {self.home.path}`."
        )


def page_query(before: str | None, limit: int = MAX_PAGE) -> dict[str, Any]:
    """Return the query of one page of a list."""
    return {"limit": limit} if before is None else {"limit": limit, "before": before}


def all_pages(fetch: Callable[[str | None], tuple[Sequence[Row], str | None]]) -> Iterator[Row]:
    """Yield the rows of all pages; ``fetch`` returns the one after a row, and what continues it."""
    before: str | None = None
    while True:
        rows, before = fetch(before)
        yield from rows
        if before is None:
            return


def segment(value: str, what: str) -> str:
    """Return an identifier that is safe as one segment of a path."""
    if not value or not all(c.isalnum() or c in "-_" for c in value):
        raise NotFound(f"{value!r} is not the id of a {what}.", remedy="Ids look like S-20261121-7F3K9QXB.")
    return value


def _understood(answer: httpx.Response, shape: type[T]) -> T:
    return _read(answer.content, shape)


def _read(text: str | bytes, shape: type[T]) -> T:
    try:
        return TypeAdapter(shape).validate_json(text)
    except ValidationError as error:
        raise _other_version() from error


def refused(answer: httpx.Response) -> ClinicError:
    """Return what the daemon said instead of an answer, to be raised."""
    if answer.headers.get("content-type", "").startswith(MEDIA_TYPE):
        try:
            return error_of(ProblemView.model_validate_json(answer.content))
        except ValidationError:
            return _other_version()
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return Conflict("The daemon has too many connections just now.", remedy="Try again soon.")
    return ClinicError(f"The daemon answered with status {answer.status_code}.", remedy="See the log of the daemon.")


def _other_version() -> ClinicError:
    return ClinicError(
        "The daemon's answer is not understood.",
        remedy="Daemon and command line are of different versions; restart the daemon.",
    )


def _root(error: BaseException) -> BaseException:
    """Return the first cause of an error: httpx wraps httpcore, which wraps the operating system's."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error
