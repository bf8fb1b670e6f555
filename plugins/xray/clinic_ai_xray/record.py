"""What a finished run leaves beside its model: figures to look at, the history as a table, figures by subgroup."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from clinic_ai.ml.checkpoints import write_durably
from clinic_ai.ml.figures import loss_figure, reliability_figure, roc_figure
from clinic_ai.ml.metrics import at_threshold
from clinic_ai.ml.subgroups import by_subgroup, traits
from clinic_ai_xray.candidate import Candidate
from clinic_ai_xray.tail import METRIC, METRIC_NAME, TailState

HISTORY = "training_history.csv"
FIGURES = "figures"


def write_record(directory: Path, candidate: Candidate, state: TailState) -> dict[str, Any]:
    """Write figures and history below ``directory``; return what ``training_summary.json`` says of them.

    Its ``subgroups`` are those of the part that the candidate was measured on.
    """
    write_durably(directory / HISTORY, history_table(state.history))
    (directory / FIGURES).mkdir(exist_ok=True)
    drawn = _figures(candidate, state)
    for name, content in drawn.items():
        write_durably(directory / FIGURES / name, content)
    return {
        "figures": [f"{FIGURES}/{name}" for name in drawn],
        "history_table": HISTORY,
        "subgroups": _subgroups(candidate),
    }


def history_table(history: list[dict[str, float]]) -> bytes:
    """Return the history as CSV: a line per epoch with its loss and metric."""
    text = io.StringIO()
    columns = list(dict.fromkeys(key for entry in history for key in entry))
    table = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
    table.writeheader()
    table.writerows({**entry, "epoch": int(entry["epoch"])} for entry in history)
    return text.getvalue().encode()


def _figures(candidate: Candidate, state: TailState) -> dict[str, bytes]:
    measured = candidate.measured
    labels, chance, patients = measured.labels, measured.probabilities, len(set(measured.patients))
    of = f"{measured.condition}, {candidate.split} part: {len(labels)} images of {patients} patients"
    return {
        "loss.png": loss_figure(state.history, metric=METRIC, metric_name=METRIC_NAME, best_epoch=state.best_epoch),
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
