"""Bootstrap of what is correlated in time: moving blocks of residuals, with the block length chosen from them.

Residuals of a training loss resemble those just before them. Their first-order autocorrelation is taken out, what is
left is drawn in blocks, which keeps what correlation it still has, and the autocorrelation is put back in: the
post-blackened block bootstrap (Davison and Hinkley 1997, section 8.2.3). Noise that gets smaller along the curve, as
that of a loss often does, is brought to one size before, and to its own afterwards. Needs numpy and scipy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_banded  # scipy.signal has a filter for it, and takes half a second to import

Floats = npt.NDArray[np.float64]

_TRIALS = 200
"""Simulated series by which the bias of the autocorrelation is corrected."""
_LEAST_KEPT = 0.05
"""Share of the variance of a point that at least is taken to be in its residual; the rest the fit took away."""
_CLEARLY = 3.0
"""Standard errors from which on a trend of the noise is believed."""
_BURN_IN = 100
"""Values left out at the beginning of a series, so that it has forgotten how it began."""
MOST_CORRELATED = 0.97
"""Beyond this, a series of some hundred points says next to nothing of its own autocorrelation."""


@dataclass(frozen=True)
class Noise:
    """What the residuals of a fit of ``points`` points are like.

    Their size goes with t to the power of ``trend``, 0 if it stays the same, and is ``sizes`` (points,) times the mean.
    ``autocorrelation`` is that of neighbours, corrected for what the fit took away; ``innovations`` is what it leaves
    unexplained, scaled likewise; ``block_length`` in points.
    """

    points: int
    trend: float
    sizes: Floats
    autocorrelation: float
    innovations: Floats
    block_length: int

    @property
    def effective_points(self) -> float:
        """How many independent points would tell a mean as well as these do."""
        return self.points / inflation(self.autocorrelation)

    def draw(self, columns: int, generator: np.random.Generator) -> Floats:
        """Return residuals of as many new curves, (points, columns)."""
        length, available = self.points + _BURN_IN, len(self.innovations)
        blocks = -(-length // self.block_length)
        starts = generator.integers(0, available, (blocks, 1, columns))
        places = (starts + np.arange(self.block_length)[None, :, None]).reshape(-1, columns)[:length] % available
        return self.sizes[:, None] * correlated(self.innovations[places], self.autocorrelation)[_BURN_IN:]


def inflation(autocorrelation: float) -> float:
    """Return by how much the variance of a mean is larger than that of as many independent points; at least 1."""
    phi = max(autocorrelation, 0.0)
    return (1.0 + phi) / (1.0 - phi)


def correlated(shocks: Floats, phi: float) -> Floats:
    """Return the series x of x[i] = phi · x[i − 1] + shocks[i] for each column of (points, columns)."""
    bands = np.stack([np.ones(len(shocks)), np.full(len(shocks), -phi)])
    series: Floats = solve_banded((1, 0), bands, shocks, check_finite=False)
    return series


def noise_of(residuals: Floats, steps: Floats, jacobian: Floats, generator: np.random.Generator) -> Noise:
    """Return what residuals at steps (points,) are like; ``jacobian`` (points, parameters) is that of the fitted law.

    A fit bends towards its noise: its residuals are smaller than the noise, and less correlated. How much, simulated
    series tell that go through the same, linearised, fit.
    """
    basis, _ = np.linalg.qr(jacobian)
    kept = np.sqrt(np.maximum(1.0 - (basis**2).sum(axis=1), _LEAST_KEPT))  # of the noise of each point
    trend = _trend(residuals / kept, steps)
    sizes = steps**trend / np.sqrt(np.mean(steps ** (2 * trend)))
    residuals = residuals / (sizes * kept)
    seen = float(autocorrelation(residuals[:, None])[0])
    shocks = generator.standard_normal((len(residuals) + _BURN_IN, _TRIALS))
    phi, left = seen, np.empty(0)
    for _ in range(4):
        series = correlated(shocks, phi)[_BURN_IN:]
        left = series - basis @ (basis.T @ (sizes[:, None] * series)) / sizes[:, None]
        left /= kept[:, None]
        phi = float(np.clip(phi + seen - autocorrelation(left).mean(), -MOST_CORRELATED, MOST_CORRELATED))
    shrunk = float(np.sqrt((left**2).sum() / (series**2).sum()))
    innovations = residuals[1:] - phi * residuals[:-1]
    innovations = (innovations - innovations.mean()) / shrunk
    return Noise(len(residuals), trend, sizes, phi, innovations, block_length(innovations))


def _trend(residuals: Floats, steps: Floats) -> float:
    """Return the power of the step that the size of residuals goes with; 0 unless there clearly is one."""
    logs = np.log(steps) - np.log(steps).mean()
    power = (residuals**2).mean()
    if power == 0:
        return 0.0
    squares = np.log(residuals**2 + 1e-6 * power)
    slope = float(logs @ squares / (logs @ logs))
    left = squares - squares.mean() - slope * logs
    error = float(np.sqrt(left @ left / (len(steps) - 2) / (logs @ logs)))
    return slope / 2 if abs(slope) > _CLEARLY * error else 0.0


def autocorrelation(series: Floats) -> Floats:
    """Return the correlation of neighbours in each column of (points, columns); 0 where a column is all zeros."""
    power = (series**2).sum(axis=0)
    found: Floats = (series[1:] * series[:-1]).sum(axis=0) / np.where(power > 0, power, 1.0)
    return found


def block_length(series: Floats) -> int:
    """Return the length of circular blocks that suits a series (points,), by Politis and White (2004, 2009).

    It is at least 1 and at most a third of the series.
    """
    points = len(series)
    if not np.any(series):
        return 1
    insignificant = max(5, int(np.ceil(np.sqrt(np.log10(points)))))
    most = min(int(np.ceil(np.sqrt(points))) + insignificant, points - 1)
    centred = series - series.mean()
    covariances = np.correlate(centred, centred, "full")[points - 1 : points + most] / points
    small = np.abs(covariances[1:] / covariances[0]) < 2.0 * np.sqrt(np.log10(points) / points)
    runs = (lag for lag in range(len(small) - insignificant + 1) if small[lag : lag + insignificant].all())
    last = next(runs, None)
    if last is None:
        last = int(np.flatnonzero(~small)[-1]) + 1
    width = min(2 * max(last, 1), most)
    lags = np.abs(np.arange(-width, width + 1))
    window = np.minimum(1.0, 2.0 * (1.0 - lags / width)) * covariances[lags]
    spectrum = float(window.sum())
    if spectrum <= 0:
        return 1
    length = (1.5 * (float((lags * window).sum()) / spectrum) ** 2 * points) ** (1 / 3)
    return int(np.clip(round(length), 1, max(1, points // 3)))
