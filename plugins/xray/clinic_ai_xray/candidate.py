"""What a trained tail becomes: calibrated, measured, exported, checked, and described in a manifest."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from clinic_ai.contract import Example, LoadedModel, ModelManifest, Scores, TrainingTask
from clinic_ai.domain import ValidationFigures
from clinic_ai.errors import ModelError
from clinic_ai.ml.calibration import Band, abstention_band, conformal_band, fit_temperature, probabilities
from clinic_ai.ml.checkpoints import write_durably
from clinic_ai.ml.metrics import at_threshold, auroc, auroc_interval, best_threshold, point_intervals
from clinic_ai.ml.model_files import open_model, write_manifest
from clinic_ai.ml.onnx import with_weights
from clinic_ai_xray import distance
from clinic_ai_xray.cache import Part
from clinic_ai_xray.data import read_input, stack
from clinic_ai_xray.network import PARITY, describe
from clinic_ai_xray.plugin import describe_plugin
from clinic_ai_xray.served import ServedModel, map_scale, pinned_bytes
from clinic_ai_xray.tail import Tail

ABSTAIN = 0.15
"""Share of validation images nearest to the operating point on which the model abstains if it can promise nothing."""
CHECKED_IMAGES = 64
"""Validation images that the exported graph is compared on, and drawn maps for, at most: four passes each."""
_AT_ONCE = 8


def score(split: str, labels: npt.ArrayLike, logits: npt.ArrayLike, patients: list[str], temperature: float) -> Scores:
    """Return AUROC with its interval by patient, and the Brier score of the calibrated probabilities."""
    truth, chance = np.asarray(labels, dtype=np.int64), probabilities(logits, temperature)
    return Scores(
        split=split,
        examples=len(truth),
        values={"auroc": auroc(truth, chance), "brier": float(np.mean((chance - truth) ** 2))},
        intervals={"auroc": auroc_interval(truth, chance, patients)},
    )


def choose_band(
    labels: npt.ArrayLike, probability: npt.ArrayLike, error: float
) -> tuple[Band, float | None, tuple[str, ...]]:
    """Return the band of validation images, the error it promises or None, and notes for people.

    The band is the one outside which at most the share ``error`` of either class is called the other one; where a class
    has too few images to promise that, the one around the operating point that holds ``ABSTAIN`` of the images.
    """
    threshold = best_threshold(labels, probability)
    try:
        return conformal_band(probability, labels, threshold, error=error), error, ()
    except ValueError:
        present = int(np.asarray(labels, dtype=np.int64).sum())
        counts = {"with the condition": present, "without the condition": np.size(labels) - present}
        fewest = min(counts, key=lambda part: counts[part])
        note = (
            f"With {counts[fewest]} images {fewest} in the validation part, an error of at most {100 * error:.3g} % "
            f"cannot be promised ({math.ceil(1 / error) - 1} are needed); the model abstains on the "
            f"{100 * ABSTAIN:.3g} % nearest to its operating point."
        )
        return abstention_band(probability, threshold, abstain=ABSTAIN), None, (note,)


class Measured(NamedTuple):
    """The images that a candidate was measured on: labels (images,) of 0 and 1, calibrated probabilities (images,)."""

    condition: str
    examples: tuple[Example, ...]
    labels: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float64]
    patients: list[str]


def validation_figures(
    scores: Scores,
    labels: npt.NDArray[Any],
    chance: npt.NDArray[np.float64],
    patients: Sequence[str],
    threshold: float,
    dataset: str,
) -> ValidationFigures:
    """Return what a manifest says of a model: ``scores``, and its operating point on the same images."""
    point = at_threshold(labels, chance, threshold)
    sensitivity, specificity = point_intervals(labels, chance, threshold, patients)
    low, high = scores.intervals["auroc"]
    return ValidationFigures(
        dataset=f"{dataset}, {scores.split} part, {len(set(patients))} patients",
        positives=int(labels.sum()),
        negatives=int((1 - labels).sum()),
        auroc=scores.values["auroc"],
        auroc_low=low,
        auroc_high=high,
        sensitivity=point.sensitivity,
        sensitivity_low=sensitivity[0],
        sensitivity_high=sensitivity[1],
        specificity=point.specificity,
        specificity_low=specificity[0],
        specificity_high=specificity[1],
    )


class Candidate:
    """A tail calibrated on the validation part and measured on the test part (on validation if test lacks a class).

    The pooled features of ``parts`` are those of the trained tail.
    """

    def __init__(
        self,
        task: TrainingTask,
        base: LoadedModel,
        served_base: ServedModel,
        condition: str,
        parts: dict[str, Part],
        tail: Tail,
        error: float,
    ) -> None:
        """``error`` is the share of either class that may be called the other one; see ``choose_band``."""
        self._task, self._base, self._condition = task, base, condition
        self._served_base, self._tier, self._tail = served_base, served_base.training_tier, tail
        self._validation = parts["validation"]
        pooled, labels = self._validation.pooled[:, 0], self._validation.labels(condition)
        logits = tail.judge_pooled(pooled)
        self.temperature = fit_temperature(logits, labels)
        chance = probabilities(logits, self.temperature)
        self.band, self.promised_error, self.notes = choose_band(labels, chance, error)
        self._distance: dict[str, distance.Array] = {}
        if served_base.tells_distance:
            train = parts["train"]
            self._distance = distance.fit_both(
                (train.looks.reshape(-1, distance.LOOK), self._validation.looks[:, 0]),
                (train.pooled.reshape(-1, train.pooled.shape[-1]), pooled),
            )
        self.split = "test" if len(set(parts["test"].labels(condition))) == 2 else "validation"
        part = parts[self.split]
        logits = tail.judge_pooled(part.pooled[:, 0])
        chance = probabilities(logits, self.temperature)
        self.measured = Measured(condition, part.examples, part.labels(condition), chance, part.patients())
        self.scores = score(self.split, self.measured.labels, logits, self.measured.patients, self.temperature)

    def write(self, directory: Path) -> float:
        """Write ``model.onnx`` and ``model.toml``; return the largest difference of a logit between tail and graph.

        Raise ModelError if they disagree; then there is no ``model.toml``.
        """
        directory.mkdir(exist_ok=True)
        (directory / "model.toml").unlink(missing_ok=True)
        path = directory / "model.onnx"
        replaced = self._tail.weights()
        replaced |= {f"distance.{name}": value for name, value in self._distance.items()}
        metadata = describe(self._tier, condition=self._condition, temperature=self.temperature)
        write_durably(path, with_weights(pinned_bytes(self._base), replaced, metadata))
        write_manifest(directory, self._manifest(scale=1.0), [path])
        served = ServedModel(open_model(directory), self._task.device)
        (directory / "model.toml").unlink()
        difference, scale = self._check(served)
        if not difference <= PARITY:
            raise ModelError(f"The exported graph differs from the trained tail by {difference:.2g} in the logit.")
        write_manifest(directory, self._manifest(scale=scale), [path])
        return difference

    def _check(self, served: ServedModel) -> tuple[float, float]:
        """Return the largest difference of a logit on validation images, and the scale of the maps."""
        examples = self._validation.examples
        positive = [example for example in examples if example.labels[self._condition] == 1][: CHECKED_IMAGES // 2]
        negative = [example for example in examples if example.labels[self._condition] == 0][: CHECKED_IMAGES // 2]
        images = stack([read_input(example.path, served.side) for example in (*positive, *negative)])
        labels = np.array([1] * len(positive) + [0] * len(negative))
        differences, maps = [], []
        for at in range(0, len(images), _AT_ONCE):
            batch = images[at : at + _AT_ONCE]
            # Not from the cache, whose numbers may be rounded.
            cached = torch.from_numpy(self._served_base.activations(batch)[self._tier.cached])
            with torch.inference_mode():
                expected = self._tail(cached).numpy()
            differences.append(np.abs(served.logits(batch) - expected).max())
            maps.append(served.maps(batch))
        return float(np.max(differences)), map_scale(np.concatenate(maps), labels)

    def _manifest(self, *, scale: float) -> ModelManifest:
        base = self._base.manifest
        labels = {known.code: known.label for known in describe_plugin().conditions}
        label = labels.get(self._condition, self._condition)
        if self._served_base.condition == self._condition:
            label = self._served_base.label
        return ModelManifest(
            plugin="xray",
            slot=self._slot(),
            name=f"{self._condition}-{self._tier.name}".replace("_", "-"),
            version=self._task.run_id,
            format="onnx",
            files=(),
            licence=base.licence,
            commercial_use=base.commercial_use,
            source=f"Trained here in run {self._task.run_id} on dataset {self._task.dataset.dataset_id}, over "
            f"the frozen base of {self._base.ref.label()}. {base.source}",
            intended_use="Candidate trained on the clinic's own images; has no clinical record.",
            validation={self._condition: self._figures()},
            parameters={
                "condition": self._condition,
                "label": label,
                "tier": self._tier.name,
                **describe(self._tier, condition=self._condition, temperature=self.temperature),
                "threshold": self.band.threshold,
                "abstain_low": self.band.low,
                "abstain_high": self.band.high,
                **({} if self.promised_error is None else {"promised_error": self.promised_error}),
                "map_scale": scale,
                "trained_from": self._base.ref.digest,
            },
            created_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )

    def _slot(self) -> str:
        """Return where it belongs: a model of another condition than the base's must not take that one out of use."""
        if self._served_base.untrained or self._served_base.condition == self._condition:
            return self._base.ref.slot
        return f"{self._condition}_{self._tier.name}"

    def _figures(self) -> ValidationFigures:
        measured, dataset = self.measured, self._task.dataset.dataset_id
        return validation_figures(
            self.scores, measured.labels, measured.probabilities, measured.patients, self.band.threshold, dataset
        )
