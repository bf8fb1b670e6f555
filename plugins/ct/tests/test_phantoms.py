"""Phantoms: what they say of themselves is what they show."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from scipy import ndimage

from clinic_ai.ml.dicom_pixels import decode_frame
from clinic_ai_ct.anatomy import LOBES, label_of
from clinic_ai_ct.formats import read_mask, read_nifti, read_npz, read_sheet
from clinic_ai_ct.lesions import LESIONS
from clinic_ai_ct.phantoms import (
    CONDITIONS,
    Consolidation,
    GroundGlass,
    Nodule,
    PericardialEffusion,
    PleuralEffusion,
    make,
)
from clinic_ai_ct.phantoms.dicom import Spoilt, write_dicom
from clinic_ai_ct.phantoms.files import write_collection

SMALL = {"shape": (48, 64, 64), "spacing": (6.0, 5.6, 5.6)}
VOXEL_ML = 6.0 * 5.6 * 5.6 / 1000.0
ALL = (
    PericardialEffusion(18.0),
    PleuralEffusion("left", 350.0),
    Consolidation("right_upper_lobe", 90.0),
    GroundGlass("right_middle_lobe", 80.0),
    Nodule("right_lower_lobe", 24.0),
)


@pytest.fixture(scope="module")
def full():
    """A phantom with one lesion of each kind and nothing else."""
    return make(5, lesions=ALL, conditions=(), contrast="venous", **SMALL)


def test_a_seed_makes_one_phantom(full):
    again = make(5, lesions=ALL, conditions=(), contrast="venous", **SMALL)
    assert np.array_equal(again.volume.hu, full.volume.hu)
    assert np.array_equal(again.organs, full.organs)
    assert all(np.array_equal(again.masks[name], full.masks[name]) for name in LESIONS)
    assert not np.array_equal(make(6, lesions=ALL, conditions=(), **SMALL).organs, full.organs)


def test_lesions_are_as_wished(full):
    assert [lesion.name for lesion in full.lesions] == [
        "pericardial_effusion",
        "pleural_effusion",
        "ground_glass_opacity",
        "consolidation",
        "lung_nodule",
    ]
    wishes = {wish.name: wish for wish in ALL}
    for lesion in full.lesions:
        assert lesion.ml == pytest.approx(full.masks[lesion.name].sum() * VOXEL_ML)
        wish = wishes[lesion.name]
        if hasattr(wish, "ml"):
            assert lesion.ml == pytest.approx(wish.ml, abs=VOXEL_ML)
        assert lesion.side == ("" if lesion.name == "pericardial_effusion" else getattr(wish, "side", "right"))
        assert lesion.lobe == getattr(wish, "lobe", "")
    nodule = np.argwhere(full.masks["lung_nodule"]) * full.volume.grid.spacing
    longest = np.linalg.norm(nodule[:, None] - nodule[None], axis=2).max()
    assert 24.0 - 1.5 * 6.0 < longest < 24.0


def test_masks_look_like_what_they_are(full):
    """Means over a mask: of lesions smaller than a few voxels, edges are mixed with air."""
    means = {name: float(full.volume.hu[full.masks[name]].mean()) for name in LESIONS}
    assert -5 < means["pericardial_effusion"] < 40
    assert -25 < means["pleural_effusion"] < 30
    assert -150 < means["consolidation"] < 90, "some of its bronchi are open"
    assert -750 < means["ground_glass_opacity"] < -350
    assert -400 < means["lung_nodule"] < 90
    lungs = np.isin(full.organs, [label_of(name) for name in LOBES]) & ~np.any(list(full.masks.values()), axis=0)
    assert -900 < np.median(full.volume.hu[lungs]) < -800


def test_lesions_lie_where_they_are_said_to(full):
    left = full.volume.grid.affine()[0, 2] * np.arange(64) + full.volume.grid.origin[0]
    for name, side in (("pleural_effusion", 1), ("consolidation", -1), ("lung_nodule", -1)):
        assert side * left[np.argwhere(full.masks[name])[:, 2]].mean() > 30, name
    for name, lobe in (("consolidation", "right_upper_lobe"), ("lung_nodule", "right_lower_lobe")):
        assert (full.organs[full.masks[name]] == label_of(lobe)).all(), name
    assert not (full.masks["pleural_effusion"] & (full.organs > 0)).any(), "fluid is no lung"
    down = np.argwhere(full.masks["pleural_effusion"])[:, 1].mean()
    assert down > np.argwhere(np.isin(full.organs, (1, 2)))[:, 1].mean(), "fluid lies at the back"
    heart = ndimage.binary_dilation(full.organs == label_of("heart"), iterations=2)
    assert (full.masks["pericardial_effusion"] & heart).sum() > 0.5 * full.masks["pericardial_effusion"].sum()


def test_labels_say_all_that_is_drawn():
    every = tuple(name for name in CONDITIONS if name not in LESIONS)
    healthy, ill = (make(2, lesions=(), conditions=shown, **SMALL) for shown in ((), every))
    assert healthy.labels == dict.fromkeys(CONDITIONS, 0)
    assert ill.labels == {name: int(name not in LESIONS) for name in CONDITIONS}
    assert all(not mask.any() for mask in ill.masks.values())
    assert all(mask.any() for mask in ill.other_masks.values())
    assert _heart_share(healthy) < 0.5 < _heart_share(ill)
    with pytest.raises(ValueError, match="do not show pneumonia"):
        make(1, conditions=("pneumonia",), **SMALL)


def _heart_share(phantom):
    """Return the width of the heart as a part of that of the chest."""

    def width(mask):
        return max(np.ptp(np.flatnonzero(plane.any(axis=0))) + 1 for plane in mask if plane.any())

    return width(phantom.organs == label_of("heart")) / width(np.isin(phantom.organs, range(1, 6)))


def test_chance_decides_what_nobody_wished():
    labels = [make(seed, shape=(16, 24, 24), spacing=(18.0, 15.0, 15.0)).labels for seed in range(8)]
    shown = {name for one in labels for name, value in one.items() if value}
    assert set(LESIONS) <= shown
    assert all(set(one) == set(CONDITIONS) for one in labels)
    assert len({tuple(one.values()) for one in labels}) > 5


@pytest.mark.parametrize(
    "spoilt", [Spoilt(), Spoilt(tilt=12.0), Spoilt(gap_mm=9.0), Spoilt(missing={4, 5}), Spoilt(shuffled=True)]
)
def test_dicom(full, tmp_path, spoilt):
    files = [pydicom.dcmread(path) for path in write_dicom(full, tmp_path, spoilt)]
    assert len(files) == 48 - len(spoilt.missing)
    assert len({one.SOPInstanceUID for one in files}) == len(files)
    assert {one.SeriesInstanceUID for one in files} == {files[0].SeriesInstanceUID}
    steps = np.diff([float(one.ImagePositionPatient[2]) for one in files])
    odd = [float(step) for step in steps if abs(step - 6.0) > 0.01]
    assert odd == ([15.0] if spoilt.gap_mm else [18.0] if spoilt.missing else [])
    assert np.linalg.norm(files[0].ImageOrientationPatient[3:]) == pytest.approx(1, abs=1e-5)
    assert (files[0].ImageOrientationPatient[5] > 0.1) == bool(spoilt.tilt)
    numbers = [int(one.InstanceNumber) for one in files]
    assert (numbers == sorted(numbers)) == (not spoilt.shuffled)
    assert files[0].ContrastBolusAgent == "IODINE"
    if not spoilt.tilt:
        hu = decode_frame(files[-1], 0).astype(int) + int(files[-1].RescaleIntercept)
        assert np.array_equal(hu, full.volume.hu[-1])


def test_training_files_come_back_voxel_for_voxel(full, tmp_path):
    assert write_collection(tmp_path, [("train_1_a_1", full)]) == 1
    npz = read_npz(tmp_path / "volumes/train_1_a_1.npz")
    assert np.array_equal(npz.regions, full.organs)
    assert npz.spacing == pytest.approx(full.volume.grid.spacing)
    assert (npz.images[full.volume.hu <= -160] == 0).all()
    assert (npz.images[full.volume.hu >= 240] == 255).all()
    volume = read_nifti(tmp_path / "volumes/train_1_a_1.nii.gz")
    assert np.array_equal(volume.hu, full.volume.hu)
    assert np.allclose(volume.grid.affine(), full.volume.grid.affine(), atol=1e-3)
    for name, mask in full.masks.items():
        assert np.array_equal(read_mask(tmp_path / f"lesion_masks/{name}/train_1_a_1.nii.gz", volume.grid), mask)
    assert read_sheet(tmp_path / "labels.csv").labels == {"train_1_a_1": full.labels}
