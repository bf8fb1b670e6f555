"""The words of the help: made from the bindings of what is in front, so that it cannot say what is not so."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.text import Text

from clinic_ai.tui.keys import EVERYWHERE, Order, orders_of
from clinic_ai.tui.words import MEANINGS, WAITS, short_reason, state_text

if TYPE_CHECKING:
    from clinic_ai.tui.app import ClinicApp
    from clinic_ai.tui.view import ClinicView

_WHY = (
    "Choose the study in the queue (key 1): its reason stands there in full, and below it what to do, with the command "
    "if one is needed. These are the reasons there are:"
)
_SIGNS = (
    ("● linked", "the daemon answers; ✗ says that it does not, and what you see is old"),
    ("◆ critical", "critical findings nobody has acknowledged: tell the clinician now"),
    ("▲ alert", "something of the appliance needs a person; the lines below the header say what to do, ! shows all"),
    ("‖ held", "results the guard keeps back until a clinician decides"),
    ("‖ FROZEN", "the screen stands still; the line at the top goes on"),
)


_LEFT = 17
"""Columns for keys and states; what they mean stands beside them."""


def help_text(app: ClinicApp, width: int) -> Text:
    """Return the help for the screen in front, in lines no longer than ``width``."""
    text = Text()
    view = app.view
    if view is not None:
        orders = [(order, _why_not(app, view, order)) for order in _orders_of(app, view)]
        there = ((order.shown, order.what) for order, why in orders if not why)
        _section(text, f"{view.TITLE}: {app.place.purpose}", there, width)
        missing = [(order.shown, f"{order.what}: {why}") for order, why in orders if why]
        if missing:
            _section(text, "Keys that are not there now, and why", missing, width)
    everywhere = orders_of(type(app), EVERYWHERE, app.keys)
    _section(text, "Everywhere", ((order.shown, order.what) for order in everywhere), width)
    _section(text, "States of a study", ((state_text(state), words) for state, words in MEANINGS.items()), width)
    text.append("Why a study waits\n", style="bold underline")
    text.append(_wrapped(_WHY, width) + "\n")
    _section(text, "", ((short_reason(code), words) for code, words in WAITS.items()), width)
    _section(text, "The line at the top", _SIGNS, width)
    text.rstrip()
    return text


def _orders_of(app: ClinicApp, view: ClinicView) -> list[Order]:
    """Return the orders of a view and of the widgets in it, each once, without those that say nothing."""
    found: dict[str, Order] = {}
    for node in (view, *view.query("*")):
        for order in orders_of(node, view.NAME, app.keys):
            if order.what:
                found.setdefault(order.id, order)
    return list(found.values())


def _why_not(app: ClinicApp, view: ClinicView, order: Order) -> str:
    needed = view.ORDERS.get(order.action.partition("(")[0])
    return "" if needed is None else app.why_not(needed)


def _section(text: Text, title: str, rows: Iterable[tuple[str | Text, str]], width: int) -> None:
    """Append a title and its rows, the right side of which keeps to its column."""
    if title:
        text.append(f"{title}\n", style="bold underline")
    for left, right in rows:
        words = left if isinstance(left, Text) else Text(left, style="bold")
        text.append("  ")
        text.append_text(words)
        text.append(" " * max(_LEFT - words.cell_len, 1))
        text.append(_wrapped(right, width - _LEFT - 2).replace("\n", "\n" + " " * (_LEFT + 2)) + "\n")
    text.append("\n")


def _wrapped(words: str, width: int) -> str:
    return "\n".join(textwrap.wrap(words, max(width, 20)))
