"""What is answered about all models at once: what they are for, how they did, and what a rollback leads to."""

from __future__ import annotations

from pydantic import Field

from clinic_ai.control.views import ModelRow, View
from clinic_ai.domain import ValidationFigures


class ShelfModel(ModelRow):
    """A model of the registry, with what its manifest says of it.

    ``examined`` is "passed" or "refused" by its newest examination, empty if there was none; ``approved_by`` names who
    approved that. ``base`` is the model an adapter was trained on, by name and version, or by the beginning of its
    digest if the registry has it no more.
    """

    commercial_use: bool = False
    source: str = ""
    intended_use: str = ""
    quantisation: str = "none"
    base: str = ""
    size_bytes: int = 0
    validation: dict[str, ValidationFigures] = Field(default_factory=dict)
    examined: str = ""
    approved_by: str = ""


class SlotView(View):
    """A slot of a plugin: the model in use, None if there is none, and what a rollback would put in its place."""

    plugin: str
    slot: str
    active: str | None
    before: str | None


class ShelfView(View):
    """All models, newest first, and the slots they are for."""

    models: tuple[ShelfModel, ...]
    slots: tuple[SlotView, ...]
