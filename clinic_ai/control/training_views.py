"""How training is asked for, and what is answered about labelled images before they are learned from."""

from __future__ import annotations

from pydantic import Field, FiniteFloat

from clinic_ai.control.views import Order, PlainPath, View
from clinic_ai.domain import FOLDER_ALONE, Key, LabelSource


class RunOrder(Order):
    """Train a plugin on what people signed, on labelled images below an absolute path of the daemon's machine, or both.

    Without ``dataset`` labels lie in ``labels/PLUGIN`` of the home, which beside reviews may be missing or empty.
    """

    plugin: Key
    dataset: PlainPath | None = None
    sources: tuple[LabelSource, ...] = Field(FOLDER_ALONE, min_length=1, max_length=2)
    recipe: dict[str, FiniteFloat | int | str | bool] = Field(default_factory=dict)
    at_once: bool = False
    """Whether it is not to wait for a training window."""


class ResumeOrder(Order):
    """Go on with a run; ``at_once``, it is not to wait for a training window."""

    at_once: bool = False


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
