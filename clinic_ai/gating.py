"""What is asked and answered when a candidate is held against the model in use, on test images nobody trained on."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

from pydantic import Field

from clinic_ai.contract import Dataset, Device, Limits, LoadedModel
from clinic_ai.domain import CategoryInfo, Key, ModelRef, Sha256, Word, Words

Metric = Literal["auroc", "mean"]
"""How the figure of many rows comes from their scores: AUROC over labels and scores, or the mean of the scores."""
Interval = tuple[float, float]
"""(low, high)."""


class JudgeTask(Word):
    """Say what ``model`` makes of the test split of ``dataset``; ``base`` is that of an adapter."""

    model: LoadedModel
    base: LoadedModel | None = None
    dataset: Dataset
    limits: Limits
    device: Device
    categories: tuple[CategoryInfo, ...] = ()
    """The plugin's categories as the clinic has them."""


class JudgedRow(Word):
    """What a model made of one test example; higher scores are better, or mean that the condition is likelier.

    ``key`` is the same whatever model judged the example. ``label`` is 0 or 1 and of no meaning for a mean.
    ``groups`` tell patient and scanner apart, as ``ml.subgroups.traits`` does. ``text`` is an answer as it would be
    served, unguarded; empty where a model gives none.
    """

    key: str
    sha256: Sha256
    patient_key: str
    groups: dict[str, str] = Field(default_factory=dict)
    label: Literal[0, 1] = 1
    score: float = Field(allow_inf_nan=False)
    question: Words = ""
    text: Words = ""


class Judgement(Word):
    """What one model made of all readable test examples. ``figure`` names the main figure for people.

    A model that says nothing yet, such as a base to train from, has no rows: who is held against it stands alone.
    """

    metric: Metric
    figure: str
    rows: tuple[JudgedRow, ...]
    notes: tuple[str, ...] = ()


@runtime_checkable
class Judge(Protocol):
    """A trainer whose candidates can be held against other models; not every trainer can."""

    def judge(self, task: JudgeTask) -> Judgement:
        """Say what a model makes of each readable image of the test split, as it would be served.

        Raise DatasetError if there is none of which it can be told, ModelError if the model cannot be used.
        """


class ExamineRequest(Word):
    """Ask a trainer what two models make of the same examples; without ``incumbent`` the candidate stands alone."""

    trainer: str
    candidate: JudgeTask
    incumbent: JudgeTask | None = None


class Compared(Word):
    """The main figure of both models on the same rows, with 95 % intervals by patient.

    ``difference`` is candidate less incumbent, with the interval of paired draws. Where something cannot be told it is
    None, and ``why_not`` says why in a sentence.
    """

    examples: int
    patients: int
    candidate: float | None = None
    candidate_interval: Interval | None = None
    incumbent: float | None = None
    incumbent_interval: Interval | None = None
    difference: float | None = None
    interval: Interval | None = None
    why_not: str = ""


class GroupCompared(Compared):
    """The same in one group of patients or scanners; ``interval`` holds for all judged groups together."""

    trait: str
    group: str

    @property
    def title(self) -> str:
        """The group for people, such as ``sex female``."""
        return self.group if self.group.startswith(f"{self.trait} ") else f"{self.trait} {self.group}"


class Comparison(Word):
    """Two models beside each other; ``judged_groups`` were large enough to tell.

    ``alone`` if nothing is in use that says anything: there is a candidate only.
    """

    metric: Metric
    figure: str
    alone: bool = False
    overall: Compared
    groups: tuple[GroupCompared, ...] = ()
    judged_groups: int = 0


class Said(Word):
    """What both models answered to one question about one image; unguarded. An empty text is no answer."""

    sha256: Sha256
    question: Words
    candidate: Words = ""
    incumbent: Words = ""


class Examined(Word):
    """What came of an examination in the trainer's child."""

    comparison: Comparison
    said: tuple[Said, ...] = ()
    notes: tuple[str, ...] = ()


class NewFailure(Word):
    """One test example of which the guard releases what the incumbent says and keeps back what the candidate does."""

    sha256: Sha256
    rule: str
    reason: str


class GuardOutcome(Word):
    """What the guard made of the words of both models. Without an incumbent all that it kept back is new."""

    examples: int
    candidate_kept_back: int
    incumbent_kept_back: int | None = None
    new: tuple[NewFailure, ...] = ()
    policy_hash: str
    policy_name: str


class GateRules(Word):
    """The rules a candidate was held to; see ``[training.gate]``."""

    improvement: Literal["proven", "not_worse"]
    largest_loss: float
    subgroup_loss: float


class GateReport(Word):
    """A candidate beside the model that was in use then. ``reasons`` say why it passed or not.

    ``doubts`` do not refuse it: with any of them, only a named person makes it active.
    """

    report_id: str
    plugin: Key
    slot: Key
    name: str
    version: str
    digest: Sha256
    incumbent: ModelRef | None = None
    dataset_id: str
    dataset_digest: str = ""
    patients: dict[str, int] = Field(default_factory=dict)
    """By part of the dataset."""
    rules: GateRules
    comparison: Comparison | None = None
    guard: GuardOutcome | None = None
    passed: bool
    reasons: tuple[str, ...]
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    at: float
    """UTC seconds."""
