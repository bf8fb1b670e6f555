"""Judges the X-rays of a study with ONNX Runtime; no torch."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from clinic_ai.contract import AnalysisTask, ConditionInfo, Device, LoadedModel, QuestionTask, TaskImage
from clinic_ai.domain import Analysis, Answer, Finding, Presence, ProducedFile, Refusal
from clinic_ai.errors import InputError, ModelError
from clinic_ai.ml.greys import Float
from clinic_ai.ml.images import load_grey
from clinic_ai_xray.data import in_threads, network_input
from clinic_ai_xray.gate import (
    Reason,
    Shown,
    refuse_by_conditions,
    refuse_by_header,
    refuse_by_pixels,
    remarks_by_header,
)
from clinic_ai_xray.plugin import describe_plugin
from clinic_ai_xray.served import Judgement, ServedModel

Conditions = Mapping[str, ConditionInfo]

_MAP_SIDE = 128
"""Pixels of a heat map a side: enough for a few regions, drawn smoothly; a larger one costs more than the gate."""
_CANNOT_TELL = "The model for {label} cannot tell images that are unlike those of its training."
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
        """Judge every image that is a frontal chest X-ray; refuse the others in words, without a number.

        A base that only training starts from says nothing.
        """
        models = [model for model in self._pinned(task) if not model.untrained]
        if not models:
            raise ModelError(
                "The active model is a base to train from and has learned nothing yet.",
                remedy="Train on it with `clinic-ai train run xray DIR`, then promote the result.",
            )
        conditions = {c.code: c for c in task.conditions or self._manifest.conditions}
        work = _Work(Path(task.output_directory), conditions)
        seen = in_threads(
            lambda image: _look_at(image, task, models, conditions), task.images, min(m.threads for m in models)
        )
        for image, what in zip(task.images, seen, strict=True):
            work.add(image, what)
        work.remarks += [_CANNOT_TELL.format(label=m.label.lower()) for m in models if not m.tells_distance]
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
    films: dict[int, Float] = field(default_factory=dict)
    """Prepared for the networks, by their side in pixels."""

    def took(self, what: str, began: float) -> None:
        """Add the time since ``began``."""
        self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - began

    def film(self, image: TaskImage, side: int) -> Float | None:
        """Return the image as a network takes it; None, with a reason, if its pixels cannot be judged."""
        if side not in self.films:
            began = time.perf_counter()
            try:
                grey = load_grey(image.path, size=(side, side))
            except InputError as error:
                self.reasons.append(Reason(error.code, error.message))
                return None
            self.took("read", began)
            reason = refuse_by_pixels(grey)
            if reason is not None:
                self.reasons.append(reason)
                return None
            self.remarks += grey.remarks
            self.films[side] = network_input(grey)
        return self.films[side]


def _look_at(image: TaskImage, task: AnalysisTask, models: list[ServedModel], conditions: Conditions) -> _Seen:
    """Read one image and have the models of every condition that applies judge it, unless there is a reason not to."""
    seen = _Seen()
    shown = Shown.of(image.header, task.facts)
    reason = refuse_by_header(image.header, task.facts) or refuse_by_conditions(
        shown, [conditions[model.condition] for model in models if model.condition in conditions]
    )
    if reason is not None:
        seen.reasons.append(reason)
        return seen
    for code, condition in conditions.items():
        of = [model for model in models if model.condition == code]
        if of and condition.applies_to(shown.body_part, shown.view):
            if not _judge(ordered(of, condition), image, seen):
                return seen
            seen.remarks += remarks_by_header(shown, condition)
    return seen


def _judge(models: list[ServedModel], image: TaskImage, seen: _Seen) -> bool:
    """Judge one condition by its models in turn; False if the pixels cannot be judged by any model."""
    for number, model in enumerate(models, start=1):
        film = seen.film(image, model.side)
        if film is None:
            return False
        began = time.perf_counter()
        judgement = model.judge(film)
        seen.took("infer", began)
        absent = model.band.presence(judgement.probability) is Presence.ABSENT
        if judgement.distance > 1.0 or absent or number == len(models):
            seen.judged.append((model, judgement))
            return True
    return True


def ordered(models: list[ServedModel], condition: ConditionInfo) -> list[ServedModel]:
    """Return the models that judge a condition, in turn: the fast one screens, the intensive one confirms."""
    chosen = [model for model in models if condition.tier in {"", "both", model.tier}] or models
    return sorted(chosen, key=lambda model: model.tier == "intensive")


def _unlike(label: str, judgement: Judgement) -> Reason:
    return Reason(
        "out_of_distribution",
        f"The image is unlike those that the model for {label.lower()} was trained on ({judgement.distance:.1f} "
        "times what it accepts).",
    )


class _Work:
    """What an analysis has produced so far."""

    def __init__(self, directory: Path, conditions: Conditions) -> None:
        self._directory = directory
        self._conditions = conditions
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
                self.refuse(image, _unlike(self._conditions[model.condition].label, judgement))
            else:
                self.find(image, model, judgement)

    def refuse(self, image: TaskImage, reason: Reason) -> None:
        self.refusals.append(Refusal(instance_sha256=image.sha256, code=reason.code, sentence=reason.sentence))

    def find(self, image: TaskImage, model: ServedModel, judgement: Judgement) -> None:
        """Add the finding and its heat map, worded as the clinic words the condition and not as the model does."""
        label = self._conditions[model.condition].label
        name = f"heatmap-{len(self.findings) + 1:03d}-{model.condition}.png"
        draw_map(judgement.contributions, model.map_scale).save(self._directory / name, compress_level=1)
        numbers = Path(name).with_suffix(".json")
        (self._directory / numbers).write_text(map_numbers(judgement.contributions, model))
        rows, columns = judgement.contributions.shape
        self.files += (
            ProducedFile(
                name=name,
                role="heatmap",
                media_type="image/png",
                instance_sha256=image.sha256,
                caption=_CAPTION.format(label=label.lower(), rows=rows, columns=columns),
            ),
            ProducedFile(name=str(numbers), role="data", media_type="application/json", instance_sha256=image.sha256),
        )
        self.findings.append(
            Finding(
                condition=model.condition,
                label=label,
                probability=round(judgement.probability, 6),
                threshold=model.band.threshold,
                presence=model.band.presence(judgement.probability),
                instance_sha256=image.sha256,
                heatmap=name,
                model=model.ref.slot,
                validation=model.manifest.validation.get(model.condition),
            )
        )


def map_numbers(contributions: npt.NDArray[np.float32], model: ServedModel) -> str:
    """Return the map as JSON: what each region of the whole image, by row from the top, added to the logit."""
    return json.dumps(
        {
            "condition": model.condition,
            "model": model.ref.label(),
            "unit": "logit",
            "full_strength": round(model.map_scale, 6),
            "rows": [[round(float(value), 6) for value in row] for row in contributions],
        }
    )


def draw_map(contributions: npt.NDArray[np.float32], scale: float) -> Image.Image:
    """Return the map as 8-bit grey: 0 where a region speaks against, 255 where it adds ``scale`` to the logit or more.

    The scale is the model's and not the image's own: a film without the finding stays dark.
    """
    level = np.clip(contributions / np.float32(scale), 0.0, 1.0).astype(np.float32)
    smooth = Image.fromarray(level).resize((_MAP_SIDE, _MAP_SIDE), Image.Resampling.BICUBIC)
    return Image.fromarray(np.clip(np.asarray(smooth) * 255.0, 0, 255).astype(np.uint8))
