"""The table of a CT challenge: figures of report, classification and localisation under the names it uses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clinic_ai.contract import FIGURES
from clinic_ai.ml.label_scores import LabelScores, macro
from clinic_ai.ml.mask_scores import MaskScores

_MASKS = ("dice", "iou", "hd95_mm", "sensitivity")


@dataclass(frozen=True)
class Row:
    """One figure of the table. ``note`` says what it leaves out, if anything."""

    task: str
    of: str
    """Of which label or lesion; empty for the mean over all."""
    figure: str
    value: float
    note: str = ""


def challenge_table(
    *,
    texts: Mapping[str, float] | None = None,
    labels: Sequence[LabelScores] = (),
    masks: Mapping[str, Sequence[MaskScores]] | None = None,
) -> tuple[Row, ...]:
    """Return the rows of the table: report, classification, localisation; tasks without figures are left out.

    ``texts`` are figures of the reports (``text_scores``, and ``crg`` and ``label_f1`` where there are labels of them),
    ``labels`` those of the classifier, ``masks`` those of each lesion on each case. A mean over lesions is of the means
    of each.
    """
    rows = [Row("report", "", key, value) for key, value in _ordered(texts or {})]
    rows += [Row("classification", "", key, value) for key, value in _ordered(macro(labels))] if labels else []
    rows += [Row("classification", each.label, "auroc", each.auroc, _counted(each)) for each in labels]
    by_lesion = {name: tuple(_lesion(name, cases)) for name, cases in (masks or {}).items() if cases}
    if by_lesion:
        rows += _mean_over(by_lesion.values())
        rows += [row for each in by_lesion.values() for row in each]
    return tuple(rows)


def values_of(rows: Iterable[Row]) -> dict[str, float]:
    """Return a table as the figures of a model (``contract.Scores``), without those that are NaN.

    A key is ``report.bleu_1`` for a mean over all, ``localisation.lung_nodule.dice`` for that of one label or lesion.
    """
    named = ((".".join(filter(None, (r.task, _key(r.of), r.figure))), r.value) for r in rows)
    return {key: value for key, value in named if not math.isnan(value)}


def table_text(rows: Sequence[Row]) -> str:
    """Return the table in columns, as a terminal shows it; what has no value is a dash."""
    if not rows:
        return "There are no figures."
    cells = [(r.task, r.of or "all", FIGURES.get(r.figure, r.figure), _value(r.value), r.note) for r in rows]
    head = ("task", "of", "figure", "value", "")
    widths = [max(len(row[n]) for row in (head, *cells)) for n in range(4)]
    return "\n".join(
        f"{a:{widths[0]}}  {b:{widths[1]}}  {c:{widths[2]}}  {d:>{widths[3]}}  {e}".rstrip()
        for a, b, c, d, e in (head, *cells)
    )


def _ordered(figures: Mapping[str, float]) -> list[tuple[str, float]]:
    order = {figure: place for place, figure in enumerate(FIGURES)}
    return sorted(figures.items(), key=lambda item: (order.get(item[0], len(order)), item[0]))


def _counted(scores: LabelScores) -> str:
    return f"{scores.positives} of {scores.rows} positive"


def _lesion(name: str, cases: Sequence[MaskScores]) -> Iterable[Row]:
    for figure in _MASKS:
        values = [v for case in cases if not math.isnan(v := getattr(case, figure))]
        left_out = len(cases) - len(values)
        note = f"{left_out} of {len(cases)} cases have none" if left_out else ""
        yield Row("localisation", name, figure, float(np.mean(values)) if values else math.nan, note)
    lesions, found = sum(c.lesions for c in cases), sum(c.found for c in cases)
    note = f"{found} of {lesions}"
    yield Row("localisation", name, "lesion_sensitivity", found / lesions if lesions else math.nan, note)


def _mean_over(lesions: Iterable[Sequence[Row]]) -> list[Row]:
    rows: dict[str, list[float]] = {}
    for each in lesions:
        for row in each:
            rows.setdefault(row.figure, []).append(row.value)
    known = {figure: [v for v in values if not math.isnan(v)] for figure, values in rows.items()}
    return [Row("localisation", "", f, float(np.mean(values)) if values else math.nan) for f, values in known.items()]


def _key(name: str) -> str:
    return "_".join(name.lower().replace(".", " ").split())


def _value(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
