"""Reports to learn from: mostly templates in varied words, the rest paraphrased by a language model and checked.

Both say only what findings and masks say; a paraphrase goes through ``supported`` like any generated report, and what
it leaves out is filled in from the template.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from clinic_ai.domain import Finding, Presence, ReportSentence
from clinic_ai_ct.lesions import Lesion
from clinic_ai_ct.report import location_phrases, report_text, write_report
from clinic_ai_ct.supported import Removed, completed, supported
from clinic_ai_ct.wording import Wording

PROMPT = "Generate a clinical radiology report based on the CT scan findings:"
PARAPHRASE = (
    "Write this chest CT report again in other words, with the same headings. Keep every number, side and place, and"
    " add nothing:\n\n"
)
PARAPHRASED_SHARE = 0.2
"""So many of the reports are paraphrased where there is a language model."""
_SURE, _SURELY_NOT = 0.97, 0.02


@dataclass(frozen=True)
class TrainingReport:
    """A report to learn from, how it was made, and what of a paraphrase was taken out."""

    text: str
    sentences: tuple[ReportSentence, ...]
    method: Literal["template-based", "llm-generated"]
    removed: tuple[Removed, ...] = ()


def training_report(
    findings: Sequence[Finding],
    lesions: Sequence[Lesion],
    *,
    seed: int,
    paraphrase: Callable[[str], str] | None = None,
    share: float = PARAPHRASED_SHARE,
) -> TrainingReport:
    """Return the report of a study; the same seed gives the same words.

    ``paraphrase`` is a language model: it takes a prompt and returns a text. Without one, or where nothing of what it
    wrote can stay, the report is the template.
    """
    draw = random.Random(seed)  # noqa: S311 - words for training, no secrets
    asked = draw.random() < share
    written = write_report(findings, lesions, wording=Wording("en", draw.choice))
    if paraphrase is None or not asked:
        return TrainingReport(report_text(written), written, "template-based")
    found = supported(paraphrase(PARAPHRASE + report_text(written)), findings, lesions)
    if not found.sentences:
        return TrainingReport(report_text(written), written, "template-based", found.removed)
    whole = completed(found.sentences, written)
    return TrainingReport(report_text(whole), whole, "llm-generated", found.removed)


def prompt(lesions: Sequence[Lesion]) -> str:
    """Return what a language model is asked: the location phrases of the masks, a blank line, the instruction."""
    return "\n".join([*location_phrases(lesions), "", PROMPT]).lstrip()


def findings_from_labels(labels: Mapping[str, bool], instance_sha256: str) -> tuple[Finding, ...]:
    """Return findings that stand for labels of a training case, by condition: as sure as a finding can be worded.

    They are for writing reports to learn from and are no model's: their probability is no measurement.
    """
    return tuple(
        Finding(
            condition=condition,
            label=condition.replace("_", " ").capitalize(),
            probability=_SURE if there else _SURELY_NOT,
            threshold=0.5,
            presence=Presence.PRESENT if there else Presence.ABSENT,
            instance_sha256=instance_sha256,
        )
        for condition, there in labels.items()
    )
