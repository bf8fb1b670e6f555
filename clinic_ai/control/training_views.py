"""What is answered about labelled images before they are learned from, and how it is asked for."""

from __future__ import annotations

from pydantic import Field

from clinic_ai.control.views import Order, PlainPath, View
from clinic_ai.domain import FOLDER_ALONE, Key, LabelSource


class CheckOrder(Order):
    """Look at labelled images as a run of the plugin would: of these ``sources``, as in ``RunOrder``.

    ``category`` names what their answers are about, where the folder does not.
    """

    plugin: Key
    dataset: PlainPath | None = None
    category: str = ""
    sources: tuple[LabelSource, ...] = Field(FOLDER_ALONE, min_length=1, max_length=2)


class AskedView(View):
    """A question that would be learned: how many images answer it, and how many different answers there are."""

    question: str
    images: int
    answers: int


class CheckView(View):
    """What a run would learn from a folder. With ``problems`` it would learn nothing, and there are no ``parts``.

    ``images`` and ``pairs`` count what carries labels, ``patients`` by split. Notes and problems name files.
    """

    directory: str
    category: str = ""
    images: int
    pairs: int
    patients: dict[str, int]
    parts: tuple[str, ...]
    questions: tuple[AskedView, ...]
    notes: tuple[str, ...]
    problems: tuple[str, ...]
