"""What is answered about what a training run would bring if it went on, and how it is asked for."""

from __future__ import annotations

from pydantic import Field

from clinic_ai.control.views import Order, View
from clinic_ai.domain import Finite
from clinic_ai.forecasting import Forecast, ForecastWish, Purchase, Rates


class ForecastOrder(Order):
    """What to foretell of a run, and what a person knows of its costs; see ``forecasting.ForecastWish``."""

    drop: Finite = Field(default=0.0, ge=0)
    target: Finite | None = Field(default=None, gt=0)
    larger: Finite = Field(default=2.0, gt=0)
    seconds_per_step: Finite | None = Field(default=None, gt=0)
    watts: Finite | None = Field(default=None, gt=0)
    pflops: Finite | None = Field(default=None, gt=0)
    utilisation: Finite | None = Field(default=None, gt=0, le=1)
    picture: bool = False

    def wish(self) -> ForecastWish:
        """Return it as training takes it."""
        return ForecastWish(**self.model_dump())


class ForecastView(View):
    """A forecast, what a step costs, and what more steps would buy at which price."""

    forecast: Forecast
    rates: Rates
    purchases: tuple[Purchase, ...]
