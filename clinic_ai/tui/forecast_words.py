"""A forecast of a training run: how sure it is, the curve with its law, and what more computing would buy."""

from __future__ import annotations

from rich.text import Text

from clinic_ai.control.forecast_views import ForecastView
from clinic_ai.forecasting import Forecast, Purchase, Span
from clinic_ai.tui.measures import amount, duration, heading, line
from clinic_ai.tui.plots import curve, number

_TALL = 9


def forecast_text(found: ForecastView, width: int) -> Text:
    """Return a forecast: the verdict first, then the curve, the figures and the prices."""
    told, text = found.forecast, Text()
    if told.identifiable:
        text.append("✓ The curve tells its law.\n", style="bold green")
    else:
        text.append("? The curve does not tell where it leads.\n", style="bold yellow")
    for reason in told.reasons:
        text.append(f"  {reason}\n", style="not bold")
    text.append("\n")
    _plot(text, told, min(width, 100))
    heading(text, "What it foretells")
    line(text, f"Loss now, after {told.last_step:,.0f} {told.unit}s", _span(told.now.loss))
    line(text, "Loss after twice as many", _span(told.twice.loss))
    line(text, "Floor it would come to", _span(told.fit.c))
    line(text, f"Half of what is left above it, at {told.unit}", _span(told.halving, whole=True))
    if told.hold_out is not None:
        held = told.hold_out
        words = f"{'inside' if held.inside else 'outside'} what was foretold ({_span(held.predicted)})"
        line(
            text,
            "Tried on its own end",
            f"the last {held.held_out} points have a mean of {number(held.observed)}, {words}.",
        )
    heading(text, "What more would buy")
    for bought in found.purchases:
        _purchase(text, bought, found.rates.currency)
    line(text, "Prices", found.rates.basis)
    for note in told.notes:
        line(text, "Note", note)
    return text


def _plot(text: Text, told: Forecast, width: int) -> None:
    """Append the loss over its steps."""
    text.append(f"loss over {told.unit}s\n", style="bold")
    for row in curve(told.points, width=width, height=_TALL, right=told.last_step, unit=f"{told.unit}s"):
        row.rstrip()
        text.append_text(row)
        text.append("\n")


def _purchase(text: Text, bought: Purchase, currency: str) -> None:
    parts = []
    if bought.loss is not None:
        parts.append(f"loss {_span(bought.loss)}")
    if bought.steps is not None and bought.steps.value is not None:
        parts.append(f"{bought.steps.value:,.0f} more steps")
    if bought.seconds is not None and bought.seconds.value is not None:
        parts.append(duration(bought.seconds.value))
    for name, span, unit in (
        ("kwh", bought.kwh, "kWh"),
        ("pf_days", bought.pf_days, "PF-days"),
        ("money", bought.money, currency),
    ):
        if span is not None and span.value is not None:
            parts.append(f"{span.value:.2f} {unit}" if name == "money" else f"{amount(span.value)} {unit}")
    line(text, bought.what[:1].upper() + bought.what[1:], ", ".join(parts) or "cannot be told")
    if bought.note:
        text.append(f"  {bought.note}\n", style="dim")


def _span(span: Span, *, whole: bool = False) -> str:
    def shown(value: float | None) -> str:
        if value is None:
            return "any height"
        return f"{value:,.0f}" if whole else number(value)

    reach = f"{shown(span.low)} to {shown(span.high)}"
    return f"{shown(span.value)} (95 %: {reach})" if span.value is not None else f"somewhere in {reach}"
