"""``questions.toml`` of a pack: which questions no model is asked, what is answered instead, and the proof in cases."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from clinic_ai.domain import Audience, Finding, ImageFacts, PatientIdentity, StudyFacts, Word
from clinic_ai.tasks import GuardSubject


class HealthyExample(Word):
    """A picture of another person that the clinic approved; ``example_id`` is the name of its file of facts."""

    example_id: str
    modality: str
    body_part: str
    view: str
    image: str
    """File name beside the file of facts."""
    approved_by: str


class QuestionSubject(GuardSubject):
    """What a question is about, and the healthy example that fits it, if the clinic supplies one."""

    example: HealthyExample | None = None


class IntentEntry(BaseModel):
    """One ``[[intent]]``: questions that are answered with ``template``. The first one that fits counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
    hazard: Annotated[str, StringConstraints(min_length=1, max_length=300)]
    row: int = Field(default=0, ge=0, le=17)
    audiences: tuple[Audience, ...] = (Audience.PATIENT,)
    when: dict[str, Any]
    template: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    shows_example: bool = False
    """Whether the healthy example goes with the answer."""


class IntentCase(BaseModel):
    """A question, the image it is about, and whether it is of this intent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    intent: str
    kind: Literal["firing", "non_firing", "mutation"]
    text: str
    fires: bool | None = None
    audience: Audience = Audience.PATIENT
    language: str = "en"
    modality: str = "DX"
    body_part: str = "CHEST"
    slices: int = 1
    calibrated: bool = False
    priors: int = 0
    example: bool = False

    @property
    def must_fire(self) -> bool:
        """Whether the question must be of the intent; a mutation must unless it says otherwise."""
        return self.fires if self.fires is not None else self.kind != "non_firing"

    def subject(self) -> QuestionSubject:
        """Return what the question is about."""
        return question_subject(
            StudyFacts(modalities=(self.modality,), body_parts=(self.body_part,), slices=self.slices),
            ImageFacts(calibrated=self.calibrated, priors=self.priors),
            language=self.language,
            example=HealthyExample(
                example_id="case", modality=self.modality, body_part=self.body_part, view="", image="", approved_by="a"
            )
            if self.example
            else None,
        )


def question_subject(
    facts: StudyFacts,
    image: ImageFacts,
    *,
    language: str,
    identity: PatientIdentity | None = None,
    findings: tuple[Finding, ...] = (),
    example: HealthyExample | None = None,
) -> QuestionSubject:
    """Return what a question is about, from what is known of the study."""
    return QuestionSubject(
        facts=facts,
        image=image,
        identity=identity or PatientIdentity(),
        findings=findings,
        language=language,
        example=example,
    )


class QuestionFile(BaseModel):
    """``questions.toml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    intent: tuple[IntentEntry, ...] = Field(min_length=1)
    case: tuple[IntentCase, ...]
