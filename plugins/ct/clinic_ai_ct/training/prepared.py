"""Cases on the network's grid: Hounsfield units, regions, lesion masks and the report, prepared once and kept on disk.

A volume is brought to the grid as the engine brings it, then cut or filled up to one window of the encoder about the
lungs: a larger one is read in several windows where the network is served, and learned from in the one that shows most.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clinic_ai.domain import Finding
from clinic_ai.ml.checkpoints import fingerprint
from clinic_ai_ct.anatomy import REGIONS
from clinic_ai_ct.configurations import NetworkConfig
from clinic_ai_ct.formats import read_report
from clinic_ai_ct.lesions import LESIONS, Lesion
from clinic_ai_ct.measuring import LEAST_MM3, measure
from clinic_ai_ct.organs import Organs
from clinic_ai_ct.training.cases import Case
from clinic_ai_ct.training.chests import chest_of, known_regions
from clinic_ai_ct.training_reports import findings_from_labels, prompt, training_report
from clinic_ai_ct.volume import HU, Bits, Volume
from clinic_ai_ct.windows import Window, windowed

_BYTES_PER_VOXEL = 4
"""Two of Hounsfield units, one of a region, one bit for each of up to eight lesions."""
_VERSION = 2
"""Of what is kept; raised when the same files would be prepared otherwise."""
Paraphrase = Callable[[str], str]


class _Texts(BaseModel):
    """What is kept beside the voxels."""

    model_config = ConfigDict(frozen=True)

    asked: str
    report: str
    findings: tuple[Finding, ...]
    lesions: tuple[Lesion, ...]


@dataclass(frozen=True)
class Prepared:
    """A case as the network takes it.

    ``hu`` (D, H, W) are Hounsfield units, ``image`` (C, D, H, W) is in 0..1, ``regions`` (D, H, W) numbers of regions
    or None, ``masks`` (K, D, H, W) and ``known`` (K,) are 0 or 1 in the order of the network's findings, ``values`` and
    ``labelled`` (L,) likewise for its labels. ``asked`` is what a language model is asked, ``report`` what it should
    write; ``findings`` and ``lesions`` are the evidence for it.
    """

    name: str
    hu: HU
    image: Tensor
    regions: Tensor | None
    masks: Tensor
    known: Tensor
    values: Tensor
    labelled: Tensor
    asked: str
    report: str
    findings: tuple[Finding, ...]
    lesions: tuple[Lesion, ...]


class Preparing:
    """Prepares cases and keeps them below ``directory``, unless that would take more than ``limit_mb``."""

    def __init__(
        self,
        config: NetworkConfig,
        directory: Path | None,
        limit_mb: int,
        cases: int,
        seed: int,
        paraphrase: Paraphrase | None = None,
    ) -> None:
        """Nothing is kept without a directory.

        ``seed`` decides the words of reports that have to be written; see ``training_report``.
        """
        self._config, self._directory, self._seed, self._paraphrase = config, directory, seed, paraphrase
        self._findings, self._labels = config.localiser.findings, config.classifier.labels
        size = prepared_bytes(config, cases)
        self.kept = directory is not None and size <= limit_mb << 20
        what = f"Prepared volumes take {size >> 20} MiB on disk"
        self.note = (
            f"{what}." if self.kept else f"{what}, more than the {limit_mb} of cache_mb: each is prepared every time."
        )
        self.key = fingerprint(
            version=_VERSION,
            volume=config.encoder.volume,
            spacing=config.spacing,
            seed=seed,
            paraphrased=paraphrase is not None,
        )[:12]
        """Cases that another key was said of were prepared otherwise."""

    def __call__(self, case: Case) -> Prepared:
        """Return a case. Raise DatasetError if a file of it cannot be used."""
        path = None
        if self.kept and self._directory is not None:
            path = self._directory / f"{case.sha256[:24]}-{self.key}.safetensors"
        tensors, texts = (_read(path) if path else None) or self._make(case, path)
        windows = [Window(centre, width) for centre, width in self._config.windows]
        regions = tensors["regions"].long() if bool(tensors["regions"].any()) else None
        if regions is not None:
            regions = known_regions(regions, self._config)
        nothing = torch.zeros_like(tensors["masks"])
        bits = [
            (tensors["masks"] >> LESIONS.index(name)) & 1 if name in LESIONS else nothing for name in self._findings
        ]
        masks = torch.stack(bits).float() if bits else torch.zeros(0, *tensors["hu"].shape)
        return Prepared(
            name=case.name,
            hu=tensors["hu"].numpy(),
            image=torch.from_numpy(windowed(tensors["hu"].numpy(), windows)),
            regions=regions,
            masks=masks,
            known=torch.tensor([float(case.knows(name)) for name in self._findings]),
            values=torch.tensor([float(case.labels.get(name, 0)) for name in self._labels]),
            labelled=torch.tensor([float(name in case.labels) for name in self._labels]),
            asked=texts.asked,
            report=texts.report,
            findings=texts.findings,
            lesions=texts.lesions,
        )

    def _make(self, case: Case, path: Path | None) -> tuple[dict[str, Tensor], _Texts]:
        chest = chest_of(case, self._config).window(self._config.encoder.volume)
        texts = self._words(case, chest.volume, chest.regions, chest.masks)
        none = np.zeros_like(chest.regions)
        packed = sum((mask.astype(np.uint8) << LESIONS.index(n) for n, mask in chest.masks.items()), none)
        tensors = {
            "hu": torch.from_numpy(chest.volume.hu),
            "regions": torch.from_numpy(chest.regions),
            "masks": torch.from_numpy(packed),
        }
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
            save_file(tensors, temporary, metadata={"texts": texts.model_dump_json()})
            temporary.replace(path)
        return tensors, texts

    def _words(self, case: Case, volume: Volume, regions: npt.NDArray[np.uint8], masks: dict[str, Bits]) -> _Texts:
        """Return what is asked about a case, and its report: its own, or one that follows from labels and masks."""
        organs = Organs(regions, dict(enumerate(REGIONS, start=1))) if regions.any() else None
        lesions = tuple(
            measure(name, masks[name], volume.grid, volume.hu, organs, least_mm3=LEAST_MM3[name])
            if name in masks
            else Lesion(name)
            for name in LESIONS
            if case.knows(name)
        )
        measured = {lesion.name for lesion in lesions}
        findings = findings_from_labels({k: bool(v) for k, v in case.labels.items() if k not in measured}, case.sha256)
        if case.report is not None:
            report = read_report(case.report).report_text
        else:
            seed = int(hashlib.sha256(f"{self._seed} {case.name}".encode()).hexdigest()[:8], 16)
            report = training_report(findings, lesions, seed=seed, paraphrase=self._paraphrase).text
        return _Texts(asked=prompt(lesions), report=report, findings=findings, lesions=lesions)


def prepared_bytes(config: NetworkConfig, cases: int) -> int:
    """Return what so many prepared cases take on disk."""
    z, y, x = config.encoder.volume
    return cases * z * y * x * _BYTES_PER_VOXEL


def stacked(cases: Sequence[Prepared]) -> tuple[Tensor, Tensor | None]:
    """Return images (B, C, D, H, W), and regions (B, D, H, W) if any case has them; 0 where one has none."""
    images = torch.stack([case.image for case in cases])
    if all(case.regions is None for case in cases):
        return images, None
    none = torch.zeros(images.shape[2:], dtype=torch.long)
    return images, torch.stack([none if case.regions is None else case.regions for case in cases])


def _read(path: Path) -> tuple[dict[str, Tensor], _Texts] | None:
    """Return what was kept; None if it is not there or damaged, so that it is made again."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in ("hu", "regions", "masks")}
            return tensors, _Texts.model_validate_json(file.metadata()["texts"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
