"""The words of the appliance: frozen, validated, without input or output.

Units are in the names or the docstrings: times are UTC seconds since the epoch (``…_at``) or seconds
(``…_s``), sizes are bytes, probabilities lie in 0..1, image axes are (row, column) unless said otherwise.
Field names follow the DICOM keywords they come from (PS3.6).
"""

from __future__ import annotations

import secrets
import time
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Key = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Words = Annotated[str, StringConstraints(max_length=4000)]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]

_ID_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford base 32: nothing that reads as something else


def new_id(prefix: str, *, at: float | None = None) -> str:
    """Return an identifier of our own, such as ``S-20261121-7F3K9QXB``; never built from a DICOM value."""
    day = time.strftime("%Y%m%d", time.gmtime(at))
    return f"{prefix}-{day}-{''.join(secrets.choice(_ID_ALPHABET) for _ in range(8))}"


class Word(BaseModel):
    """Base of every word: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


# ---------------------------------------------------------------- what arrived


class FileKind(StrEnum):
    """What the bytes of a file are, by content and not by name."""

    DICOM = "dicom"
    PNG = "png"
    JPEG = "jpeg"


class PatientIdentity(Word):
    """Who the study is about, as the scanner wrote it. Kept in the database, never in a log."""

    patient_id: str = ""
    patient_name: str = ""
    birth_date: str = ""
    sex: str = ""
    accession_number: str = ""


Finite = Annotated[float, Field(allow_inf_nan=False)]
Vector = tuple[Finite, Finite, Finite]
"""(x, y, z) in the patient's coordinates of PS3.3 C.7.6.2.1.1: x to the left, y to the back, z to the head."""
Cosines = tuple[Finite, Finite, Finite, Finite, Finite, Finite]
"""Direction in which the columns count up (along a row), then the one in which the rows do (down a column)."""


class FramePlane(Word):
    """Where one frame of a multi-frame object lies; None where it is not said, or said for all frames at once."""

    image_position_patient: Vector | None = None
    image_orientation_patient: Cosines | None = None


class PlaneGeometry(Word):
    """Where an image lies in the patient, as its header says; None is what it does not say or says wrongly.

    Positions are of the centre of the first pixel, in mm; ``pixel_spacing`` is (between rows, between columns)
    in mm; cosines are orthonormal to within 0.001.
    """

    image_position_patient: Vector | None = None
    image_orientation_patient: Cosines | None = None
    pixel_spacing: tuple[Finite, Finite] | None = None
    slice_thickness: Finite | None = None
    gantry_detector_tilt: Finite | None = None
    """Degrees; nominal (PS3.3 C.8.2.1), so the positions are what counts."""
    frame_of_reference_uid: str = ""
    image_type: tuple[str, ...] = ()
    frames: tuple[FramePlane, ...] = ()
    """One for each frame of an enhanced object; empty for others."""
    frames_placed: Literal["", "each", "not_said", "too_many"] = ""
    """Of a multi-frame object, whether ``frames`` is there, and if not, why. Empty for one frame."""


OwnUid = Literal["no_study_uid", "no_series_uid", "no_object_uid", "uid_of_other_object", "study_of_other_patient"]
"""Why the appliance knows an object by a UID of its own and not by the one it was sent with."""


class InstanceHeader(Word):
    """What the parser child tells of one file; every text is stripped of control characters and capped.

    ``rows``, ``columns`` and ``frames`` count pixels and frames (0 where the object has no pixels).
    """

    kind: FileKind
    sop_class_uid: str = ""
    sop_class_name: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    transfer_syntax_uid: str = ""
    modality: str = ""
    body_part: str = ""
    view_position: str = ""
    laterality: str = ""
    study_description: str = ""
    series_description: str = ""
    study_date: str = ""
    station_name: str = ""
    manufacturer: str = ""
    series_number: int | None = None
    instance_number: int | None = None
    rows: int = 0
    columns: int = 0
    frames: int = 0
    bits_stored: int = 0
    photometric: str = ""
    burned_in_annotation: str = ""
    acquisition_number: int | None = None
    images_in_acquisition: int | None = None
    number_of_study_related_instances: int | None = None
    number_of_series_related_instances: int | None = None
    number_of_study_related_series: int | None = None
    """What the sender says there is in all, None if it says nothing that can be true; nothing relies on it alone."""
    requested_procedure_priority: str = ""
    study_priority_id: str = ""
    geometry: PlaneGeometry | None = None
    """None for a PNG or JPEG, for an object that says nothing of the kind, and for what an older version stored."""
    identity: PatientIdentity = PatientIdentity()
    own_uids: tuple[OwnUid, ...] = ()
    """Why UIDs above are the appliance's own; ingest fills it, the bytes of the file stay as they are."""
    remarks: tuple[str, ...] = ()
    """What was odd yet survivable, in words for people."""


class Instance(Word):
    """One stored object of a study: its bytes are the object ``sha256``."""

    sha256: Sha256
    size_bytes: int
    header: InstanceHeader
    first_version: int = 1


class Fate(StrEnum):
    """What became of a file that was seen; see ``states.FILE``. The first two are on the way."""

    CLAIMING = "CLAIMING"
    """Written before the file is moved: its bytes lie in the inbox or in the spool."""
    CLAIMED = "CLAIMED"
    """Its bytes lie in the spool, synced and hashed; or a person let it out of the quarantine, and they soon do."""
    STORED = "STORED"
    DUPLICATE = "DUPLICATE"
    """The same bytes of the same study were there already."""
    QUARANTINED = "QUARANTINED"
    DISCARDED = "DISCARDED"
    """It was quarantined, and a person decided that it is not wanted."""
    IGNORED = "IGNORED"
    """Never opened, and left where it lies: a link, a device, or a file that cannot be taken away."""
    VANISHED = "VANISHED"
    """It was seen, and not there any more when it should be taken."""

    @property
    def pending(self) -> bool:
        """Whether it is on its way."""
        return self in {Fate.CLAIMING, Fate.CLAIMED}


class FileDecision(StrEnum):
    """What a person decided about a quarantined file; all but the last let it out."""

    AGAIN = "again"
    """Judge it again: a limit was raised, or the reading got better."""
    REPLACE = "replace"
    """It takes the place of the stored object with its SOP Instance UID, in a new version of the study."""
    BOTH = "both"
    """It belongs to the study beside that object, under a SOP Instance UID of the appliance's own."""
    OWN_STUDY = "own_study"
    """It is of another patient than the study whose Study Instance UID it has: a study of its own."""
    DISCARD = "discard"
    """It is not wanted; its bytes are removed."""


class StudyState(StrEnum):
    """Where a study version stands; see ``states.STUDY``."""

    RECEIVING = "RECEIVING"
    CLOSED = "CLOSED"
    ROUTED = "ROUTED"
    UNROUTED = "UNROUTED"
    DONE = "DONE"
    FAILED = "FAILED"
    SUPERSEDED = "SUPERSEDED"


class WaitReason(Word):
    """Why something waits: a stable code, a sentence, and what a person can do (empty: nothing is needed)."""

    code: Key
    sentence: str
    remedy: str = ""


class CloseCode(StrEnum):
    """Why a study version was held to be complete; the sentence beside it says the same with figures."""

    EXPECTED = "expected"
    """As many instances as its headers announce."""
    QUIET = "quiet"
    """Nothing new came for the quiet period of its source."""
    ONE_IMAGE = "one_image"
    """A PNG or JPEG is a study of its own."""
    DEADLINE = "deadline"
    """It was still arriving when its time was up."""
    FORCED = "forced"
    """A person closed it."""
    PROCESS = "process"
    """``clinic-ai process`` had read everything it was given."""
    AGAIN = "again"
    """A person asked for another analysis of the same instances."""


class Urgency(Word):
    """What a study's priority is made of: what its inbox or sender adds, its headers say, or a person ordered."""

    source: int = 0
    header: int | None = None
    """None if no header says anything."""
    term: str = ""
    """The defined term that was found in a header, such as ``STAT``."""
    ordered: int | None = None
    """What a person set; it stands above the rest."""
    ordered_by: str = ""


class StudyFacts(Word):
    """What routing may look at; the same vocabulary serves the clinic's rules and the plugins' claims."""

    source: str = ""
    modalities: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    stations: tuple[str, ...] = ()
    study_description: str = ""
    series_descriptions: tuple[str, ...] = ()
    sop_class_uids: tuple[str, ...] = ()
    slices: int = 0
    """Number of images: frames summed over all instances with pixels."""


class Study(Word):
    """One version of one study, closed or still arriving."""

    study_id: str
    version: int = 1
    state: StudyState
    study_instance_uid: str
    pseudonym: str
    source: str
    facts: StudyFacts
    identity: PatientIdentity = PatientIdentity()
    priority: int = 0
    urgency: Urgency = Urgency()
    opened_at: float
    last_instance_at: float
    closed_at: float | None = None
    close_code: CloseCode | None = None
    """None while it is open, and for a version that was closed before codes were stored."""
    closed_reason: str = ""
    wait: WaitReason | None = None
    originals_removed_at: float | None = None
    """When retention removed the bytes of its images (UTC seconds); their headers stay."""


# ---------------------------------------------------------------- models


class AdapterRef(Word):
    """A LoRA adapter over a base model."""

    name: str
    version: str
    digest: Sha256


class ModelRef(Word):
    """A model as a job pins it; ``digest`` is the SHA-256 of its manifest, which pins every file."""

    plugin: Key
    slot: Key = "main"
    name: str
    version: str
    digest: Sha256
    adapter: AdapterRef | None = None
    reference: bool = True
    """A reference model ships with the appliance and is not for clinical use."""

    def label(self) -> str:
        """Return ``plugin/name/version`` with the first twelve digits of the digest."""
        return f"{self.plugin}/{self.name}/{self.version} ({self.digest[:12]})"


class ModelState(StrEnum):
    """Where a model stands in the registry; see ``states.MODEL``."""

    IMPORTED = "IMPORTED"
    CANDIDATE = "CANDIDATE"
    ACTIVE = "ACTIVE"
    RETIRED = "RETIRED"
    REJECTED = "REJECTED"


# ---------------------------------------------------------------- what a plugin answers


class Presence(StrEnum):
    """What the operating point says of a calibrated probability."""

    PRESENT = "present"
    ABSENT = "absent"
    UNCERTAIN = "uncertain"


class ValidationFigures(Word):
    """How a condition was validated; ``auroc_low``/``auroc_high`` bound the 95 % interval."""

    dataset: str
    positives: int
    negatives: int
    auroc: Probability
    auroc_low: Probability
    auroc_high: Probability
    sensitivity: Probability | None = None
    specificity: Probability | None = None


class Finding(Word):
    """One condition judged on one image. ``probability`` is calibrated; ``condition`` is a key of codes.toml."""

    condition: Key
    label: str
    probability: Probability
    threshold: Probability
    presence: Presence
    instance_sha256: Sha256
    heatmap: FileName | None = None
    laterality: Literal["left", "right", "bilateral", ""] = ""
    model: str = ""
    """``slot`` of the model that judged it."""
    validation: ValidationFigures | None = None


class Answer(Word):
    """An answer to a question about an image; its text is unguarded."""

    question: Words
    text: Words
    confidence: Probability | None = None


class Refusal(Word):
    """An image a plugin will not judge, and why, in words."""

    instance_sha256: Sha256
    code: Key
    sentence: str


class ProducedFile(Word):
    """A file a child made in its job directory. ``extent`` is (top, left, bottom, right) in 0..1 of the image."""

    name: FileName
    role: Literal["heatmap", "mask", "picture", "data"]
    media_type: Literal["image/png", "image/jpeg", "application/json", "application/dicom", "application/pdf"]
    instance_sha256: Sha256 | None = None
    extent: tuple[Probability, Probability, Probability, Probability] = (0.0, 0.0, 1.0, 1.0)
    caption: str = ""


class Analysis(Word):
    """What an engine says of a study. No word of it may leave before the guard released it."""

    plugin: Key
    plugin_version: str
    models: tuple[ModelRef, ...]
    findings: tuple[Finding, ...] = ()
    answers: tuple[Answer, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    remarks: tuple[Words, ...] = ()
    files: tuple[ProducedFile, ...] = ()
    timings_ms: dict[str, float] = Field(default_factory=dict)


# ---------------------------------------------------------------- what may be said


class Audience(StrEnum):
    """Who reads it."""

    CLINICIAN = "clinician"
    PATIENT = "patient"
    TECHNICIAN = "technician"


class Statement(Word):
    """One sentence somebody would like to say, with the evidence it rests on. Unguarded."""

    statement_id: Key
    kind: Literal["finding", "answer", "remark", "refusal", "notice"]
    text: Words
    finding: Finding | None = None
    """The finding a sentence of kind ``finding`` words."""


class GuardAction(StrEnum):
    """What the guard does; listed from mildest to strictest, the strictest of all rules wins."""

    ALLOW = "allow"
    ANNOTATE = "annotate"
    HEDGE = "hedge"
    REDACT = "redact"
    REPLACE = "replace"
    HOLD = "hold"
    BLOCK = "block"

    @property
    def severity(self) -> int:
        """Return the place in the lattice, 0 the mildest."""
        return list(GuardAction).index(self)


class Decision(Word):
    """One rule that spoke about one statement."""

    statement_id: str
    rule: str
    action: GuardAction
    reason: str
    spans: tuple[tuple[int, int], ...] = ()
    """Character offsets in the statement's text that made the rule fire."""


class Released(Word):
    """Text that may go out. Only ``guard.engine`` makes it; renderers, delivery, API and terminal take nothing else."""

    statement_id: str
    audience: Audience
    text: str
    annotations: tuple[str, ...] = ()
    policy_hash: Sha256


class GuardVerdict(Word):
    """What the guard says of all statements of one artefact; ``released`` is empty unless everything may go out."""

    audience: Audience
    action: GuardAction
    decisions: tuple[Decision, ...]
    released: tuple[Released, ...]
    marks: tuple[str, ...] = ()
    """Sentences that stand on every page, such as the investigational mark."""
    policy_hash: Sha256
    policy_name: str


# ---------------------------------------------------------------- work


class JobKind(StrEnum):
    """What a job does: a plugin's analysis, or guarding, rendering and delivering a study version."""

    ANALYSE = "analyse"
    REPORT = "report"


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
