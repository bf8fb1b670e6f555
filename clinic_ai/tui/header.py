"""The lines at the top that all screens share: how the appliance stands, the screens, what is wrong."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    # For the types alone: the header is drawn before these are loaded.
    from clinic_ai.control.views import StatusView
    from clinic_ai.domain import Alert
    from clinic_ai.tui.views import Place

CRITICAL = "critical_finding"
"""Code of the alerts about critical findings."""
SILENT_S = 5.0
"""A question that waits longer for its answer is told, in steps of this."""
ALERT_LINES = 4
"""Lines that alerts take from the screens."""
_BUSY = ("RECEIVING", "CLOSED", "ROUTED")


@dataclass(frozen=True)
class _Part:
    """Words of the header; where there is no room for all, the highest ``spare`` goes first and 0 never."""

    words: str
    style: str = ""
    spare: int = 0


def header_text(
    status: StatusView | None,
    *,
    linked: bool,
    now: float,
    width: int,
    frozen: bool = False,
    asked: bool = True,
    silent_s: float = 0.0,
) -> Text:
    """Return the line at the top: link, what there is to do, who one is, the clock.

    ``asked``: the daemon was asked already; if it was not, nobody knows yet whether it answers. ``silent_s``: so many
    seconds a question waits for its answer.
    """
    parts = [
        _Part("clinic-ai", "bold", spare=9),
        *([_Part("‖ FROZEN, p goes on", "bold reverse")] if frozen else []),
        _link(linked=linked, asked=asked, silent_s=silent_s),
        *(() if status is None else _counts(status)),
    ]
    role = "" if status is None else status.role.value
    who = role if status is None or status.may_change else f"{role}, read-only"
    clock = time.strftime("%H:%M:%S", time.localtime(now))
    for right in (f"{who}  {clock}" if who else clock, clock, ""):
        left = _fitting(parts, width - len(right) - 2)
        if left is not None:
            break
    else:
        left = _joined([part for part in parts if not part.spare])
        left.truncate(width, overflow="ellipsis")
    return left + Text(" " * (width - left.cell_len - len(right)) + right)


def _link(*, linked: bool, asked: bool, silent_s: float) -> _Part:
    if linked and silent_s >= SILENT_S:
        return _Part(f"… no answer for {silent_s // SILENT_S * SILENT_S:.0f} s", "bold yellow")
    if linked:
        return _Part("● linked", "bold green")
    return _Part("✗ no daemon", "bold red") if asked else _Part("… connecting")


def _fitting(parts: list[_Part], room: int) -> Text | None:
    """Return as many parts as fit, None if not even those do that nobody can spare."""
    spares = sorted({part.spare for part in parts}, reverse=True)
    for spare in spares:
        line = _joined([part for part in parts if part.spare <= spare])
        if line.cell_len <= room:
            return line
    return None


def _joined(parts: list[_Part]) -> Text:
    return Text("  ").join(Text(part.words, style=part.style) for part in parts)


def _counts(status: StatusView) -> Iterator[_Part]:
    count = status.studies.get
    critical = sum(alert.code == CRITICAL for alert in status.alerts) + status.more_critical
    others = len(status.alerts) + status.more_alerts - critical
    if critical:
        yield _Part(f"◆ {critical} critical", "bold reverse red")
    elif others:
        yield _Part("0 critical", spare=3)
    else:
        yield _Part("no alerts", spare=7)  # none of any kind, so nothing critical either
    yield _Part(f"{sum(count(state, 0) for state in _BUSY)} open", spare=6)
    held = status.artefacts.get("HELD", 0) + status.artefacts.get("BLOCKED", 0)
    yield _Part(f"{held} held", "bold yellow" if held else "")
    failed, unrouted = count("FAILED", 0), count("UNROUTED", 0)
    yield _Part(f"{failed} failed", "bold red" if failed else "")
    if unrouted:
        yield _Part(f"{unrouted} unrouted", "bold yellow", spare=4)
    if others:
        yield _Part(f"▲ {others} alert{'' if others == 1 else 's'}", "bold red", spare=5)


def places_text(places: Sequence[Place], here: Place, width: int) -> Text:
    """Return the line with the keys of the screens; that of the screen in front stands in brackets."""
    text = Text(no_wrap=True)
    for place in places:
        words = f"{place.key} {place.title}"
        text.append(f"[{words}]" if place is here else f" {words} ", style="bold reverse" if place is here else "")
    text.truncate(width)
    return text


def alerts_text(status: StatusView, note: str = "", width: int = 78) -> Text:
    """Return what is wrong, in at most ``ALERT_LINES`` lines of this width; ``note`` comes last.

    What has no room is counted, with the key that shows all alerts.
    """
    alerts = [_alert(alert) for alert in status.alerts]
    others = [*_wrong(status), *([Text(note, style="bright_black")] if note else [])]
    shown: list[Text] = []
    left = ALERT_LINES - sum(_lines(part, width) for part in others)
    if status.more_alerts or sum(_lines(part, width) for part in alerts) > left:
        left -= 1  # for the line that counts them
    for part in alerts:
        if not shown:
            _cut(part, max(left, 1), width)
        left -= _lines(part, width)
        if left < 0 and shown:
            break
        shown.append(part)
    more = len(alerts) - len(shown) + status.more_alerts
    if more:
        shown.append(Text(f"… and {more} more alert{'' if more == 1 else 's'}: ! shows all", style="bold"))
    return Text("\n").join([*shown, *others])


def _cut(part: Text, lines: int, width: int) -> None:
    """Take words from the end of a text until it has no more than so many lines."""
    if _lines(part, width) <= lines:
        return
    while _lines(part, width) > lines:
        part.right_crop(1)
    part.right_crop(1)
    part.append("…")


def _lines(part: Text, width: int) -> int:
    return len(textwrap.wrap(part.plain, max(width, 20)))


def _wrong(status: StatusView) -> Iterator[Text]:
    """Yield what else is wrong with the machine, and how it listens to the network."""
    told = {alert.sentence for alert in status.alerts}
    for inbox in status.inboxes:
        why = inbox.sentence or f"The inbox {inbox.name} ({inbox.path}) is offline."
        if not inbox.online and why not in told:
            yield Text(f"▲ {why}", style="bold red")
    if status.policy.pack is None and status.policy.problem:
        yield Text(f"▲ {status.policy.problem}", style="bold red")
    if status.network is not None and status.network.enabled:
        yield Text(f"network: {status.network.line}", style="bright_black")


def _alert(alert: Alert) -> Text:
    critical = alert.code == CRITICAL
    text = Text(f"{'◆' if critical else '▲'} {alert.sentence}", style="bold reverse red" if critical else "bold red")
    return Text.assemble(text, f" {alert.remedy}".rstrip())
