"""Lets nothing reach the terminal that it would obey instead of showing it.

Words on the screens come from scans, file names, plugins and persons. Whatever let one through with a control sequence
in it, it ends here: every line of every screen passes, and everything that is copied.
"""

from __future__ import annotations

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

_JOINERS = "\u200c\u200d"
"""Invisible, but words of several languages are misspelt without them."""
_UNSHOWN = "�"
_SOFT_HYPHEN = "\u00ad"


def visible(text: str) -> str:
    """Return a text, as wide as it was, without what steers a terminal, turns letters around or hides.

    What has no width goes; what has some, and cannot be shown, leaves a sign in its place.
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    if character == _SOFT_HYPHEN:
        return "-"
    sign, width = " " if character.isspace() else _UNSHOWN, cell_len(character)
    return sign.ljust(width)[:width]


def copyable(text: str) -> str:
    """Return a text that can be pasted anywhere: its lines, without what cannot be seen in them."""
    return "\n".join(visible(line.replace("\t", " ")) for line in text.split("\n"))


class Visible(LineFilter):
    """Takes out of every line what cannot be seen; the line stays as wide as it is."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:  # noqa: ARG002 - Textual's
        """Return the segments with nothing in them but what is shown."""
        return [
            segment if segment.text.isprintable() else segment._replace(text=visible(segment.text))
            for segment in segments
        ]
