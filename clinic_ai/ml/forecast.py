"""A forecast from a loss curve: the law, how far it depends on the window, whether it foretells, and what of it holds.

The verdict is in words. A curve is identifiable only if its intervals are narrow enough to be of use, leaving out its
beginning does not change the law beyond what noise explains, and its first part foretells the rest.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, curve_fit

from clinic_ai.errors import InputError
from clinic_ai.forecasting import (
    Ahead,
    CurvePoint,
    Forecast,
    ForecastTask,
    HoldOut,
    LawFit,
    NoiseView,
    Span,
    WindowFit,
    WithoutFloor,
)
from clinic_ai.ml.resampling import Floats
from clinic_ai.ml.scaling import FEWEST_POINTS, Fit, Interval

REPLICATES, WINDOW_REPLICATES = 999, 499
MOST_FITTED = 4000
"""Points that are fitted; of longer curves every second, third … one."""
WINDOWS = (0.01, 0.05, 0.2, 0.5)
"""Shares of the steps that are left out at the beginning, one at a time."""
HELD_OUT = 0.3
"""Share of the steps at the end that the rest has to foretell."""
HORIZON = 1000.0
"""Times the steps so far; beyond that nothing is foretold."""
PLOTTED = 10.0
"""Times the steps so far that a plot shows."""
LEVEL = 0.95
MOST_SPREAD = 10.0
"""How far apart the ends of the interval of the next halving may be, as a ratio of steps."""
_PLOT_POINTS, _LAW_POINTS = 400, 40


@dataclass(frozen=True)
class _Window:
    """A fit without the beginning of the curve, up to step ``dropped``."""

    dropped: float
    fit: Fit
    agrees: bool = True


def forecast(task: ForecastTask) -> Forecast:
    """Return what a loss curve foretells. Raise InputError, one sentence, if no law can be fitted to it."""
    steps, losses = np.array(task.curve.steps), np.array(task.curve.losses)
    if len(steps) != len(losses):
        raise InputError("uneven", f"The loss curve has {len(steps)} steps and {len(losses)} losses.")
    kept = steps > task.drop
    steps, losses = steps[kept], losses[kept]
    stride = -(-len(steps) // MOST_FITTED) or 1
    notes = [f"Of the {len(steps)} points every {_ordinal(stride)} is fitted."] if stride > 1 else []
    shown = steps[::stride], losses[::stride]
    return _Forecaster(task, *shown, notes).result()


class _Forecaster:
    """One forecast in the making."""

    def __init__(self, task: ForecastTask, steps: Floats, losses: Floats, notes: list[str]) -> None:
        self._task, self._steps, self._losses, self._notes = task, steps, losses, notes
        self._fit = Fit(steps, losses, replicates=REPLICATES, seed=task.seed)
        self._last = float(steps[-1])
        self._windows = list(self._other_windows())
        self._hold_out = self._held_out()
        self._reasons = tuple(self._doubts())

    def result(self) -> Forecast:
        """Return the forecast."""
        task, fit = self._task, self._fit
        target_at, target_note = self._target()
        found = Forecast(
            name=task.curve.name,
            unit=task.curve.unit,
            last_step=self._last,
            fit=LawFit(dropped=task.drop, points=len(self._steps), **_parameters(fit)),
            windows=tuple(
                WindowFit(dropped=w.dropped, points=len(w.fit.steps), agrees=w.agrees, **_parameters(w.fit))
                for w in self._windows
            ),
            hold_out=self._hold_out,
            noise=NoiseView(
                deviation=fit.deviation,
                trend=fit.noise.trend,
                autocorrelation=fit.noise.autocorrelation,
                effective_points=fit.noise.effective_points,
                block_length=fit.noise.block_length,
                replicates=REPLICATES,
            ),
            identifiable=not self._reasons,
            reasons=self._reasons,
            now=self._ahead(1.0),
            twice=self._ahead(2.0),
            halving=self._halving(),
            target=task.target,
            target_at=target_at,
            target_note=target_note,
            without_floor=self._without_floor(),
            points=self._points(),
            law=tuple(self._law()),
            notes=tuple(self._notes),
        )
        if not task.picture:
            return found
        from clinic_ai.ml.figures import forecast_figure  # matplotlib takes a second to import

        return found.model_copy(update={"picture": base64.b64encode(forecast_figure(found)).decode()})

    # ------------------------------------------------------------ is it to be believed

    def _other_windows(self) -> Iterator[_Window]:
        drops = [self._task.drop + share * (self._last - self._task.drop) for share in WINDOWS]
        sizes = [int((self._steps > drop).sum()) for drop in drops]
        useful = []
        for drop, size, before in zip(drops, sizes, [len(self._steps), *sizes], strict=False):
            if FEWEST_POINTS <= size < before:
                useful.append(drop)
        level = 1 - (1 - LEVEL) / max(len(useful), 1)  # so that together they err as often as one may
        law = self._fit.law
        for drop in useful:
            kept = self._steps > drop
            try:
                fit = Fit(self._steps[kept], self._losses[kept], replicates=WINDOW_REPLICATES, seed=self._task.seed)
            except InputError as error:
                self._notes.append(f"Without the first {_steps(drop)} {self._task.curve.unit}s: {error.message}")
                continue
            yield _Window(drop, fit, fit.asymptote(level).covers(law.c) and fit.exponent(level).covers(law.b))

    def _held_out(self) -> HoldOut | None:
        until = self._task.drop + (1 - HELD_OUT) * (self._last - self._task.drop)
        first = self._steps <= until
        if first.sum() < FEWEST_POINTS or first.all():
            self._notes.append("The curve is too short to hold a part of it back.")
            return None
        try:
            fit = Fit(self._steps[first], self._losses[first], replicates=WINDOW_REPLICATES, seed=self._task.seed)
        except InputError as error:
            self._notes.append(f"Nothing was held back. Of the first part alone: {error.message}")
            return None
        rest = self._steps[~first]
        return HoldOut(
            until=until,
            points=int(first.sum()),
            held_out=len(rest),
            predicted=_span(float(fit.law.at(rest).mean()), fit.observed_mean_at(rest)),
            observed=float(self._losses[~first].mean()),
        )

    def _doubts(self) -> Iterator[str]:
        """Tell why the law cannot be told from the curve; nothing if it can."""
        fit, unit = self._fit, self._task.curve.unit
        exponent, asymptote = fit.exponent(), fit.asymptote()
        if _growth(exponent.low) > MOST_SPREAD * _growth(exponent.high):
            fastest = _growth(exponent.high)
            yield (
                f"b is only known to be {_between(exponent)}: to halve what is left above c takes {fastest:.3g} times "
                f"as many {unit}s as so far, or {_times(_growth(exponent.low) / fastest)} of that."
            )
        if asymptote.high - asymptote.low > fit.remaining:
            yield (
                f"c is only known to be {_between(asymptote)}, a range wider than the {fit.remaining:.3g} by which the "
                "loss is above it now."
            )
        for window in self._windows:
            if not window.agrees:
                c, b = window.fit.asymptote(), window.fit.exponent()
                yield (
                    f"Without the first {_steps(window.dropped)} {unit}s the law is another one, by more than noise "
                    f"explains: c is then {window.fit.law.c:.3g} ({_between(c)}), not {fit.law.c:.3g}, and b "
                    f"{window.fit.law.b:.3g} ({_between(b)}), not {fit.law.b:.3g}."
                )
        held = self._hold_out
        if held is not None and not held.inside:
            yield (
                f"The curve up to {unit} {_steps(held.until)} foretold a mean loss of {held.predicted.low:.4g} to "
                f"{held.predicted.high:.4g} for the rest; it was {held.observed:.4g}."
            )

    # ------------------------------------------------------------ what lies ahead

    def _spanned(self, value: float, interval: Callable[[Fit], Interval], most: float = math.inf) -> Span:
        """Return a value with its interval; of a law that is not identifiable, the range alone.

        Where the law depends on the window, or did not foretell, the range spans all windows.
        """
        found = [interval(fit) for fit in self._believed()]
        low, high = min(each.low for each in found), max(each.high for each in found)
        return Span(value=None if self._reasons else value, low=low, high=None if high > most else high)

    def _believed(self) -> list[Fit]:
        windows = [window for window in self._windows if self._misfit]
        return [self._fit, *(window.fit for window in windows)]

    @property
    def _misfit(self) -> bool:
        held = self._hold_out
        return not all(window.agrees for window in self._windows) or (held is not None and not held.inside)

    def _ahead(self, times: float) -> Ahead:
        step = np.array([times * self._last])
        value = float(self._fit.law.at(step)[0])
        return Ahead(step=float(step[0]), loss=self._spanned(value, lambda fit: fit.mean_at(step), 1e300))

    def _halving(self) -> Span:
        def steps(fit: Fit) -> Interval:
            exponent = fit.exponent()
            return Interval(self._last * _growth(exponent.high), self._last * _growth(exponent.low))

        return self._spanned(self._last * _growth(self._fit.law.b), steps, HORIZON * self._last)

    def _target(self) -> tuple[Span | None, str]:
        target, law = self._task.target, self._fit.law
        if target is None:
            return None, ""
        if target <= law.c:
            value, note = math.inf, f"A loss of {target:g} is not above the floor of the fitted law, c = {law.c:.4g}."
        else:
            value, note = (law.a / (target - law.c)) ** (1 / law.b), ""
        if self._reasons:
            note = ""
        elif value <= self._last:
            note = f"By the law the loss was down to {target:g} by {self._task.curve.unit} {_steps(value)} already."
        span = self._spanned(value, lambda fit: self._reaching(fit, target), HORIZON * self._last)
        if span.low > HORIZON * self._last:
            return None, f"A loss of {target:g} is out of reach: it would take more than {HORIZON:g} times the steps."
        return span.model_copy(update={"value": span.value if math.isfinite(value) else None}), note

    def _reaching(self, fit: Fit, target: float) -> Interval:
        """Return the steps between which the law reaches a loss: where the interval at a step holds the target."""
        ends = math.log(self._steps[0]), math.log(2 * HORIZON * self._last)

        def where(edge: Callable[[Interval], float]) -> float:
            def above(log: float) -> float:
                return edge(fit.mean_at(np.array([math.exp(log)]))) - target

            if above(ends[0]) <= 0:
                return float(self._steps[0])
            return math.inf if above(ends[1]) > 0 else math.exp(brentq(above, *ends, xtol=1e-3))

        return Interval(where(lambda found: found.low), where(lambda found: found.high))

    def _without_floor(self) -> WithoutFloor:
        fit = self._fit
        found, _ = curve_fit(
            lambda steps, a, b: a * steps**-b,
            self._steps,
            self._losses,
            p0=(float(self._losses[0]) * float(self._steps[0]) ** 0.1, 0.1),
            bounds=((0.0, 0.0), (math.inf, math.inf)),
            x_scale="jac",
        )
        a, b = map(float, found)
        left = float(np.sqrt(np.mean((self._losses - a * self._steps**-b) ** 2)))
        least = float(np.sqrt(np.mean((self._losses - fit.law.at(self._steps)) ** 2)))
        excess = max(left / least - 1, 0.0) if least > 0 else 0.0
        return WithoutFloor(a=a, b=b, excess=excess, enough=fit.asymptote().low <= 0)

    # ------------------------------------------------------------ for a plot

    def _points(self) -> tuple[tuple[float, float], ...]:
        """Return some points, as dense in the logarithm of the step as there are."""
        wanted = np.geomspace(self._steps[0], self._last, _PLOT_POINTS)
        places = np.unique(np.clip(np.searchsorted(self._steps, wanted), 0, len(self._steps) - 1))
        return tuple((float(self._steps[place]), float(self._losses[place])) for place in places)

    def _law(self) -> Iterator[CurvePoint]:
        for step in np.geomspace(self._steps[0], PLOTTED * self._last, _LAW_POINTS):
            at = np.array([step])
            band = self._fit.mean_at(at)
            yield CurvePoint(step=float(step), fit=float(self._fit.law.at(at)[0]), low=band.low, high=band.high)


def _parameters(fit: Fit) -> dict[str, Span]:
    law = fit.law
    return {
        "a": _span(law.a, fit.amplitude()),
        "b": _span(law.b, fit.exponent()),
        "c": _span(law.c, fit.asymptote()),
    }


def _span(value: float, interval: Interval) -> Span:
    return Span(value=value, low=interval.low, high=interval.high if math.isfinite(interval.high) else None)


def _growth(exponent: float) -> float:
    """Return how many times as many steps halve what is left above the floor."""
    return math.inf if exponent < 0.001 else 2.0 ** (1 / exponent)


def _between(interval: Interval) -> str:
    if math.isinf(interval.high):
        return f"{interval.low:.3g} or more"
    return f"{interval.low:.3g} to {interval.high:.3g}"


def _times(ratio: float) -> str:
    return f"up to {ratio:.0f} times" if ratio <= HORIZON else f"more than {HORIZON:.0f} times"


def _steps(step: float) -> str:
    return f"{step:.0f}" if step >= 10 else f"{step:.3g}"


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")
