"""What a frozen encoder sees of each case: computed once, kept on disk up to a limit, else computed every time.

Either way each volume goes through the encoder alone, so that what is learned is the same bit for bit.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from clinic_ai_ct.configurations import NetworkConfig
from clinic_ai_ct.encoder import Features
from clinic_ai_ct.network import CTNetwork
from clinic_ai_ct.training.cases import Case
from clinic_ai_ct.training.prepared import Prepared, stacked

_DIGITS = 4
"""Bytes of a number."""


class Seeing:
    """Features of cases by the encoder of ``network`` as it is now."""

    def __init__(self, network: CTNetwork, directory: Path, limit_mb: int, cases: int) -> None:
        self._network = network
        self._directory = directory / _digest(network.encoder)[:16]
        size = feature_bytes(network.config, cases)
        self.kept = size <= limit_mb << 20
        what = f"What the encoder sees of {cases} volumes takes {size >> 20} MiB on disk"
        self.note = (
            f"{what}; it is kept."
            if self.kept
            else f"{what}, more than the {limit_mb} of cache_mb: the encoder looks again in every epoch."
        )
        self.looks = 0
        """Volumes that this process has looked at."""

    def __call__(self, cases: Sequence[Case], prepare: Callable[[Case], Prepared]) -> Features:
        """Return the features of some cases as one batch, on the device of the network."""
        return batched([self._of(case, prepare) for case in cases])

    @torch.no_grad()
    def _of(self, case: Case, prepare: Callable[[Case], Prepared]) -> Features:
        device = next(self._network.encoder.parameters()).device
        path = self._directory / f"{case.sha256[:24]}.safetensors"
        found = _read(path, self._network.config) if self.kept else None
        if found is None:
            image, regions = stacked([prepare(case)])
            was = self._network.encoder.training
            self._network.encoder.eval()
            found = self._network.encode(image.to(device), None if regions is None else regions.to(device))
            self._network.encoder.train(was)
            self.looks += 1
            if self.kept:
                _write(path, found)
        return _on(found, device)


def feature_bytes(config: NetworkConfig, cases: int) -> int:
    """Return what the features of so many cases take on disk."""
    return cases * _DIGITS * config.encoder.width * (1 + config.encoder.tokens + config.encoder.regions)


def batched(parts: Sequence[Features]) -> Features:
    """Return the features of single volumes as one batch; a region is unseen in a volume that came without any."""
    whole = torch.cat([one.global_ for one in parts])
    local = torch.cat([one.local for one in parts])
    given = next((one for one in parts if one.region is not None and one.region_seen is not None), None)
    if given is None or given.region is None or given.region_seen is None:
        return Features(whole, local, parts[0].grid)
    empty, unseen = torch.zeros_like(given.region), torch.zeros_like(given.region_seen)
    region = torch.cat([empty if one.region is None else one.region for one in parts])
    seen = torch.cat([unseen if one.region_seen is None else one.region_seen for one in parts])
    return Features(whole, local, parts[0].grid, region, seen)


def _on(features: Features, device: torch.device) -> Features:
    def there(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(device)

    return Features(
        features.global_.to(device),
        features.local.to(device),
        features.grid,
        there(features.region),
        there(features.region_seen),
    )


def _write(path: Path, features: Features) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"global": features.global_, "local": features.local}
    if features.region is not None and features.region_seen is not None:
        tensors |= {"region": features.region, "seen": features.region_seen}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, temporary)
    temporary.replace(path)


def _read(path: Path, config: NetworkConfig) -> Features | None:
    """Return what was kept; None if it is not there or damaged, so that the encoder looks again."""
    try:
        found = load_file(path)
        return Features(found["global"], found["local"], config.encoder.grid, found.get("region"), found.get("seen"))
    except (OSError, SafetensorError, KeyError):
        return None


def _digest(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
