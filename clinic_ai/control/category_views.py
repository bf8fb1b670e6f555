"""What the API answers about categories of images, and what people may order of them."""

from __future__ import annotations

from clinic_ai.control.views import ImageCategory, Line, Order, View
from clinic_ai.domain import Key


class StudyCategories(View):
    """The images of a study's newest version for one plugin; ``chosen`` is a person's choice for all of them, if any.

    ``chosen_at`` is UTC seconds.
    """

    study_id: str
    version: int
    plugin: str
    chosen: str
    chosen_by: str
    chosen_at: float | None
    images: tuple[ImageCategory, ...]


class CategoryOrder(Order):
    """Say which category the images of a study are of; no ``category`` takes the choice back."""

    category: Line | None = None
    """Its key, label or an alias."""
    plugin: Key | None = None
    """None: the plugin that the study goes to, or the only one that has categories."""


class CategoryRow(View):
    """A category of a plugin. ``answered_by`` names the model that answers about it, empty if there is none.

    ``note`` then says why, and what to do.
    """

    plugin: str
    category: str
    label: str
    aliases: tuple[str, ...]
    codes: tuple[str, ...]
    questions: tuple[str, ...]
    answered_by: str
    note: str
