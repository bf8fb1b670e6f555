"""How a classifier fares on this machine, as it is and in int8, and whether int8 is worth taking."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx

from clinic_ai.benching import INT8, BenchResult, BenchTask, Measured
from clinic_ai.contract import Dataset, Example, LoadedModel, ModelManifest, Scores
from clinic_ai.domain import ValidationFigures
from clinic_ai.errors import DatasetError, InputError, ModelError
from clinic_ai.ml.greys import Float
from clinic_ai.ml.metrics import difference_interval
from clinic_ai.ml.model_files import open_model, write_manifest
from clinic_ai.ml.onnx import with_weights
from clinic_ai_xray import distance
from clinic_ai_xray.candidate import validation_figures
from clinic_ai_xray.data import in_threads, read_input, stack
from clinic_ai_xray.judged import Judged, has_both, judge, lacks_a_class
from clinic_ai_xray.quantise import quantise
from clinic_ai_xray.served import ServedModel, pinned_bytes

FASTER = 0.05
"""Share of the time that int8 must save on this machine: below that, it may be chance."""
LOSS = 0.005
"""AUROC that int8 must not lose."""
REFUSED = 0.01
"""Share of the images that int8 may refuse beyond those that the original refuses as unlike those of training."""
CALIBRATION_IMAGES = 100
"""Training images that the ranges of int8 are taken from, at most."""
FITTED_IMAGES = 500
"""Training and validation images that the distance of int8 is fitted to, at most of each."""
_FEWEST = 10
_ROUNDS, _WARM = 30, 3


def bench(task: BenchTask) -> BenchResult:
    """Measure ``task.model``, and an int8 version of it if there is a dataset.

    Raise ModelError if the model is damaged, or int8 already; DatasetError if there are too few images.
    """
    original = ServedModel(task.model, task.device)
    if task.dataset is None:
        blank = np.full((original.side, original.side), 0.5, dtype=np.float32)
        (milliseconds,) = speed([original], blank)
        return BenchResult(original=Measured(milliseconds=milliseconds, size_bytes=_size(task.model)))
    if task.model.manifest.quantisation != "none":
        raise ModelError(
            f"Model {original.ref.label()} is {task.model.manifest.quantisation} already.",
            remedy="Name the model it was made of, or leave the images out to measure its speed alone.",
        )
    return _Comparison(task, original, task.dataset).go()


def speed(models: Sequence[ServedModel], image: Float, rounds: int = _ROUNDS) -> list[float]:
    """Return the median milliseconds that each model takes for one prepared image (side, side), as it is served.

    Their runs take turns, so that what else the machine does meets all of them. Processor time of this thread is
    counted, which is all that a session uses.
    """
    taken: list[list[float]] = [[] for _ in models]
    for number in range(_WARM + rounds):
        for at in range(len(models))[:: -1 if number % 2 else 1]:
            began = time.thread_time()
            models[at].judge(image)
            taken[at].append(time.thread_time() - began)
    return [1000 * statistics.median(times[_WARM:]) for times in taken]


def decide(original: Measured, int8: Measured) -> tuple[bool, str]:
    """Return whether ``int8`` is taken, and why or why not in one sentence. Both have the scores ``Judged.scores``."""
    before, after = (measured.scores.values if measured.scores else {} for measured in (original, int8))
    against = []
    if int8.milliseconds > (1 - FASTER) * original.milliseconds:
        against.append(f"it is not at least {100 * FASTER:.0f} % faster on this machine")
    if not before["auroc"] - after["auroc"] < LOSS:
        against.append(f"it loses {LOSS} of the AUROC or more")
    if after["refused"] - before["refused"] > REFUSED:
        against.append(
            f"it refuses {100 * after['refused']:.0f} % of the images as unlike those of training, not "
            f"{100 * before['refused']:.0f} %"
        )
    figures = (
        f"{int8.milliseconds:.1f} instead of {original.milliseconds:.1f} ms an image, AUROC {after['auroc']:.3f} "
        f"instead of {before['auroc']:.3f}"
    )
    if against:
        return False, f"int8 is not taken ({figures}): {', and '.join(against)}."
    return True, f"int8 is taken: {figures}."


class _Comparison:
    """A model beside its int8 version, on labelled images."""

    def __init__(self, task: BenchTask, original: ServedModel, dataset: Dataset) -> None:
        self._task, self._original, self._dataset = task, original, dataset
        self._examples = [example for example in dataset.examples if original.condition in example.labels]
        self._threads = max(1, task.device.threads)
        self._directory = Path(task.directory) / "model"
        self._notes: list[str] = []

    def go(self) -> BenchResult:
        """Calibrate, quantise, measure and decide."""
        split, examples = self._measured()
        images = self._calibration()
        self._directory.mkdir(parents=True)
        path = self._directory / "model.onnx"
        path.write_bytes(quantise(pinned_bytes(self._task.model), images))
        manifest = write_manifest(self._directory, self._manifest(len(images)), [path])
        int8 = ServedModel(open_model(self._directory), self._task.device)
        if int8.tells_distance:
            path.write_bytes(self._with_distance(int8, path.read_bytes()))
            manifest = write_manifest(self._directory, manifest, [path])
            int8 = ServedModel(open_model(self._directory), self._task.device)
        (float_said, int8_said), unreadable = judge([self._original, int8], examples, self._threads)
        if unreadable:
            self._notes.append(f"{unreadable} images could not be read and were left out.")
        took = speed([self._original, int8], images[0, 0])
        original, quantised = (
            Measured(milliseconds=milliseconds, size_bytes=size, scores=said.scores(split))
            for milliseconds, size, said in zip(
                took, (_size(self._task.model), path.stat().st_size), (float_said, int8_said), strict=True
            )
        )
        assert original.scores is not None
        assert quantised.scores is not None
        taken, reason = decide(original, quantised)
        if taken:
            figures = {int8.condition: self._figures(int8_said, quantised.scores)}
            write_manifest(self._directory, manifest.model_copy(update={"validation": figures}), [path])
        else:
            shutil.rmtree(self._directory)
        difference = difference_interval(int8_said.labels, int8_said.chance, float_said.chance, int8_said.patients)
        if taken and difference[0] <= -LOSS:
            self._notes.append(f"These images are too few to rule out that int8 loses {LOSS} of the AUROC or more.")
        pairs = zip(float_said.said(), int8_said.said(), strict=True)
        return BenchResult(
            original=original,
            int8=quantised,
            difference=quantised.scores.values["auroc"] - original.scores.values["auroc"],
            difference_interval=difference,
            agreement=statistics.fmean(one == other for one, other in pairs),
            taken=taken,
            reason=reason,
            model_directory=str(self._directory) if taken else "",
            notes=tuple(self._notes),
        )

    def _figures(self, said: Judged, scores: Scores) -> ValidationFigures:
        """Return the figures of a manifest, at the model's operating point."""
        threshold, dataset = said.model.band.threshold, self._dataset.dataset_id
        return validation_figures(scores, said.labels, said.chance, said.patients, threshold, dataset)

    def _measured(self) -> tuple[str, list[Example]]:
        """Return the part that is measured, and its images. Raise DatasetError if one class is missing."""
        condition = self._original.condition
        test = [example for example in self._examples if example.split == "test"]
        if has_both(test, condition):
            return "test", test
        kept = [example for example in self._examples if example.split != "train"]
        if not has_both(kept, condition):
            raise lacks_a_class(condition)
        self._notes.append(
            "The test part lacks a class, so the figures are of the validation and test parts; the operating point "
            "was chosen on the former."
        )
        return "validation and test", kept

    def _calibration(self) -> Float:
        """Return prepared training images, evenly drawn. Raise DatasetError if there are too few."""
        images = [image for image in self._each(self._read, "train", CALIBRATION_IMAGES) if image is not None]
        if len(images) < _FEWEST:
            raise DatasetError(
                f"The train part has {len(images)} readable images labelled for {self._original.condition}; int8 needs "
                f"{_FEWEST} to be calibrated on.",
                remedy="Add labelled images of more patients.",
            )
        return stack(images)

    def _read(self, example: Example) -> Float | None:
        try:
            return read_input(example.path, self._original.side)
        except InputError:
            return None

    def _with_distance(self, int8: ServedModel, content: bytes) -> bytes:
        """Return the graph with a distance that is fitted to the features of ``int8``, as far as there are images.

        Rounding moves features off the few directions in which they vary, where the original's distance forgives
        nothing: it refused 56 % instead of 1 % of 100 films.
        """

        def features(example: Example) -> Float | None:
            image = self._read(example)
            return None if image is None else int8.activations(image[None, None])["features"]

        train, apart = (
            [row for row in self._each(features, split, FITTED_IMAGES) if row is not None]
            for split in ("train", "validation")
        )
        if min(len(train), len(apart)) < _FEWEST:
            return content
        buffers = distance.fit(np.concatenate(train), np.concatenate(apart))
        metadata = {entry.key: entry.value for entry in onnx.load_model_from_string(content).metadata_props}
        return with_weights(content, {f"distance.features.{name}": value for name, value in buffers.items()}, metadata)

    def _each(self, work: Callable[[Example], Float | None], split: str, most: int) -> list[Float | None]:
        """Return ``work`` of the examples of a part, evenly drawn where there are more than ``most``."""
        part = [example for example in self._examples if example.split == split]
        return in_threads(work, part[:: max(1, -(-len(part) // most))], self._threads)

    def _manifest(self, calibrated_on: int) -> ModelManifest:
        base, ref = self._task.model.manifest, self._original.ref
        return base.model_copy(
            update={
                "version": f"{base.version}{INT8}",
                "files": (),
                "quantisation": "int8",
                "clinical_use": False,
                "reference": False,
                "source": f"Made int8 of {ref.label()} here, calibrated on {calibrated_on} images of dataset "
                f"{self._dataset.dataset_id}. {base.source}",
                "intended_use": f"Candidate in int8; has no clinical record of its own. {base.intended_use}",
                "validation": {},
                "parameters": {**base.parameters, "quantised": "int8", "quantised_from": ref.digest},
                "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
        )


def _size(model: LoadedModel) -> int:
    return sum(file.size_bytes for file in model.manifest.files)
