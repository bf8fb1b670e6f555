"""Volumes of any size, read in windows and tiles."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_ct
import torch

from clinic_ai_ct.network import made
from clinic_ai_ct.sliding import read, windows_of
from clinic_ai_ct.volume import OUTSIDE_HU
from clinic_ai_ct.windows import Window, windowed


@pytest.fixture(scope="module")
def network():
    return made(tiny_ct.config(), seed=0).eval()


@torch.no_grad()
def test_one_window_is_the_network_itself(network):
    """Tiles of the whole size, so that nothing is blended."""
    image, _, regions = tiny_ct.volumes()
    config = network.config.model_copy(
        update={"localiser": network.config.localiser.model_copy(update={"tile": (8, 32, 32)})}
    )
    whole = made(config, seed=0).eval()
    found = read(whole, image[:1], regions[:1])
    features = whole.encode(image[:1], regions[:1])
    assert found.windows == 1
    assert torch.equal(found.logits, whole.classify(features))
    assert torch.equal(found.masks, whole.localise(features, image[:1]))


def test_a_larger_volume_is_read_in_windows_and_comes_back_whole(network):
    torch.manual_seed(0)
    image, regions = torch.rand(1, 3, 13, 40, 30), torch.ones(1, 13, 40, 30, dtype=torch.uint8)
    encoder, looks = network.encoder, []
    handle = encoder.register_forward_hook(lambda *_: looks.append(1))
    found = read(network, image, regions)
    handle.remove()
    assert found.masks.shape == (1, 2, 13, 40, 30)
    assert found.logits.shape == (1, 3)
    assert found.windows == len(looks) == windows_of((13, 40, 30), (8, 32, 32), network.config.localiser.overlap) == 4
    assert found.features.region_seen.tolist() == [[True, False, False, False]]
    assert torch.isfinite(found.masks).all()
    assert network.project(found.features).shape == (1, 4, 24)


def test_tiles_lie_on_whole_patches_and_agree_with_each_other(network):
    """Each voxel is drawn by tiles that see its surroundings; a flat image must come out flat away from the rim."""
    sizes = set()
    handle = network.localiser.unet.register_forward_hook(
        lambda _, given, __: sizes.add((tuple(given[0].shape[2:]), tuple(given[1].shape[2:])))
    )
    read(network, torch.full((1, 3, 8, 32, 32), 0.5))
    handle.remove()
    assert sizes == {((8, 16, 16), (4, 2, 2))}


def test_a_mirrored_patient_is_drawn_in_a_mirror_if_tiles_are_drawn_both_ways():
    """The encoder knows left from right: what it says is left out here, as for a U-Net without guidance."""
    image = torch.rand(1, 3, 8, 32, 32, generator=torch.Generator().manual_seed(2))
    config = tiny_ct.config()
    drawn = {}
    for mirrored in (False, True):
        localiser = config.localiser.model_copy(update={"mirrored": mirrored})
        network = made(config.model_copy(update={"localiser": localiser}), seed=0).eval()
        network.refine = lambda features, plain=network.refine: torch.zeros_like(plain(features))
        drawn[mirrored] = read(network, image).masks, read(network, image.flip(-1)).masks.flip(-1)
    assert torch.allclose(*drawn[True], atol=1e-5)
    assert not torch.allclose(*drawn[False], atol=1e-2)
    assert torch.allclose(sum(drawn[False]) / 2, drawn[True][0], atol=1e-5), "the mean of both"


def test_what_is_smaller_than_a_window_is_filled_up_and_cut_again(network):
    found = read(network, torch.rand(1, 3, 5, 20, 31))
    assert found.masks.shape == (1, 2, 5, 20, 31)
    assert found.windows == 1
    assert found.features.region is None


def test_what_is_missing_is_filled_up_as_a_scanner_gives_air(network):
    """Lungs are shown from -1350 HU on, so that air is not black: who learned beside air has to read beside it too."""
    shape, (z, y, x) = network.config.encoder.volume, (5, 20, 31)
    windows = [Window(*one) for one in network.config.windows]
    hu = np.random.default_rng(0).integers(-1000, 400, (z, y, x)).astype(np.int16)
    whole = np.full(shape, OUTSIDE_HU, dtype=np.int16)
    whole[:z, :y, :x] = hu
    small, filled = (torch.from_numpy(windowed(one, windows))[None] for one in (hu, whole))
    assert filled[0, 0, -1, -1, -1] > 0.2
    found, wanted = read(network, small), read(network, filled)
    assert torch.equal(found.logits, wanted.logits)
    assert torch.equal(found.masks, wanted.masks[..., :z, :y, :x])
