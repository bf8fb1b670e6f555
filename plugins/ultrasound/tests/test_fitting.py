"""Fitting: the cache changes nothing, an interruption changes nothing, and what goes wrong is helped."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from corpus import make_dataset, nowhere
from tiny import make_base

from clinic_ai.contract import Device
from clinic_ai.errors import DatasetError, ModelError
from clinic_ai.ml.rescue import Portions, is_cuda_error, is_out_of_memory
from clinic_ai_ultrasound import fitting, laying
from clinic_ai_ultrasound.collating import collate, encode
from clinic_ai_ultrasound.features import Stopped, compute_features, key_of
from clinic_ai_ultrasound.fitting import AdapterFit, add_adapter, forward
from clinic_ai_ultrasound.laying import Room, is_laid_aside
from clinic_ai_ultrasound.loading import load_base
from clinic_ai_ultrasound.pictures import picture
from clinic_ai_ultrasound.recipe import AdapterRecipe

RECIPE = AdapterRecipe(epochs=3, rate=1e-2, batch=2, accumulation=2, patience=3)


@pytest.fixture(scope="module")
def dataset(picture_file):
    return make_dataset(picture_file)


@pytest.fixture
def base(tiny):
    """A base of its own, for an adapter to be put over."""
    return load_base(tiny, Device())


@pytest.fixture(scope="module")
def features(tiny, dataset, tmp_path_factory):
    cache = tmp_path_factory.mktemp("features")
    return compute_features(load_base(tiny, Device()), dataset.examples, cache, 4096, lambda _: None, lambda: False)


def rows_of(base, dataset, split):
    return [
        encode(base, key_of(base, example.sha256, pair.question), pair)
        for example in dataset.examples
        if example.split == split
        for pair in example.pairs
    ]


@pytest.fixture
def fit_in(tiny, dataset, features):
    """A function: a fit over a fresh base, with its checkpoints in a folder."""

    def make(folder, recipe=RECIPE, fingerprint="one") -> AdapterFit:
        base = load_base(tiny, Device())
        train, validation = (rows_of(base, dataset, split) for split in ("train", "validation"))
        return AdapterFit(base, train, validation, features, recipe, folder, fingerprint)

    return make


def run(fit: AdapterFit, stop=lambda: False):
    return fit.run(lambda *_: None, lambda _: None, stop)


def gradients(base, loss) -> dict[str, torch.Tensor]:
    loss.backward()
    found = {n: p.grad.clone() for n, p in base.model.named_parameters() if p.requires_grad}
    base.model.zero_grad()
    return found


@pytest.mark.parametrize("family", ["blip2", "instructblip"])
def test_loss_and_gradients_with_the_cache_are_those_without(tmp_path, dataset, family):
    base = load_base(make_base(tmp_path / "base", family=family), Device())
    rows = rows_of(base, dataset, "train")[:3]  # three questions of one image
    features = compute_features(base, dataset.examples[:1], tmp_path, 4096, lambda _: None, lambda: False)
    assert len(features) == (1 if family == "blip2" else 3)
    add_adapter(base, RECIPE)
    for name, weights in base.model.named_parameters():
        if "lora_B" in name:  # zero at first, where the gradients of the other half would be zero, too
            torch.nn.init.normal_(weights, std=0.3)
    base.model.eval()
    base.model.language_model.train()
    example = dataset.examples[0]
    pixels = base.processor.image_processor(picture(example.path), return_tensors="pt")["pixel_values"]
    for row, pair in zip(rows, example.pairs, strict=True):
        batch = collate(base, [row])
        torch.manual_seed(7)
        cached = forward(base, batch, features.of([row.features], base.device)).loss
        read = {}
        if family == "instructblip":
            words = base.processor.qformer_tokenizer(f"Question: {pair.question} Answer:", return_tensors="pt")
            read = {"qformer_input_ids": words["input_ids"], "qformer_attention_mask": words["attention_mask"]}
        torch.manual_seed(7)
        plain = base.model(
            pixel_values=pixels, input_ids=batch.tokens, attention_mask=batch.mask, labels=batch.labels, **read
        ).loss
        assert cached.item() == pytest.approx(plain.item(), abs=1e-6)
        ours, theirs = gradients(base, cached), gradients(base, plain)
        assert max(one.abs().max() for one in theirs.values()) > 1e-3
        for name, expected in theirs.items():
            assert torch.allclose(ours[name], expected, rtol=1e-4, atol=1e-6), name


def test_features_are_computed_once_and_taken_up_again(tmp_path, base, dataset, features, monkeypatch):
    first = compute_features(base, dataset.examples, tmp_path, 4096, lambda _: None, lambda: False)
    (shard,) = tmp_path.iterdir()
    monkeypatch.setattr("clinic_ai_ultrasound.features.look", lambda *_: pytest.fail("computed again"))
    again = compute_features(base, dataset.examples, tmp_path, 0, lambda _: None, lambda: False)
    assert (first.in_memory, again.in_memory) == (True, False)
    assert len(first) == len(again) == len({e.sha256 for e in dataset.examples})
    assert all(torch.equal(first[key], again[key]) and torch.equal(first[key], features[key]) for key in first)
    shard.write_bytes(shard.read_bytes()[:-9])
    monkeypatch.undo()
    mended = compute_features(base, dataset.examples, tmp_path, 4096, lambda _: None, lambda: False)
    assert all(torch.equal(mended[key], features[key]) for key in features)


def test_features_stop_and_leave_unreadable_images_out(tmp_path, base, dataset):
    with pytest.raises(Stopped):
        compute_features(base, dataset.examples, tmp_path, 4096, lambda _: None, lambda: True)
    gone = [nowhere(dataset.examples[0], tmp_path), dataset.examples[1]]
    found = compute_features(base, gone, tmp_path, 4096, lambda _: None, lambda: False)
    assert list(found) == [gone[1].sha256]
    with pytest.raises(DatasetError, match="None of the images"):
        compute_features(base, gone[:1], tmp_path, 4096, lambda _: None, lambda: False)


def test_only_the_language_model_is_adapted(base):
    add_adapter(base, RECIPE)
    names = [name for name, weights in base.model.named_parameters() if weights.requires_grad]
    assert len(names) == 2 * 2 * 2  # layers, projections, halves
    assert all(name.startswith("language_model.") and ".lora_" in name for name in names)


def same(one, other) -> bool:
    return all(np.array_equal(one.best[name], other.best[name]) for name in one.best) and one.history == other.history


@pytest.mark.parametrize("stop_at", [1, 3, 5, 8])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, fit_in, stop_at):
    """Five steps an epoch: it is stopped in the middle of one and at its end."""
    whole = run(fit_in(tmp_path / "whole"))
    asked = iter(range(1000))
    stopped = run(fit_in(tmp_path / "torn"), lambda: next(asked) >= stop_at)
    assert (stopped.epoch * 5 + stopped.step, stopped.finished) == (stop_at, False)
    assert same(run(fit_in(tmp_path / "torn")), whole)


@pytest.mark.parametrize(("every", "step"), [(60.0, 0), (-1.0, 2)])
def test_a_run_that_died_goes_on_from_its_checkpoint_bit_for_bit(tmp_path, fit_in, monkeypatch, every, step):
    monkeypatch.setattr(fitting, "_SAVED_EVERY_S", every)
    whole = run(fit_in(tmp_path / "whole"))

    class Died(BaseException):
        pass

    def die(epoch, step, _):
        if (epoch, step) == (2, 3):
            raise Died

    with pytest.raises(Died):
        fit_in(tmp_path / "torn").run(die, lambda _: None, lambda: False)
    resumed = fit_in(tmp_path / "torn")
    assert (resumed.state.epoch, resumed.state.step) == (1, step)
    assert same(run(resumed), whole)


def test_a_checkpoint_of_another_run_is_not_taken_up(tmp_path, fit_in):
    run(fit_in(tmp_path))
    assert fit_in(tmp_path, fingerprint="other").state.epoch == 0


def test_the_best_epoch_is_kept(tmp_path, fit_in):
    """At such a rate it soon gets worse; the weights are those of the best epoch, and patience ends it."""
    fit = fit_in(tmp_path, AdapterRecipe(epochs=30, rate=0.5, patience=2))
    state = run(fit)
    losses = [entry[fitting.VALIDATION_LOSS] for entry in state.history]
    assert state.best_epoch == losses.index(min(losses)) + 1
    assert len(losses) == state.best_epoch + 2
    rows = rows_of(fit._base, make_dataset(lambda number: number), "validation")
    assert fit.judge(rows)[0] == pytest.approx(min(losses))


# ---------------------------------------------------------------- what goes wrong


def failing(monkeypatch, *errors: Exception) -> list[int]:
    """Let the first calls of the model raise these errors; return how many rows each later call had."""
    left, seen, real = list(errors), [], fitting.forward

    def forward(base, batch, given, **loss):
        if left:
            raise left.pop(0)
        seen.append(len(batch.tokens))
        return real(base, batch, given, **loss)

    monkeypatch.setattr(fitting, "forward", forward)
    return seen


NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:116] . DefaultCPUAllocator: can't allocate memory: you tried to …"),
    MemoryError(),
]


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: type(error).__name__)
def test_memory_that_does_not_suffice_halves_the_batch_and_keeps_the_step(tmp_path, fit_in, monkeypatch, error):
    recipe = AdapterRecipe(epochs=1, rate=1e-2, batch=4, dropout=0.0)
    whole = run(fit_in(tmp_path / "whole", recipe))
    seen = failing(monkeypatch, error)
    fit = fit_in(tmp_path / "short", recipe)
    state = run(fit)
    assert seen[:10] == [2, 2] * 4 + [2] + [8]  # 18 answers: four steps of four, one of two; then validation
    assert fit.rescue.portions.notes == ["Memory did not suffice for 4 answers at once; it went on with 2."]
    assert state.history[0]["loss"] == pytest.approx(whole.history[0]["loss"], rel=1e-5)
    for name, weights in whole.best.items():
        np.testing.assert_allclose(state.best[name], weights, atol=1e-4)


def test_memory_that_does_not_suffice_for_one_is_an_error_in_words(tmp_path, fit_in, monkeypatch):
    failing(monkeypatch, *[MemoryError()] * 3)
    with pytest.raises(ModelError, match="one answer at a time") as caught:
        run(fit_in(tmp_path, AdapterRecipe(batch=4)))
    assert "max_memory_mb" in caught.value.remedy


def test_a_gpu_that_fails_once_goes_on_from_the_newest_checkpoint(tmp_path, fit_in, monkeypatch):
    whole = run(fit_in(tmp_path / "whole"))
    fit, failed = fit_in(tmp_path / "torn"), []

    def fail(epoch, step, _):
        if (epoch, step) == (2, 2) and not failed:
            failed.append(step)
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    state = fit.run(fail, lambda _: None, lambda: False)
    assert fit.notes == ("The GPU failed; the run went on once more from its newest checkpoint.",)
    assert same(state, whole)
    failing(monkeypatch, *[torch.AcceleratorError("CUDA error: unspecified launch failure")] * 2)
    with pytest.raises(ModelError, match="failed twice"):
        run(fit_in(tmp_path / "other"))


def test_other_errors_are_not_taken_for_these():
    for error in NO_MEMORY:
        assert is_out_of_memory(error)
        assert not is_cuda_error(error)
    other = ValueError("out of memory")
    assert not is_out_of_memory(other)
    assert not is_cuda_error(RuntimeError("size mismatch"))
    with pytest.raises(ValueError, match="out of memory"):
        Portions(4).each([1, 2], lambda _: (_ for _ in ()).throw(other))


def test_a_portion_that_was_halved_stays_so_in_the_next_process(tmp_path, fit_in, monkeypatch):
    recipe = AdapterRecipe(epochs=2, rate=1e-2, batch=4)
    seen = failing(monkeypatch, MemoryError())

    class Died(BaseException):
        pass

    def die(*_):
        raise Died

    with pytest.raises(Died):
        fit_in(tmp_path, recipe).run(die, lambda _: None, lambda: False)
    seen.clear()
    resumed = fit_in(tmp_path, recipe)
    assert (resumed.state.step, resumed.rescue.portions.rows) == (1, 2)
    run(resumed)
    assert max(seen[:6]) == 2


class Diverging:
    """Lets the loss of some steps be no number, by their order."""

    def __init__(self, monkeypatch, *steps: int) -> None:
        self._real, self._steps, self._asked = fitting.forward, steps, 0
        monkeypatch.setattr(fitting, "forward", self)

    def __call__(self, base, batch, given, **loss):
        output = self._real(base, batch, given, **loss)
        if loss:
            self._asked += 1
            if self._asked in self._steps:
                output.loss = output.loss * float("nan")
        return output


def test_a_loss_that_is_no_number_goes_back_with_half_the_rate(tmp_path, fit_in, monkeypatch):
    recipe = AdapterRecipe(epochs=2, rate=1e-2, batch=4, patience=0)
    Diverging(monkeypatch, 7)
    fit = fit_in(tmp_path, recipe)
    state = run(fit)
    assert fit.rescue.rate == 0.5
    assert "the loss of step 2 of epoch 2 was no finite number" in fit.notes[0]
    assert all(np.isfinite(weights).all() for weights in state.best.values())
    assert fit_in(tmp_path, recipe).rescue.rate == 0.5
    Diverging(monkeypatch, *range(1, 99))
    with pytest.raises(ModelError, match="Training does not hold: the loss of step 1 of epoch 1"):
        run(fit_in(tmp_path / "other", recipe))
    again = fit_in(tmp_path / "other", recipe)
    assert (again.rescue.lowered, again.state.step) == (2, 0)


def test_a_curriculum_changes_what_an_epoch_learns_from(tmp_path, fit_in):
    fit = fit_in(tmp_path, AdapterRecipe(epochs=4, rate=1e-2, batch=2, patience=1, curriculum="1:4,2:5"))
    steps = []
    state = fit.run(lambda *place: steps.append(place[:2]), lambda _: None, lambda: False)
    # Of 18 answers 6 are "The image shows the femur.", 6 "In the left half.", 3 "Yes.", 3 "No, it is cut off."
    assert [(entry["stage"], entry["answers"]) for entry in state.history[:3]] == [(1, 9), (2, 18), (3, 18)]
    assert steps[:5] == [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5)]
    assert (fit.steps_after(1), fit.steps_after(2), fit.steps) == (5, 14, 32)
    assert fit.notes[:2] == (
        "Curriculum, stage 1 of 3 from epoch 1: answers of at most 4 words (9 of 18).",
        "Curriculum, stage 2 of 3 from epoch 2: answers of at most 5 words (18 of 18).",
    )


def test_patience_of_zero_goes_to_the_last_epoch(tmp_path, fit_in):
    state = run(fit_in(tmp_path, AdapterRecipe(epochs=5, rate=0.5, batch=6, patience=0)))
    assert len(state.history) == 5


def test_other_targets_are_trained(base):
    with pytest.raises(DatasetError, match="targets name gate_proj; the language model of this base has fc1, fc2"):
        add_adapter(base, AdapterRecipe(targets="gate_proj"))
    adapted = add_adapter(base, AdapterRecipe(targets="out_proj,fc1"))
    names = {name.split(".")[-4] for name, weights in adapted.named_parameters() if weights.requires_grad}
    assert names == {"out_proj", "fc1"}


def test_fewer_digits_change_little(tmp_path, fit_in, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    recipe = {"epochs": 2, "rate": 1e-2, "batch": 4, "dropout": 0.0}
    whole = run(fit_in(tmp_path / "whole", AdapterRecipe(**recipe, precision="float32")))
    fewer = run(fit_in(tmp_path / "fewer", AdapterRecipe(**recipe, precision="bfloat16")))
    assert 0 < abs(fewer.history[-1]["loss"] - whole.history[-1]["loss"]) < 0.1
    assert all(weights.dtype == np.float32 for weights in fewer.best.values())


def test_a_base_that_is_laid_aside_learns_the_same(tmp_path, tiny, loaded, dataset, features, monkeypatch):
    """accelerate brings the weights from the disk, layer by layer, forward and back."""
    monkeypatch.setattr(laying, "_MIB", 1)
    size = sum(weights.numel() * weights.element_size() for weights in loaded.model.parameters())
    found = []
    for room in (None, Room(size // 2, 0, tmp_path / "aside")):
        base = load_base(tiny, Device(), room)
        assert is_laid_aside(base.model) == (room is not None)
        train, validation = (rows_of(base, dataset, split) for split in ("train", "validation"))
        recipe = AdapterRecipe(epochs=1, rate=1e-2, batch=6, dropout=0.0)
        fit = AdapterFit(base, train, validation, features, recipe, tmp_path / str(room is None), "one")
        fit._load({name: np.full_like(value, 0.1) for name, value in fit.state.best.items()})
        found.append(run(fit))
    assert found[1].history[0]["loss"] == pytest.approx(found[0].history[0]["loss"], abs=1e-6)
    for name, weights in found[0].best.items():
        np.testing.assert_allclose(found[1].best[name], weights, atol=1e-6)
