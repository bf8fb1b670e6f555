"""Where the anatomical regions of a volume come from: a mask that came with it, an organ segmenter, or nowhere.

A segmenter is a model of its own that a clinic may import: an ONNX graph, or the weights of a MONAI U-Net.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from monai.networks.nets.basic_unet import BasicUNet
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from clinic_ai.contract import Device, LoadedModel
from clinic_ai.domain import Word
from clinic_ai.errors import ModelError
from clinic_ai.ml.checkpoints import write_durably
from clinic_ai_ct.anatomy import REGIONS

SLOT = "organs"
CONFIG, WEIGHTS, GRAPH = "organs.json", "organs.safetensors", "organs.onnx"
_REMEDY = "Import it again, or retire it: without an organ segmenter attention to regions is off."
Labels = npt.NDArray[np.uint8]
Width = Annotated[int, Field(ge=1)]


class SegmenterConfig(Word):
    """What a segmenter reads and says; ``organs.json`` beside its weights.

    It reads (1, C, D, H, W) in 0..1, one channel for each of ``windows`` (centre, width) in Hounsfield units, on a grid
    of ``spacing`` mm along (z, y, x), each side a multiple of 16. It says a score (1, 1 + names, D, H, W): the first is
    of everything else, the others are of ``names``. Names that are none of ``anatomy.REGIONS`` are passed over.
    ``features`` are the six widths of MONAI's BasicUNet; an ONNX graph has none.
    """

    names: tuple[str, ...]
    windows: tuple[tuple[float, float], ...]
    spacing: tuple[float, float, float]
    features: tuple[Width, Width, Width, Width, Width, Width] = (8, 8, 16, 32, 64, 8)


@dataclass(frozen=True)
class Regions:
    """Regions of one volume: ``labels`` (D, H, W), numbers of ``anatomy.REGIONS`` from 1, 0 for none.

    None if there are no regions. ``sentence`` says where they are from, for the report.
    """

    labels: Labels | None
    sentence: str


OFF = Regions(
    None,
    "Attention to anatomical regions was off: no mask of organs came with the images, and no organ segmenter is in "
    "use.",
)

NOT_LEARNED = "The network reads a volume without attention to anatomical regions."


def given(labels: Labels, names: Sequence[str]) -> Regions:
    """Return the regions of a mask (D, H, W) that came with a volume; number n of it is ``names[n - 1]``."""
    return Regions(_renumbered(labels, names), "Anatomical regions are those of the mask that came with the images.")


class OrganSegmenter(ABC):
    """Makes regions of an image."""

    def __init__(self, config: SegmenterConfig, label: str) -> None:
        self.config, self.label = config, label

    def find(self, image: Tensor, spacing: tuple[float, float, float]) -> Regions:
        """Return the regions of (1, C, D, H, W), windowed as the config says, with ``spacing`` mm along (z, y, x).

        The image is brought to the segmenter's own grid, and the regions back to that of the image.
        """
        shape = tuple(image.shape[2:])
        wanted = [
            max(16, round(n * a / b / 16) * 16) for n, a, b in zip(shape, spacing, self.config.spacing, strict=True)
        ]
        with torch.inference_mode():
            scores = self._scores(F.interpolate(image, size=wanted, mode="trilinear", align_corners=False))
            found = scores.argmax(dim=1, keepdim=True).to(torch.uint8)
            labels = F.interpolate(found.float(), size=shape, mode="nearest-exact")[0, 0]
        sentence = f"Anatomical regions are those that {self.label} found."
        return Regions(_renumbered(labels.to(torch.uint8).numpy(), self.config.names), sentence)

    @abstractmethod
    def _scores(self, image: Tensor) -> Tensor:
        """Return (1, 1 + names, D, H, W)."""


class UNetSegmenter(OrganSegmenter):
    """MONAI's BasicUNet."""

    def __init__(self, config: SegmenterConfig, label: str, weights: dict[str, Tensor]) -> None:
        super().__init__(config, label)
        self.network = segmenter_network(config)
        self.network.load_state_dict(weights, strict=True)
        self.network.eval()

    def _scores(self, image: Tensor) -> Tensor:
        scores: Tensor = self.network(image)
        return scores


class OnnxSegmenter(OrganSegmenter):
    """An ONNX graph with one input and one output."""

    def __init__(self, config: SegmenterConfig, label: str, path: Path, threads: int) -> None:
        super().__init__(config, label)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    def _scores(self, image: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run(None, {self.input: image.numpy()})[0])


def segmenter_network(config: SegmenterConfig) -> BasicUNet:
    """Return the U-Net of a config with random weights."""
    return BasicUNet(
        3, len(config.windows), 1 + len(config.names), config.features, norm=("instance", {"affine": True})
    )


def write_segmenter(network: BasicUNet, config: SegmenterConfig, directory: Path) -> tuple[Path, ...]:
    """Write a U-Net's weights and config; return the files, for ``ml.model_files.write_manifest``."""
    weights, said = directory / WEIGHTS, directory / CONFIG
    save_file({name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}, weights)
    write_durably(said, config.model_dump_json(indent=1).encode())
    return weights, said


def load_segmenter(model: LoadedModel, device: Device) -> OrganSegmenter:
    """Return the segmenter of a model directory; it computes on the processor.

    Raise ModelError if the directory holds none, or if files are damaged.
    """
    directory, label = Path(model.directory), model.ref.label()
    try:
        config = SegmenterConfig.model_validate(json.loads((directory / CONFIG).read_text(encoding="utf-8")))
        if model.manifest.format == "onnx":
            return OnnxSegmenter(config, label, directory / GRAPH, max(1, device.threads))
        return UNetSegmenter(config, label, load_file(directory / WEIGHTS))
    except (OSError, ValueError, ValidationError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"The organ segmenter {label} cannot be read.", remedy=_REMEDY) from error


def _renumbered(labels: Labels, names: Sequence[str]) -> Labels:
    """Return a mask by the numbers of ``anatomy.REGIONS``."""
    table = np.zeros(256, np.uint8)
    for number, name in enumerate(names, start=1):
        table[number] = REGIONS.index(name) + 1 if name in REGIONS else 0
    found: Labels = table[labels]
    return found
