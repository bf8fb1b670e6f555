"""Studies: what belongs together, how far it is, and why it waits."""

from __future__ import annotations

from enum import StrEnum

from clinic_ai.domain.instances import PatientIdentity
from clinic_ai.domain.words import Key, Word


class StudyState(StrEnum):
    """Where a study version stands; see ``states.STUDY``."""

    RECEIVING = "RECEIVING"
    CLOSED = "CLOSED"
    ROUTED = "ROUTED"
    UNROUTED = "UNROUTED"
    DONE = "DONE"
    FAILED = "FAILED"
    SUPERSEDED = "SUPERSEDED"


class QueueSort(StrEnum):
    """What the queue of studies may be sorted by. Whatever it is, urgent ones stand on top."""

    ARRIVAL = "arrival"
    """The newest first."""
    WAIT = "wait"
    """Those that wait or are in work, the oldest of them first; then the others."""
    PATIENT = "patient"
    MODALITY = "modality"
    SOURCE = "source"
    STATE = "state"
    """What needs a person first, what is done last."""
    PRIORITY = "priority"
    """The highest first."""


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
