"""int8 versions: what of a model they keep, when they are taken, and what is refused in words."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from clinic_ai.contract import BenchTask, Device, Limits, Measured, Recipe, Scores, TrainingTask
from clinic_ai.errors import DatasetError, ModelError
from clinic_ai.training.formats import check_file
from clinic_ai_xray import bench as module
from clinic_ai_xray.bench import bench, decide, speed
from clinic_ai_xray.data import read_input, stack
from clinic_ai_xray.model_files import open_model, write_manifest
from clinic_ai_xray.quantise import quantise
from clinic_ai_xray.served import ServedModel, pinned_bytes
from clinic_ai_xray.trainer import XrayTrainer


@pytest.fixture(scope="module")
def int8(reference, corpus, tmp_path_factory):
    """The reference model in int8, calibrated on a dozen phantoms."""
    train = [example for example in corpus.examples if example.split == "train"][:12]
    directory = tmp_path_factory.mktemp("int8")
    path = directory / "model.onnx"
    path.write_bytes(quantise(pinned_bytes(reference), stack([read_input(e.path, 128) for e in train])))
    write_manifest(directory, reference.manifest.model_copy(update={"version": "1-int8"}), [path])
    return open_model(directory)


def task(model, dataset, directory: Path, threads: int = 1) -> BenchTask:
    return BenchTask(
        model=model, dataset=dataset, directory=str(directory), limits=Limits(), device=Device(threads=threads)
    )


def changed(corpus, change):
    return corpus.model_copy(update={"examples": tuple(change(e) for e in corpus.examples)})


# ---------------------------------------------------------------- the graph


def test_the_logits_are_those_of_the_original(reference, int8, corpus):
    one, other = ServedModel(reference, Device()), ServedModel(int8, Device())
    test = [example for example in corpus.examples if example.split != "train"]
    images = stack([read_input(example.path, one.side) for example in test])
    before, after = one.logits(images), other.logits(images)
    assert np.corrcoef(before, after)[0, 1] > 0.95
    assert np.abs(before - after).mean() < 0.1 * before.std()


def test_metadata_and_all_that_is_not_a_convolution_stay(reference, int8):
    before, after = (onnx.load_model_from_string(pinned_bytes(model)) for model in (reference, int8))
    assert {p.key: p.value for p in before.metadata_props} == {p.key: p.value for p in after.metadata_props}
    head = [tensor for tensor in before.graph.initializer if not tensor.name.startswith("base.")]
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in after.graph.initializer}
    assert {"head.hidden.weight", "head.out.weight"} <= {tensor.name for tensor in head}
    for tensor in head:
        if tensor.name.startswith(("head.", "distance.")):
            np.testing.assert_array_equal(found[tensor.name], onnx.numpy_helper.to_array(tensor))
    makers = {output: node.op_type for node in after.graph.node for output in node.output}
    for node in after.graph.node:
        kinds = {makers.get(name) for name in node.input}
        if node.op_type == "Conv":
            assert kinds == {"DequantizeLinear"}  # image, weights and bias
        if node.op_type in {"Gemm", "MatMul"}:
            assert "DequantizeLinear" not in kinds


def test_it_is_small_and_holds_no_place_of_this_machine(reference, int8):
    (before,), (after,) = reference.manifest.files, int8.manifest.files
    assert after.size_bytes < 0.4 * before.size_bytes
    content = (Path(int8.directory) / after.name).read_bytes()
    assert tempfile.gettempdir().encode() not in content
    check_file(Path(int8.directory) / after.name, {after.name})


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x0a"])
def test_what_is_no_model_is_refused_in_words(content):
    with pytest.raises(ModelError, match="int8"):
        quantise(content, np.zeros((1, 1, 128, 128), dtype=np.float32))


def test_a_damaged_model_is_refused_in_words(reference, corpus, tmp_path):
    file = reference.manifest.files[0]
    (tmp_path / file.name).write_bytes(pinned_bytes(reference)[:-1000])
    damaged = reference.model_copy(update={"directory": str(tmp_path)})
    with pytest.raises(ModelError, match="not the one its manifest pins"):
        bench(task(damaged, corpus, tmp_path))


# ---------------------------------------------------------------- the rule


def measured(milliseconds: float, auroc: float, refused: float = 0.0) -> Measured:
    scores = Scores(split="test", examples=100, values={"auroc": auroc, "brier": 0.1, "refused": refused})
    return Measured(milliseconds=milliseconds, size_bytes=1000, scores=scores)


@pytest.mark.parametrize(
    ("int8", "taken", "says"),
    [
        (measured(9.4, 0.900), True, "int8 is taken: 9.4 instead of 10.0 ms an image, AUROC 0.900 instead of 0.900."),
        (measured(5.0, 0.930), True, "AUROC 0.930"),
        (measured(5.0, 0.8951), True, "is taken"),
        (measured(5.0, 0.8949), False, "it loses 0.005 of the AUROC or more"),
        (measured(9.6, 0.900), False, "it is not at least 5 % faster on this machine"),
        (measured(20.0, 0.950), False, "not taken (20.0 instead of 10.0 ms an image, AUROC 0.950 instead of 0.900)"),
        (measured(20.0, 0.800), False, "on this machine, and it loses"),
        (measured(5.0, 0.900, 0.03), True, "is taken"),
        (measured(5.0, 0.900, 0.56), False, "it refuses 56 % of the images as unlike those of training, not 2 %"),
        (measured(5.0, float("nan")), False, "it loses"),
    ],
)
def test_int8_is_taken_if_it_is_faster_and_as_good(int8, taken, says):
    found, reason = decide(measured(10.0, 0.900, 0.02), int8)
    assert found is taken
    assert says in reason


def test_models_take_turns_and_each_has_its_own_time(reference):
    turns = []

    class Turn(ServedModel):
        def judge(self, image):
            turns.append(self)
            return super().judge(image)

    models = [Turn(reference, Device()) for _ in range(2)]
    found = speed(models, np.zeros((128, 128), dtype=np.float32), rounds=3)
    assert all(0 < milliseconds < 1000 for milliseconds in found)
    assert {frozenset(map(id, turns[at : at + 2])) for at in range(0, len(turns), 2)} == {frozenset(map(id, models))}


# ---------------------------------------------------------------- the whole way


@pytest.fixture
def unchanged(monkeypatch):
    """int8 versions that are the original: what becomes of one does not depend on its numbers."""
    monkeypatch.setattr(module, "quantise", lambda content, _: content)
    return lambda *milliseconds: monkeypatch.setattr(module, "speed", lambda *_: list(milliseconds))


def test_one_that_is_taken_is_a_candidate_with_figures_of_its_own(reference, corpus, tmp_path, unchanged):
    unchanged(10.0, 5.0)
    result = XrayTrainer().bench(task(reference, corpus, tmp_path, threads=2))
    assert result.taken
    assert (result.difference, result.difference_interval, result.agreement) == (0.0, (0.0, 0.0), 1.0)
    assert result.original.size_bytes == result.int8.size_bytes == reference.manifest.files[0].size_bytes
    made = open_model(Path(result.model_directory))
    assert (made.manifest.version, made.manifest.quantisation) == ("1.0.0-int8", "int8")
    assert (made.manifest.reference, made.manifest.clinical_use) == (False, False)
    added = {"quantised": "int8", "quantised_from": reference.ref.digest}
    assert made.manifest.parameters == {**reference.manifest.parameters, **added}
    figures = made.manifest.validation["pneumonia"]
    assert (figures.positives, figures.negatives) == (6, 6)
    assert figures.dataset == "D-phantoms, test part, 6 patients"
    # The same figures as the trainer's own, on one thread.
    assert XrayTrainer().evaluate(made, corpus) == result.int8.scores
    with pytest.raises(ModelError, match="is int8 already"):
        bench(task(made, corpus, tmp_path / "again"))
    with pytest.raises(ModelError, match="cannot be trained on"):
        XrayTrainer().train(_training(made, corpus, tmp_path / "run"), None)


def _training(base, corpus, directory: Path) -> TrainingTask:
    recipe: Recipe = {"epochs": 1}
    return TrainingTask(
        run_id="R-1",
        dataset=corpus,
        base=base,
        recipe=recipe,
        run_directory=str(directory),
        limits=Limits(),
        device=Device(),
    )


def test_one_that_is_not_taken_leaves_nothing(reference, corpus, tmp_path, unchanged):
    unchanged(10.0, 10.0)
    lost = {next(e.path for e in corpus.examples if e.split == split) for split in ("train", "validation")}
    odd = changed(
        corpus,
        lambda e: e.model_copy(
            update={
                "path": str(tmp_path / "gone") if e.path in lost else e.path,
                "labels": {"pneumonia": 1} if e.split == "test" else e.labels,
            }
        ),
    )
    result = bench(task(reference, odd, tmp_path))
    assert (result.taken, result.model_directory, list(tmp_path.iterdir())) == (False, "", [])
    assert result.int8.scores.split == "validation and test"
    lacking, unreadable = result.notes
    assert "The test part lacks a class" in lacking
    assert unreadable == "1 images could not be read and were left out."


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda e: {"labels": {"effusion": 1}}, "need readable images with pneumonia"),
        (lambda e: {"labels": {"pneumonia": 1}}, "need readable images with pneumonia"),
        (lambda e: {"split": "test"}, "The train part has 0 readable images"),
        (lambda e: {"path": "/nowhere"} if e.split == "train" else {}, "The train part has 0 readable images"),
    ],
)
def test_images_that_do_not_suffice_are_named(reference, corpus, tmp_path, change, says):
    with pytest.raises(DatasetError, match=says):
        bench(task(reference, changed(corpus, lambda e: e.model_copy(update=change(e))), tmp_path))


def test_without_images_there_is_its_speed_and_size_alone(reference, tmp_path):
    result = bench(task(reference, None, tmp_path))
    assert (result.int8, result.taken, result.reason) == (None, False, "")
    assert result.original.milliseconds > 0
    assert result.original.scores is None
