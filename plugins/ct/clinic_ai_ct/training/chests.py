"""Cases on the grid of a network, cut as the engine cuts them: what is read when the network is served."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clinic_ai.domain import Vector
from clinic_ai.errors import DatasetError, InputError
from clinic_ai_ct.admission import admit
from clinic_ai_ct.anatomy import LOBES, REGIONS, label_of
from clinic_ai_ct.configurations import NetworkConfig, Size
from clinic_ai_ct.formats import is_npz, read_mask, read_nifti, read_npz
from clinic_ai_ct.preparing import image_of, on_network_grid
from clinic_ai_ct.reading import to_source
from clinic_ai_ct.survey import middle_of, survey
from clinic_ai_ct.training.cases import Case
from clinic_ai_ct.volume import OUTSIDE_HU, Bits, Grid, Volume
from clinic_ai_ct.windows import from_grey

Regions = npt.NDArray[np.uint8]
_LUNGS = tuple(label_of(lobe) for lobe in LOBES)


@dataclass(frozen=True)
class Chest:
    """A case: its volume, and on the same voxels (D, H, W) regions, all 0 where there are none, and lesion masks.

    ``middle`` is that of the lungs, LPS in mm; None where none were found.
    """

    volume: Volume
    regions: Regions
    masks: dict[str, Bits]
    middle: Vector | None

    def tensors(self, config: NetworkConfig, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Return what ``sliding.read`` takes: the image (1, C, D, H, W), and regions (1, D, H, W) if it reads any."""
        image = image_of(self.volume, config.windows).to(device)
        if not config.encoder.regions or not self.regions.any():
            return image, None
        return image, known_regions(torch.from_numpy(self.regions).long(), config).unsqueeze(0).to(device)

    def window(self, size: Size) -> Chest:
        """Return the part of ``size`` (z, y, x) about the lungs; along an axis that is shorter, all of it.

        That begins where the window does, and what is missing behind it is filled up, as where the network is served.
        """
        grid = self.volume.grid
        centre = [(own - 1) / 2 for own in grid.shape]
        if self.middle is not None:
            centre = [float(at) for at in np.linalg.solve(grid.affine(), np.array([*self.middle, 1.0]))[:3]]
        spare = [max(0, own - part) for own, part in zip(grid.shape, size, strict=True)]
        starts = [
            min(max(0, round(at - (part - 1) / 2)), most) for at, part, most in zip(centre, size, spare, strict=True)
        ]
        cut = tuple(slice(start, start + part) for start, part in zip(starts, size, strict=True))
        missing = [(0, max(0, part - own)) for own, part in zip(grid.shape, size, strict=True)]
        x, y, z = (float(value) for value in (grid.affine() @ np.array([*starts, 1.0]))[:3])
        hu = np.pad(self.volume.hu[cut], missing, constant_values=OUTSIDE_HU)
        return Chest(
            Volume(hu, Grid(size, grid.spacing, (x, y, z), grid.directions), self.volume.remarks),
            np.pad(self.regions[cut], missing),
            {name: np.pad(mask[cut], missing) for name, mask in self.masks.items()},
            self.middle,
        )


def chest_of(case: Case, config: NetworkConfig) -> Chest:
    """Return a case as the engine would read it. Raise DatasetError if a file of it cannot be used."""
    volume, regions, middle = _read(case)
    small = on_network_grid(volume, config, middle)
    bits = to_source(_bits(regions), volume.grid, small.grid)
    numbers = (bits * (1 << np.arange(len(bits), dtype=np.uint8))[:, None, None, None]).sum(0, dtype=np.uint8)
    return Chest(small, numbers, _masks(case, volume.grid, small.grid), middle)


def known_regions(regions: Tensor, config: NetworkConfig) -> Tensor:
    """Return numbers of regions; what the network does not know of them is no region to it."""
    return torch.where(regions <= config.encoder.regions, regions, torch.zeros_like(regions))


def _read(case: Case) -> tuple[Volume, Regions, Vector | None]:
    """Return a case's volume, its regions (all 0 where there are none) on the same grid, and the middle of its lungs.

    8 bits do not tell lungs from other air; there the regions say where they lie.
    """
    if case.slices:
        return _series(case)
    if is_npz(case.volume):
        npz = read_npz(case.volume)
        z, y, x = npz.images.shape
        volume, regions = Volume(from_grey(npz.images), Grid((z, y, x), npz.spacing)), _ours(npz.regions)
        return volume, regions, middle_of(np.isin(regions, _LUNGS), volume.grid)
    volume = read_nifti(case.volume)
    regions = np.zeros(volume.grid.shape, dtype=np.uint8)
    if case.regions is not None:
        regions = _ours(read_npz(case.regions).regions)
    if regions.shape != volume.grid.shape:
        raise DatasetError(f"{(case.regions or case.volume).name} and {case.volume.name} have different voxels.")
    return volume, regions, survey(volume).centre


def _series(case: Case) -> tuple[Volume, Regions, Vector | None]:
    """Return the stack of a DICOM series that the engine would judge."""
    from clinic_ai_ct.series import task_of  # what it stands on is large, and folders of volumes need none of it

    try:
        admission = admit(task_of([case.volume, *case.slices], case.volume.parent), any_part=True)
    except (InputError, OSError) as error:
        raise DatasetError(f"A slice of the series {case.name[:12]} cannot be read: {error}") from error
    if admission.admitted is None:
        why = " ".join(refusal.sentence for refusal in admission.refusals)
        raise DatasetError(f"The series {case.name[:12]} cannot be learned from. {why}".strip())
    volume = admission.admitted.volume
    return volume, np.zeros(volume.grid.shape, dtype=np.uint8), admission.admitted.survey.centre


def _masks(case: Case, grid: Grid, wanted: Grid) -> dict[str, Bits]:
    if not case.masks:
        return {}
    source = np.stack([read_mask(path, grid) for path in case.masks.values()])
    return dict(zip(case.masks, to_source(source, grid, wanted), strict=True))


def _ours(regions: Regions) -> Regions:
    """Return regions without the numbers that are none of ours: other structures are no region here."""
    return np.where(regions <= len(REGIONS), regions, np.uint8(0))


def _bits(regions: Regions) -> Bits:
    """Return the five bits of regions as masks, which go to another grid as they are: nothing is mixed."""
    return np.stack([(regions >> bit) & 1 for bit in range(5)]).astype(np.bool_)
