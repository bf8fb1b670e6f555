"""A list of log lines that draws only what is visible, with a cursor, and with what is looked for marked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from clinic_ai.control.log_views import LogLineView

AUDIT = "audit"
"""Level of the lines that are changes of the audit."""
SIGNS = {
    "debug": ("·", "bright_black"),
    "info": ("i", ""),
    "warning": ("!", "yellow"),
    "error": ("✗", "bold red"),
    AUDIT: ("§", "cyan"),
}
"""Sign and colour of each level."""
_LEVEL_WIDTH = 9


class LogPane(ScrollView, can_focus=True):
    """Log lines, oldest first. While it follows, the cursor stays on the newest; moving up ends that."""

    DEFAULT_CSS = """
    LogPane { height: 1fr; border: round $primary; overflow-x: hidden; overflow-y: scroll; scrollbar-size-vertical: 1; }
    LogPane:focus { border: round $accent; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "go(-1)", show=False),
        Binding("down", "go(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "first", show=False),
        Binding("end", "last", show=False),
    ]

    class Moved(Message):
        """The cursor is on another line, or follows or does not any more."""

    def __init__(self) -> None:
        super().__init__(id="log-pane")
        self.entries: Sequence[LogLineView] = ()
        self.cursor = 0
        self.following = True
        self.words = ""
        """What is looked for; lines that have it are marked."""

    # ------------------------------------------------------------ what is shown

    @property
    def current(self) -> LogLineView | None:
        """The line under the cursor."""
        return self.entries[self.cursor] if self.cursor < len(self.entries) else None

    def show(self, entries: Sequence[LogLineView]) -> None:
        """Show these lines; what stood still stands still, whatever came or went around it."""
        if entries == self.entries:
            return
        current, top = self.current, int(self.scroll_y)
        offset = self.cursor - top
        self.entries = entries
        self.virtual_size = Size(self.size.width, len(entries))
        if self.following or current is None:
            self.cursor = max(len(entries) - 1, 0)
            self.scroll_to(y=len(entries), animate=False, immediate=True)
        else:
            self.cursor = _place_of(current, entries)
            self.scroll_to(y=max(self.cursor - offset, 0), animate=False, immediate=True)
        self.refresh()
        self.post_message(self.Moved())

    def look_for(self, words: str) -> None:
        """Mark the lines that have these words."""
        self.words = words
        self.refresh()

    def follow(self, *, following: bool) -> None:
        """Stay with the newest line, or stand still."""
        self.following = following
        if following:
            self._move(len(self.entries) - 1)
        self.post_message(self.Moved())

    def next_found(self, step: int) -> bool:
        """Put the cursor on the next line with the words, or the one before; round the ends. Tell whether there is."""
        count = len(self.entries)
        for by in range(1, count + 1):
            place = (self.cursor + step * by) % count
            if self.words and self.entries[place].has(self.words):
                self.following = False
                self._move(place)
                return True
        return False

    # ------------------------------------------------------------ moving

    def action_go(self, by: int) -> None:
        """Move the cursor by lines."""
        place = self.cursor + by
        self.following = self.following and by > 0
        self._move(place)

    def action_page(self, by: int) -> None:
        """Move the cursor by what is visible."""
        self.action_go(by * max(self.size.height - 1, 1))

    def action_first(self) -> None:
        """Go to the oldest line."""
        self.following = False
        self._move(0)

    def action_last(self) -> None:
        """Go to the newest line and follow."""
        self.follow(following=True)

    def on_click(self, event: Click) -> None:
        """Put the cursor on a line."""
        offset = event.get_content_offset(self)
        if offset is not None:
            self.following = False
            self._move(int(self.scroll_y) + offset.y)

    def _move(self, place: int) -> None:
        self.cursor = max(0, min(place, len(self.entries) - 1))
        top, height = int(self.scroll_y), max(self.size.height, 1)
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False, immediate=True)
        elif self.cursor >= top + height:
            self.scroll_to(y=self.cursor - height + 1, animate=False, immediate=True)
        self.refresh()
        self.post_message(self.Moved())

    # ------------------------------------------------------------ drawing

    def on_resize(self) -> None:
        """Keep the newest line in sight."""
        self.virtual_size = Size(self.size.width, len(self.entries))
        if self.following:
            self.scroll_to(y=len(self.entries), animate=False, immediate=True)

    def render_line(self, y: int) -> Strip:
        """Draw one visible line."""
        width, place = self.scrollable_content_region.width, int(self.scroll_y) + y
        if place >= len(self.entries):
            return Strip.blank(width, self.rich_style)
        entry = self.entries[place]
        text = line_text(entry)
        if self.words and entry.has(self.words):
            text.highlight_words(self.words.split(), style="bold underline", case_sensitive=False)
        text.truncate(width, overflow="ellipsis", pad=True)
        style = self.rich_style + Style(reverse=True) if place == self.cursor else self.rich_style
        segments = [Segment(s.text, style + s.style if s.style else style) for s in text.render(self.app.console)]
        return Strip(segments).adjust_cell_length(width, style)


def line_text(entry: LogLineView) -> Text:
    """Return a line of the log: time, level with its sign, what happened."""
    sign, colour = SIGNS.get(entry.level, ("?", ""))
    moment = time.strftime("%H:%M:%S", time.localtime(entry.at))
    level = f"{sign} {entry.level}"
    text = Text(no_wrap=True, end="")
    text.append(f"{moment} ", style="bright_black")
    text.append(f"{level:<{_LEVEL_WIDTH}} ", style=colour)
    text.append(plain(entry.line))
    return text


def plain(words: str) -> str:
    """Return words without what would end the line or steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in words)


def _place_of(wanted: LogLineView, entries: Sequence[LogLineView]) -> int:
    """Return where a line stands, or the first after it if it is gone."""
    same = (wanted.level == AUDIT, wanted.seq)
    for place, entry in enumerate(entries):
        if (entry.level == AUDIT, entry.seq) == same or entry.at > wanted.at:
            return place
    return max(len(entries) - 1, 0)
