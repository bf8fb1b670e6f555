"""A classifier as it is served: an ONNX session that is what its manifest says it is."""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort

from clinic_ai.contract import Device, LoadedModel
from clinic_ai.errors import ModelError
from clinic_ai.ml.calibration import Band, sigmoid
from clinic_ai.ml.greys import Float
from clinic_ai_xray.data import PREPROCESSING_VERSION
from clinic_ai_xray.tiers import FAST, TIERS, Tier

ORT_ERRORS = (
    ort.EPFail,
    ort.Fail,
    ort.InvalidArgument,
    ort.InvalidGraph,
    ort.InvalidProtobuf,
    ort.NoModel,
    ort.NotImplemented,
    ort.RuntimeException,
)
"""What ONNX Runtime raises of a model; these have no base of their own."""
INTRA_OP = 1
"""Threads inside one image. Measured (benchmarks/xray.py): in so small a network a second one gives nothing."""
_REMEDY = "Import the model again with `clinic-ai model import DIR`."


@dataclass(frozen=True)
class Judgement:
    """What the network says of one image: calibrated probability, and the map (rows, columns) of contributions."""

    probability: float
    contributions: npt.NDArray[np.float32]
    distance: float
    """How unlike the images of training it is: beyond 1 it is not judged. 0 if the model does not tell."""


class ServedModel:
    """One loaded classifier with its calibration and operating point."""

    def __init__(self, model: LoadedModel, device: Device) -> None:
        """Load ``model``. Raise ModelError if a file or its metadata is not what the manifest says."""
        self.ref = model.ref
        self.manifest = model.manifest
        self.threads = max(1, device.threads)
        """How many images may be read and judged beside each other."""
        values = _Parameters(model)
        self.untrained = model.manifest.parameters.get("untrained") is True
        self.condition = values.text("condition")
        self.label = values.text("label")
        self.tier = str(model.manifest.parameters.get("tier", ""))
        self.side = int(values.number("input_side"))
        self.temperature = values.number("temperature")
        self.band = Band(values.number("abstain_low"), values.number("threshold"), values.number("abstain_high"))
        self.map_scale = values.number("map_scale")
        if (
            not 0 < self.band.low <= self.band.threshold <= self.band.high < 1
            or min(self.temperature, self.map_scale) <= 0
        ):
            raise values.wrong("its operating point or its temperature is out of range")
        if values.number("preprocessing_version") != PREPROCESSING_VERSION:
            raise values.wrong("it was trained with another version of the image preparation")
        self._session = _open(pinned_bytes(model), device, values)
        self.tells_distance = "distance" in self._outputs()
        """A model of another time does not."""
        self._compare_metadata(values)

    def judge(self, image: Float) -> Judgement:
        """Judge one prepared image, float32 (rows, columns) in 0..1."""
        both = np.stack([image, image[:, ::-1]])[:, None]
        logits, maps, *distances = self._session.run(
            ["logit", "cam", *(["distance"] if self.tells_distance else [])], {"images": both}
        )
        unlike = float(distances[0][0]) if distances else 0.0
        probability = sigmoid(float(logits[0]) / self.temperature)
        return Judgement(probability, without_side(maps[:1], maps[1:])[0], unlike)

    def logits(self, images: Float) -> npt.NDArray[np.float32]:
        """Return the uncalibrated logits (n,) of images (n, 1, rows, columns)."""
        (values,) = self._session.run(["logit"], {"images": np.ascontiguousarray(images)})
        return np.asarray(values, dtype=np.float32)

    def maps(self, images: Float) -> npt.NDArray[np.float32]:
        """Return the class activation maps (n, map rows, map columns) of images (n, 1, rows, columns)."""
        plain, mirrored = (
            self._session.run(["cam"], {"images": np.ascontiguousarray(turned)})[0]
            for turned in (images, images[..., ::-1])
        )
        return without_side(plain, mirrored)

    def activations(self, images: Float) -> dict[str, npt.NDArray[np.float32]]:
        """Return what training starts from: pooled ``features``, and the output where the frozen part ends (n, …)."""
        names = list(dict.fromkeys(["features", self.training_tier.cached]))
        values = self._session.run(names, {"images": np.ascontiguousarray(images)})
        return dict(zip(names, values, strict=True))

    @property
    def training_tier(self) -> Tier:
        """The tier it can be trained on in. Raise ModelError if it is of none, or its graph is of another one."""
        tier = TIERS.get(self.tier or FAST.name)
        if tier is None or tier.side != self.side or not set(tier.outputs) - {"distance"} <= self._outputs():
            raise ModelError(
                f"Model {self.ref.label()} is not built as training needs it.",
                remedy="Convert its weights with `python -m clinic_ai_xray.convert`.",
            )
        return tier

    def _outputs(self) -> set[str]:
        return {value.name for value in self._session.get_outputs()}

    def _compare_metadata(self, values: _Parameters) -> None:
        metadata = self._session.get_modelmeta().custom_metadata_map
        try:
            same = (
                json.loads(metadata["labels"]) == [self.condition]
                and int(metadata["input_side"]) == self.side
                and float(metadata["temperature"]) == self.temperature
                and int(metadata["preprocessing_version"]) == PREPROCESSING_VERSION
            )
        except (KeyError, ValueError) as error:
            raise values.wrong("its ONNX file does not carry the metadata of this plugin") from error
        if not same:
            raise values.wrong("the metadata inside its ONNX file disagree with its manifest")
        names = self._outputs()
        shape = self._session.get_inputs()[0].shape
        if not {"logit", "cam", "features"} <= names or shape[1:] != [1, self.side, self.side]:
            raise values.wrong("its graph has other inputs or outputs than this plugin needs")


def without_side(maps: npt.NDArray[np.float32], mirrored: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the mean of maps (n, rows, columns) and those of the mirrored images, turned back.

    A network sees the whole film from each of its few regions and gathers what it found where its padding
    makes that easy, on one side of every film; the mean of both views takes that side away.
    """
    return (maps + mirrored[:, :, ::-1]) / np.float32(2)


def map_scale(maps: npt.NDArray[np.float32], labels: npt.NDArray[Any]) -> float:
    """Return the contribution that is drawn at full strength: the 90th percentile of the peaks in positive images."""
    peaks = maps[np.asarray(labels) == 1].max(axis=(1, 2))
    return float(max(np.percentile(peaks, 90.0), 1e-3))


class _Parameters:
    """Reads the parameters of a manifest, naming the model in every error."""

    def __init__(self, model: LoadedModel) -> None:
        self._values = model.manifest.parameters
        self._label = model.ref.label()

    def wrong(self, why: str) -> ModelError:
        return ModelError(f"Model {self._label} cannot be used: {why}.", remedy=_REMEDY)

    def text(self, key: str) -> str:
        value = self._values.get(key)
        if not isinstance(value, str) or not value:
            raise self.wrong(f"its manifest lacks the parameter {key}")
        return value

    def number(self, key: str) -> float:
        value = self._values.get(key)
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise self.wrong(f"its manifest lacks the number {key}") from error
        if not math.isfinite(number):
            raise self.wrong(f"the parameter {key} of its manifest is {number}")
        return number


def pinned_bytes(model: LoadedModel) -> bytes:
    """Return the ONNX file of ``model``, its hash checked. Raise ModelError if it is not the one that is pinned."""
    values = _Parameters(model)
    files = [file for file in model.manifest.files if file.name.endswith((".onnx", ".data"))]
    if model.manifest.format != "onnx" or len(files) != 1:
        raise values.wrong("it does not consist of one ONNX file")
    try:
        content = (Path(model.directory) / files[0].name).read_bytes()
    except OSError as error:
        raise values.wrong(f"its file {files[0].name} cannot be read ({error.strerror})") from error
    if hashlib.sha256(content).hexdigest() != files[0].sha256:
        raise values.wrong(f"its file {files[0].name} is not the one its manifest pins")
    return content


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Return how a session runs: ``threads`` for one image, none of them spinning, no weights from other files."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin while they wait would take the processor from the other children.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A graph from memory could name weights in files below the working directory, which no hash pins: here is none.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    return options


def _open(content: bytes, device: Device, values: _Parameters) -> onnxruntime.InferenceSession:
    options = session_options(INTRA_OP)
    providers = ["CUDAExecutionProvider"] if device.kind == "cuda" else []
    available = set(onnxruntime.get_available_providers())
    try:
        return onnxruntime.InferenceSession(
            content, options, providers=[p for p in (*providers, "CPUExecutionProvider") if p in available]
        )
    except ORT_ERRORS as error:
        raise values.wrong("its ONNX file is damaged or needs operators this onnxruntime lacks") from error
