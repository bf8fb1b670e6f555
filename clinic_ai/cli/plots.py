"""Plots in the terminal, in letters alone: no colour, so that they read the same in a log or a mail."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import plotext

if TYPE_CHECKING:
    from clinic_ai.forecasting import Forecast

_HEIGHT = 20


def forecast_plot(found: Forecast, width: int) -> str:
    """Return a loss curve over logarithmic steps with its law and the 95 % interval, ``width`` columns wide."""
    plotext.terminal.limit(False, False)  # the size asked for, not that of a terminal there may not be
    figure = plotext.figure
    figure.clear()
    figure.plot_size(width, _HEIGHT)
    points = list(found.points)
    heights = [loss for _, loss in points] + [place.fit for place in found.law]
    low, high = min(heights), max(heights)
    _draw(points, "·", lines=False)
    _draw([(found.last_step, low), (found.last_step, high)], "│")
    for edge in ([(place.step, place.low) for place in found.law], [(place.step, place.high) for place in found.law]):
        _draw([(step, loss) for step, loss in edge if low <= loss <= high], "-", lines=False)
    _draw([(place.step, place.fit) for place in found.law], "braille")
    last = math.floor(math.log10(found.law[-1].step))
    decades = range(math.ceil(math.log10(found.law[0].step)), last + 1)
    figure.ruler("x").ticks(
        list(map(float, decades)), [f"{10.0**decade:,.10g}".replace(",", " ") for decade in decades]
    )
    caption = f"· loss over {found.unit}s   ⠒⠒ law   -- 95 % interval   │ last {found.unit}: beyond it, foretold"
    rows = figure.build().string(colorless=True).splitlines()
    return "\n".join(line.rstrip() for line in (*rows, caption.center(width)))


def _draw(points: Sequence[tuple[float, float]], marker: str, *, lines: bool = True) -> None:
    if points:
        steps, losses = zip(*points, strict=True)
        drawn = plotext.figure.signal(list(map(math.log10, steps)), list(losses), marker=marker)
        drawn.lines(lines)
        plotext.figure.draw(drawn)
