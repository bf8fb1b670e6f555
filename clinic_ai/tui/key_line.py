"""The line of keys at the foot of a screen."""

from __future__ import annotations

from textual.screen import Screen
from textual.widgets import Footer

_Shown = tuple[tuple[str, str, str, bool], ...]


class KeyLine(Footer):
    """Textual's footer, made anew only when its keys have changed.

    Textual makes a widget of each key whenever any binding may have changed, which every move of a cursor is.
    """

    _made_of: _Shown | None = None

    def bindings_changed(self, screen: Screen[object]) -> None:
        """Make the keys anew if they are others, or others can be used."""
        shown = tuple(
            (active.binding.key, active.binding.action, active.binding.description, active.enabled)
            for active in screen.active_bindings.values()
            if active.binding.show
        )
        if screen is self.screen and screen.app.app_focus and self.is_attached:
            if shown == self._made_of:
                return
            self._made_of = shown
        super().bindings_changed(screen)
