"""What a named person decides about an artefact, and what follows from it."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from clinic_ai.domain.analyses import Finding, Presence
from clinic_ai.domain.words import Key, Sha256, Word, Words

MAX_PASSAGES = 200


class ReviewDecision(StrEnum):
    """What a person decided. The first two sign: a FINAL artefact follows."""

    ACCEPT = "accept"
    AMEND = "amend"
    REJECT = "reject"

    @property
    def signs(self) -> bool:
        """Whether a signed artefact follows."""
        return self is not ReviewDecision.REJECT


class Passage(Word):
    """One statement as a person read it, or wants it said. Unguarded until the guard has judged it in that name."""

    statement_id: Key
    text: Words


class Correction(Word):
    """What a person says of a condition, whatever the software said."""

    condition: Key
    presence: Presence


class ReviewDocument(Word):
    """The words of a review: what was shown, what the person wants said, and the difference for people."""

    shown: tuple[Passage, ...] = Field(default=(), max_length=MAX_PASSAGES)
    said: tuple[Passage, ...] = Field(default=(), max_length=MAX_PASSAGES)
    corrections: tuple[Correction, ...] = ()
    diff: str = ""


class Review(Word):
    """One decision. ``reviewer`` is the name that signs, ``actor`` the Unix user who gave it."""

    review_id: str
    artefact_id: str
    study_id: str
    version: int
    decision: ReviewDecision
    reviewer: str
    actor: str
    reason: str = ""
    digest: Sha256
    """Of what the reviewer was shown."""
    document: ReviewDocument
    consent: bool
    """Whether models may learn from it."""
    job_id: str | None = None
    decided_at: float


class ReviewLabel(Word):
    """What a person says an image shows; without ``instance_sha256`` it is said of the study as a whole."""

    instance_sha256: str
    condition: Key
    presence: Presence
    corrected: bool


class SignOff(Word):
    """Who signed a report and when (UTC seconds). ``revision`` counts the signed reports of a version from 1.

    ``replaces`` is the revision of the structured report that it takes the place of, 0 for the software's, None if
    there was none.
    """

    review_id: str
    name: str
    at: float
    revision: int = Field(ge=1)
    replaces: int | None = None
    amended: bool = False
    corrections: tuple[Correction, ...] = ()
    """What the signer says of conditions, whatever the software says."""

    def correction_of(self, finding: Finding) -> Presence | None:
        """Return what the signer says in place of a finding's presence, None if that stands."""
        given = {correction.condition: correction.presence for correction in self.corrections}
        presence = given.get(finding.condition, finding.presence)
        return None if presence is finding.presence else presence
