"""What the daemon hands to the control room: the store, and the rooms that change things, as protocols."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from clinic_ai.control.topics import Topics
from clinic_ai.disk.keeper import DiskState
from clinic_ai.disk.retention import Removal
from clinic_ai.disk.room import Shortage
from clinic_ai.disk.verify import Verified
from clinic_ai.domain import (
    FOLDER_ALONE,
    Artefact,
    AskedQuestion,
    Audience,
    FileDecision,
    GuardVerdict,
    LabelSource,
    ModelRef,
    Statement,
    Study,
)
from clinic_ai.engines import EngineView
from clinic_ai.errors import HardwareError
from clinic_ai.forecasting import CostedForecast, ForecastWish
from clinic_ai.gating import GateReport
from clinic_ai.guard.asking import QuestionVerdict
from clinic_ai.guard.intents import QuestionSubject
from clinic_ai.hardware import Identity, Reading
from clinic_ai.hardware.history import Past, Span
from clinic_ai.home import Home
from clinic_ai.ingest.closing import PaceView
from clinic_ai.ingest.comparison import Comparison
from clinic_ai.ingest.imports import Arrival, ImportState, Listed
from clinic_ai.ingest.posts import InboxState
from clinic_ai.ingest.receiving import ReceiverView
from clinic_ai.logs import Recent
from clinic_ai.plugins import PluginCatalogue
from clinic_ai.processes import Crew
from clinic_ai.promoting import Approval, CanaryResult
from clinic_ai.results.previews import Preview, Stacked, Wish
from clinic_ai.results.reviewing import Order as ReviewOrder
from clinic_ai.results.reviewing import Shown
from clinic_ai.routing import Routing
from clinic_ai.settings import Settings
from clinic_ai.store.database import Database
from clinic_ai.store.reviews import Place
from clinic_ai.tasks import CaseReport, DeidentifiedFile, GuardSubject, PackInfo
from clinic_ai.training.starting import Bases


class ExecutionPort(Protocol):
    """What people may ask of execution; answers are sentences."""

    def retry(self, study_id: str, actor: str) -> str:
        """Run the failed and waiting jobs of a study now. Raise NotFound or Conflict."""

    def reroute(self, study_id: str, actor: str) -> str:
        """Ask the rules again where a study goes. Raise NotFound or Conflict."""

    def prioritise(self, study_id: str, priority: int, actor: str) -> str:
        """Set the priority of a study. Raise NotFound."""

    def choose_category(self, study_id: str, plugin: str, category: str, actor: str) -> str:
        """Note which category a person says a study's images are of. Raise NotFound or Conflict."""

    def routing_of(self, study: Study) -> Routing:
        """Return where the present rules and claims send a study, with the explanation."""


class EnginesPort(Protocol):
    """What people may ask of the warm engines."""

    def views(self) -> Sequence[EngineView]:
        """Return the warm engines."""


class RegistryPort(Bases, Protocol):
    """What people may ask of the model registry."""

    def list_models(self) -> Sequence[Any]:
        """Return all models, with the attributes of ``views.ModelRow``."""

    def import_directory(self, path: Path, actor: str) -> ModelRef:
        """Verify and copy a model directory into the registry. Raise ModelError."""

    def verify(self, plugin: str, name: str, version: str) -> list[str]:
        """Return what is wrong with the files of a model. Raise NotFound."""

    def rollback(self, plugin: str, slot: str, actor: str, *, retires: str | None = None) -> ModelRef:
        """Make the model active that was so before. Raise Conflict or ModelError."""


class PromotionsPort(Protocol):
    """What people may decide about candidates."""

    def approve(
        self, plugin: str, name: str, version: str, *, user: str, wanted: str | None, reason: str = ""
    ) -> tuple[Approval, GateReport]:
        """Note that a named person wants a candidate to be active. Raise NotFound, NotAllowed or Conflict."""

    def promote(
        self, plugin: str, name: str, version: str, *, user: str, wanted: str | None = None, reason: str = ""
    ) -> ModelRef:
        """Make a model the active one of its slot. Raise NotFound, NotAllowed, Conflict or ModelError."""


class CanaryPort(Protocol):
    """Runs candidates in the shadow."""

    def run(self, plugin: str, name: str, version: str, *, hours: float, most: int) -> CanaryResult:
        """Run a candidate on studies of late; return what differs. Raise NotFound, Conflict or ModelError."""


class DatasetsPort(Protocol):
    """What people may ask of frozen datasets."""

    def list_datasets(self, limit: int | None = None, before: str | None = None) -> Sequence[Any]:
        """Return datasets, newest first, as ``dataset_views.row_of`` takes them. Raise NotFound."""

    def show(self, dataset_id: str) -> Any:
        """Return all that is known of a dataset, as ``dataset_views.view_of`` takes it. Raise NotFound."""

    def inspect(self, dataset_id: str) -> Any:
        """Read its images again; return what has the attributes of ``DatasetCheckView``. Raise NotFound."""


class RunsPort(Protocol):
    """What people may ask of training."""

    @property
    def datasets(self) -> DatasetsPort:
        """The frozen datasets."""

    def list_runs(self, limit: int | None = None, before: str | None = None) -> Sequence[Any]:
        """Return runs, newest first, with the attributes of ``views.RunRow``. Raise NotFound."""

    def living(self) -> Sequence[Any]:
        """Return the runs that are at work or go on by themselves, with these attributes."""

    def start(
        self,
        plugin: str,
        dataset_directory: Path | None,
        recipe: Mapping[str, Any],
        actor: str,
        *,
        sources: Collection[LabelSource] = FOLDER_ALONE,
        at_once: bool = False,
    ) -> str:
        """Freeze the dataset, plan and start a run; return its id. Raise DatasetError, NotFound or Conflict."""

    def check(
        self,
        plugin: str,
        dataset_directory: Path | None,
        category: str = "",
        *,
        sources: Collection[LabelSource] = FOLDER_ALONE,
    ) -> Any:
        """Return what a run would learn from these, with the attributes of ``training_views.CheckView``.

        Raise NotFound, Conflict, or ChildError if nothing can be read now.
        """

    def history(self, run_id: str) -> Any:
        """Return its figures so far, with the attributes of ``progress_views.HistoryView``. Raise NotFound."""

    def dataset_notes(self, run_id: str) -> tuple[str, ...]:
        """Return what was noted when the dataset of a run was frozen. Raise NotFound."""

    def bench(self, plugin: str, name: str, version: str, dataset_directory: Path | None, actor: str) -> Any:
        """Measure a model; return what has the attributes of ``views.BenchView``.

        Raise DatasetError, NotFound, Conflict, or ChildError with what the trainer says.
        """

    def evaluate(self, plugin: str, model: tuple[str, str] | None, dataset_id: str) -> Any:
        """Score a model on a dataset; return what has the attributes of ``evaluation_views.EvaluationView``.

        Raise NotFound, Conflict, DatasetError, or ChildError with what the trainer says.
        """

    def examine(self, plugin: str, name: str, version: str) -> GateReport:
        """Hold a model against the one in use; return the report. Raise NotFound, Conflict or DatasetError."""

    def stop(self, run_id: str, actor: str) -> None:
        """Stop a run at its next safe point. Raise NotFound or Conflict."""

    def pause(self, run_id: str, actor: str) -> None:
        """Pause a running run. Raise NotFound or Conflict."""

    def resume(self, run_id: str, actor: str, *, at_once: bool = False) -> None:
        """Go on with a run that is paused, stopped or failed. Raise NotFound or Conflict."""


class NightPort(Protocol):
    """What people may ask about the night."""

    def tonight(self) -> Any:
        """Return what will be trained in the next window, with the attributes of ``night_views.TonightView``."""

    def outlook(self) -> Any:
        """Return the same, without asking a trainer what a run that nobody planned yet would cost."""

    def spending(self) -> Any:
        """Return budgets and ledger, with the attributes of ``night_views.SpendingView``."""


class ForecastsPort(Protocol):
    """What people may ask about what a training run would bring if it went on."""

    def of_run(self, run_id: str, wish: ForecastWish) -> CostedForecast:
        """Return the forecast of a run. Raise NotFound, InputError if its loss tells none, or ChildError."""


class MachinePort(Protocol):
    """What people may ask about the machine."""

    @property
    def identity(self) -> Identity:
        """What it is."""

    @property
    def gpu_problem(self) -> str:
        """Why no GPU can be used though there is a driver; empty if all is well."""

    def now(self) -> tuple[Reading | None, HardwareError | None]:
        """Return the newest reading, and why it cannot be read now; None where there is none."""

    def past(self, span: Span, points: int) -> Past:
        """Return the last hour or day in about so many steps."""


class ReceiverPort(Protocol):
    """What people may ask of the receiver."""

    def view(self) -> ReceiverView:
        """Return how it stands."""


class ClosingPort(Protocol):
    """What people may ask of the closing of studies."""

    def quiet_s(self, source: str) -> float:
        """Return after how many seconds of quiet a study from a source is complete."""

    def close(self, study_id: str, person: str) -> str:
        """Close a study that is arriving, and say why it is complete. Raise NotFound or Conflict."""

    def paces(self, sources: Iterable[str]) -> Sequence[PaceView]:
        """Return the quiet periods of these sources, and of others that something was learned of."""


class DecisionsPort(Protocol):
    """What people may decide about quarantined files."""

    def accept(self, file_ids: Sequence[int], study_id: str | None, decision: FileDecision, by: str) -> list[int]:
        """Let files out of the quarantine; return their numbers. Raise NotFound or Conflict."""

    def discard(self, file_ids: Sequence[int], study_id: str | None, reason: str, by: str) -> list[int]:
        """Remove the bytes of quarantined files; return their numbers. Raise NotFound or Conflict."""


class ReviewsPort(Protocol):
    """What people may ask and decide about results that wait for them."""

    def queue(self, limit: int, after: Place | None = None) -> tuple[Sequence[Artefact], Place | None]:
        """Return what waits for a person, and what continues the queue."""

    def name_of(self, user: str, wanted: str | None) -> str:
        """Return the name a person signs with. Raise NotAllowed."""

    def show(self, artefact_id: str, name: str) -> Shown:
        """Return what ``name`` would sign. Raise NotFound or Conflict."""

    def decide(self, order: ReviewOrder, *, user: str, name: str) -> str:
        """Store a decision and what follows; return it in words. Raise NotFound, Conflict, or why it cannot be."""


class QuestionsPort(Protocol):
    """What people may ask about images."""

    def ask(
        self,
        study_id: str,
        question: str,
        audience: Audience,
        person: str,
        *,
        image: str | None = None,
        frame: int | None = None,
    ) -> AskedQuestion:
        """Answer a question about one image of a study; ``frame`` counts from 0. Raise ClinicError."""

    def asked_of(self, study_id: str) -> Sequence[AskedQuestion]:
        """Return the questions that were asked about a study. Raise NotFound."""


class PreviewsPort(Protocol):
    """What people may ask about pictures of studies."""

    def show(self, study_id: str, wish: Wish, reader: str) -> Preview:
        """Return a picture of one image. Raise NotFound, Conflict, or ChildError if it cannot be decoded."""

    def stacks(self, study_id: str) -> Stacked:
        """Return the stacks of a study as its pictures are numbered. Raise NotFound."""


class ComparerPort(Protocol):
    """Compares quarantined files with what they contradict."""

    def compare(self, file_id: int) -> Comparison:
        """Return what differs. Raise NotFound, Conflict, InputError or ChildError."""


class InboxesPort(Protocol):
    """What people may ask of the inboxes."""

    def states(self) -> Sequence[InboxState]:
        """Return how the inboxes of clinic.toml stand."""

    def accept(self, name: str, words: str, by: str) -> str:
        """Take the file system that lies at an inbox now as its own. Raise NotFound or Conflict."""


class ImportsPort(Protocol):
    """What people may ask of imports of media."""

    def begin(self, source: str, listing: str, files: int, size_bytes: int, by: str) -> ImportState:
        """Begin an import, or go on with it. Raise HomeError."""

    def here_already(self, import_id: str, files: Sequence[Listed]) -> list[int]:
        """Return which of these files were received before. Raise NotFound."""

    def receive(self, import_id: str, file: Listed, sha256: str) -> Arrival:
        """Begin to receive a file. Raise NotFound, InputError or HomeError."""

    def state(self, import_id: str) -> ImportState:
        """Return how an import stands. Raise NotFound."""

    def finish(self, import_id: str, sent: int, unreadable: int, by: str) -> None:
        """Note that all was sent that could be read. Raise NotFound."""


class DeidentifierPort(Protocol):
    """What people may ask of the deidentifier."""

    def copies(self, originals: Mapping[str, Path]) -> dict[str, DeidentifiedFile]:
        """Return, for each original by its SHA-256, its copy, or why there is none. Raise ChildError or HomeError."""


class DiskPort(Protocol):
    """What people may ask of the keeper of the disk."""

    def state(self) -> DiskState:
        """Return how the disk stands."""

    def waiting(self, source: str) -> Shortage | None:
        """Return why what comes from a source waits for room, None if it does not."""

    def plan(self) -> Sequence[Removal]:
        """Return what retention would remove now."""

    def verify(self, prefixes: Sequence[str]) -> Verified:
        """Compare the objects of slices with their hashes, for some seconds."""


class GuardPort(Protocol):
    """What people may ask of the guard."""

    @property
    def pack(self) -> PackInfo | None:
        """The pack in force, None if there is none: then everything is held."""

    def check(self, directory: Path) -> CaseReport:
        """Run the cases of a pack in a child of its own. Raise PolicyError or ChildError."""

    def judge(self, subject: GuardSubject, audience: Audience, statements: tuple[Statement, ...]) -> GuardVerdict:
        """Return what would go out. Never raises."""

    def ask(self, subject: QuestionSubject, audience: Audience, question: str) -> QuestionVerdict:
        """Return whether a model may be asked this. Never raises."""


@dataclass(frozen=True)
class Services:
    """All that the control room may use; the daemon composes it. ``started_at`` is UTC seconds."""

    home: Home
    database: Database
    execution: ExecutionPort
    engines: EnginesPort
    registry: RegistryPort
    promotions: PromotionsPort
    canary: CanaryPort | None
    runs: RunsPort
    night: NightPort
    forecasts: ForecastsPort
    guard: GuardPort
    crew: Crew
    machine: MachinePort
    receiver: ReceiverPort
    closing: ClosingPort
    decisions: DecisionsPort
    comparer: ComparerPort
    reviews: ReviewsPort
    questions: QuestionsPort
    previews: PreviewsPort
    inboxes: InboxesPort
    imports: ImportsPort
    deidentifier: DeidentifierPort
    disk: DiskPort
    catalogue: PluginCatalogue
    settings: Callable[[], Settings]
    started_at: float
    reload: Callable[[], tuple[str, ...]]
    """Read clinic.toml and the policy pack again; returns the problems, none if all of it is in force."""
    topics: Topics = field(default_factory=Topics)
    """Touched by the rooms when something changes that the audit does not tell."""
    log: Recent = field(default_factory=Recent)
    """The newest lines of the daemon's log."""
