"""From slices to a network's grid, and back with masks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ct_studies import task_of
from hypothesis import given, settings
from hypothesis import strategies as st

from clinic_ai.contract import VolumeInfo
from clinic_ai.errors import InputError
from clinic_ai_ct.phantoms import make
from clinic_ai_ct.phantoms.dicom import Spoilt, write_dicom
from clinic_ai_ct.reading import canonical, read, read_stack, resampled, to_source, turned_grid, turns
from clinic_ai_ct.volume import OUTSIDE_HU, Grid, Volume
from clinic_ai_ct.windows import BONE, DEFAULT, LUNG, SOFT_TISSUE, Window, from_grey, windowed

SMALL = {"shape": (16, 24, 32), "spacing": (9.0, 8.0, 7.0)}
EVERY_TURN = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]


@pytest.fixture(scope="module")
def phantom():
    return make(3, lesions=(), conditions=(), **SMALL)


def noise(shape=(5, 6, 7), spacing=(3.0, 2.0, 1.0), origin=(-4.0, 9.0, 30.0)):
    hu = np.random.default_rng(1).integers(-1000, 1000, shape).astype(np.int16)
    return Volume(hu, Grid(shape, spacing, origin))


def turned(volume, order, signs):
    """Return the same voxels, stored along other axes."""
    hu = volume.hu.transpose(order)[tuple(slice(None, None, sign) for sign in signs)]
    return Volume(np.ascontiguousarray(hu), turned_grid(volume.grid, order, signs))


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_stack_comes_back_voxel_for_voxel(phantom, tmp_path, shuffled):
    task = task_of(write_dicom(phantom, tmp_path, Spoilt(shuffled=shuffled)))
    (info,) = task.volumes
    volume = read_stack(task, info)
    assert np.array_equal(volume.hu, phantom.volume.hu)
    assert volume.grid.shape == phantom.volume.grid.shape
    assert np.allclose(volume.grid.affine(), phantom.volume.grid.affine(), atol=1e-3)
    assert canonical(volume) is volume


def test_rescaling_padding_and_what_headers_say(phantom, tmp_path):
    def edit(dataset):
        dataset.RescaleSlope, dataset.RescaleIntercept = "2", "-1000"
        dataset.PixelPaddingValue = 24
        dataset.LossyImageCompression, dataset.LossyImageCompressionRatio = "01", ["4", "3"]
        dataset.ContrastBolusAgent = "NONE"

    task = task_of(write_dicom(phantom, tmp_path, Spoilt(edit=edit)))
    reading = read(task, task.volumes[0])
    stored = phantom.volume.hu.astype(int) + 1024
    expected = np.where(stored == 24, OUTSIDE_HU, stored * 2 - 1000)
    assert np.array_equal(reading.volume.hu, expected)
    assert (stored == 24).any(), "or padding was not tried"
    said = reading.acquisition
    assert (said.contrast, said.lossy_ratio, said.units, said.rescaled) == (False, 12.0, (), True)


def test_what_headers_do_not_say(phantom, tmp_path):
    def edit(dataset):
        dataset.RescaleType = "US"
        for keyword in ("RescaleSlope", "ContrastBolusAgent"):
            if keyword in dataset:
                del dataset[keyword]

    task = task_of(write_dicom(phantom, tmp_path, Spoilt(edit=edit)))
    said = read(task, task.volumes[0]).acquisition
    assert (said.contrast, said.lossy_ratio, said.units, said.rescaled) == (None, None, ("US",), False)


def test_stacks_that_cannot_be_read(phantom, tmp_path):
    files = write_dicom(phantom, tmp_path, Spoilt(tilt=10.0))
    task = task_of(files)
    with pytest.raises(InputError, match=r"tilted by 10\.0 degrees") as refused:
        read_stack(task, task.volumes[0])
    assert refused.value.code == "irregular_volume"
    sound = task_of(write_dicom(phantom, tmp_path / "sound"))
    lost = sound.model_copy(update={"images": sound.images[:-2]})
    with pytest.raises(InputError, match="2 slices of the volume are not among"):
        read_stack(lost, sound.volumes[0])
    many = VolumeInfo(
        series_instance_uid="1",
        slices=sound.volumes[0].slices * 50_000,
        spacing=(1.0, 1.0, 1.0),
        origin=(0.0, 0.0, 0.0),
        directions=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )
    with pytest.raises(InputError, match="800000 slices of 24 × 32 pixels"):
        read_stack(sound, many)


# ---------------------------------------------------------------- turning


@pytest.mark.parametrize(("order", "signs"), EVERY_TURN)
def test_any_turn_is_turned_back(order, signs):
    volume = noise()
    other = turned(volume, order, signs)
    back = canonical(other)
    assert np.array_equal(back.hu, volume.hu)
    assert np.allclose(back.grid.affine(), volume.grid.affine())
    masks = np.stack([volume.hu > 0, volume.hu > 500])
    again = to_source(masks, back.grid, other.grid)
    assert np.array_equal(again, np.stack([other.hu > 0, other.hu > 500]))


def test_an_oblique_stack_is_turned_to_the_nearest_axes():
    cos, sin = np.cos(0.5), np.sin(0.5)
    grid = Grid((4, 5, 6), (2.0, 1.0, 1.0), directions=((0.0, -sin, cos), (0.0, cos, sin), (-1.0, 0.0, 0.0)))
    assert turns(grid) == ((0, 1, 2), (1, 1, -1))
    volume = Volume(np.arange(120, dtype=np.int16).reshape(4, 5, 6), grid)
    back = canonical(volume)
    assert np.array_equal(back.hu, volume.hu[:, :, ::-1])
    corner = back.grid.affine() @ (1, 2, 3, 1)
    assert np.allclose(corner, grid.affine() @ (1, 2, 2, 1)), "the same voxel lies in the same place"


# ---------------------------------------------------------------- resampling


def test_a_straight_slope_stays_where_it_was():
    shape = (20, 30, 40)
    z, y, x = np.indices(shape)
    grid = Grid(shape, (2.0, 1.0, 1.5), (10.0, -5.0, 7.0))
    volume = Volume((3 * z * 2.0 + 2 * y * 1.0 - 4 * x * 1.5).astype(np.int16), grid)
    new = resampled(volume, (3.0, 2.0, 2.5))
    places = np.stack([*np.indices(new.grid.shape), np.ones(new.grid.shape)]).reshape(4, -1)
    there = np.linalg.solve(grid.affine(), new.grid.affine() @ places)[:3].reshape(3, *new.grid.shape)
    inner = (slice(2, -2),) * 3
    expected = 3 * there[0] * 2.0 + 2 * there[1] - 4 * there[2] * 1.5
    assert np.abs(new.hu[inner] - expected[inner]).max() <= 1.01
    assert new.remarks == (
        "The volume was resampled from voxels of 2 × 1 × 1.5 mm to 3 × 2 × 2.5 mm (slice × row × column).",
    )


def test_what_lies_outside_is_air_and_what_is_cut_is_said():
    volume = Volume(np.full((10, 10, 10), 50, dtype=np.int16), Grid((10, 10, 10), (2.0, 2.0, 2.0)))
    larger = resampled(volume, (2.0, 2.0, 2.0), (14, 10, 10))
    assert (larger.hu[2:12] == 50).all()
    assert (larger.hu[:2] == OUTSIDE_HU).all()
    assert (larger.hu[12:] == OUTSIDE_HU).all()
    smaller = resampled(volume, (2.0, 2.0, 2.0), (10, 10, 4), about=(3.0, 9.0, 9.0))
    assert np.allclose(smaller.grid.origin, (0.0, 0.0, 0.0))
    assert (smaller.hu == 50).all()
    assert "Up to 12 mm at its edges lie outside what the model sees." in smaller.remarks[0]
    assert resampled(volume, (2.0, 2.0, 2.0)) is volume


def test_large_voxels_are_means_of_what_they_cover():
    fine = np.zeros((4, 64, 64), dtype=np.int16)
    fine[:, ::2] = 1000  # stripes that a mere picking of voxels would keep or lose
    new = resampled(Volume(fine, Grid(fine.shape, (1.0, 1.0, 1.0))), (1.0, 8.0, 8.0))
    assert np.abs(new.hu[:, 1:-1] - 500).max() < 20


@settings(max_examples=25, deadline=None)
@given(
    spacing=st.tuples(*[st.floats(0.6, 6.0)] * 3),
    about=st.tuples(*[st.floats(-20, 20)] * 3),
    turn=st.sampled_from(EVERY_TURN),
)
def test_masks_go_back_to_the_nearest_voxel(spacing, about, turn):
    volume = canonical(turned(noise((8, 9, 10)), *turn))
    source = turned(noise((8, 9, 10)), *turn).grid
    network = resampled(volume, spacing, (6, 7, 5), about).grid
    masks = np.random.default_rng(2).random((2, 6, 7, 5)) < 0.5
    result = to_source(masks, network, source)
    places = np.stack([*np.indices(source.shape), np.ones(source.shape)]).reshape(4, -1)
    index = np.linalg.solve(network.affine(), source.affine() @ places)[:3]
    nearest = np.floor(index + 0.5 + 1e-9).astype(int)
    inside = ((nearest >= 0) & (nearest < np.array([[6], [7], [5]]))).all(axis=0)
    clear = np.abs(index - np.floor(index) - 0.5).min(axis=0) > 1e-6  # not half way between two voxels
    flat = result.reshape(2, -1)
    assert not flat[:, ~inside & clear].any()
    chosen = inside & clear
    assert np.array_equal(flat[:, chosen], masks[:, *nearest[:, chosen]])


def test_masks_go_back_onto_grids_that_lie_askew():
    cos, sin = np.cos(0.3), np.sin(0.3)
    source = Grid((9, 9, 9), (1.0, 1.0, 1.0), directions=((0.0, -sin, cos), (0.0, cos, sin), (1.0, 0.0, 0.0)))
    network = Grid((20, 20, 20), (1.0, 1.0, 1.0), (-5.0, -8.0, -5.0))
    ball = np.linalg.norm(np.indices((20, 20, 20)).T - (9.0, 12.0, 9.0), axis=-1).T < 3.2
    result = to_source(ball[None], network, source)[0]
    middle = np.argwhere(result).mean(axis=0)
    assert np.allclose(source.affine() @ (*middle, 1), network.affine() @ (9, 12, 9, 1), atol=0.2)
    assert result.sum() == pytest.approx(ball.sum(), rel=0.05)


# ---------------------------------------------------------------- windows


def test_windows():
    hu = np.array([[[-2000, -1350, -600, 150, 3000]]], dtype=np.int16)
    lung, soft, bone = windowed(hu)[:, 0, 0]
    assert np.allclose(lung, [0, 0, 0.5, 1, 1])
    assert np.allclose(soft, [0, 0, 0, (150 + 160) / 400, 1])
    assert np.allclose(bone, [0, 0, 0, 650 / 1800, 1])
    assert windowed(hu).dtype == np.float32
    assert DEFAULT == (LUNG, SOFT_TISSUE, BONE)


def test_grey_levels_become_hu_again():
    hu = np.arange(-160, 240, dtype=np.int16)
    grey = np.rint(windowed(hu[None, None], (SOFT_TISSUE,))[0, 0, 0] * 255).astype(np.uint8)
    assert np.abs(from_grey(grey) - hu).max() <= 1


@pytest.mark.parametrize("words", [(0.0, 0.0), (0.0, -1.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_a_window_has_a_width(words):
    with pytest.raises(ValueError, match="width above 0"):
        Window(*words)
