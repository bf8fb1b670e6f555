"""The page a person reads before promoting an adapter: one HTML file with everything in it, and the figures as PNG."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2

from clinic_ai.ml.checkpoints import write_durably
from clinic_ai.ml.figures import reliability_figure
from clinic_ai.ml.records import BEST, FIGURES, HISTORY, LOSS_FIGURE, Record
from clinic_ai_ultrasound.confidence import Calibration
from clinic_ai_ultrasound.evaluation import Compared
from clinic_ai_ultrasound.fitting import FitState
from clinic_ai_ultrasound.recipe import AdapterRecipe
from clinic_ai_ultrasound.scoring import METRICS, Figures

PAGE = "report.html"
_WRONG = 20
"""Wrong answers that are shown."""
_CAPTIONS = {
    LOSS_FIGURE: "Loss of the training and the validation part after each epoch; the best one is kept.",
    "reliability.png": "How often answers of the test part are exactly right, over the confidence they carry.",
}


@dataclass(frozen=True)
class Finished:
    """A finished run, as its page and its summary tell it; ``category`` is what people call the category."""

    run: str
    category: str
    dataset: str
    base: str
    quantisation: str
    model: str
    recipe: AdapterRecipe
    state: FitState
    compared: Compared
    calibration: Calibration | None
    counts: list[str]
    trainable: int
    seconds: float
    notes: list[str]

    def summary(self) -> dict[str, Any]:
        """Return what ``training_summary.json`` says: all figures, no answer and no image."""
        compared = self.compared
        return {
            "run": self.run,
            "category": self.category,
            "dataset": self.dataset,
            "base": self.base,
            "quantisation": self.quantisation,
            "recipe": asdict(self.recipe),
            "best_epoch": self.state.best_epoch,
            "history": self.state.history,
            "history_table": HISTORY,
            "best_table": BEST,
            "trainable": self.trainable,
            "scores": compared.scores().model_dump(mode="json"),
            "by_question": {
                question: {"base": asdict(before), "adapter": asdict(after)}
                for question, (before, after) in compared.types().items()
            },
            "calibration": None if self.calibration is None else asdict(self.calibration),
            "trained_on": self.counts,
            "seconds": round(self.seconds, 1),
            "notes": self.notes,
        }


def write_report(directory: Path, finished: Finished, record: Record) -> None:
    """Write ``report.html`` and the figures below ``directory``."""
    drawn = {LOSS_FIGURE: record.draw(finished.state.history, finished.state.best_epoch), **_figures(finished)}
    for name, content in drawn.items():
        write_durably(directory / FIGURES / name, content)
    write_durably(directory / PAGE, page(finished, drawn).encode())


def page(finished: Finished, drawn: dict[str, bytes]) -> str:
    """Return the page; ``drawn`` are its figures by name. Words from sheets and models are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("clinic_ai_ultrasound", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    compared, wrong = finished.compared, _wrong(finished.compared)
    gain, gain_interval = compared.gain
    before, after = compared.before.figures(), compared.after.figures()
    return environment.get_template("report.html.jinja").render(
        {
            **{key: getattr(finished, key) for key in ("run", "category", "dataset", "base", "quantisation", "model")},
            "best_epoch": finished.state.best_epoch,
            "epochs": finished.state.epoch,
            "answers": after.answers,
            "metrics": METRICS,
            "before": before,
            "after": after,
            "gain": gain,
            "gain_interval": gain_interval,
            "types": compared.types(),
            "wrong": wrong[:_WRONG],
            "wrong_in_all": len(wrong),
            "calibration": _calibrated(finished.calibration, after),
            "figures": [(name, base64.b64encode(drawn[name]).decode(), _CAPTIONS[name]) for name in drawn],
            "counts": finished.counts,
            "recipe": asdict(finished.recipe),
            "trainable": finished.trainable,
            "seconds": finished.seconds,
            "notes": finished.notes,
        }
    )


def _wrong(compared: Compared) -> list[dict[str, str]]:
    said = compared.said
    rows = zip(said.examples, said.pairs, said.answers[1], compared.after.exact, strict=True)
    return [
        {"image": example.sha256[:12], "question": pair.question, "truth": pair.answer, "said": answered.text}
        for example, pair, answered, exact in rows
        if not exact
    ]


def _calibrated(calibration: Calibration | None, after: Figures) -> str:
    if calibration is None:
        return "Its answers carry no confidence; the notes below say why."
    return (
        f"The chance that an answer is exactly right is sigmoid({calibration.slope:.3g} × m + "
        f"{calibration.intercept:.3g}), with m the mean log-probability of its tokens; fitted to the validation part. "
        f"On the test part {after.values['exact_match']:.0%} of the answers are exactly right."
    )


def _figures(finished: Finished) -> dict[str, bytes]:
    compared = finished.compared
    drawn = {}
    if finished.calibration is not None:
        chance = [
            finished.calibration.probability(one.mean_log_probability) if one.text else 0.0
            for one in compared.said.answers[1]
        ]
        title = f"Reliability\n{finished.category}, test part: {len(chance)} answers"
        drawn["reliability.png"] = reliability_figure(
            compared.after.exact, chance, title=title, unit="answers", names=("exactly right", "not")
        )
    return drawn
