"""What is learned from and judged lies where the engine looks: about the lungs, and all of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import served_models
import torch

from clinic_ai.contract import Dataset, Device, Example, Limits
from clinic_ai.gating import JudgeTask
from clinic_ai_ct.configurations import NetworkConfig
from clinic_ai_ct.formats import write_nifti, write_npz
from clinic_ai_ct.phantoms import make
from clinic_ai_ct.phantoms.files import to_npz
from clinic_ai_ct.preparing import image_of, on_network_grid
from clinic_ai_ct.reading import resampled
from clinic_ai_ct.sliding import read
from clinic_ai_ct.survey import survey
from clinic_ai_ct.trainer import CTTrainer
from clinic_ai_ct.training.cases import Case
from clinic_ai_ct.training.chests import chest_of
from clinic_ai_ct.training.prepared import Preparing
from clinic_ai_ct.volume import Grid, Volume

SPACING = (8.0, 8.0, 8.0)


def config(volume=(24, 32, 32)) -> NetworkConfig:
    """A network whose window is shorter than a chest unless said otherwise."""
    found = served_models.network_config()
    encoder = found.encoder.model_copy(update={"volume": volume, "patch": (8, 16, 16)})
    return found.model_copy(update={"encoder": encoder, "spacing": SPACING})


def off_centre() -> tuple[Volume, np.ndarray]:
    """A chest with 200 mm of legs below it and air to its right, and its regions."""
    chest = make(3, shape=(40, 48, 48), spacing=SPACING, lesions=(), conditions=())
    more = ((25, 0), (0, 0), (20, 0))
    hu = np.pad(chest.volume.hu, more, constant_values=-1000)
    hu[:25, 10:40, 30:60] = 40
    shape = (hu.shape[0], hu.shape[1], hu.shape[2])
    return Volume(hu, Grid(shape, SPACING)), np.pad(chest.organs, more)


def case_of(path: Path, **changes) -> Case:
    return Case(**({"name": "a", "sha256": "0" * 64, "split": "test", "volume": path, "labels": {}, "regions": None,
                    "masks": {}, "report": None} | changes))  # fmt: skip


def nifti(folder: Path, volume: Volume, **masks: np.ndarray) -> Case:
    write_nifti(folder / "a.nii.gz", volume.hu, volume.grid)
    for name, mask in masks.items():
        write_nifti(folder / f"{name}.nii.gz", mask, volume.grid)
    return case_of(folder / "a.nii.gz", masks={name: folder / f"{name}.nii.gz" for name in masks})


def test_other_structures_are_no_region(tmp_path):
    """Numbers as other segmenters have them; of 33 the lowest bits would be region 1."""
    chest = make(3, shape=(24, 32, 32), spacing=(12.0, 12.0, 12.0), lesions=(), conditions=())
    foreign = np.where(chest.organs == 0, 33, chest.organs).astype(np.uint8)
    seen = []
    for number, regions in enumerate((chest.organs, foreign)):
        npz = to_npz(chest)
        write_npz(tmp_path / f"{number}.npz", replace(npz, regions=regions))
        seen.append(chest_of(case_of(tmp_path / f"{number}.npz"), config()).regions)
    assert seen[0].any()
    assert np.array_equal(*seen)


def test_a_window_lies_about_the_lungs(tmp_path):
    volume, _ = off_centre()
    centre = survey(volume).centre
    assert centre is not None
    case, size = nifti(tmp_path, volume), config().encoder.volume
    grid = chest_of(case, config()).window(size).volume.grid
    middle = (grid.affine() @ np.array([*((side - 1) / 2 for side in size), 1.0]))[:3]
    assert np.abs(middle - centre).max() <= max(SPACING) / 2
    seen = Preparing(config(), None, 0, 1, 1)(case).hu
    about, own = (resampled(volume, SPACING, size, place).hu for place in (centre, None))
    assert np.corrcoef(seen.ravel(), about.ravel())[0, 1] > 0.9
    assert np.corrcoef(seen.ravel(), own.ravel())[0, 1] < 0.7


def test_the_regions_say_where_the_lungs_are_of_which_8_bits_tell_nothing(tmp_path):
    volume, regions = off_centre()
    phantom = make(3, shape=(40, 48, 48), spacing=SPACING, lesions=(), conditions=())
    grey = to_npz(phantom).__class__(
        np.pad(to_npz(phantom).images, ((25, 0), (0, 0), (20, 0))), regions, volume.grid.spacing
    )
    write_npz(tmp_path / "a.npz", grey)
    path = tmp_path / "a.npz"
    found = chest_of(case_of(path, regions=path), config()).middle
    assert found == pytest.approx(survey(volume).centre, abs=20.0)
    bare = grey.__class__(grey.images, np.zeros_like(regions), grey.spacing)
    write_npz(path, bare)
    assert chest_of(case_of(path, regions=path), config()).middle is None


def test_what_is_smaller_than_a_window_is_learned_from_as_it_is_served(tmp_path):
    volume, _ = off_centre()
    whole = config((72, 64, 80))
    seen = Preparing(whole, None, 0, 1, 1)(nifti(tmp_path, volume))
    assert seen.hu.shape == (72, 64, 80)
    network = served_models.made(whole, 3).eval()
    image = image_of(on_network_grid(volume, whole, survey(volume).centre), whole.windows)
    with torch.inference_mode():
        assert torch.equal(network.encode(seen.image[None]).local, read(network, image).features.local)


def test_masks_are_brought_where_their_volume_is(tmp_path):
    """A mask of the lungs' air covers, in the window, the very voxels that are as thin as lungs."""
    volume, regions = off_centre()
    thin = np.isin(regions, (1, 2, 3, 4, 5)) & (volume.hu < -600)
    seen = Preparing(config(), None, 0, 1, 1)(nifti(tmp_path, volume, consolidation=thin))
    drawn = seen.masks[2].numpy() > 0
    assert drawn.any()
    assert np.mean(seen.hu[drawn] < -600) > 0.8
    chest = chest_of(nifti(tmp_path, volume, consolidation=thin), config())
    assert chest.masks["consolidation"].sum() > drawn.sum(), "the window holds a part of them"
    assert chest.masks["consolidation"].sum() * chest.volume.grid.voxel_mm3 == pytest.approx(thin.sum() * 512, rel=0.05)


def test_a_candidate_is_judged_by_all_that_is_served(tmp_path):
    """A network that draws everywhere draws beyond one window too, and so it finds what lies in the legs."""
    network = served_models.made(config(), 5)
    with torch.no_grad():
        unet = network.localiser.unet
        unet.kernel.weight.zero_()
        unet.kernel.bias.zero_()
        unet.bias.copy_(torch.tensor([6.0 if name == "consolidation" else -6.0 for name in served_models.LESIONS]))
    model = served_models.model(tmp_path / "model", network)
    volume, _ = off_centre()
    legs = np.zeros(volume.hu.shape, dtype=np.bool_)
    legs[10:20] = True
    case = nifti(tmp_path, volume, consolidation=legs)
    chest = chest_of(case, config())
    there = chest.masks["consolidation"]
    assert there.any()
    assert not chest.window(config().encoder.volume).masks["consolidation"].any()
    beside = [
        {"role": "mask", "condition": "consolidation", "path": str(case.masks["consolidation"]), "sha256": "1" * 64}
    ]
    example = Example(path=str(case.volume), sha256="0" * 64, patient_key="p", labels={}, split="test", beside=beside)
    dataset = Dataset(dataset_id="d", plugin="ct", digest="0" * 64, examples=(example,))
    judged = CTTrainer().judge(JudgeTask(model=model, dataset=dataset, limits=Limits(), device=Device()))
    assert [row.score for row in judged.rows] == [pytest.approx(2 * there.sum() / (there.sum() + there.size))]
