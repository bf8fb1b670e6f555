"""The tables of the model card, made of what the build measured: ``python -m clinic_ai_ultrasound.reference.card``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clinic_ai_ultrasound.reference.questions import SUBJECTS, TOPICS
from clinic_ai_ultrasound.reference.samples import DRAWN, HEAD

_HEADER = (
    "| question | asked, of | right | 95 % interval | commonest answer | other images | base | gain over the base |",
    "|---|---|---|---|---|---|---|---|",
)


def read_summary(folder: Path, name: str) -> dict[str, Any]:
    """Return the summary of one model of ``folder``."""
    found: dict[str, Any] = json.loads((folder / f"{name}.training_summary.json").read_text())
    return found


def heads_table(folder: Path) -> str:
    """Return the table of the fetal heads: views of the subjects of the test part."""
    test = read_summary(folder, HEAD)["test"]
    return "\n".join((*_HEADER, *(_row(HEAD, topic, figures) for topic, figures in test.items())))


def drawn_table(folder: Path) -> str:
    """Return the table of the categories that learned from phantoms, all their questions together."""
    rows = []
    for category in DRAWN:
        figures = read_summary(folder, category)["test"]["all"]
        rows.append(_line(category.replace("_", " "), figures))
    return "\n".join((_HEADER[0].replace("question", "category"), _HEADER[1], *rows))


def unaltered_table(folder: Path) -> str:
    """Return the table of the heads as they are, whose answers are not balanced."""
    found = read_summary(folder, HEAD)["unaltered"]
    header = ("| question | images | right | 95 % interval | commonest answer |", "|---|---|---|---|---|")
    rows = [
        f"| {_question(HEAD, topic)} | {figures['questions']} | {_share(figures['accuracy'])} "
        f"| {_interval(figures['accuracy_interval'])} | {_share(figures['commonest'])} |"
        for topic, figures in found.items()
        if topic != "all"
    ]
    return "\n".join((*header, *rows))


def _row(category: str, topic: str, figures: dict[str, Any]) -> str:
    return _line(_question(category, topic), figures)


def _question(category: str, topic: str) -> str:
    if topic == "all":
        return "all together"
    return TOPICS[topic].wordings[0].format(noun=SUBJECTS[category].noun)


def _line(name: str, figures: dict[str, Any]) -> str:
    cells = (
        name,
        f"{figures['questions']}, {figures['subjects']}",
        _share(figures["accuracy"]),
        _interval(figures["accuracy_interval"]),
        f"{_share(figures['commonest'])} ({_p(figures['mcnemar_p'])})",
        _share(figures["shuffled"]),
        _share(figures["base"]),
        f"{_interval(figures['gain_interval'])} ({_p(figures['gain_mcnemar_p'])})",
    )
    return f"| {' | '.join(cells)} |"


def _share(value: float) -> str:
    return f"{value:.3f}"


def _interval(bounds: Iterable[float]) -> str:
    return " to ".join(f"{bound:.3f}" for bound in bounds)


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def main() -> None:
    """Print all tables."""
    folder = Path(__file__).parent
    sys.stdout.write("\n\n".join((heads_table(folder), unaltered_table(folder), drawn_table(folder))) + "\n")


if __name__ == "__main__":
    main()
