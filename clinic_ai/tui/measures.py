"""Lengths of time, amounts, moments and lines in words."""

from __future__ import annotations

import time

from rich.text import Text


def duration(seconds: float) -> str:
    """Return a length of time such as ``2 h 10 min``; below a minute in steps of five seconds."""
    if seconds < 60:
        return f"{max(seconds, 0) // 5 * 5:.0f} s"  # a number that changes each second draws the eye
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def moment(at: float, now: float) -> str:
    """Return a time of this machine's clock: the hour, and the day unless that is today."""
    there = time.localtime(at)
    hour = time.strftime("%H:%M", there)
    if there[:3] == time.localtime(now)[:3]:
        return hour
    return time.strftime("%a %H:%M" if abs(at - now) < 6 * 86400 else "%Y-%m-%d %H:%M", there)


def amount(value: float) -> str:
    """Return a number with three significant digits and without an exponent where that can be read."""
    if value and abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def size(count: float) -> str:
    """Return a number of bytes in one unit, such as ``12 MB``."""
    for unit, length in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= length:
            return f"{count / length:.3g} {unit}"
    return f"{count:.0f} bytes"


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number of things, such as ``10,000 studies``; ``many`` is ``one`` with an s if not given."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def heading(text: Text, words: str) -> None:
    """Append a heading on a line of its own."""
    text.append(words + "\n", style="bold underline")


def line(text: Text, name: str, words: str, style: str = "") -> None:
    """Append ``name: words`` on a line of its own, nothing if there are no words."""
    if words:
        text.append(f"{name}: ", style="dim")
        text.append(words + "\n", style=style or "not bold")
