"""Judges the frontal chest X-rays of a study with ONNX Runtime; no torch."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from clinic_ai.contract import AnalysisTask, Device, LoadedModel, QuestionTask, TaskImage
from clinic_ai.domain import Analysis, Answer, Finding, ProducedFile, Refusal
from clinic_ai.errors import InputError, ModelError
from clinic_ai.ml.images import load_grey
from clinic_ai_xray.data import in_threads, network_input
from clinic_ai_xray.gate import Reason, refuse_by_header, refuse_by_pixels, remarks_by_header
from clinic_ai_xray.plugin import describe_plugin
from clinic_ai_xray.served import Judgement, ServedModel

_MAP_SIDE = 128
"""Pixels of a heat map a side: enough for a few regions, drawn smoothly; a larger one costs more than the gate."""
_CAPTION = "What each region added for {label}; the network sees {rows} x {columns} regions."


class XrayEngine:
    """The warm half of the plugin: one session per slot."""

    def __init__(self) -> None:
        self._models: dict[str, ServedModel] = {}
        self._manifest = describe_plugin()

    def load(self, base: LoadedModel | None, device: Device) -> None:
        """Make ``base`` the model of its slot. Raise ModelError if it is none of this plugin, or damaged."""
        if base is None:
            raise ModelError("The X-ray plugin needs a model.", remedy="Import one with `clinic-ai model import DIR`.")
        if base.manifest.plugin != self._manifest.name:
            raise ModelError(f"Model {base.ref.label()} belongs to the plugin {base.manifest.plugin}, not to xray.")
        self._models[base.ref.slot] = ServedModel(base, device)

    def use(self, adapter: LoadedModel | None) -> None:
        """Take no adapter. Raise ModelError if one is given: these classifiers are replaced as a whole."""
        if adapter is not None:
            raise ModelError("The X-ray classifiers take no adapter; import the trained model as a whole.")

    def analyse(self, task: AnalysisTask) -> Analysis:
        """Judge every image that is a frontal chest X-ray; refuse the others in words, without a number."""
        models = self._pinned(task)
        work = _Work(Path(task.output_directory))
        seen = in_threads(lambda image: _look_at(image, task, models), task.images, min(m.threads for m in models))
        for image, what in zip(task.images, seen, strict=True):
            work.add(image, what)
        return Analysis(
            plugin=self._manifest.name,
            plugin_version=self._manifest.version,
            models=task.models,
            findings=tuple(work.findings),
            refusals=tuple(work.refusals),
            remarks=tuple(dict.fromkeys(work.remarks)),
            files=tuple(work.files),
            timings_ms={name: round(seconds * 1000, 2) for name, seconds in work.seconds.items()},
        )

    def ask(self, task: QuestionTask) -> Answer:  # noqa: ARG002 - the contract's signature
        """Answer no question. Raise InputError always; the manifest does not offer this."""
        raise InputError("no_questions", "The X-ray plugin answers no questions.")

    def close(self) -> None:
        """Let go of the sessions."""
        self._models = {}

    def _pinned(self, task: AnalysisTask) -> list[ServedModel]:
        """Return the loaded models the task pins. Raise ModelError if another one is loaded in a slot."""
        chosen = []
        for ref in task.models:
            model = self._models.get(ref.slot)
            if model is None or model.ref.digest != ref.digest:
                raise ModelError(f"The job pins model {ref.label()}, which is not loaded.")
            chosen.append(model)
        if not chosen:
            raise ModelError("The job pins no model.", remedy="Promote one with `clinic-ai model promote`.")
        return chosen


@dataclass
class _Seen:
    """What was seen in one image; ``seconds`` by kind of work."""

    judged: list[tuple[ServedModel, Judgement]] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def took(self, what: str, began: float) -> None:
        """Add the time since ``began``."""
        self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - began


def _look_at(image: TaskImage, task: AnalysisTask, models: list[ServedModel]) -> _Seen:
    """Read one image and have every model judge it, unless there is a reason not to."""
    seen = _Seen()
    reason = refuse_by_header(image.header, task.facts)
    if reason is not None:
        seen.reasons.append(reason)
        return seen
    for side in sorted({model.side for model in models}):
        began = time.perf_counter()
        try:
            grey = load_grey(image.path, size=(side, side))
        except InputError as error:
            seen.reasons.append(Reason(error.code, error.message))
            return seen
        seen.took("read", began)
        reason = refuse_by_pixels(grey)
        if reason is not None:
            seen.reasons.append(reason)
            return seen
        seen.remarks += [*remarks_by_header(image.header, task.facts), *grey.remarks]
        began = time.perf_counter()
        prepared = network_input(grey)
        for model in models:
            if model.side == side:
                seen.judged.append((model, model.judge(prepared)))
        seen.took("infer", began)
    return seen


def _unlike(model: ServedModel, judgement: Judgement) -> Reason:
    return Reason(
        "out_of_distribution",
        f"The image is unlike those that the model for {model.label.lower()} was trained on ({judgement.distance:.1f} "
        "times what it accepts).",
    )


class _Work:
    """What an analysis has produced so far."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.findings: list[Finding] = []
        self.refusals: list[Refusal] = []
        self.remarks: list[str] = []
        self.files: list[ProducedFile] = []
        self.seconds: dict[str, float] = {}

    def add(self, image: TaskImage, seen: _Seen) -> None:
        """Add what was seen in one image."""
        self.remarks += seen.remarks
        for what, seconds in seen.seconds.items():
            self.seconds[what] = self.seconds.get(what, 0.0) + seconds
        for reason in seen.reasons:
            self.refuse(image, reason)
        for model, judgement in seen.judged:
            if judgement.distance > 1.0:
                self.refuse(image, _unlike(model, judgement))
            else:
                self.find(image, model, judgement)

    def refuse(self, image: TaskImage, reason: Reason) -> None:
        self.refusals.append(Refusal(instance_sha256=image.sha256, code=reason.code, sentence=reason.sentence))

    def find(self, image: TaskImage, model: ServedModel, judgement: Judgement) -> None:
        """Add the finding and its heat map."""
        name = f"heatmap-{len(self.files) + 1:03d}-{model.condition}.png"
        draw_map(judgement.contributions, model.map_scale).save(self._directory / name, compress_level=1)
        rows, columns = judgement.contributions.shape
        self.files.append(
            ProducedFile(
                name=name,
                role="heatmap",
                media_type="image/png",
                instance_sha256=image.sha256,
                caption=_CAPTION.format(label=model.label.lower(), rows=rows, columns=columns),
            )
        )
        self.findings.append(
            Finding(
                condition=model.condition,
                label=model.label,
                probability=round(judgement.probability, 6),
                threshold=model.band.threshold,
                presence=model.band.presence(judgement.probability),
                instance_sha256=image.sha256,
                heatmap=name,
                model=model.ref.slot,
                validation=model.manifest.validation.get(model.condition),
            )
        )


def draw_map(contributions: npt.NDArray[np.float32], scale: float) -> Image.Image:
    """Return the map as 8-bit grey: 0 where a region speaks against, 255 where it adds ``scale`` to the logit or more.

    The scale is the model's and not the image's own: a film without the finding stays dark.
    """
    level = np.clip(contributions / np.float32(scale), 0.0, 1.0).astype(np.float32)
    smooth = Image.fromarray(level).resize((_MAP_SIDE, _MAP_SIDE), Image.Resampling.BICUBIC)
    return Image.fromarray(np.clip(np.asarray(smooth) * 255.0, 0, 255).astype(np.uint8))
