"""The build of the reference model from end to end with next to nothing to learn from, and where it was ended."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from served_models import network_config

from clinic_ai.contract import Device
from clinic_ai.ml.model_files import open_model
from clinic_ai_ct.engine import CTEngine
from clinic_ai_ct.lesions import LESIONS
from clinic_ai_ct.network import made
from clinic_ai_ct.reference import build, drawing, examples, learning, organs, stages
from clinic_ai_ct.reference.build import Plan
from clinic_ai_ct.reference.examples import JUDGED
from clinic_ai_ct.reference.tiles import Corpus, image_of
from clinic_ai_ct.regions import load_segmenter

SEED_WITHOUT, SEED_WITH_NODES = 2, 0


@pytest.fixture
def coarse(monkeypatch):
    """Phantoms of few voxels, tiles to match, and a network that has all their labels."""
    monkeypatch.setattr(examples, "GRIDS", (((48, 64, 64), (6.0, 5.6, 5.6)),))
    monkeypatch.setattr(learning, "LOOK_TILE", (16, 32, 32))
    monkeypatch.setattr(drawing, "DRAW_TILE", (16, 32, 32))
    config = network_config()
    return config.model_copy(update={"classifier": config.classifier.model_copy(update={"labels": JUDGED})})


@pytest.mark.torture
def test_the_build_makes_a_model_that_the_engine_uses_and_makes_nothing_twice(tmp_path, coarse):
    lines: list[str] = []
    plan = Plan(train=6, fresh=3, calibrate=30, held_out=3, seconds=6.0)
    work, target = tmp_path / "work", tmp_path / "made"
    figures = build.build(plan, work, target, lines.append, coarse)
    assert set(figures["dice"]) == set(LESIONS)
    assert json.loads((target / build.SUMMARY).read_text())["plan"]["train"] == 6
    first = open_model(target)
    CTEngine().load(first, Device())
    assert first.manifest.reference
    assert "AUROC" in (target / build.CARD).read_text()
    weights = (target / "network.safetensors").read_bytes()
    again: list[str] = []
    network = build.trained(plan, work, coarse, again.append)
    assert not again, "all stages were done"
    build.write_network(build.without_regions(network), tmp_path, torch.float16)
    assert (tmp_path / "network.safetensors").read_bytes() == weights


def test_the_classifier_learns_from_more_phantoms_and_their_mirror_images(tmp_path, coarse):
    files = [examples.draw(seed, coarse, tmp_path) for seed in range(3)]
    network = made(coarse, 1).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    stage = stages.Stage("tell", 0.0, 1e-3, 2)
    learning.learn_to_tell(network, Corpus(files[:2]), files[2:], stage, tmp_path, lambda _: None)
    kept = sorted(path.name for path in (tmp_path / "features").iterdir())
    assert kept == [
        "000000.safetensors",
        "000001.safetensors",
        "000002.mirrored.safetensors",
        "000002.safetensors",
    ]
    image = image_of(examples.load(files[2]), network)
    with torch.inference_mode():
        seen = network.encode(image.flip(-1))
    mirrored = load_file(tmp_path / "features" / kept[2])
    torch.testing.assert_close(mirrored["local"].float(), seen.local[0], atol=5e-3, rtol=5e-3)
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert {name.split(".")[0] for name in changed} == {"classifier"}


def test_a_stage_that_was_ended_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "_EVERY", 2)

    def run(name: str, stop: int | None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        module = torch.nn.Linear(3, 1)
        taken = []

        def step(generator: torch.Generator) -> torch.Tensor:
            taken.append(1)
            if len(taken) == stop:
                raise KeyboardInterrupt
            loss = module(torch.randn(5, 3, generator=generator)).square().mean()
            loss.backward()
            return loss.detach()

        (tmp_path / name).mkdir(exist_ok=True)
        stage = stages.Stage("any", 0.0, 1e-2, 1)
        stages.learn(module, step, stage, tmp_path / name, lambda line: None)
        return module.state_dict()

    monkeypatch.setattr(stages.math, "ceil", lambda value: 12)
    whole = run("whole", None)
    with pytest.raises(KeyboardInterrupt):
        run("ended", 8)
    resumed = run("ended", None)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def kept(work: Path, done: int, steps: int) -> torch.nn.Linear:
    """Keep a stage of so many steps in ``work``; return the module that learned."""
    torch.manual_seed(done)
    module = torch.nn.Linear(3, 1)
    optimiser = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    stages.State(work, "any").keep(module, optimiser, done, steps)
    return module


def restored(work: Path) -> tuple[torch.nn.Linear, tuple[int, int | None]]:
    module = torch.nn.Linear(3, 1)
    return module, stages.State(work, "any").restore(module, torch.optim.AdamW(module.parameters()))


def test_weights_and_the_step_they_are_of_are_replaced_at_once(tmp_path, monkeypatch):
    kept(tmp_path, 100, 300)
    later = kept(tmp_path, 150, 300)
    assert [path.name for path in tmp_path.iterdir()] == ["any.safetensors"]
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("the power is gone")))
        with pytest.raises(OSError, match="the power is gone"):
            kept(tmp_path, 200, 300)
    module, said = restored(tmp_path)
    assert said == (150, 300)
    assert torch.equal(module.weight, later.weight)


def test_stages_of_two_files_are_taken_up_and_steps_that_were_written_beside_count(tmp_path):
    """Earlier builds wrote the place of a stage into a file of its own; a person may say there how many steps."""
    kept(tmp_path, 150, 300)
    path, beside = tmp_path / "any.safetensors", tmp_path / "any.json"
    metadata = path.read_bytes()
    save_file(load_file(path), path)
    with pytest.raises(ValueError, match="does not say of which step"):
        restored(tmp_path)
    beside.write_text('{"done": 100, "steps": 300}')
    assert restored(tmp_path)[1] == (100, 300)
    path.write_bytes(metadata)
    beside.write_text('{"done": 100, "steps": 400}')
    assert restored(tmp_path)[1] == (150, 400)
    path.unlink()
    assert restored(tmp_path)[1] == (0, None)
    kept(tmp_path, 50, 200)
    assert restored(tmp_path)[1] == (50, 200), "what was said of the stage before is gone with it"


@pytest.mark.torture
def test_organs_are_learned_and_found_by_what_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(organs, "SHAPE", (32, 32, 32))
    monkeypatch.setattr(organs, "SPACING", (12.0, 12.0, 12.0))
    monkeypatch.setattr(organs, "CONFIG", organs.CONFIG.model_copy(update={"spacing": (12.0, 12.0, 12.0)}))
    organs.main(["--target", str(tmp_path / "organs"), "--steps", "90", "--held-out", "2"])
    scores = json.loads(capsys.readouterr().out.partition("{")[2].join(["{", ""]))
    assert scores["chest_wall"] > 0.4, "a few steps teach what is large"
    phantom, labels = organs.drawn(organs.HELD_OUT)
    segmenter = load_segmenter(open_model(tmp_path / "organs"), Device())
    found = segmenter.find(organs.image_of(phantom.volume, organs.CONFIG.windows), organs.SPACING).labels
    wall = organs.REGIONS.index("chest_wall") + 1
    known = labels == organs.CONFIG.names.index("chest_wall") + 1
    assert np.mean(known[found == wall]) > 0.4


def test_a_network_without_regions_sees_what_it_saw():
    network = build.made(network_config(), 3).eval()
    bare = build.without_regions(network)
    image = torch.rand(1, 3, 48, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(bare.encode(image).local, network.encode(image).local)
    assert bare.config.encoder.regions == 0
    assert bare.text_digest == network.text_digest


@pytest.fixture
def tiles(tmp_path, coarse):
    """Of two chests, of which one shows enlarged nodes; these are the last of what the network draws."""
    findings = {"findings": (*LESIONS, "lymphadenopathy")}
    coarse = coarse.model_copy(update={"localiser": coarse.localiser.model_copy(update=findings)})
    files = [examples.draw(seed, coarse, tmp_path) for seed in (SEED_WITHOUT, SEED_WITH_NODES)]
    network = made(coarse, 0)
    grid = [side // part for side, part in zip(coarse.encoder.volume, coarse.encoder.patch, strict=True)]
    chosen = torch.Generator().manual_seed(3)
    guidance = [torch.rand(coarse.localiser.width, *grid, generator=chosen) for _ in files]
    return drawing.Tiles(network, Corpus(files), guidance)


def test_once_it_draws_tiles_lie_around_what_few_chests_show(tiles, monkeypatch):
    monkeypatch.setattr(drawing, "_OWN_TILES", 1.0)
    monkeypatch.setattr("clinic_ai_ct.reference.tiles._AROUND", 1.0)

    def showing(*, sharp: bool) -> int:
        """Of forty tiles; one that is moved onto whole patches may lie beside what it was drawn around."""
        drawn = (tiles.any(torch.Generator().manual_seed(seed), sharp=sharp) for seed in range(40))
        return sum(bool(one.masks[-1].any()) for one in drawn)

    assert showing(sharp=True) >= 30
    assert showing(sharp=False) <= 20, "at first any chest, and any of its lesions"


def test_a_mirrored_tile_is_the_same_one_with_left_and_right_exchanged(tiles, monkeypatch):
    def drawn(share: float) -> drawing.Drawn:
        monkeypatch.setattr(drawing, "_MIRRORED", share)
        return tiles.any(torch.Generator().manual_seed(5), sharp=True)

    plain, other = drawn(0.0), drawn(1.0)
    assert not torch.equal(plain.image, other.image)
    for name in ("image", "guidance", "masks"):
        assert torch.equal(getattr(other, name).flip(-1), getattr(plain, name)), name
    assert torch.equal(plain.known, other.known)


def test_a_tile_is_scored_by_what_it_shows():
    masks = torch.zeros(1, 3, 4, 4, 4)
    masks[0, 0, :2] = 1.0
    known = torch.tensor([[1.0, 1.0, 0.0]])
    right = torch.where(masks > 0, 12.0, -12.0)
    right[0, 2] = 12.0  # unknown, so it does not matter
    assert float(drawing.drawing_loss(right, masks, known)) < 1e-3
    nothing = torch.full_like(masks, -12.0)
    assert float(drawing.drawing_loss(nothing, masks, known)) > 1.0, "drawing nothing is no way out"
    also_absent = right.clone()
    also_absent[0, 1] = 12.0
    assert float(drawing.drawing_loss(also_absent, masks, known)) > 1.0
    assert float(drawing.drawing_loss(nothing, torch.zeros_like(masks), known)) < 1e-3


def test_a_few_voxels_in_the_wrong_place_count_once_it_is_sharpened():
    masks, known = torch.zeros(1, 1, 10, 10, 10), torch.ones(1, 1)
    wrong = torch.full_like(masks, -12.0)
    wrong[0, 0, 0, 0] = 2.0
    careless = float(drawing.drawing_loss(wrong, masks, known))
    sharp = float(drawing.drawing_loss(wrong, masks, known, hardest=0.02))
    assert sharp == pytest.approx(3 * 10 * 2.127 / 20, rel=0.01)
    assert sharp > 10 * careless


def test_what_fills_a_voxel_is_told_from_its_rivals():
    masks = torch.zeros(1, 3, 4, 10, 10)
    masks[0, 0, 0] = 1.0  # a hundred voxels of one,
    masks[0, 1, 1, 0] = 1.0  # ten of another,
    masks[0, :2, 2] = 1.0  # and some that are both's
    right = 10 * masks
    assert float(drawing.telling_apart_loss(right, masks)) < 1e-3
    small_one_wrong = right.clone()
    small_one_wrong[0, :, 1, 0] = torch.tensor([10.0, 0.0, 0.0]).view(3, 1)
    assert float(drawing.telling_apart_loss(small_one_wrong, masks)) == pytest.approx(5.0, rel=0.01), "half of all"
    elsewhere = right.clone()
    elsewhere[0, 0, 2:] = 10.0
    assert float(drawing.telling_apart_loss(elsewhere, masks)) == float(drawing.telling_apart_loss(right, masks))
    assert float(drawing.telling_apart_loss(right, torch.zeros_like(masks))) == 0.0
