"""How good written reports are: their words, and what they say by the labels that rules read out of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from clinic_ai.ml.label_scores import crg, label_scores, macro
from clinic_ai.ml.text_scores import text_scores
from clinic_ai_ct.labeller import labels, rules


def label_rows(reports: Sequence[str], label_set: str = "vlm3d") -> npt.NDArray[np.bool_]:
    """Return which labels each report affirms, (N, L), in the order of the label set."""
    return np.array([list(labels(report, label_set).values()) for report in reports], dtype=bool).reshape(
        len(reports), len(rules(label_set))
    )


def report_scores(said: Sequence[str], truth: Sequence[str], label_set: str = "vlm3d") -> dict[str, float]:
    """Return the figures of reports against reference reports: those of ``text_scores``, ``label_f1`` and ``crg``.

    ``label_f1`` is the mean over the labels that any reference affirms; NaN if none does, and ``crg`` is left out then.
    Raise ValueError if the numbers of reports differ or are zero.
    """
    scores = text_scores(said, truth)
    right, called = label_rows(truth, label_set), label_rows(said, label_set)
    scores["label_f1"] = macro(label_scores(right, called, list(rules(label_set))))["f1"]
    if 0 < right.sum() < right.size:
        scores["crg"] = crg(right, called)
    return scores
