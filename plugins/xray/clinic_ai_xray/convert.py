"""Turns published weights into a base to train from: ``python -m clinic_ai_xray.convert SOURCE TARGET --tier TIER``.

SOURCE is a safetensors file, or a ``.pt`` or ``.pth`` file with nothing but tensors in it, of

- transformers' MobileNetV2 (depth multiplier 0.75), for the fast tier;
- torchvision's or torchxrayvision's DenseNet121, for the intensive tier. A first convolution of three channels is taken
  as torchvision's (grey levels normalised as ImageNet's), one of one channel as torchxrayvision's (-1024..1024).

TARGET becomes a directory that ``clinic-ai model import`` takes. The classifier of SOURCE is left out: the head of a
base has learned nothing, and the engine says nothing with such a model.
"""

from __future__ import annotations

import argparse
import pickle
import re
import sys
import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from clinic_ai.contract import ModelManifest
from clinic_ai.errors import ClinicError, ModelError
from clinic_ai.ml.model_files import write_manifest
from clinic_ai_xray.network import NETWORKS, Network, describe, export
from clinic_ai_xray.tiers import FAST, INTENSIVE, TIERS, Tier

CONDITION = "untrained"
_GREY_REACH = 1024.0
"""torchxrayvision's grey levels go from minus to plus this."""
_CHECKED_IMAGES = 4


@dataclass(frozen=True)
class Origin:
    """What the manifest of a base says of the weights it was made of."""

    name: str
    version: str
    licence: str
    source: str
    slot: str
    commercial_use: bool = False


def convert(source: Path, target: Path, tier: Tier, origin: Origin) -> float:
    """Write ``model.onnx`` and ``model.toml`` into ``target``; return the largest difference of a logit to torch.

    Raise ModelError if the weights cannot be read or are not those of the tier's network, naming every tensor.
    """
    torch.manual_seed(0)  # the head, so that the same weights give the same file
    network = NETWORKS[tier]()
    PLACE[tier](network, read_tensors(source))
    target.mkdir(parents=True, exist_ok=True)
    path = target / "model.onnx"
    described = describe(tier, condition=CONDITION, temperature=1.0)
    sample = np.random.default_rng(0).random((_CHECKED_IMAGES, 1, tier.side, tier.side), dtype=np.float32)
    difference = export(network, path, described, sample)
    write_manifest(target, _manifest(tier, origin, described), [path])
    return difference


def read_tensors(source: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file or a state dict. Raise ModelError if it is neither."""
    try:
        if source.suffix == ".safetensors":
            return load_file(source)
        found = torch.load(source, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ModelError(
            f"{source} holds no weights that can be read safely.",
            remedy="Save the state dict alone: torch.save(model.state_dict(), FILE), or a safetensors file.",
        ) from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelError(f"{source} is no state dict: it holds something else than named tensors.")
    return found


def _place_mobilenet(network: Network, tensors: dict[str, Tensor]) -> None:
    wanted = {f"base.{name.removeprefix('mobilenet_v2.')}": value for name, value in tensors.items()}
    _fill(network, {name: value for name, value in wanted.items() if not name.startswith("base.classifier.")})


def _place_densenet(network: Network, tensors: dict[str, Tensor]) -> None:
    own = network.state_dict()
    placed: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if not name.startswith("classifier.") and name != "op_threshs":
            placed[_densenet_name(name, own)] = value
    first = placed.get("base.conv0.weight")
    if first is not None and first.ndim == 4 and first.shape[1] == 1:
        placed["base.conv0.weight"] = first.expand(-1, 3, -1, -1) / 3
        network.get_buffer("scale").fill_(2 * _GREY_REACH)
        network.get_buffer("offset").fill_(-_GREY_REACH)
    _fill(network, placed)


PLACE: dict[Tier, Callable[[Network, dict[str, Tensor]], None]] = {FAST: _place_mobilenet, INTENSIVE: _place_densenet}
"""How the published weights of each tier are put into its network."""


def _densenet_name(name: str, own: Container[str]) -> str:
    """Return the network's name of a tensor of torchvision's DenseNet; older files have ``norm.1`` for ``norm1``."""
    name = re.sub(r"(denselayer\d+)\.(norm|conv)\.?([12])\.", r"\1.layers.\2\3.", name.removeprefix("features."))
    top = f"top.{name.removeprefix('denseblock4.')}"
    return top if top in own else f"base.{name}"


def _fill(network: Network, tensors: dict[str, Tensor]) -> None:
    """Replace all of the network's base and top. Raise ModelError, naming every tensor that does not fit."""
    state = network.state_dict()
    own = {name for name in state if name.startswith(("base.", "top."))}
    optional = {name for name in own if name.endswith(".num_batches_tracked")}
    problems = [f"{name} is missing" for name in sorted(own - optional - set(tensors))]
    problems += [f"{name} is unknown" for name in sorted(set(tensors) - own)]
    for name in sorted(own & set(tensors)):
        if tensors[name].shape != state[name].shape:
            shapes = (" x ".join(map(str, shape)) or "one number" for shape in (tensors[name].shape, state[name].shape))
            problems.append("{} is {} instead of {}".format(name, *shapes))
    if problems:
        raise ModelError(f"The weights are not those of a {network.tier.name} network: {'; '.join(problems)}.")
    network.load_state_dict({**state, **{name: value.to(state[name].dtype) for name, value in tensors.items()}})


def _manifest(tier: Tier, origin: Origin, described: dict[str, str | int | float]) -> ModelManifest:
    return ModelManifest(
        plugin="xray",
        slot=origin.slot,
        name=origin.name,
        version=origin.version,
        format="onnx",
        files=(),
        licence=origin.licence,
        commercial_use=origin.commercial_use,
        source=origin.source,
        intended_use="Base to train from. It has learned nothing of any condition and judges no image.",
        parameters={
            "condition": CONDITION,
            "label": "Untrained",
            "tier": tier.name,
            "untrained": True,
            **described,
            "threshold": 0.5,
            "abstain_low": 0.25,
            "abstain_high": 0.75,
            "map_scale": 1.0,
        },
        created_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Make a base to train from of published weights.")
    parser.add_argument("source", type=Path, help="safetensors file, or state dict (.pt, .pth)")
    parser.add_argument("target", type=Path, help="directory to write model.onnx and model.toml into")
    parser.add_argument("--tier", choices=sorted(TIERS), required=True)
    parser.add_argument("--licence", required=True, help="terms the weights are given under")
    parser.add_argument("--source-of-weights", required=True, metavar="WORDS", help="who made them of what, and where")
    parser.add_argument("--commercial-use", action="store_true", help="the licence allows commercial use")
    parser.add_argument("--name", help="name of the model (default: base-TIER)")
    parser.add_argument("--version", default="1.0.0")
    parser.add_argument("--slot", help="slot of the model and of what is trained on it (default: TIER)")
    chosen = parser.parse_args(arguments)
    default = f"base-{chosen.tier}"
    origin = Origin(
        name=chosen.name or default,
        version=chosen.version,
        licence=chosen.licence,
        source=chosen.source_of_weights,
        commercial_use=chosen.commercial_use,
        slot=chosen.slot or chosen.tier,
    )
    try:
        difference = convert(chosen.source, chosen.target, TIERS[chosen.tier], origin)
    except ClinicError as error:
        sys.stderr.write(" ".join(filter(None, (error.message, error.remedy))) + "\n")
        return 1
    sys.stdout.write(f"{chosen.target} is ready for clinic-ai model import (largest difference {difference:.1g}).\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
