"""The intensive tier: the network, its graph, and training of what is not frozen on cached activations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.nn import functional

from clinic_ai.contract import AnalysisTask, Device, Limits, TrainingTask
from clinic_ai.domain import StudyFacts
from clinic_ai.errors import DatasetError, ModelError
from clinic_ai.ml.model_files import open_model, write_manifest
from clinic_ai.ml.onnx import halve_weights, weights, with_weights
from clinic_ai_xray.cache import Activations, compute_parts, views_of
from clinic_ai_xray.convert import PLACE
from clinic_ai_xray.data import read_input, stack
from clinic_ai_xray.engine import XrayEngine
from clinic_ai_xray.network import NETWORKS, Head, IntensiveNetwork, accept, round_base
from clinic_ai_xray.quantise import quantise
from clinic_ai_xray.recipe import TailRecipe
from clinic_ai_xray.served import ServedModel, pinned_bytes
from clinic_ai_xray.tail import Standardisation
from clinic_ai_xray.tiers import INTENSIVE, TIERS
from clinic_ai_xray.trainer import XrayTrainer
from clinic_ai_xray.training import Labelled, TailTraining

VIEWS = 3
DESCRIBED = ("labels", "input_side", "temperature", "preprocessing_version")


class Recorder:
    """Takes reports; asks the run to stop after some epochs, or when it has been asked so often."""

    def __init__(self, *, epochs=None, asked=None):
        self._epochs, self._most, self._asked, self._epoch = epochs, asked, 0, 0

    def report(self, progress):
        self._epoch = progress.epoch

    def stop_requested(self):
        self._asked += 1
        enough = self._epochs is not None and self._epoch >= self._epochs
        return enough or (self._most is not None and self._asked > self._most)


@pytest.fixture
def task_in(corpus, small_base, small):
    """A function: the task of a short run of the small tier in a directory."""
    return lambda directory, **recipe: _task(directory, corpus, small_base, small, recipe)


def _task(directory, corpus, base, tier, recipe):
    directory.mkdir(exist_ok=True)
    return TrainingTask(
        run_id="R-2",
        dataset=corpus,
        base=base,
        recipe={"tier": tier.name, "epochs": 4, "batch": 16, "rate": 2e-3, "views": VIEWS, **recipe},
        run_directory=str(directory),
        limits=Limits(),
        device=Device(),
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, corpus, small_base, small):
    """A run that nothing interrupted, and its directory."""
    directory = tmp_path_factory.mktemp("run")
    return XrayTrainer().train(_task(directory, corpus, small_base, small, {}), Recorder()), directory


def weights_in(directory):
    model = onnx.load(Path(directory) / "model.onnx")
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


# ---------------------------------------------------------------- the network


def test_it_is_densenet121_and_a_tenth_of_it_is_trained():
    network = IntensiveNetwork()
    assert sum(p.numel() for p in (*network.base.parameters(), *network.top.parameters())) == 6_953_856
    assert sum(p.numel() for p in network.top.parameters()) == 641_408
    assert sum(p.numel() for p in network.head.parameters()) == 65_665
    layers = [name for name, _ in network.top.named_children()]
    assert layers == [*(f"denselayer{n}" for n in (13, 14, 15, 16)), "norm5", "relu"]
    with torch.inference_mode():
        stem = network.eval().stem(torch.rand(1, 1, INTENSIVE.side, INTENSIVE.side))
        assert stem.shape[1:] == INTENSIVE.cached_shape
        assert network.top(stem).shape[1] == INTENSIVE.features


def test_the_map_adds_up_to_the_logit(small):
    torch.manual_seed(3)
    network = NETWORKS[small]().eval()
    with torch.inference_mode():
        logits, activation, pooled, *_ = network(torch.rand(4, 1, small.side, small.side))
        active = (network.head.hidden(pooled) > 0) * network.head.out.weight
        constant = active @ network.head.hidden.bias + network.head.out.bias
    assert activation.flatten(1).std(dim=1).min() > 0
    np.testing.assert_allclose(activation.mean(dim=(1, 2)) + constant, logits, atol=1e-4)


def test_the_graph_keeps_what_is_trained_and_tells_where_the_frozen_part_ends(small, small_base, densenet_tensors):
    network = NETWORKS[small]().eval()
    PLACE[small](network, densenet_tensors(network.blocks))
    found = weights_in(small_base.directory)
    for name, value in network.state_dict().items():
        if name.startswith("top.") and value.is_floating_point():
            np.testing.assert_array_equal(found[name], value, err_msg=name)
    images = np.random.default_rng(0).random((3, 1, small.side, small.side), dtype=np.float32)
    served = ServedModel(small_base, Device()).activations(images)
    with torch.inference_mode():
        stem = network.stem(torch.from_numpy(images))
    assert served["stem"].shape == (3, *small.cached_shape)
    np.testing.assert_allclose(served["stem"], stem, atol=1e-4)


def test_the_frozen_part_may_be_kept_in_half_the_bytes(small, small_base, densenet_tensors, tmp_path):
    content = (Path(small_base.directory) / "model.onnx").read_bytes()
    model = onnx.load_model_from_string(content)
    halve_weights(model, "base.")
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    kernels = sum(np.prod(t.dims) for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16)
    assert len(content) - path.stat().st_size == pytest.approx(2 * kernels, rel=0.1)
    torch.manual_seed(0)  # as the conversion does it
    network = NETWORKS[small]().eval()
    PLACE[small](network, densenet_tensors(network.blocks))
    whole = network.base.denseblock4.denselayer1.layers.conv1.weight.detach().clone()
    round_base(network)
    assert not torch.equal(whole, network.base.denseblock4.denselayer1.layers.conv1.weight)
    sample = np.random.default_rng(0).random((8, 1, small.side, small.side), dtype=np.float32)
    assert accept(network, path, sample) < 1e-4


# ---------------------------------------------------------------- training


def test_a_run_changes_the_tail_and_nothing_frozen(finished, small_base, corpus):
    result, directory = finished
    assert result.state == "finished"
    summary = json.loads((directory / "training_summary.json").read_text())
    assert summary["export_parity"] < 1e-4
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    before, after = weights_in(small_base.directory), weights_in(result.model_directory)
    assert before.keys() == after.keys()
    frozen = [name for name in before if not name.startswith(("top.", "head.", "distance."))]
    assert all(np.array_equal(before[name], after[name]) for name in frozen)
    same = [name for name in before if name not in frozen and np.array_equal(before[name], after[name])]
    # A hidden unit of the head may be dead from the start; all layers, norms and their statistics have moved.
    assert not [name for name in same if name.startswith(("top.", "distance."))]
    model = open_model(Path(result.model_directory))
    assert (model.manifest.slot, model.manifest.parameters["tier"]) == ("second", "small")
    assert not ServedModel(model, Device()).untrained
    again = XrayTrainer().evaluate(model, corpus)
    assert again.values["auroc"] == pytest.approx(result.scores.values["auroc"], abs=0.02)


@pytest.mark.parametrize(
    ("stopped_by", "whole_epochs"),
    [({"epochs": 2}, 2), ({"asked": 30}, 0), ({"asked": 72 + 3 + 2}, 1)],
    ids=["after an epoch", "among the 72 images", "in the second epoch"],
)
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, finished, task_in, stopped_by, whole_epochs):
    task = task_in(tmp_path / "run")
    stopped = XrayTrainer().train(task, Recorder(**stopped_by))
    assert (stopped.state, len(stopped.history)) == ("stopped", whole_epochs)
    resumed = XrayTrainer().train(task, Recorder())
    assert resumed.history == finished[0].history
    one, other = (Path(result.model_directory) / "model.onnx" for result in (resumed, finished[0]))
    assert one.read_bytes() == other.read_bytes()


def test_whole_shards_are_not_computed_again_and_a_torn_one_is(finished, corpus, small_base, tmp_path):
    base = ServedModel(small_base, Device())
    examples = [example for example in corpus.examples if example.split == "train"]
    compute_parts(base, examples, tmp_path, VIEWS, lambda _: None, lambda: False)
    shards = sorted(tmp_path.iterdir())
    torn, whole = shards[0], {path: path.stat().st_mtime_ns for path in shards[1:]}
    content = torn.read_bytes()
    torn.write_bytes(content[:-100])
    compute_parts(base, examples, tmp_path, VIEWS, lambda _: None, lambda: False)
    assert torn.read_bytes() == content
    assert {path: path.stat().st_mtime_ns for path in whole} == whole


def test_activations_too_large_to_be_kept_end_the_run(tmp_path, corpus, small_base):
    content = (Path(small_base.directory) / "model.onnx").read_bytes()
    (large,) = weights(content, ("base.norm0.weight",)).values()
    path = tmp_path / "model.onnx"
    described = {key: small_base.manifest.parameters[key] for key in DESCRIBED}
    path.write_bytes(with_weights(content, {"base.norm0.weight": large * 1e9}, described))
    write_manifest(tmp_path, small_base.manifest, [path])
    base = ServedModel(open_model(tmp_path), Device())
    with pytest.raises(ModelError, match="beyond float16"):
        compute_parts(base, list(corpus.examples), tmp_path / "cache", 1, lambda _: None, lambda: False)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_warm_run_starts_from_the_head_of_its_base_and_a_cold_one_from_its_top_alone(tmp_path, small, small_base):
    initial = {name: value for name, value in weights_in(small_base.directory).items() if name[:4] in ("top.", "head")}
    kept = np.random.default_rng(0).random((4, 1, np.prod(small.cached_shape)), dtype=np.float32)
    part = Labelled(Activations([kept], [(0, row) for row in range(4)], 1), np.array([0, 1, 0, 1], dtype=np.float32))
    scale = Standardisation(np.linspace(0, 3, small.features), np.linspace(0.5, 2, small.features))
    cold, warm = (
        TailTraining(
            part, part, TailRecipe.parse({"tier": small.name, "warm": warm}), tmp_path, "w", initial, scale
        ).best_weights()
        for warm in (False, True)
    )
    for name, value in initial.items():
        np.testing.assert_allclose(warm[name], value, atol=1e-5, err_msg=name)
        assert name.startswith("head.") or np.array_equal(cold[name], value)
    assert np.abs(cold["head.hidden.weight"] - initial["head.hidden.weight"]).max() > 0.01


@pytest.mark.parametrize(("kept_as", "tolerance"), [("float32", 1e-4), ("float16", 5e-3)])
def test_training_on_the_cache_equals_the_plain_loop(
    tmp_path, monkeypatch, corpus, small, small_base, densenet_tensors, kept_as, tolerance
):
    recipe = TailRecipe.parse({"tier": small.name, "epochs": 2, "batch": 16, "rate": 1e-3, "views": VIEWS})
    tier = replace(small, kept_as=kept_as)
    monkeypatch.setitem(TIERS, tier.name, tier)
    monkeypatch.setitem(NETWORKS, tier, NETWORKS[small])
    base = ServedModel(small_base, Device())
    parts, _ = compute_parts(base, list(corpus.examples), tmp_path / "cache", VIEWS, lambda _: None, lambda: False)
    train, validation = (
        Labelled(parts[split].activations, parts[split].labels("pneumonia")) for split in ("train", "validation")
    )
    scale = Standardisation.of(parts["train"].pooled)
    initial = {name: value for name, value in weights_in(small_base.directory).items() if name[:4] in ("top.", "head")}
    training = TailTraining(train, validation, recipe, tmp_path / "checkpoints", "plain", initial, scale)
    losses = [entry["loss"] for entry in training.run(lambda *_: None, lambda _: None, lambda: False).history]

    network = NETWORKS[small]()
    PLACE[small](network, densenet_tensors(network.blocks))
    torch.manual_seed(recipe.seed)
    network.head = Head(small)
    optimiser = torch.optim.AdamW(
        [*network.head.parameters(), *network.top.parameters()], lr=recipe.rate, weight_decay=recipe.weight_decay
    )
    images = np.stack([views_of(read_input(e.path, small.side), e.sha256, VIEWS) for e in parts["train"].examples])
    labels = torch.from_numpy(train.labels)
    mean, spread = torch.from_numpy(scale.mean).float(), torch.from_numpy(scale.spread).float()
    plain = []
    for epoch in (1, 2):
        torch.manual_seed(recipe.seed * 100_003 + epoch)
        network.train()
        network.base.eval()
        total = 0.0
        for rows in torch.randperm(len(labels)).split(recipe.batch):
            views = torch.randint(0, VIEWS, (len(rows),))
            with torch.no_grad():
                stem = network.stem(torch.from_numpy(images[rows, views]))
            logits = network.head((network.top(stem).mean(dim=(2, 3)) - mean) / spread)
            loss = functional.binary_cross_entropy_with_logits(
                logits, labels[rows], pos_weight=(1 - labels.mean()) / labels.mean()
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item()
        plain.append(total / training.steps_per_epoch)
    np.testing.assert_allclose(losses, plain, atol=tolerance, rtol=0)
    assert abs(losses[0] - losses[1]) > 20 * tolerance  # it moved by far more than both may differ


# ---------------------------------------------------------------- plans, refusals, serving


def test_a_base_of_another_tier_is_refused_in_words(tmp_path, task_in, corpus):
    with pytest.raises(ModelError, match="is of the tier small, the recipe asks for intensive") as caught:
        XrayTrainer().train(task_in(tmp_path / "run", tier="intensive"), Recorder())
    assert "tier=small" in caught.value.remedy
    with pytest.raises(DatasetError, match="no tier 'slow'; it is fast or intensive"):
        XrayTrainer().plan(corpus, Limits(), {"tier": "slow"})


def test_the_plan_knows_what_the_tier_costs(corpus):
    fast, intensive, seen_more = (
        XrayTrainer().plan(corpus, Limits(), recipe)
        for recipe in ({}, {"tier": "intensive"}, {"tier": "intensive", "views": 8})
    )
    assert intensive.seconds > 4 * fast.seconds
    assert intensive.pf_days > 20 * fast.pf_days
    # 48 training images in four views, 24 others in one; each 2 bytes x 896 x 7 x 7 and 4 bytes x 1024.
    # Checkpoints, the base and the model of 14 and 5 MB beside that.
    assert "The run directory takes about 89 MiB of disk." in intensive.notes
    assert intensive.disk_mb == 89
    assert seen_more.seconds > intensive.seconds


def test_a_base_says_nothing_and_its_candidate_judges(finished, small_base, film, tmp_path):
    image = film()
    engine = XrayEngine()
    engine.load(small_base, Device())
    task = AnalysisTask(
        job_id="J-1",
        facts=StudyFacts(),
        images=(image,),
        output_directory=str(tmp_path),
        models=(small_base.ref,),
    )
    with pytest.raises(ModelError, match="learned nothing yet"):
        engine.analyse(task)
    model = open_model(Path(finished[0].model_directory))
    engine.load(model, Device())
    analysis = engine.analyse(task.model_copy(update={"models": (model.ref,)}))
    said = [*(finding.condition for finding in analysis.findings), *(refusal.code for refusal in analysis.refusals)]
    assert said in (["pneumonia"], ["out_of_distribution"])


def test_its_convolutions_become_int8_with_the_norms_behind_them(small_base, small, corpus):
    images = stack([read_input(example.path, small.side) for example in corpus.examples[:24]])
    content = quantise(pinned_bytes(small_base), images[:12])
    before, after = (onnx.load_model_from_string(each).graph for each in (pinned_bytes(small_base), content))
    convolutions, norms = (
        [sum(node.op_type == kind for node in graph.node) for graph in (before, after)]
        for kind in ("Conv", "BatchNormalization")
    )
    assert convolutions == [22, 22]
    assert norms == [23, 13]  # those before a convolution stay
    makers = {node.output[0]: node.op_type for node in after.node}
    assert {makers[name] for node in after.node if node.op_type == "Conv" for name in node.input} == {
        "DequantizeLinear"
    }
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (said,) = session.run(["logit"], {"images": images})
    # Its head knows nothing: all logits are nearly the same, and rounding shows more than in a model that has learned.
    assert np.corrcoef(said, ServedModel(small_base, Device()).logits(images))[0, 1] > 0.9
