"""The networks of both tiers with their small head, and their way to ONNX.

torch, transformers and MONAI are imported here and by what trains; the engine runs the exported graph without them.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import OrderedDict
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnxscript import optimizer
from torch import Tensor, nn
from transformers import MobileNetV2Config, MobileNetV2Model

from clinic_ai.errors import ModelError
from clinic_ai.ml.onnx import halve_weights
from clinic_ai_xray.data import PREPROCESSING_VERSION
from clinic_ai_xray.distance import Distance
from clinic_ai_xray.tiers import FAST, INTENSIVE, Tier

PARAMETERS = 1_464_113
"""Parameters of the fast network with its head."""
OPSET = 20
PARITY = 1e-4
"""Largest difference of a logit between torch and the exported graph that is accepted."""
TRAINED_LAYERS = 4
"""Dense layers at the end of the last dense block of ``IntensiveNetwork`` that are trained."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SPREAD = (0.229, 0.224, 0.225)


class Network(nn.Module, ABC):
    """A frozen ``base`` from images to activations, a ``top`` from those to feature maps, a head and a distance.

    What training on a clinic's images may change is called ``top.`` or ``head.`` in the exported graph.
    """

    tier: ClassVar[Tier]

    def __init__(self) -> None:
        super().__init__()
        self.base = self.make_base()
        self.top = self.make_top()
        self.head = Head(self.tier)
        self.distance = Distance(self.tier.features)

    @classmethod
    @abstractmethod
    def make_base(cls) -> nn.Module:
        """Return the frozen part with random weights."""

    @classmethod
    @abstractmethod
    def make_top(cls) -> nn.Module:
        """Return what is trained below the head, with random weights."""

    @abstractmethod
    def stem(self, images: Tensor) -> Tensor:
        """Return the activations where the frozen part ends, of grey images (images, 1, side, side) in 0..1."""

    def features(self, images: Tensor) -> Tensor:
        """Return the last feature maps (images, features, rows, columns)."""
        maps: Tensor = self.top(self.stem(images))
        return maps

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the tier's outputs.

        Logits (images,), class activation maps (images, rows, columns), pooled features (images, features),
        distances (images,); and, if the tier has them, the activations where the frozen part ends.
        """
        stem = self.stem(images)
        maps = self.top(stem)
        logits, activation = self.head.judge(maps)
        pooled = maps.mean(dim=(2, 3))
        found = {
            "logit": logits,
            "cam": activation,
            "features": pooled,
            "distance": self.distance(images, pooled),
            "stem": stem,
        }
        return tuple(found[name] for name in self.tier.outputs)


class FastNetwork(Network):
    """MobileNetV2 with depth multiplier 0.75 at 128 x 128; all of it is frozen but the head."""

    tier = FAST

    @classmethod
    def make_base(cls) -> nn.Module:
        """Return MobileNetV2 with random weights."""
        config = MobileNetV2Config(
            depth_multiplier=0.75, finegrained_output=True, tf_padding=True, image_size=FAST.side
        )
        model: nn.Module = MobileNetV2Model(config, add_pooling_layer=False)
        return model

    @classmethod
    def make_top(cls) -> nn.Module:
        """Return the identity."""
        return nn.Identity()

    def stem(self, images: Tensor) -> Tensor:
        """Return the last feature map (images, 1280, 4, 4) of grey images (images, 1, 128, 128) in 0..1."""
        colour = (images * 2.0 - 1.0).expand(-1, 3, -1, -1)
        maps: Tensor = self.base(pixel_values=colour).last_hidden_state
        return maps


class IntensiveNetwork(Network):
    """MONAI's DenseNet121 at 224 x 224, the grey channel repeated to three.

    Trained are the last four dense layers of the last dense block, the norm behind them, and the head. "The last 30
    layers", as it is often put, counts Keras layers: each dense layer is seven of those, the norm and its ReLU two.
    ``scale`` and ``offset`` turn 0..1 into what the weights were trained with; ImageNet's unless they are replaced.
    """

    tier = INTENSIVE
    blocks: ClassVar[tuple[int, ...]] = (6, 12, 24, 16)
    """Dense layers in each dense block."""

    def __init__(self) -> None:
        super().__init__()
        mean, spread = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_SPREAD))
        self.register_buffer("scale", 1 / spread)
        self.register_buffer("offset", -mean / spread)

    @classmethod
    def make_base(cls) -> nn.Module:
        """Return DenseNet121 up to the twelfth layer of its last block, with random weights."""
        parts = cls._densenet()
        parts.pop("norm5")
        parts["denseblock4"] = _chain(list(parts["denseblock4"].named_children())[:-TRAINED_LAYERS])
        return nn.Sequential(parts)

    @classmethod
    def make_top(cls) -> nn.Module:
        """Return the four last dense layers and the last norm of DenseNet121, with random weights."""
        parts = cls._densenet()
        trained = list(parts["denseblock4"].named_children())[-TRAINED_LAYERS:]
        return _chain([*trained, ("norm5", parts["norm5"]), ("relu", nn.ReLU())])

    @classmethod
    def _densenet(cls) -> OrderedDict[str, nn.Module]:
        """Return the named parts of DenseNet121 up to its last norm."""
        # MONAI takes seconds to import, which only this tier should pay.
        from monai.networks.nets.densenet import DenseNet121

        network = DenseNet121(spatial_dims=2, in_channels=3, out_channels=1, block_config=cls.blocks)
        return OrderedDict(network.features.named_children())

    def stem(self, images: Tensor) -> Tensor:
        """Return the activations (images, 896, 7, 7) of grey images (images, 1, 224, 224) in 0..1."""
        colour = images.expand(-1, 3, -1, -1) * self.get_buffer("scale") + self.get_buffer("offset")
        maps: Tensor = self.base(colour)
        return maps


NETWORKS: dict[Tier, type[Network]] = {FAST: FastNetwork, INTENSIVE: IntensiveNetwork}


def _chain(parts: list[tuple[str, nn.Module]]) -> nn.Module:
    return nn.Sequential(OrderedDict(parts))


class Head(nn.Module):
    """The last part of every network: average → hidden units → 1."""

    def __init__(self, tier: Tier) -> None:
        super().__init__()
        self.hidden = nn.Linear(tier.features, tier.hidden)
        self.dropout = nn.Dropout(0.3)
        self.out = nn.Linear(tier.hidden, 1)

    def forward(self, pooled: Tensor) -> Tensor:
        """Return logits (images,) of pooled features (images, features)."""
        logits: Tensor = self.out(self.dropout(torch.relu(self.hidden(pooled)))).squeeze(1)
        return logits

    def judge(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and class activation maps of feature maps (images, features, rows, columns).

        With the hidden units that are active held fixed the head is linear, so the logit is exactly the mean
        of the map plus a constant: the map shows what each region adds.
        """
        hidden = self.hidden(maps.mean(dim=(2, 3)))
        logits = self.out(torch.relu(hidden)).squeeze(1)
        active = (hidden > 0).to(maps.dtype) * self.out.weight
        weights = active @ self.hidden.weight
        return logits, torch.einsum("nc,nchw->nhw", weights, maps)


def export(
    network: Network,
    path: Path,
    metadata: dict[str, str | int | float],
    sample: npt.NDArray[np.float32],
    *,
    halve: bool = False,
) -> float:
    """Write ``network`` as ONNX with ``metadata`` inside; return the largest difference of a logit over ``sample``.

    ``sample`` is (images, 1, side, side). ``halve`` keeps the large weights of the frozen part as float16, in the
    network as in the file. Raise ModelError if torch and the graph disagree; no file is left then.
    """
    network = network.eval()
    if halve:
        round_base(network)
    tier = network.tier
    program = torch.onnx.export(
        network,
        (torch.zeros(2, 1, tier.side, tier.side),),
        dynamo=True,
        opset_version=OPSET,
        input_names=["images"],
        output_names=list(tier.outputs),
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1024)},),
        optimize=False,
        verbose=False,
    )
    if program is None:
        raise ModelError("The network could not be exported to ONNX.")
    if next(network.top.parameters(), None) is None:
        program.optimize()
    else:
        # The whole optimiser folds norms into convolutions and merges equal weights: training needs the top's own.
        optimizer.fold_constants(program.model)
        optimizer.remove_unused_nodes(program.model)
    model = program.model_proto
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})
    _forget_places(model)
    if halve:
        halve_weights(model, "base.")
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return accept(network, path, sample)


def round_base(network: Network) -> None:
    """Round the convolutions of the frozen part to what float16 can hold."""
    with torch.no_grad():
        for layer in network.base.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.copy_(layer.weight.half().float())


def accept(network: Network, path: Path, sample: npt.NDArray[np.float32]) -> float:
    """Return the largest difference of a logit between ``network`` and the ONNX file over ``sample``.

    Raise ModelError, and remove the file, if it is larger than ``PARITY``, or that share of a largest logit above one.
    """
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (served,) = session.run(["logit"], {"images": sample})
    with torch.inference_mode():
        logits, *_ = network(torch.from_numpy(sample))
    difference = float(np.abs(logits.numpy() - served).max())
    # A head that has learned nothing may give logits in the hundreds, and float32 rounds in proportion.
    if not difference <= PARITY * max(1.0, float(np.abs(served).max())):
        path.unlink()
        raise ModelError(f"The exported graph differs from the network by {difference:.2g} in the logit.")
    return difference


def describe(tier: Tier, *, condition: str, temperature: float) -> dict[str, str | int | float]:
    """Return what the exported file says of itself, to be compared with its manifest at every load."""
    return {
        "labels": json.dumps([condition]),
        "input_side": tier.side,
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
