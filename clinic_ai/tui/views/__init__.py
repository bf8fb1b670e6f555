"""The eight screens, each in a module of its own that is loaded when it is first opened."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clinic_ai.tui.view import ClinicView


@dataclass(frozen=True)
class Place:
    """A screen: its key, its name (also that of its module), its title, and what it is for."""

    key: str
    name: str
    title: str
    purpose: str

    def load(self) -> type[ClinicView]:
        """Return the class of the view."""
        from clinic_ai.tui.view import ClinicView

        module = import_module(f"clinic_ai.tui.views.{self.name}")
        found: type[ClinicView] = module.VIEW
        if not issubclass(found, ClinicView):
            raise TypeError(f"{module.__name__}.VIEW is no ClinicView")
        return found


PLACES = (
    Place("1", "queue", "Queue", "every study, and why it waits"),
    Place("2", "study", "Study", "one study: pictures, findings, report, history, files"),
    Place("3", "review", "Review", "what waits for a person to sign or correct"),
    Place("4", "night", "Night", "training: tonight's plan, the budget, what runs"),
    Place("5", "machine", "Machine", "processors, memory, temperature, disk, links"),
    Place("6", "log", "Log", "what the appliance does, as it does it"),
    Place("7", "ask", "Ask", "a question on the open study"),
    Place("8", "models", "Models", "what is in use, candidates, promotion"),
)


def load_all() -> None:
    """Load every screen, so that each opens at once."""
    for place in PLACES:
        place.load()
