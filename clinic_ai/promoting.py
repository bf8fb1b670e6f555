"""What is on record of candidates: who approved them, what they said in the shadow, and all that stands behind one."""

from __future__ import annotations

from pydantic import Field

from clinic_ai.contract import ModelFile
from clinic_ai.domain import GuardAction, Key, Lineage, ModelRef, ModelState, Presence, Probability, Sha256, Spent, Word
from clinic_ai.gating import GateReport


class Approval(Word):
    """A named person wants a candidate to be in use. ``actor`` is the Unix user who said so."""

    approval_id: str
    report_id: str
    name: str
    actor: str
    reason: str = ""
    at: float


class Activation(Word):
    """One promotion or rollback; ``approval_id`` is None where it rested on none."""

    kind: str
    at: float
    by: str
    approval_id: str | None = None


class Origin(Word):
    """What a model that was trained here was made of: its run, the dataset, and the model it started from."""

    run_id: str
    dataset_id: str
    recipe: dict[str, float | int | str | bool]
    base: ModelRef | None = None


class ShadowFinding(Word):
    """One condition on one image as the model in use and the candidate judge it; None where one of them does not."""

    condition: Key
    sha256: Sha256
    before: Presence | None = None
    after: Presence | None = None
    probability_before: Probability | None = None
    probability_after: Probability | None = None


class ShadowDocument(Word):
    """What a candidate said of a study beside what was said of it. No words: nobody has guarded them for anybody.

    ``rules_after`` are those of the guard that spoke about the candidate's words alone.
    """

    findings: tuple[ShadowFinding, ...] = ()
    answers: int = 0
    answers_changed: int = 0
    refusals_before: int = 0
    refusals_after: int = 0
    guard_before: GuardAction
    guard_after: GuardAction
    rules_after: tuple[str, ...] = ()
    models_before: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def differs(self) -> bool:
        """Whether anybody would have read something else."""
        return (
            any(finding.before is not finding.after for finding in self.findings)
            or self.answers_changed > 0
            or self.refusals_before != self.refusals_after
            or self.guard_before is not self.guard_after
        )

    @property
    def largest_change(self) -> float:
        """The largest difference of a probability, 0 if nothing was judged by both."""
        pairs = ((f.probability_before, f.probability_after) for f in self.findings)
        return max((abs(one - other) for one, other in pairs if one is not None and other is not None), default=0.0)


class Shadow(Word):
    """A candidate's shadow run on one study version; ``at`` is UTC seconds."""

    shadow_id: str
    plugin: Key
    name: str
    version: str
    digest: Sha256
    study_id: str
    study_version: int
    document: ShadowDocument
    at: float


class CanaryResult(Word):
    """What a candidate said of today's studies. ``why_not`` says of studies that it was not run on, by id."""

    plugin: str
    name: str
    version: str
    shadows: tuple[Shadow, ...] = ()
    why_not: dict[str, str] = Field(default_factory=dict)
    sentence: str = ""
    """Why it ended before it had run on all, empty if it did not."""

    @property
    def differing(self) -> tuple[Shadow, ...]:
        """Those of which somebody would have read something else."""
        return tuple(shadow for shadow in self.shadows if shadow.document.differs)


class DatasetRecord(Word):
    """A dataset that was learned from: content by digest, origin, patients and images by part."""

    dataset_id: str
    digest: str
    images: dict[str, int]
    patients: dict[str, int]
    lineage: Lineage


class CanaryRecord(Word):
    """What a candidate said in the shadow, in numbers; times are UTC seconds."""

    studies: int
    differing: int
    largest_change: float
    stricter: int
    """Studies of which the guard would have let less out."""
    first_at: float
    last_at: float


class PromotionRecord(Word):
    """What changes, what it was made of, how it was tested, who approved it and how it is taken back."""

    model: ModelRef
    state: ModelState
    files: tuple[ModelFile, ...]
    licence: str
    source: str
    intended_use: str
    quantisation: str
    in_use: tuple[ModelRef, ...]
    """The plugin's active models when the record was written."""
    origin: Origin | None = None
    dataset: DatasetRecord | None = None
    report: GateReport | None = None
    approval: Approval | None = None
    activations: tuple[Activation, ...] = ()
    canary: CanaryRecord | None = None
    spent: Spent = Spent()
    """What the run cost that made it."""
    rollback: str
    written_at: float
