"""int8 versions: what of a model they keep, when they are taken, and what is refused in words."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from clinic_ai.benching import BenchTask, Measured
from clinic_ai.contract import Device, Limits, Recipe, Scores, TrainingTask
from clinic_ai.errors import DatasetError, ModelError
from clinic_ai.ml.model_files import open_model, write_manifest
from clinic_ai.ml.onnx import halve_weights
from clinic_ai.training.formats import check_file
from clinic_ai_xray import bench as module
from clinic_ai_xray import distance
from clinic_ai_xray.bench import bench, decide, speed
from clinic_ai_xray.data import read_input, stack
from clinic_ai_xray.quantise import quantise
from clinic_ai_xray.served import ServedModel, pinned_bytes
from clinic_ai_xray.trainer import XrayTrainer


def with_distance(content: bytes, buffers: dict[str, np.ndarray]) -> bytes:
    """Return a graph that tells the distance of its features; what told one before does so under another name."""
    model = onnx.load_model_from_string(content)
    graph = model.graph
    for tensor in graph.initializer:
        tensor.name = tensor.name.replace("distance", "before")
    for node in graph.node:
        node.input[:] = [name.replace("distance", "before") for name in node.input]
        node.output[:] = [name.replace("distance", "before") for name in node.output]
    kept = [output for output in graph.output if output.name != "distance"]
    del graph.output[:], graph.value_info[:]
    told = onnx.helper.make_tensor_value_info("distance", onnx.TensorProto.FLOAT, ["batch"])
    graph.output.extend([*kept, told])
    for name, value in buffers.items():
        graph.initializer.append(onnx.numpy_helper.from_array(value, f"distance.features.{name}"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "axis"))
    for operation, inputs, output in (
        ("Sub", ["features", "distance.features.mean"], "off"),
        ("MatMul", ["off", "distance.features.directions"], "along"),
        ("ReduceSumSquare", ["off", "axis"], "all"),
        ("ReduceSumSquare", ["along", "axis"], "explained"),
        ("Mul", ["all", "distance.features.rest"], "scaled"),
        ("Sub", ["scaled", "explained"], "form"),
        ("Relu", ["form"], "distance"),
    ):
        keep = {"keepdims": 0} if operation.startswith("Reduce") else {}
        graph.node.append(onnx.helper.make_node(operation, inputs, [output], name=f"distance {output}", **keep))
    return model.SerializeToString()


def model_in(directory: Path, content: bytes, manifest):
    path = directory / "model.onnx"
    path.write_bytes(content)
    write_manifest(directory, manifest, [path])
    return open_model(directory)


@pytest.fixture(scope="module")
def original(reference, corpus, tmp_path_factory):
    """The reference model with its base in float16, and a distance that is fitted to phantoms."""
    served = ServedModel(reference, Device())
    train, apart = (
        np.concatenate(
            [
                served.activations(read_input(e.path, served.side)[None, None])["features"]
                for e in corpus.examples
                if e.split == split
            ]
        )
        for split in ("train", "validation")
    )
    halved = onnx.load_model_from_string(pinned_bytes(reference))
    halve_weights(halved, "base.")
    content = with_distance(halved.SerializeToString(), distance.fit(train, apart))
    return model_in(tmp_path_factory.mktemp("original"), content, reference.manifest)


@pytest.fixture(scope="module")
def int8(original, corpus, tmp_path_factory):
    """The same in int8, calibrated on a dozen phantoms."""
    train = [example for example in corpus.examples if example.split == "train"][:12]
    content = quantise(pinned_bytes(original), stack([read_input(e.path, 128) for e in train]))
    manifest = original.manifest.model_copy(update={"version": "1-int8"})
    return model_in(tmp_path_factory.mktemp("int8"), content, manifest)


def task(model, dataset, directory: Path, threads: int = 1) -> BenchTask:
    return BenchTask(
        model=model, dataset=dataset, directory=str(directory), limits=Limits(), device=Device(threads=threads)
    )


def changed(corpus, change):
    return corpus.model_copy(update={"examples": tuple(change(e) for e in corpus.examples)})


# ---------------------------------------------------------------- the graph


def test_the_logits_are_those_of_the_original(original, int8, corpus):
    one, other = ServedModel(original, Device()), ServedModel(int8, Device())
    test = [example for example in corpus.examples if example.split != "train"]
    images = stack([read_input(example.path, one.side) for example in test])
    before, after = one.logits(images), other.logits(images)
    assert np.corrcoef(before, after)[0, 1] > 0.95
    assert np.abs(before - after).mean() < 0.1 * before.std()


def test_metadata_and_all_that_is_not_a_convolution_stay(original, int8):
    before, after = (onnx.load_model_from_string(pinned_bytes(model)) for model in (original, int8))
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


def test_it_is_small_and_holds_no_place_of_this_machine(original, int8):
    (before,), (after,) = original.manifest.files, int8.manifest.files
    assert after.size_bytes < 0.7 * before.size_bytes  # which is in float16 for the most part
    content = (Path(int8.directory) / after.name).read_bytes()
    assert tempfile.gettempdir().encode() not in content
    check_file(Path(int8.directory) / after.name, {after.name})


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x0a"])
def test_what_is_no_model_is_refused_in_words(content):
    with pytest.raises(ModelError, match="int8"):
        quantise(content, np.zeros((1, 1, 128, 128), dtype=np.float32))


def test_a_damaged_model_is_refused_in_words(original, corpus, tmp_path):
    file = original.manifest.files[0]
    (tmp_path / file.name).write_bytes(pinned_bytes(original)[:-1000])
    damaged = original.model_copy(update={"directory": str(tmp_path)})
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


def test_models_take_turns_and_each_has_its_own_time(original):
    turns = []

    class Turn(ServedModel):
        def judge(self, image):
            turns.append(self)
            return super().judge(image)

    models = [Turn(original, Device()) for _ in range(2)]
    found = speed(models, np.zeros((128, 128), dtype=np.float32), rounds=3)
    assert all(0 < milliseconds < 1000 for milliseconds in found)
    assert {frozenset(map(id, turns[at : at + 2])) for at in range(0, len(turns), 2)} == {frozenset(map(id, models))}


# ---------------------------------------------------------------- the whole way


@pytest.fixture
def unchanged(monkeypatch):
    """int8 versions that are the original: what becomes of one does not depend on its numbers."""
    monkeypatch.setattr(module, "quantise", lambda content, _: content)
    return lambda *milliseconds: monkeypatch.setattr(module, "speed", lambda *_: list(milliseconds))


def test_one_that_is_taken_is_a_candidate_with_figures_of_its_own(original, corpus, tmp_path, unchanged):
    unchanged(10.0, 5.0)
    result = XrayTrainer().bench(task(original, corpus, tmp_path, threads=2))
    assert result.taken
    assert (result.difference, result.difference_interval, result.agreement) == (0.0, (0.0, 0.0), 1.0)
    assert result.notes == ()
    assert result.original.size_bytes == result.int8.size_bytes == original.manifest.files[0].size_bytes
    made = open_model(Path(result.model_directory))
    assert (made.manifest.version, made.manifest.quantisation) == (f"{original.ref.version}-int8", "int8")
    assert (made.manifest.reference, made.manifest.clinical_use) == (False, False)
    added = {"quantised": "int8", "quantised_from": original.ref.digest}
    assert made.manifest.parameters == {**original.manifest.parameters, **added}
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


def test_one_that_is_not_taken_leaves_nothing(original, corpus, tmp_path, unchanged):
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
    result = bench(task(original, odd, tmp_path))
    assert (result.taken, result.model_directory, list(tmp_path.iterdir())) == (False, "", [])
    assert result.int8.scores.split == "validation and test"
    lacking, unreadable = result.notes
    assert "The test part lacks a class" in lacking
    assert unreadable == "1 images could not be read and were left out."


def test_the_distance_is_fitted_to_what_int8_makes_of_the_images(
    original, int8, corpus, tmp_path, unchanged, monkeypatch
):
    unchanged(10.0, 5.0)
    monkeypatch.setattr(module, "decide", lambda *_: (True, "It is taken."))
    monkeypatch.setattr(module, "quantise", lambda *_: pinned_bytes(int8))
    monkeypatch.setattr(module, "difference_interval", lambda *_: (-0.02, 0.01))
    result = bench(task(original, corpus, tmp_path))
    before, after = ServedModel(int8, Device()), ServedModel(open_model(Path(result.model_directory)), Device())
    images = [read_input(e.path, before.side) for e in corpus.examples if e.split == "test"]
    refused = [np.mean([model.judge(image).distance > 1 for image in images]) for model in (before, after)]
    assert refused[1] < refused[0]
    assert refused[1] == result.int8.scores.values["refused"]
    assert result.notes == ("These images are too few to rule out that int8 loses 0.005 of the AUROC or more.",)
    np.testing.assert_array_equal(before.logits(stack(images)), after.logits(stack(images)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda e: {"labels": {"effusion": 1}}, "need readable images with pneumonia"),
        (lambda e: {"labels": {"pneumonia": 1}}, "need readable images with pneumonia"),
        (lambda e: {"split": "test"}, "The train part has 0 readable images"),
        (lambda e: {"path": "/nowhere"} if e.split == "train" else {}, "The train part has 0 readable images"),
    ],
)
def test_images_that_do_not_suffice_are_named(original, corpus, tmp_path, change, says):
    with pytest.raises(DatasetError, match=says):
        bench(task(original, changed(corpus, lambda e: e.model_copy(update=change(e))), tmp_path))


def test_without_images_there_is_its_speed_and_size_alone(original, tmp_path):
    result = bench(task(original, None, tmp_path))
    assert (result.int8, result.taken, result.reason) == (None, False, "")
    assert result.original.milliseconds > 0
    assert result.original.scores is None
