"""What a generated report is worth: its words, what it calls, and what it should not have said.

Words by BLEU-4 and ROUGE-L, calls by label F1 and CRG through the rule-based labeller; sentences that the evidence does
not carry, or that the guard objects to, take away. No embedding model judges: it would reward fluent inventions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from clinic_ai.domain import Finding
from clinic_ai.ml.label_scores import crg
from clinic_ai.ml.text_scores import bleu, rouge_l
from clinic_ai_ct.labeller import labels as labels_of
from clinic_ai_ct.labeller import rules
from clinic_ai_ct.lesions import Lesion
from clinic_ai_ct.supported import supported

LABEL_SET = "vlm3d"
_OBJECTED = 0.5
"""What a report loses if every sentence of it is objected to."""


@dataclass(frozen=True)
class Reward:
    """Parts of a reward, each in 0..1; ``crg`` is None where the truth has no positive or no negative label."""

    words: float
    label_f1: float
    crg: float | None
    objected: float

    @property
    def total(self) -> float:
        """Mean of the parts that are known, less what was objected to."""
        parts = [self.words, self.label_f1, *([] if self.crg is None else [self.crg])]
        return sum(parts) / len(parts) - _OBJECTED * self.objected


def reward(
    text: str, truth: str, labels: Mapping[str, int], findings: Sequence[Finding], lesions: Sequence[Lesion]
) -> Reward:
    """Return the reward of a report ``text``.

    ``truth`` is the case's report, ``labels`` its labels by condition; of conditions that these leave open, what the
    labeller reads in ``truth`` counts. ``findings`` and ``lesions`` are the evidence that sentences need.
    """
    called = labels_of(text, LABEL_SET)
    right = {name: _truth(name, there, labels) for name, there in labels_of(truth, LABEL_SET).items()}
    calls, truths = [called[name] for name in right], list(right.values())
    both = any(truths) and not all(truths)
    found = supported(text, findings, lesions)
    sentences = len(found.sentences) + len(found.removed)
    return Reward(
        words=(bleu([text], [truth]) + rouge_l([text], [truth])) / 2,
        label_f1=_f1(calls, truths),
        crg=crg(truths, calls) if both else None,
        objected=len(found.removed) / sentences if sentences else 1.0,
    )


def _truth(name: str, read: bool, labels: Mapping[str, int]) -> bool:
    condition = _conditions()[name]
    return bool(labels[condition]) if condition in labels else read


@lru_cache(maxsize=1)
def _conditions() -> dict[str, str]:
    return {name: rule.condition for name, rule in rules(LABEL_SET).items()}


def _f1(calls: Sequence[bool], truths: Sequence[bool]) -> float:
    """Return F1; 1 if there is nothing to call and nothing is called."""
    hits = sum(a and b for a, b in zip(calls, truths, strict=True))
    total = sum(calls) + sum(truths)
    return 2 * hits / total if total else 1.0
