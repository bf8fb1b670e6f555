"""Shapes, sizes and learning of the network; the large ones without memory."""

from __future__ import annotations

import math

import pytest
import tiny_ct
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from clinic_ai_ct.blocks import Positions, SpaceAttention, halvings, region_shares
from clinic_ai_ct.classifier import classification_loss
from clinic_ai_ct.configurations import CONFIGURATIONS, EncoderConfig, NetworkConfig
from clinic_ai_ct.encoder import merged
from clinic_ai_ct.localiser import localisation_loss, probabilities
from clinic_ai_ct.network import CTNetwork, made

LABELS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
KNOWN = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]])


@pytest.fixture(scope="module")
def network():
    """A tiny network that is not to be changed."""
    return made(tiny_ct.config(), seed=0).eval()


@pytest.mark.parametrize("given", [True, False])
@torch.no_grad()
def test_one_look_serves_every_task(network, given):
    image, _, regions = tiny_ct.volumes()
    features = network.encode(image, regions if given else None)
    assert features.global_.shape == (2, 32)
    assert features.local.shape == (2, 64, 32)
    assert features.grid == (4, 4, 4)
    assert network.classify(features).shape == (2, 3)
    assert network.localise(features, image).shape == (2, 2, 8, 32, 32)
    assert network.project(features).shape == (2, 4, 24)
    if given:
        assert features.region.shape == (2, 4, 32)
        assert features.region_seen.tolist() == [[True, True, True, False]] * 2
    else:
        assert features.region is None
        assert features.region_seen is None


@torch.no_grad()
def test_a_region_looks_at_its_own_patches_only(network):
    image, _, regions = tiny_ct.volumes()
    one = made(tiny_ct.config(layers=1), seed=0).eval()
    before = one.encode(image, regions)
    changed = image.clone()
    changed[..., 17:] = 0.9  # region 2 and half of region 3, nothing of region 1
    after = one.encode(changed, regions)
    assert torch.allclose(before.region[:, 0], after.region[:, 0], atol=1e-5)
    assert not torch.allclose(before.region[:, 1], after.region[:, 1], atol=1e-3)
    assert torch.isfinite(before.region).all()


@torch.no_grad()
def test_region_shares_are_what_is_in_each_patch():
    regions = torch.zeros(1, 4, 4, 4, dtype=torch.long)
    regions[0, 0:2, 0:2, 0] = 2
    shares = region_shares(regions, (2, 2, 2), 2)
    assert shares.shape == (1, 8, 2)
    assert shares[0, 0].tolist() == [0.0, 0.5]
    assert shares[0, 1:].abs().max() == 0


@torch.no_grad()
def test_slice_attention_stays_in_slices_and_columns():
    """A change of one patch reaches its slice and its column in one layer, and nothing else."""
    torch.manual_seed(0)
    grid = (3, 4, 5)
    attention = SpaceAttention(16, 4, everywhere=False)
    tokens = torch.randn(1, 1 + math.prod(grid), 16)
    changed = tokens.clone()
    changed[0, 1 + 1 * 20 + 2 * 5 + 3] += 3.0
    moved = (attention(tokens, grid, None) - attention(changed, grid, None)).abs().amax(dim=2)[0, 1:].view(grid) > 1e-6
    expected = torch.zeros(grid, dtype=torch.bool)
    expected[1] = True
    expected[:, 2, 3] = True
    assert torch.equal(moved, expected)


def test_attention_runs_in_kernels_that_hold_no_matrix(network):
    """Torch's plain kernel, which holds all of it, is forbidden here: without a fused one this raises."""
    image, _, regions = tiny_ct.volumes()
    learning = made(tiny_ct.config(), seed=0).train()
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
        features = learning.encode(image, regions)
        found = learning.localise(features, image).mean() + learning.project(features).mean()
        (found + learning.classify(features).mean()).backward()


def test_it_learns_two_volumes_end_to_end():
    image, masks, regions = tiny_ct.volumes()
    learning = made(tiny_ct.config(), seed=0).train()
    trained = [weights for weights in learning.parameters() if weights.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=5e-3)
    losses = []
    for _ in range(30):
        features = learning.encode(image, regions)
        refined = learning.refine(features)
        judged = classification_loss(learning.classify(features), LABELS, KNOWN)
        drawn = localisation_loss(learning.segment(refined, image), masks)
        said = learning.project(features).square().mean() * 1e-3
        loss = judged + 2 * drawn + 0.1 * learning.localiser.denoising_loss(refined, features) + said
        optimiser.zero_grad()
        loss.backward()
        assert all(weights.grad is not None for weights in trained)
        optimiser.step()
        losses.append((judged.item(), drawn.item()))
    assert losses[-1][0] < 0.7 * losses[0][0]
    assert losses[-1][1] < 0.7 * losses[0][1]


def test_what_is_computed_again_gives_the_same_gradients():
    image, _, regions = tiny_ct.volumes()
    found = []
    for again in (True, False):
        one = made(tiny_ct.config(checkpointing=again), seed=0).train()
        one.encode(image, regions).local.square().mean().backward()
        found.append(one.encoder.stem.weight.grad)
    assert torch.allclose(*found, atol=1e-7)
    assert found[0].abs().max() > 0


def test_labels_that_a_set_does_not_have_cost_nothing():
    logits = torch.tensor([[0.0, 5.0]], requires_grad=True)
    loss = classification_loss(logits, torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert logits.grad[0, 1] == 0
    assert classification_loss(logits, torch.zeros(1, 2), torch.zeros(1, 2)).item() == 0


def test_masks_that_are_not_there_cost_nothing():
    masks = torch.zeros(2, 2, 4, 4, 4)
    masks[:, :, :2] = 1
    logits = torch.zeros(2, 2, 4, 4, 4, requires_grad=True)
    localisation_loss(logits, masks, torch.tensor([[1.0, 0.0], [1.0, 0.0]])).backward()
    assert logits.grad[:, 1].abs().max() == 0
    assert logits.grad[:, 0].abs().max() > 0
    right = torch.where(masks > 0, 20.0, -20.0)
    assert localisation_loss(right, masks).item() < 1e-3
    assert localisation_loss(-right, masks).item() > 1


def test_a_voxel_is_shared_by_what_would_fill_it():
    logits = torch.full((4, 1, 1, 3), -9.0)
    names = ("consolidation", "ground_glass_opacity", "lung_mass", "lung_nodule")
    logits[:, 0, 0, 0] = torch.tensor([3.0, 2.0, 3.0, -9.0])  # as likely a mass
    logits[:, 0, 0, 1] = torch.tensor([3.0, 2.0, -9.0, 6.0])  # rather a nodule
    logits[0, 0, 0, 2] = 3.0
    said = probabilities(logits, names)[:, 0, 0]
    alone = torch.sigmoid(torch.tensor(3.0)).item()
    assert said[0].tolist() == pytest.approx([alone / 2, alone * torch.sigmoid(torch.tensor(-3.0)).item(), alone], 1e-4)
    assert said[1, :2].tolist() == pytest.approx([torch.sigmoid(torch.tensor(2.0)).item()] * 2), (
        "haze is nobody's rival"
    )
    assert said[3, 1] > 0.9
    assert torch.equal(probabilities(logits[1:2], names[1:2]), torch.sigmoid(logits[1:2]))


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_configurations_have_the_parameters_they_say(name):
    """The encoder of the description has 88 M, 86 to 98 by how positions are made; the localiser 45 M and more."""
    config = CONFIGURATIONS[name].network
    with torch.device("meta"):
        one = CTNetwork(config)
    counts = {part: sum(w.numel() for w in module.parameters()) / 1e6 for part, module in one.named_children()}
    if name == "reference":
        assert sum(counts.values()) < 7.5  # 30 MB of float32
        return
    assert 86 <= counts["encoder"] <= 98
    assert 45 <= counts["localiser"] <= 65
    assert counts["classifier"] < 3
    assert config.encoder.tokens == 16_384
    assert config == NetworkConfig.model_validate_json(config.model_dump_json())


def test_patches_are_reached_by_halving():
    assert halvings((4, 16, 16)) == [(1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)]
    assert halvings((8, 8, 8)) == [(2, 2, 2)] * 3


@pytest.mark.parametrize("volume", [(1, 2, 8, 32, 32), (1, 3, 8, 30, 32), (3, 8, 32, 32)])
def test_wrong_volumes_are_refused(network, volume):
    with pytest.raises(ValueError, match=r"encoder reads|whole patches"):
        network.encode(torch.zeros(volume))


def test_wrong_regions_are_refused(network):
    image, _, regions = tiny_ct.volumes()
    with pytest.raises(ValueError, match="number 5; there are 4"):
        network.encode(image, regions + 2)
    with pytest.raises(ValueError, match="not of the volume"):
        network.encode(image, regions[:, :4])


def test_a_configuration_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="whole patches"):
        EncoderConfig(volume=(9, 32, 32), patch=(2, 8, 8))
    with pytest.raises(ValueError, match="powers of two"):
        EncoderConfig(volume=(9, 32, 32), patch=(3, 8, 8))
    with pytest.raises(ValueError, match="heads"):
        EncoderConfig(volume=(8, 32, 32), patch=(2, 8, 8), width=33, heads=3)


@torch.no_grad()
def test_windows_of_one_volume_are_read_as_one(network):
    image, _, regions = tiny_ct.volumes()
    first, second = network.encode(image[:1], regions[:1]), network.encode(image[1:], regions[1:])
    both = merged([first, second])
    assert both.local.shape == (1, 128, 32)
    assert torch.allclose(both.global_, (first.global_ + second.global_) / 2)
    assert torch.allclose(both.region[:, :3], (first.region + second.region)[:, :3] / 2)
    assert not both.region_seen[0, 3]
    assert network.classify(both).shape == (1, 3)
    assert merged([first]) is first


def test_a_tile_has_the_positions_of_where_it_lies():
    positions = Positions((4, 6, 6), 8)
    whole = positions(torch.zeros(1, 8, 4, 6, 6))
    tile = positions(torch.zeros(1, 8, 2, 3, 2), start=(1, 3, 4))
    assert torch.equal(tile, whole[:, :, 1:3, 3:6, 4:6])
