"""The fast network: MobileNetV2 0.75 at 128 x 128 with a small head, and its way to ONNX.

torch and transformers are imported here and by what trains; the engine runs the exported graph without them.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from transformers import MobileNetV2Config, MobileNetV2Model

from clinic_ai.errors import ModelError
from clinic_ai_xray.data import PREPROCESSING_VERSION
from clinic_ai_xray.distance import Distance

SIDE = 128
FEATURES = 1280
HIDDEN = 64
PARAMETERS = 1_464_113
"""Parameters of the network with its head."""
OPSET = 20
PARITY = 1e-4
"""Largest difference of a logit between torch and the exported graph that is accepted."""


class FastNetwork(nn.Module):
    """MobileNetV2 with depth multiplier 0.75; global average, 64 hidden units, one logit."""

    def __init__(self) -> None:
        super().__init__()
        config = MobileNetV2Config(depth_multiplier=0.75, finegrained_output=True, tf_padding=True, image_size=SIDE)
        self.base = MobileNetV2Model(config, add_pooling_layer=False)
        self.head = Head()
        self.distance = Distance(FEATURES)

    def features(self, images: Tensor) -> Tensor:
        """Return the last feature map (images, 1280, 4, 4) of grey images (images, 1, 128, 128) in 0..1."""
        colour = (images * 2.0 - 1.0).expand(-1, 3, -1, -1)
        maps: Tensor = self.base(pixel_values=colour).last_hidden_state
        return maps

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return logits (images,), class activation maps (images, 4, 4), pooled features (images, 1280), distances."""
        maps = self.features(images)
        logits, activation = self.head.judge(maps)
        pooled = maps.mean(dim=(2, 3))
        return logits, activation, pooled, self.distance(pooled)


class Head(nn.Module):
    """What is trained on frozen features: average → 64 → 1."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(FEATURES, HIDDEN)
        self.dropout = nn.Dropout(0.3)
        self.out = nn.Linear(HIDDEN, 1)

    def forward(self, pooled: Tensor) -> Tensor:
        """Return logits (images,) of pooled features (images, 1280)."""
        logits: Tensor = self.out(self.dropout(torch.relu(self.hidden(pooled)))).squeeze(1)
        return logits

    def judge(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and class activation maps of feature maps (images, 1280, rows, columns).

        With the hidden units that are active held fixed the head is linear, so the logit is exactly the mean
        of the map plus a constant: the map shows what each region adds.
        """
        hidden = self.hidden(maps.mean(dim=(2, 3)))
        logits = self.out(torch.relu(hidden)).squeeze(1)
        active = (hidden > 0).to(maps.dtype) * self.out.weight
        weights = active @ self.hidden.weight
        return logits, torch.einsum("nc,nchw->nhw", weights, maps)


def export(
    network: FastNetwork, path: Path, metadata: dict[str, str | int | float], sample: npt.NDArray[np.float32]
) -> float:
    """Write ``network`` as ONNX with ``metadata`` inside; return the largest difference of a logit over ``sample``.

    ``sample`` is (images, 1, 128, 128). Raise ModelError if torch and the graph disagree; no file is left then.
    """
    network = network.eval()
    program = torch.onnx.export(
        network,
        (torch.zeros(2, 1, SIDE, SIDE),),
        dynamo=True,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["logit", "cam", "features", "distance"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1024)},),
        verbose=False,
    )
    if program is None:
        raise ModelError("The network could not be exported to ONNX.")
    model = program.model_proto
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})
    _forget_places(model)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return accept(network, path, sample)


def accept(network: FastNetwork, path: Path, sample: npt.NDArray[np.float32]) -> float:
    """Return the largest difference of a logit between ``network`` and the ONNX file over ``sample``.

    Raise ModelError, and remove the file, if it is larger than ``PARITY``.
    """
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (served,) = session.run(["logit"], {"images": sample})
    with torch.inference_mode():
        logits, *_ = network(torch.from_numpy(sample))
    difference = float(np.abs(logits.numpy() - served).max())
    if not difference <= PARITY:
        path.unlink()
        raise ModelError(f"The exported graph differs from the network by {difference:.2g} in the logit.")
    return difference


def describe(*, condition: str, temperature: float) -> dict[str, str | int | float]:
    """Return what the exported file says of itself, to be compared with its manifest at every load."""
    return {
        "labels": json.dumps([condition]),
        "input_side": SIDE,
        "temperature": repr(float(temperature)),
        "preprocessing_version": PREPROCESSING_VERSION,
    }


def _forget_places(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes of source files: paths of the machine that built the model."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    for function in model.functions:
        del function.metadata_props[:]
