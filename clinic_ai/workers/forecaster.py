"""The child that fits the scaling law of a loss curve. One method: ``forecast``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clinic_ai import confinement, wire

if TYPE_CHECKING:
    from clinic_ai.forecasting import Forecast, ForecastTask


def forecast(task: ForecastTask, _: wire.Call) -> Forecast:
    """Return what a loss curve foretells.

    Raise InputError, one sentence, if no law can be fitted to it, PluginError if a figure is asked for and cannot be
    drawn here.
    """
    from clinic_ai.errors import PluginError
    from clinic_ai.ml import forecast as fitting

    try:
        return fitting.forecast(task)
    except ModuleNotFoundError as error:
        raise PluginError(
            f"A figure needs the Python package {error.name}, which is not installed.",
            remedy="Ask for no figure, or install what learning needs: pip install 'clinic-ai-xray[train]'.",
        ) from error


def main() -> None:
    """Tie our hands, then serve until the daemon closes the channel."""
    channel, _ = confinement.confine()
    from clinic_ai.forecasting import ForecastTask

    wire.serve(channel, {"forecast": wire.Method(ForecastTask, forecast)})


if __name__ == "__main__":
    main()
