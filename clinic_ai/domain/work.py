"""Work and its results: jobs, runs, artefacts, deliveries, alerts."""

from __future__ import annotations

from enum import StrEnum

from clinic_ai.domain.analyses import ModelRef
from clinic_ai.domain.release import GuardVerdict
from clinic_ai.domain.studies import WaitReason
from clinic_ai.domain.words import Audience, FileName, Sha256, Word


class JobKind(StrEnum):
    """What a job does: a plugin's analysis; guarding, rendering and delivering a study version; the same, signed."""

    ANALYSE = "analyse"
    REPORT = "report"
    SIGN = "sign"


class JobState(StrEnum):
    """Where a job stands; see ``states.JOB``."""

    QUEUED = "QUEUED"
    LEASED = "LEASED"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Job(Word):
    """One unit of work; ``models`` and ``policy_hash`` are pinned when it is leased."""

    job_id: str
    kind: JobKind
    study_id: str
    version: int
    plugin: str = ""
    state: JobState
    priority: int = 0
    attempt: int = 0
    interruptions: int = 0
    not_before: float = 0.0
    models: tuple[ModelRef, ...] = ()
    policy_hash: str = ""
    rule: str = ""
    error: str = ""
    wait: WaitReason | None = None
    created_at: float
    started_at: float | None = None
    """When its last attempt began (UTC seconds); None before the first."""
    finished_at: float | None = None


class ArtefactState(StrEnum):
    """Where what the guard decided upon stands; see ``states.ARTEFACT``."""

    DRAFT = "DRAFT"
    PRELIMINARY = "PRELIMINARY"
    HELD = "HELD"
    BLOCKED = "BLOCKED"
    FINAL = "FINAL"
    REJECTED = "REJECTED"
    SUPERSEDED = "SUPERSEDED"


class DeliveryState(StrEnum):
    """Where one delivery to one target stands; see ``states.DELIVERY``."""

    PENDING = "PENDING"
    SENT = "SENT"
    RECEIPTED = "RECEIPTED"
    FAILED = "FAILED"


class RunState(StrEnum):
    """Where a training run stands; see ``states.RUN``. PAUSED means that no process is there."""

    PLANNED = "PLANNED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    FINISHED = "FINISHED"
    STOPPED = "STOPPED"
    FAILED = "FAILED"


class StoredFile(Word):
    """A file a child made, adopted into the object store."""

    name: FileName
    sha256: Sha256
    size_bytes: int
    media_type: str


class Delivery(Word):
    """One artefact to one target. ``place`` is where it went, for people."""

    delivery_id: str
    artefact_id: str
    target: str
    state: DeliveryState
    attempt: int = 0
    place: str = ""
    error: str = ""
    done_at: float | None = None


class Artefact(Word):
    """What the guard decided upon for one audience, its files and where they went."""

    artefact_id: str
    job_id: str
    study_id: str
    version: int
    audience: Audience
    state: ArtefactState
    verdict: GuardVerdict
    files: tuple[StoredFile, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    signed_by: str = ""
    review_id: str = ""
    """The decision it came of; empty for the software's own."""
    revision: int = 0
    """0 for the software's own, then the signed ones of its version."""
    created_at: float


class Alert(Word):
    """Something a person should see until somebody acknowledges it; ``count`` says how often it was raised."""

    alert_id: int
    code: str
    subject: str
    sentence: str
    remedy: str
    count: int
    first_at: float
    last_at: float
    acknowledged_by: str = ""
