"""The heavy half: runs in a child process of its own, where a real plugin would import its libraries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from time import perf_counter

from clinic_ai.contract import AnalysisTask, Device, LoadedModel, QuestionTask
from clinic_ai.domain import Analysis, Answer, InstanceHeader
from clinic_ai.errors import InputError, ModelError
from clinic_ai_echo import __version__


class EchoEngine:
    """Answers every study with what it holds."""

    def load(self, base: LoadedModel | None, device: Device) -> None:  # noqa: ARG002 - it computes nothing
        """Do nothing. Raise ModelError if there is a model, which this plugin could not use."""
        _refuse_model(base)

    def use(self, adapter: LoadedModel | None) -> None:
        """Do nothing. Raise ModelError if there is an adapter."""
        _refuse_model(adapter)

    def analyse(self, task: AnalysisTask) -> Analysis:
        """Return one remark for each kind of image in the study."""
        start = perf_counter()
        remarks = tuple(describe(image.header for image in task.images))
        return Analysis(
            plugin="echo",
            plugin_version=__version__,
            models=task.models,
            remarks=remarks,
            timings_ms={"analyse": (perf_counter() - start) * 1000},
        )

    def ask(self, task: QuestionTask) -> Answer:  # noqa: ARG002 - the manifest does not offer it
        """Raise InputError: this plugin answers no questions."""
        raise InputError("no_questions", "The echo plugin answers no questions.", remedy="Ask another plugin.")

    def close(self) -> None:
        """Do nothing; there is nothing to let go of."""


def describe(headers: Iterable[InstanceHeader]) -> list[str]:
    """Return a sentence for each modality and size, in the order in which they first appear."""
    images: Counter[tuple[str, int, int]] = Counter()
    without_pixels: Counter[str] = Counter()
    for header in headers:
        modality = f"modality {header.modality}" if header.modality else "unknown modality"
        if header.frames:
            images[modality, header.rows, header.columns] += header.frames
        else:
            without_pixels[modality] += 1
    sentences = [
        f"Received {_count(number, 'image')} of {modality} with {rows} × {columns} pixels (rows × columns)."
        for (modality, rows, columns), number in images.items()
    ]
    return sentences + [
        f"Received {_count(number, 'object')} of {modality} without pixels."
        for modality, number in without_pixels.items()
    ]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _refuse_model(model: LoadedModel | None) -> None:
    if model is not None:
        raise ModelError(
            f"The echo plugin has no use for the model {model.ref.name}.",
            remedy="Promote it for the plugin it was made for.",
        )
