"""What the control API answers: typed, without identity, read by the client with the same classes.

Times are UTC seconds since the epoch, sizes bytes. Sentences about what a study shows are ``Released``, the
type that only the guard makes; no other field holds any.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from clinic_ai.contract import PluginManifest
from clinic_ai.domain import (
    Alert,
    CloseCode,
    Job,
    Released,
    StudyFacts,
    StudyState,
    WaitReason,
)
from clinic_ai.tasks import PackInfo

_HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
"""What steers a terminal or turns the order of the letters around."""


def _one_line(text: str) -> str:
    if _HIDDEN.search(text):
        raise PydanticCustomError("line", "It has to be one line without control characters and invisible ones")
    return text


Line = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_one_line)]
"""One line of text as a person reads it."""
OptionalLine = Annotated[str, StringConstraints(max_length=200, strip_whitespace=True), AfterValidator(_one_line)]
LongLine = Annotated[str, StringConstraints(max_length=1000), AfterValidator(_one_line)]
PlainPath = Annotated[str, StringConstraints(pattern=r"^/[^\x00-\x1f]{1,4000}$")]


class View(BaseModel):
    """Base of everything the API answers."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", from_attributes=True, protected_namespaces=(), defer_build=True
    )


class Order(BaseModel):
    """Base of everything a person sends; an unknown key is a mistake worth telling."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Role(StrEnum):
    """What a person may do, each more than the one before."""

    TECHNICIAN = "technician"
    CLINICIAN = "clinician"
    ADMINISTRATOR = "administrator"

    def covers(self, needed: Role) -> bool:
        """Return whether this role includes what ``needed`` permits."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


class ProblemView(View):
    """What went wrong (RFC 9457). ``error`` is the class of ``clinic_ai.errors``, ``remedy`` what to do."""

    type: str
    title: str
    status: int
    detail: str
    remedy: str = ""
    error: str = "ClinicError"


class DoneView(View):
    """A change was made, in one sentence."""

    sentence: str


# ---------------------------------------------------------------- studies


class StudyRow(View):
    """One study version in a list. ``facts`` holds what the scanner said of the study, not of the patient."""

    study_id: str
    version: int
    state: StudyState
    pseudonym: str
    source: str
    facts: StudyFacts
    priority: int
    priority_reason: str = ""
    opened_at: float
    last_instance_at: float
    closed_at: float | None
    close_code: CloseCode | None = None
    closed_reason: str
    wait: WaitReason | None
    originals_removed_at: float | None = None


class StudyPage(View):
    """Studies, newest first. ``next_before`` continues the list; None at its end."""

    studies: tuple[StudyRow, ...]
    next_before: str | None


class FileRow(View):
    """One file of the ledger; ``name`` is its path below the inbox, ``decision`` a person's about a quarantined one."""

    file_id: int
    source: str
    name: str
    size_bytes: int
    sha256: str | None
    fate: str
    reason_code: str
    reason: str
    remedy: str
    study_id: str | None
    seen_at: float
    decided_at: float | None
    decision: str = ""
    decided_by: str = ""


class FilePage(View):
    """Files, newest first. ``next_before`` continues the list; None at its end."""

    files: tuple[FileRow, ...]
    next_before: int | None


class DecisionRow(View):
    """One rule of the guard that spoke, without the text it spoke about; no ``statement_id`` if about all of it."""

    rule: str
    action: str
    reason: str
    statement_id: str = ""


class ProducedRow(View):
    """One file of an artefact, in the object store and in the delivered folder."""

    name: str
    media_type: str
    size_bytes: int
    sha256: str


class DeliveryRow(View):
    """One delivery; ``place`` is where it went."""

    target: str
    state: str
    attempt: int
    place: str
    error: str
    done_at: float | None


class ArtefactRow(View):
    """What the guard decided for one audience. ``released`` is None for roles that may not read content."""

    artefact_id: str
    audience: str
    state: str
    action: str
    policy_name: str
    policy_hash: str
    decisions: tuple[DecisionRow, ...]
    files: tuple[ProducedRow, ...]
    deliveries: tuple[DeliveryRow, ...]
    signed_by: str
    created_at: float
    released: tuple[Released, ...] | None
    marks: tuple[str, ...]


class StackRow(View):
    """Images of one series that belong together; ``line`` and ``remarks`` say in words how they lie.

    ``regular`` is whether they are a volume of even voxels, ``spacing_mm`` the usual step from slice to slice.
    """

    series_number: int | None
    line: str
    images: int
    regular: bool
    spacing_mm: float | None
    remarks: tuple[str, ...]


class ImageCategory(View):
    """One image of a study. ``file`` is its path below the inbox; ``note`` says how the category is known, or why not.

    ``category`` and ``label`` are empty if it is unknown or ambiguous.
    """

    sha256: str
    file: str
    plugin: str
    category: str
    label: str
    note: str


class VersionView(View):
    """One version of a study with all that happened to it. ``stacks`` is there for the newest version only, and so are
    ``categories``, of the plugins that analyse it.

    ``remarks`` say how it was put together, where its UIDs are not all the sender's; for the newest version only.
    """

    study: StudyRow
    instances: int
    jobs: tuple[Job, ...]
    artefacts: tuple[ArtefactRow, ...]
    stacks: tuple[StackRow, ...] = ()
    categories: tuple[ImageCategory, ...] = ()
    remarks: tuple[str, ...] = ()


class StudyView(View):
    """A study with all its versions, the newest first, and the files it came from.

    ``content`` says whether this person may read what the study shows.
    """

    study_id: str
    content: bool
    versions: tuple[VersionView, ...]
    files: tuple[FileRow, ...]


class CheckRow(View):
    """One key of a condition: what was wanted, what the study says, and whether that matches."""

    key: str
    wanted: str
    found: str
    matched: bool


class RuleRow(View):
    """A rule, or one claim of a plugin, held against a study; ``verdict`` and ``reason`` say what became of it."""

    kind: str
    name: str
    plugins: tuple[str, ...]
    matched: bool
    verdict: str
    reason: str
    checks: tuple[CheckRow, ...]


class ChoiceRow(View):
    """A plugin that is to see a study, and the rule or claim that chose it."""

    plugin: str
    rule: str
    priority: int


class RouteView(View):
    """Where a study goes and why; ``lines`` says it for people. ``facts`` is what routing looked at.

    ``missing`` are plugins that a rule wants and that are not installed.
    """

    facts: StudyFacts
    plugins: tuple[ChoiceRow, ...]
    missing: tuple[ChoiceRow, ...]
    explanation: tuple[RuleRow, ...]
    lines: tuple[str, ...]


# ---------------------------------------------------------------- the machine


class EngineRow(View):
    """A warm engine."""

    plugin: str
    pid: int
    busy: bool
    resident_bytes: int
    models: tuple[str, ...]
    idle_s: float


class ChildRow(View):
    """A living child process."""

    name: str
    pid: int
    resident_bytes: int
    age_s: float
    busy: bool


class InboxRow(View):
    """A watched folder. ``online``: it is there, on the file system it is known by, and answers; else why not.

    ``sentence`` and ``remedy`` say why it is offline, or why nothing is taken from it now.

    ``waiting`` files lie in it, the oldest since ``oldest_at``; a study from it is complete after ``quiet_s`` seconds.
    """

    name: str
    path: str
    online: bool
    sentence: str = ""
    remedy: str = ""
    file_system: str = ""
    waiting: int = 0
    oldest_at: float | None = None
    owner: str = ""
    quiet_s: float = 0.0


class NetworkRow(View):
    """The receiver: how it stands in words, associations open now, objects stored and associations refused so far."""

    enabled: bool
    listening: bool
    sentence: str
    open: int
    stored: int
    refused: int

    @property
    def line(self) -> str:
        """All of it on one line."""
        return f"{self.sentence}; {self.open} associations, {self.stored} objects, {self.refused} refused"


class PaceRow(View):
    """How long a study from a source waits for more of itself, in seconds, and of how many studies that was learned.

    ``late`` of these went on after they had been closed.
    """

    source: str
    quiet_s: float
    studies: int
    late: int

    @property
    def line(self) -> str:
        """All of it on one line."""
        learned = f", learned from {self.studies} studies" if self.studies else ""
        return f"{self.quiet_s:g} s{learned}" + (f"; {self.late} went on after they were closed" if self.late else "")


class PolicyView(View):
    """The active policy pack, or why there is none: without one everything is held."""

    pack: PackInfo | None
    problem: str = ""


class ModelRow(View):
    """A model of the registry."""

    plugin: str
    slot: str
    name: str
    version: str
    digest: str
    state: str
    reference: bool
    licence: str = ""
    clinical_use: bool = False
    conditions: tuple[str, ...] = ()
    tier: str = ""
    imported_at: float = 0.0
    imported_by: str = ""


class RunRow(View):
    """A training run. ``plan``, ``progress`` and ``result`` are the documents of ``contract`` as far as they are.

    ``error`` says why it does not run, and what to do; ``pause_code`` names the reason for programs.
    ``dataset_notes`` say what was left out of its dataset and what needs a look; only the answer to who started it
    has them, for they name files.
    """

    run_id: str
    plugin: str
    state: str
    dataset_id: str
    dataset_notes: tuple[str, ...] = ()
    recipe: dict[str, Any] = Field(default_factory=dict)
    plan: dict[str, Any] | None = None
    progress: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    error: str = ""
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    origin: str = "person"
    """Who planned it: ``person`` or ``night``."""
    plan_key: str = ""
    at_once: bool = False
    pause_code: str = ""
    goes_on: bool = False
    """Whether it begins or goes on by itself once the reason is gone."""


class StatusView(View):
    """All a person wants to know at a glance. Counts are by state; ``more_alerts`` counts those left out here."""

    version: str
    clinic: str
    home: str
    now: float
    started_at: float
    person: str
    role: Role
    may_change: bool
    """False on the monitor socket."""
    studies: dict[str, int]
    jobs: dict[str, int]
    files: dict[str, int]
    artefacts: dict[str, int]
    engines: tuple[EngineRow, ...]
    children: tuple[ChildRow, ...]
    daemon_resident_bytes: int
    disk_free_bytes: int
    alerts: tuple[Alert, ...]
    more_alerts: int = 0
    more_critical: int = 0
    inboxes: tuple[InboxRow, ...]
    network: NetworkRow | None = None
    """None from a daemon that is older than the receiver."""
    paces: tuple[PaceRow, ...] = ()
    policy: PolicyView
    models: tuple[ModelRow, ...]
    plugins: tuple[str, ...]
    plugin_problems: tuple[str, ...]
    runs: tuple[RunRow, ...] = ()
    """Training runs that are at work, or go on by themselves; none from a daemon that does not tell."""

    @property
    def uptime_s(self) -> float:
        """Seconds since the daemon started."""
        return max(0.0, self.now - self.started_at)


class PluginsView(View):
    """The usable plugins, and in words why others are not."""

    plugins: tuple[PluginManifest, ...]
    problems: tuple[str, ...]


class VerifyView(View):
    """What verification of a model found; nothing means that every file has its hash."""

    plugin: str
    name: str
    version: str
    problems: tuple[str, ...]


class EventView(View):
    """Something changed; ``seq`` is its place in the audit, to resume from. It says what, never its content."""

    seq: int
    at: float
    action: str
    subject: str


class TopicView(View):
    """Something changed that no row of the audit tells: ``topic`` is one of ``topics.Topic``."""

    topic: str


# ---------------------------------------------------------------- what people send


class PriorityOrder(Order):
    """Let a study go before or after others."""

    priority: int = Field(ge=-100, le=100)
