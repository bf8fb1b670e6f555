"""What passes between the daemon and the child that fits the scaling law of a loss curve, and what it would cost.

Everywhere t counts ``unit``s, steps of the optimiser or whole epochs, from the beginning of the training.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from clinic_ai.domain import Finite, Word

CurveUnit = Literal["step", "epoch"]
MAX_POINTS = 200_000
"""Longest loss curve that is taken; some megabytes of JSON."""


class LossCurve(Word):
    """A loss at each of many steps, in the order of the steps. ``name`` says for people what it is of."""

    name: str = Field(max_length=200)
    unit: CurveUnit = "step"
    steps: tuple[Finite, ...] = Field(max_length=MAX_POINTS)
    losses: tuple[Finite, ...] = Field(max_length=MAX_POINTS)


class ForecastTask(Word):
    """Fit the law to a curve without its first ``drop`` steps, and say what it foretells.

    ``target`` is a loss to reach. With ``picture`` the answer holds a figure. The same ``seed`` gives the same answer.
    """

    curve: LossCurve
    drop: Finite = Field(default=0.0, ge=0)
    target: Finite | None = Field(default=None, gt=0)
    picture: bool = False
    seed: int = Field(default=0, ge=0)


class Span(Word):
    """A value and its 95 % interval. ``high`` is None where the curve does not bound it from above.

    ``value`` is None where only the range can be told.
    """

    value: float | None
    low: float
    high: float | None


class LawFit(Word):
    """loss = a · t^(−b) + c, fitted to ``points`` points after step ``dropped``."""

    dropped: float
    points: int
    a: Span
    b: Span
    c: Span


class WindowFit(LawFit):
    """The law fitted without the beginning of the curve. ``agrees``: the fit of all of it is one of those it allows."""

    agrees: bool


class HoldOut(Word):
    """What the first part of the curve, up to ``until``, foretold of the rest: its mean loss, and what it came to."""

    until: float
    points: int
    held_out: int
    predicted: Span
    observed: float

    @property
    def inside(self) -> bool:
        """Whether the mean loss of the rest lies in the interval."""
        high = self.predicted.high
        return self.predicted.low <= self.observed and (high is None or self.observed <= high)


class NoiseView(Word):
    """What the points scatter by: its standard deviation, the correlation of neighbours, and what the bootstrap drew.

    The deviation goes with t to the power of ``trend``; 0: it stays the same along the curve.
    ``effective_points`` is how many independent points would be worth as much; ``block_length`` is in points.
    """

    deviation: float
    trend: float
    autocorrelation: float
    effective_points: float
    block_length: int
    replicates: int
    """Curves of the bootstrap."""


class Ahead(Word):
    """The loss that the law foretells at a step, without noise."""

    step: float
    loss: Span


class WithoutFloor(Word):
    """The law with c = 0, a · t^(−b): its fit, and how much more its points scatter around it.

    ``excess`` is the share by which its residuals are larger, as a root mean square; ``enough`` says whether the
    interval of c reaches 0, so that the curve does not tell the two laws apart.
    """

    a: float
    b: float
    excess: float
    enough: bool


class CurvePoint(Word):
    """A place of the fitted curve for a plot: the law, and the interval of what is foretold."""

    step: float
    fit: float
    low: float
    high: float


class Forecast(Word):
    """The scaling law of a loss curve, how sure it is, and what it foretells.

    Where it is not ``identifiable``, ``reasons`` say why, and nothing that lies ahead has a value; its ranges span all
    windows if the law depends on them. ``halving`` is the step at which half is left of what the loss is above the
    floor c after the last step; ``target_at`` that at which the target is reached, None if none was asked for or it is
    out of reach; ``target_note`` says what is special about it. ``points`` are some of the curve, for a plot;
    ``picture`` is a PNG in base64.
    """

    name: str
    unit: CurveUnit
    last_step: float
    fit: LawFit
    windows: tuple[WindowFit, ...]
    hold_out: HoldOut | None
    noise: NoiseView
    identifiable: bool
    reasons: tuple[str, ...]
    now: Ahead
    twice: Ahead
    halving: Span
    target: float | None
    target_at: Span | None
    target_note: str
    without_floor: WithoutFloor
    points: tuple[tuple[float, float], ...]
    law: tuple[CurvePoint, ...]
    notes: tuple[str, ...]
    picture: str = ""


# ---------------------------------------------------------------- what more would buy


class ForecastWish(Word):
    """What a person wants to know, and what they know of the machine that the ledger may not.

    ``drop``: steps left out at the beginning; ``target``: a loss to reach; ``larger``: how many times as many
    parameters another base has. ``watts`` is the power while training; PF-days are counted from ``pflops``, the peak of
    the processor in 10^15 operations a second, and ``utilisation``, the share of it that is used.
    """

    drop: float = 0.0
    target: float | None = None
    larger: float = 2.0
    seconds_per_step: float | None = None
    watts: float | None = None
    pflops: float | None = None
    utilisation: float | None = None
    picture: bool = False


class Rates(Word):
    """What one unit of t, a step or an epoch, costs; None: nobody knows. ``basis`` says how it is known."""

    seconds: float | None = None
    kwh: float | None = None
    pf_days: float | None = None
    money: float | None = None
    currency: str = ""
    basis: str = ""


class Purchase(Word):
    """Something more computing could buy. ``steps`` are the further ones, with what they cost; None: nobody can tell.

    ``loss`` is what the law foretells then. ``note`` says what is assumed, or why it cannot be told.
    """

    what: str
    loss: Span | None = None
    steps: Span | None = None
    seconds: Span | None = None
    kwh: Span | None = None
    pf_days: Span | None = None
    money: Span | None = None
    note: str = ""


class CostedForecast(Word):
    """A forecast and what it would cost to go on."""

    forecast: Forecast
    rates: Rates
    purchases: tuple[Purchase, ...]
