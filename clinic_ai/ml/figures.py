"""Figures of a training run as PNG files: loss, its forecast, ROC curve, reliability diagram. Needs matplotlib.

The same data give the same bytes. Colours are of Okabe and Ito (2008), which people of any colour vision tell apart;
besides, no two lines differ in colour alone.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clinic_ai.forecasting import Forecast, LawFit
from clinic_ai.ml.metrics import OperatingPoint, calibration_bins, expected_calibration_error, wilson_interval


@contextmanager
def _scratch() -> Iterator[None]:
    """Give matplotlib a folder for its list of fonts while it is imported; a child has no home, and leaves nothing."""
    before = os.environ.get("MPLCONFIGDIR")
    with tempfile.TemporaryDirectory(prefix="clinic-ai-fonts-") as folder:
        os.environ["MPLCONFIGDIR"] = before or folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["MPLCONFIGDIR"]


with _scratch():
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 10
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#767676"
_STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same on every machine
    "font.size": 11.0,
    "axes.titlesize": 12.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E0E0E0",
    "lines.linewidth": 2.0,
    "legend.frameon": False,
    "legend.handlelength": 3.0,
    "legend.fontsize": 10.0,
    "figure.dpi": 200.0,
    "savefig.dpi": 200.0,
}
_WIDE, _SQUARE = (6.0, 4.2), (6.0, 5.6)
"""Sizes in inches: 1200 pixels across, so that shown at 600 the writing is still as large as on a page."""


def loss_figure(history: Sequence[dict[str, float]], *, metric: str, metric_name: str, best_epoch: int) -> bytes:
    """Return a PNG of the training loss and a validation metric per epoch, the best epoch marked.

    Each entry of ``history`` has ``epoch``, ``loss`` and ``metric``; ``metric_name`` is what people call it.
    """
    epochs = [entry["epoch"] for entry in history]
    with _figure(_WIDE) as figure:
        axes = figure.add_subplot()
        marker = "o" if len(epochs) <= 40 else ""
        (loss,) = axes.plot(epochs, [entry["loss"] for entry in history], color=_ORANGE, marker=marker, markersize=4)
        loss.set(linestyle="--", label="training loss")
        axes.set(xlabel="epoch", ylabel="training loss")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        other = axes.twinx()
        other.spines["right"].set_visible(True)
        other.grid(visible=False)
        values = [entry[metric] for entry in history]
        (score,) = other.plot(epochs, values, color=_BLUE, marker=marker, markersize=4, label=metric_name)
        other.set_ylabel(metric_name)
        low, high = other.get_ylim()
        if min(values) >= 0 and max(values) <= 1:  # a share; the axis does not go where there can be none
            other.set_ylim(max(low, 0.0), min(high, 1.005))
        lines = [loss, score]
        if best_epoch in epochs:
            best = values[epochs.index(best_epoch)]
            label = f"best epoch {best_epoch}: {best:.3f}"
            lines += other.plot([best_epoch], [best], color=_BLUE, marker="*", markersize=15, linestyle="", label=label)
            other.axvline(best_epoch, color=_GREY, linewidth=1.0, linestyle=":")
        axes.legend(handles=lines, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, columnspacing=1.2)
        return _png(figure)


def roc_figure(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    auroc: float,
    interval: tuple[float, float],
    point: OperatingPoint,
    title: str,
) -> bytes:
    """Return a PNG of the ROC curve, its area with the 95 % ``interval`` in the legend, and the operating point."""
    false, true = roc_points(labels, probabilities)
    with _figure(_SQUARE) as figure:
        axes = figure.add_subplot()
        words = f"AUROC {auroc:.3f} (95 % interval {interval[0]:.3f} to {interval[1]:.3f})"
        axes.plot(false, true, color=_BLUE, label=words)
        axes.plot(
            [1 - point.specificity],
            [point.sensitivity],
            color=_ORANGE,
            marker="D",
            markersize=9,
            linestyle="",
            label=f"operating point {point.threshold:.2f}: sensitivity {point.sensitivity:.2f}, "
            f"specificity {point.specificity:.2f}",
            clip_on=False,
            zorder=3,
        )
        _unit_square(axes, "chance")
        axes.set(xlabel="1 − specificity", ylabel="sensitivity", title=title)
        axes.legend(loc="lower right")
        return _png(figure)


def reliability_figure(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    title: str,
    unit: str = "images",
    names: tuple[str, str] = ("with the condition", "without"),
) -> bytes:
    """Return a PNG of observed frequency over predicted probability in bins of equal count, and of the counts.

    The legend has the expected calibration error. Bars are 95 % intervals (Wilson) of the frequency; below, how many
    images have which probability, by label. ``unit`` is what a label is of, ``names`` those of labels 1 and 0.
    """
    truth, chance = np.asarray(labels, dtype=bool), np.asarray(probabilities, dtype=np.float64)
    bins = calibration_bins(chance, BINS)
    predicted = [float(chance[part].mean()) for part in bins]
    observed = [float(truth[part].mean()) for part in bins]
    bounds = [wilson_interval(int(truth[part].sum()), part.size) for part in bins]
    error = expected_calibration_error(truth, chance, bins=BINS)
    sizes = sorted({part.size for part in bins})
    many = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} or {sizes[-1]}"
    with _figure(_SQUARE) as figure:
        axes, below = figure.subplots(2, sharex=True, height_ratios=[3, 1])
        axes.errorbar(
            predicted,
            observed,
            yerr=[
                [max(0.0, at - low) for at, (low, _) in zip(observed, bounds, strict=True)],
                [max(0.0, high - at) for at, (_, high) in zip(observed, bounds, strict=True)],
            ],
            color=_BLUE,
            ecolor=_BLUE,
            elinewidth=1.2,
            capsize=3,
            marker="o",
            label=f"{len(bins)} bins of {many} {unit}, 95 % interval\nexpected calibration error {error:.3f}",
        )
        _unit_square(axes, "perfectly calibrated")
        axes.set(ylabel="observed frequency", title=title)
        axes.legend(loc="upper left")
        edges = np.linspace(0.0, 1.0, BINS + 1)
        below.hist(
            [chance[truth], chance[~truth]],
            bins=list(edges),
            stacked=True,
            color=[_ORANGE, _GREEN],
            edgecolor="white",
            label=list(names),
        )
        for bar, hatch in zip(below.containers, ("", "///"), strict=True):
            for patch in getattr(bar, "patches", bar):
                patch.set_hatch(hatch)
        counts, _ = np.histogram(chance, bins=edges)
        for centre, count in zip((edges[1:] + edges[:-1]) / 2, counts, strict=True):
            if count:
                below.annotate(f"{count}", (centre, count), ha="center", va="bottom", fontsize=9)
        below.set(xlabel="predicted probability", ylabel=unit, ylim=(0, max(1, int(counts.max())) * 1.3))
        below.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))
        below.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        return _png(figure)


def forecast_figure(found: Forecast) -> bytes:
    """Return a PNG of a loss curve over logarithmic steps with its law, the 95 % interval, and the fits of windows.

    What lies behind the last step is foretold; a law that is not identifiable says so above it.
    """
    steps, losses = np.array(found.points).T
    law = np.array([(place.step, place.fit, place.low, place.high) for place in found.law]).T
    with _figure(_WIDE) as figure:
        axes = figure.add_subplot()
        axes.plot(steps, losses, color=_GREY, marker=".", markersize=3, linestyle="", alpha=0.6, label="loss")
        axes.fill_between(law[0], law[2], law[3], color=_BLUE, alpha=0.2, linewidth=0, label="95 % interval")
        axes.plot(law[0], law[1], color=_BLUE, label=_law_words(found.fit))
        styles = ((0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (9, 2)))
        for window, style in zip(found.windows, styles, strict=False):
            own = law[0][law[0] > window.dropped]
            a, b, c = ((window.a.value or 0.0), (window.b.value or 0.0), (window.c.value or 0.0))
            label = f"without the first {window.dropped:.0f}: c = {c:.3g}"
            axes.plot(own, a * own**-b + c, color=_ORANGE, linewidth=1.3, linestyle=style, label=label)
        axes.axvline(found.last_step, color=_GREY, linewidth=1.0, linestyle=":")
        beside: dict[str, Any] = {
            "xycoords": ("data", "axes fraction"),
            "textcoords": "offset points",
            "fontsize": 9,
            "color": _GREY,
        }
        axes.annotate("foretold", (found.last_step, 0), (5, 5), **beside)
        axes.annotate("measured", (found.last_step, 0), (-5, 5), ha="right", **beside)
        axes.set(xscale="log", xlabel=found.unit, ylabel="loss")
        low, high = float(min(losses.min(), law[1].min())), float(max(losses.max(), law[1].max()))
        axes.set_ylim(max(0.0, low - 0.1 * (high - low)), high + 0.05 * (high - low))
        verdict = "identifiable" if found.identifiable else "NOT identifiable: do not read it as a prediction"
        axes.set_title(f"{found.name}\n{verdict}")
        axes.legend(loc="upper right", fontsize=8.5, frameon=True, framealpha=1.0, edgecolor="white")
        return _png(figure)


def _law_words(fit: LawFit) -> str:
    a, b, c = ((span.value or 0.0) for span in (fit.a, fit.b, fit.c))
    return f"{a:.4g} · t^(−{b:.3g}) + {c:.3g}"


def roc_points(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the corners of the ROC curve from (0, 0) to (1, 1): 1 - specificity, and sensitivity.

    Raise ValueError unless both classes are there.
    """
    truth, chance = np.asarray(labels, dtype=bool), np.asarray(probabilities, dtype=np.float64)
    if not truth.any() or truth.all():
        raise ValueError("a ROC curve needs at least one positive and one negative")
    order = np.argsort(-chance, kind="stable")
    last_of_equals = np.append(np.flatnonzero(np.diff(chance[order])), truth.size - 1)
    true = np.cumsum(truth[order])[last_of_equals] / truth.sum()
    false = np.cumsum(~truth[order])[last_of_equals] / (~truth).sum()
    return np.concatenate([[0.0], false]), np.concatenate([[0.0], true])


def _unit_square(axes: Axes, diagonal: str) -> None:
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1.2, linestyle="--", label=diagonal, zorder=1)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))  # room for what lies on the edge


@contextmanager
def _figure(inches: tuple[float, float]) -> Iterator[Figure]:
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # instead of what somebody has set on this machine
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=inches, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
