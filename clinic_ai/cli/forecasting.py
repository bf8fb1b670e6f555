"""``clinic-ai train forecast``: the scaling law of a loss curve, how sure it is, and what more training would cost."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clinic_ai.cli.options import HomeOption, JsonOption, home_of, order_of

if TYPE_CHECKING:
    from clinic_ai.control.forecast_views import ForecastView
    from clinic_ai.forecasting import Forecast, Purchase, Rates, Span


def forecast(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Id of a run; or give --csv.")] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="A loss curve instead: a step and a loss in each line.")
    ] = None,
    column: Annotated[str, typer.Option(help="Column of the loss in that file, where its name does not tell.")] = "",
    drop: Annotated[float, typer.Option(min=0, help="Steps to leave out at the beginning, such as a warm-up.")] = 0.0,
    target: Annotated[float | None, typer.Option(help="A loss to reach: what it would take.")] = None,
    larger: Annotated[float, typer.Option(help="How many times as many parameters a larger base has.")] = 2.0,
    seconds_per_step: Annotated[
        float | None, typer.Option("--seconds-per-step", help="Else by the ledger of the run.")
    ] = None,
    watts: Annotated[float | None, typer.Option(help="Power while training; else by the ledger of the run.")] = None,
    pflops: Annotated[
        float | None, typer.Option(help="Peak of the processor, in 10^15 operations a second, for PF-days.")
    ] = None,
    utilisation: Annotated[float | None, typer.Option(help="Share of that peak that is used, 0 to 1.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write the plot to a PNG file, too.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a run would bring if it went on, how sure that is, and what it would cost.

    The law is loss = a · t^(−b) + c over the steps t. Where the curve does not tell it, that is said instead.
    """
    from clinic_ai.cli.offline import forecast_file, forecast_run
    from clinic_ai.cli.output import print_json
    from clinic_ai.control.forecast_views import ForecastOrder

    if (run is None) == (csv is None):
        raise typer.BadParameter("Give the id of a run or a file, one of the two.", param_hint="RUN or --csv")
    order = order_of(
        ForecastOrder,
        drop=drop,
        target=target,
        larger=larger,
        seconds_per_step=seconds_per_step,
        watts=watts,
        pflops=pflops,
        utilisation=utilisation,
        picture=output is not None,
    )
    place = home_of(home)
    found = forecast_file(place, csv, column, order) if csv is not None else forecast_run(place, run or "", order)
    if output is not None:
        _write(output, base64.b64decode(found.forecast.picture))
    if as_json:
        print_json(found)
    else:
        _tell(found, output)


def _write(file: Path, picture: bytes) -> None:
    from clinic_ai.errors import HomeError

    try:
        file.write_bytes(picture)
    except OSError as error:
        raise HomeError(f"{file} cannot be written: {error.strerror}.", remedy="Choose another place.") from error


def _tell(found: ForecastView, output: Path | None) -> None:
    from clinic_ai.cli.output import WIDTH, say, say_raw
    from clinic_ai.cli.plots import forecast_plot

    forecast = found.forecast
    dropped = f" after {forecast.unit} {forecast.fit.dropped:g}" if forecast.fit.dropped else ""
    say(f"{forecast.name}: {forecast.fit.points} points{dropped}, up to {forecast.unit} {_number(forecast.last_step)}.")
    _tell_fit(forecast)
    say()
    say_raw(forecast_plot(forecast, WIDTH))
    say()
    _tell_doubts(forecast)
    say()
    _tell_purchases(found.purchases, found.rates, forecast.unit)
    for note in forecast.notes:
        say(note)
    if output is not None:
        say(f"The plot is in {output}.")


def _tell_fit(forecast: Forecast) -> None:
    from clinic_ai.cli.output import say, table

    noise, plain = forecast.noise, forecast.without_floor
    fits = [(forecast.fit, ""), *((window, "" if window.agrees else " *") for window in forecast.windows)]
    rows = (
        (
            (f"after {fit.dropped:.0f}" if fit.dropped else "all") + mark,
            str(fit.points),
            *map(_fitted, (fit.a, fit.b, fit.c)),
        )
        for fit, mark in fits
    )
    say("loss = a · t^(−b) + c, fitted with and without the beginning (95 % intervals):")
    table((f"{forecast.unit}s", "points", "a", "b", "c"), rows, empty="")
    if any(mark for _, mark in fits):
        say("* another law than that of the first line, by more than noise explains")
    trend = f", as t^({noise.trend:.2f})" if noise.trend else ""
    say(
        f"The points scatter by {noise.deviation:.3g} around it{trend}, neighbours correlated by "
        f"{noise.autocorrelation:.2f}: {forecast.fit.points} are worth {noise.effective_points:.0f} independent ones. "
        f"Intervals are of {noise.replicates} curves drawn in blocks of {noise.block_length}."
    )
    words = "so the curve does not tell the two apart" if plain.enough else "and the interval of c does not reach 0"
    say(
        f"With c = 0 the points scatter {100 * plain.excess:.1f} % more around {plain.a:.3g} · t^(−{plain.b:.3g}), "
        f"{words}."
    )


def _tell_doubts(forecast: Forecast) -> None:
    from clinic_ai.cli.output import say

    held = forecast.hold_out
    if held is not None:
        said = "inside" if held.inside else "outside"
        say(
            f"Held back: the {held.points} points up to {forecast.unit} {_number(held.until)} foretell a mean loss of "
            f"{_shown(held.predicted)} for the {held.held_out} after it. It was {held.observed:.4g}, {said}."
        )
    if forecast.identifiable:
        say("Verdict: identifiable.")
        return
    say("Verdict: NOT identifiable. The law cannot be told from this curve; the ranges below are all that it says.")
    for reason in forecast.reasons:
        say(f"- {reason}")


def _tell_purchases(purchases: Iterable[Purchase], rates: Rates, unit: str) -> None:
    from clinic_ai.cli.output import say, table

    bought = tuple(purchases)
    rows = [
        (f"further {unit}s", [_shown(each.steps) for each in bought]),
        ("hours", [_shown(_scaled(each.seconds, 1 / 3600)) for each in bought]),
        ("kWh", [_shown(each.kwh) for each in bought]),
        ("PF-days", [_shown(each.pf_days) for each in bought]),
        (rates.currency or "money", [_shown(each.money) for each in bought]),
    ]
    say("What more would buy:")
    for place, each in enumerate(bought):
        loss = f", loss then {_shown(each.loss)}" if each.loss is not None else ""
        say(f"{place + 1}. {each.what}{loss}. {each.note}".rstrip())
    known = ((name, *(cell or "not told" for cell in cells)) for name, cells in rows if any(cells))
    table(("", *(str(place + 1) for place in range(len(bought)))), known, empty="")
    if rates.basis:
        say(rates.basis)


def _scaled(span: Span | None, factor: float) -> Span | None:
    from clinic_ai.forecasting import Span

    if span is None:
        return None
    value, high = (None if each is None else each * factor for each in (span.value, span.high))
    return Span(value=value, low=span.low * factor, high=high)


def _fitted(span: Span) -> str:
    """Return a parameter with its interval; where that is open, the fit may lie anywhere and is not shown."""
    return _shown(span if span.high is not None else span.model_copy(update={"value": None}))


def _shown(span: Span | None) -> str:
    """Return a value with its interval, or the range alone; empty if nothing is known."""
    if span is None:
        return ""
    if span.value is not None and span.value == span.low == span.high:
        return _number(span.value)
    range_ = f"{_number(span.low)}–{_number(span.high)}" if span.high is not None else f"≥ {_number(span.low)}"
    return range_ if span.value is None else f"{_number(span.value)} ({range_})"


def _number(value: float) -> str:
    """Return a number with three digits, without an exponent where people would not write one."""
    return f"{value:,.0f}".replace(",", " ") if 1000 <= abs(value) < 1e9 else f"{value:.3g}"
