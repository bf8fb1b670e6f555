"""What a finished run leaves beside its model and its history: figures to look at, figures by subgroup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clinic_ai.ml.checkpoints import write_durably
from clinic_ai.ml.figures import reliability_figure, roc_figure
from clinic_ai.ml.metrics import at_threshold
from clinic_ai.ml.records import BEST, FIGURES, HISTORY, LOSS_FIGURE, Record
from clinic_ai.ml.subgroups import by_subgroup, traits
from clinic_ai_xray.candidate import Candidate
from clinic_ai_xray.training import TailState


def write_record(directory: Path, record: Record, candidate: Candidate, state: TailState) -> dict[str, Any]:
    """Write figures below ``directory``; return what ``training_summary.json`` says of all that lies there.

    Its ``subgroups`` are those of the part that the candidate was measured on.
    """
    record.draw(state.history, state.best_epoch)
    drawn = _figures(candidate)
    for name, content in drawn.items():
        write_durably(directory / FIGURES / name, content)
    return {
        "figures": [f"{FIGURES}/{name}" for name in (LOSS_FIGURE, *drawn)],
        "history_table": HISTORY,
        "best_table": BEST,
        "subgroups": _subgroups(candidate),
    }


def _figures(candidate: Candidate) -> dict[str, bytes]:
    measured = candidate.measured
    labels, chance, patients = measured.labels, measured.probabilities, len(set(measured.patients))
    of = f"{measured.condition}, {candidate.split} part: {len(labels)} images of {patients} patients"
    return {
        "roc.png": roc_figure(
            labels,
            chance,
            auroc=candidate.scores.values["auroc"],
            interval=candidate.scores.intervals["auroc"],
            point=at_threshold(labels, chance, candidate.band.threshold),
            title=f"ROC curve\n{of}",
        ),
        "reliability.png": reliability_figure(labels, chance, title=f"Reliability\n{of}"),
    }


def _subgroups(candidate: Candidate) -> dict[str, dict[str, dict[str, Any]]]:
    measured = candidate.measured
    images = [traits(example.path, example.groups) for example in measured.examples]
    return by_subgroup(images, measured.labels, measured.probabilities, measured.patients, candidate.band.threshold)
