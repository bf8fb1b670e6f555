"""A network on disk: its weights as safetensors and its config as JSON; never a pickle."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from clinic_ai.contract import LoadedModel
from clinic_ai.errors import ModelError
from clinic_ai.ml.checkpoints import write_durably
from clinic_ai_ct.configurations import NetworkConfig
from clinic_ai_ct.network import CTNetwork
from clinic_ai_ct.text import TextEncoder

PLUGIN = "ct"
WEIGHTS = "network.safetensors"
CONFIG = "network.json"
_REMEDY = "Import the model again, or choose another of `clinic-ai model list`."


def write_network(network: CTNetwork, directory: Path, dtype: torch.dtype = torch.float32) -> tuple[Path, ...]:
    """Write weights and config into ``directory``; return the files, for ``ml.model_files.write_manifest``.

    What the text encoder says now is kept with them; weights are stored as ``dtype``.
    """
    network.renew()
    weights, config = directory / WEIGHTS, directory / CONFIG
    state = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous().cpu().clone()
        for name, tensor in network.state_dict().items()
    }
    save_file(state, weights)
    said = {"network": network.config.model_dump(mode="json"), "text_encoder": network.text_digest}
    write_durably(config, json.dumps(said, indent=1).encode())
    return weights, config


def read_config(model: LoadedModel) -> NetworkConfig:
    """Return the config of the network of a model directory.

    Raise ModelError if the model is none of this plugin, or if the file is missing or damaged.
    """
    return _read_config(model)[0]


def read_network(model: LoadedModel, texts: TextEncoder | None = None) -> CTNetwork:
    """Return the network of a model directory, ready to judge, in float32.

    ``texts`` is the text encoder it learned with, needed only where it goes on learning. Raise ModelError if the model
    is none of this plugin, if a file is missing or damaged, or if the text encoder is another.
    """
    label = model.ref.label()
    config, digest = _read_config(model)
    if texts is not None and texts.digest != digest:
        raise ModelError(
            f"The text encoder that was given is not the one {label} learned with.",
            remedy="Give the directory of that one, or none: what it said of each label lies with the model.",
        )
    return _with_weights(config, digest, Path(model.directory) / WEIGHTS, label, texts)


def _read_config(model: LoadedModel) -> tuple[NetworkConfig, str]:
    """Return the config and the digest of the text encoder."""
    label = model.ref.label()
    if model.manifest.plugin != PLUGIN or model.manifest.format != "safetensors":
        raise ModelError(f"The model {label} is no safetensors model of the plugin {PLUGIN}.", remedy=_REMEDY)
    try:
        said = json.loads((Path(model.directory) / CONFIG).read_text(encoding="utf-8"))
        return NetworkConfig.model_validate(said["network"]), str(said["text_encoder"])
    except (OSError, ValueError, ValidationError, KeyError, TypeError) as error:
        raise ModelError(f"The {CONFIG} of {label} cannot be read.", remedy=_REMEDY) from error


def _with_weights(config: NetworkConfig, digest: str, path: Path, label: str, texts: TextEncoder | None) -> CTNetwork:
    # A bundled text encoder keeps tables that are not saved, so it has to be made in memory; it is small.
    with torch.device("cpu" if config.text.bundled else "meta"):
        network = CTNetwork(config)
    try:
        state = {n: t.float() if t.is_floating_point() else t for n, t in load_file(path).items()}
        network.load_state_dict(state, strict=True, assign=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(
            f"The weights of {label} are missing, damaged, or of another shape.", remedy=_REMEDY
        ) from error
    wrong = next((name for name, t in state.items() if t.is_floating_point() and not torch.isfinite(t).all()), None)
    if wrong is not None:
        raise ModelError(f"The weights {wrong} of {label} are not all finite numbers.", remedy=_REMEDY)
    network.text_digest = digest
    if texts is not None:
        network.share_text_encoder(texts)
    return network.eval()
