"""The cases of a pack: what each rule must say of which text. They are the pack's proof and its documentation."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from clinic_ai.contract import Condition
from clinic_ai.domain import (
    Audience,
    Distance,
    Finding,
    GuardAction,
    ImageFacts,
    Mask,
    PatientIdentity,
    Presence,
    Statement,
    StatementKind,
    StudyFacts,
)
from clinic_ai.tasks import GuardSubject, GuardTask, PluginScope

_NO_INSTANCE = "0" * 64


class CaseFinding(BaseModel):
    """A finding in a case, in short."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    condition: str
    label: str
    probability: float = Field(ge=0, le=1)
    threshold: float = Field(default=0.5, ge=0, le=1)
    laterality: Literal["left", "right", "bilateral", ""] = ""

    def finding(self) -> Finding:
        """Return it as the guard gets it; present means at or above the threshold."""
        presence = Presence.PRESENT if self.probability >= self.threshold else Presence.ABSENT
        return Finding(**self.model_dump(), presence=presence, instance_sha256=_NO_INSTANCE)


class Case(BaseModel):
    """One text, the evidence beside it, and whether ``rule`` must fire on it.

    ``kind`` is ``firing``, ``non_firing`` or ``mutation``; a mutation is a firing text negated, misspelt or with the
    other side, and says with ``fires`` what is right for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    kind: Literal["firing", "non_firing", "mutation"]
    audience: Audience
    text: str
    fires: bool | None = None
    says: StatementKind = "answer"
    """Kind of the statement."""
    finding: CaseFinding | None = None
    """What a statement of kind ``finding`` words."""
    findings: tuple[CaseFinding, ...] = ()
    masks: tuple[Mask, ...] = ()
    image: ImageFacts = ImageFacts(calibrated=True, priors=0, burned_in="no")
    facts: StudyFacts = StudyFacts(slices=1)
    claims: tuple[Condition, ...] = ()
    """What the plugin that judged the images says it was made for."""
    distances: tuple[Distance, ...] = ()
    identity: PatientIdentity = PatientIdentity()
    validated: bool = True
    reference: bool = False
    signed_by: str = ""
    """Who signed; most rules look at drafts."""
    language: str = "en"
    action: GuardAction | None = None
    """What the guard must do in the end, if the case says so; marks of other rules on every page do not count."""
    released: str | None = None
    """The text that must go out, if the case says so."""

    @property
    def must_fire(self) -> bool:
        """Whether the rule must fire; a mutation must unless it says otherwise."""
        return self.fires if self.fires is not None else self.kind != "non_firing"

    def task(self, policy_hash: str) -> GuardTask:
        """Return the case as a task for the guard."""
        own = self.finding.finding() if self.finding else None
        findings = (*((own,) if own else ()), *(f.finding() for f in self.findings))
        subject = GuardSubject(
            facts=self.facts,
            identity=self.identity,
            findings=findings,
            masks=self.masks,
            image=self.image,
            scopes=(PluginScope(plugin="case", claims=self.claims),),
            distances=self.distances,
            validated=self.validated,
            reference=self.reference,
            signed_by=self.signed_by,
            language=self.language,
        )
        statement = Statement(statement_id="case", kind=self.says, text=self.text, finding=own)
        return GuardTask(audience=self.audience, subject=subject, statements=(statement,), policy_hash=policy_hash)


class CaseFile(BaseModel):
    """``cases.toml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: tuple[Case, ...]
