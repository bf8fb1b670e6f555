"""What people read of the reference model: its card, and a figure of its Dice scores."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from clinic_ai_ct.lesions import LESIONS


def card(figures: dict[str, Any], phantoms: int, fresh: int, seconds: float) -> str:
    """Return the card as Markdown; the classifier learned from ``fresh`` phantoms beside those of the network."""
    rows = [_row(name, figures) for name in LESIONS]
    rows += [
        f"| {_words(name)} | - | {_number(value)} | - | - |"
        for name, value in figures["auroc"].items()
        if name not in LESIONS
    ]
    side, each = figures["finding_and_side"], figures["each_side"]
    return "\n".join(
        [
            "# Reference model for chest CT",
            "",
            "Not for clinical use. It shows that the appliance works from a DICOM series to masks and report.",
            "",
            f"- Learned from {phantoms} chests drawn by software, its classifier from {fresh} more, in "
            f"{seconds / 3600:.1f} h of CPU; no patient.",
            f"- Judged on {figures['phantoms']} others: DICOM series through the engine, masks on their slices.",
            "- It has never seen a patient, so nothing can be said of how it judges one.",
            "",
            "| condition | Dice where drawn | AUROC | finding and side: right, wrong, missed | size within 20 % |",
            "|---|---|---|---|---|",
            *rows,
            "",
            *(
                [f"Not judged, for it is told too badly: {_listed(figures['not_judged'])}.", ""]
                * bool(figures["not_judged"])
            ),
            f"Mean Dice of all lesions drawn: {_number(figures['dice_mean'])}. "
            f"Finding and side together: precision {_number(side['precision'], 3)}, "
            f"recall {_number(side['recall'], 3)}; with each side of a bilateral one by itself "
            f"{_number(each['precision'], 3)} and {_number(each['recall'], 3)}. "
            f"The largest sizes that reports tell, depths of fluid and diameters of the others, err by "
            f"{_percent(figures['size_error'])} on average, and {_number(figures['sizes_within_20_percent'])} of them "
            f"lie within 20 % of the truth; but for nodules, volumes err by {_percent(figures['volume_error'])}, and "
            f"{_number(figures['volumes_within_20_percent'])} lie within 20 %. "
            f"Nodules below 8 mm are not counted. {_number(figures['seconds_each'])} s for each study.",
            "",
        ]
    )


def _row(name: str, figures: dict[str, Any]) -> str:
    """Return what is known of one lesion as a row of the table."""
    calls = figures["finding_and_side"]["each"][name]
    sized = figures["sizes"].get(name)
    cells = (
        _words(name),
        _number(figures["dice"][name]),
        _number(figures["auroc"][name]),
        f"{calls['right']} / {calls['wrong']} / {calls['missed']}",
        f"{sized['within_20_percent']} of {sized['of']}; error {sized['mean_error']:.0%}" if sized else "-",
    )
    return f"| {' | '.join(cells)} |"


def dice_figure(figures: dict[str, Any]) -> bytes:
    """Return the Dice scores as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 2.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names = list(reversed(LESIONS))
    values = [figures["dice"][name] or 0.0 for name in names]
    bars = axes.barh([_words(name) for name in names], values, color="#3b6ea5", height=0.6)
    axes.bar_label(bars, [_number(figures["dice"][name]) for name in names], padding=4)
    axes.axvline(0.5, color="#888888", linewidth=0.8, linestyle=":")
    axes.set_xlim(0, 1.08)
    axes.set_xlabel(f"mean Dice where drawn, {figures['phantoms']} phantoms held out")
    axes.spines[["top", "right"]].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    return content.getvalue()


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in names)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
