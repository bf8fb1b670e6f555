"""Training of the tail when something goes wrong: memory, a loss without a value, a full disk; and its record."""

from __future__ import annotations

import csv
import errno
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from clinic_ai.contract import Device, Limits, TrainingTask
from clinic_ai.describing import DescribeTask
from clinic_ai.errors import DatasetError, HomeError, ModelError
from clinic_ai.ml import checkpoints
from clinic_ai_xray import training
from clinic_ai_xray.network import IntensiveNetwork
from clinic_ai_xray.recipe import DEFAULTS, TailRecipe
from clinic_ai_xray.tail import Standardisation, Tail
from clinic_ai_xray.tiers import FAST, INTENSIVE
from clinic_ai_xray.trainer import XrayTrainer
from clinic_ai_xray.training import FEWEST_NORMED, Labelled, TailTraining

ROWS = 24


class Rows:
    """Activations of random images, as the cache gives them; ``fail`` is asked before each taking."""

    def __init__(self, tier, seed: int) -> None:
        shape = (ROWS, 2, int(np.prod(tier.cached_shape)))
        self._values = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
        self.views, self.taken, self.fail = 2, [], lambda rows: None

    def __len__(self) -> int:
        return ROWS

    def take(self, rows, views):
        self.fail(len(rows))
        self.taken.append(len(rows))
        return self._values[rows, views]

    def view(self, number):
        yield self._values[:, number]


@pytest.fixture
def training_in(small):
    """A function: a training of the small tier on random activations, with its checkpoints in a folder."""

    def make(folder, fail=lambda _: None, **recipe):
        labels = np.tile(np.array([0, 1], dtype=np.float32), ROWS // 2)
        parts = [Labelled(Rows(small, seed), labels) for seed in (1, 2)]
        parts[0].activations.fail = fail
        torch.manual_seed(0)
        initial = Tail(small, Standardisation.none(small)).weights()
        chosen = TailRecipe.parse({"tier": small.name, "epochs": 3, "batch": 8, "rate": 1e-3, "views": 2, **recipe})
        made = TailTraining(*parts, chosen, folder, "one", initial, Standardisation.none(small))
        return made, parts[0].activations

    return make


def run(made, report=lambda *_: None, stop=lambda: False):
    return made.run(report, lambda _: None, stop)


def same(one, other) -> bool:
    return one.history == other.history and all(np.array_equal(one.best[name], other.best[name]) for name in one.best)


def no_memory_for(most: int):
    def fail(rows: int) -> None:
        if rows > most:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:116] . DefaultCPUAllocator: can't allocate memory: …")

    return fail


def test_memory_that_does_not_suffice_halves_the_portion_and_keeps_the_step(tmp_path, training_in):
    made, rows = training_in(tmp_path / "short", no_memory_for(2), accumulation=2)
    state = run(made)
    assert made.steps_per_epoch == 2  # 24 images, sixteen a step
    assert set(rows.taken) == {2}
    assert made.rescue.notes == (
        "Memory did not suffice for 8 images at once; it went on with 4.",
        "Memory did not suffice for 4 images at once; it went on with 2.",
    )
    assert made.rows_learned == 3 * ROWS
    assert all(np.isfinite(weights).all() for weights in state.best.values())
    resumed, _ = training_in(tmp_path / "short", accumulation=2)
    assert resumed.rescue.portions.rows == 2
    with pytest.raises(ModelError, match="one image at a time"):
        run(training_in(tmp_path / "none", no_memory_for(0))[0])


def norms(tail):
    return {name: value.clone() for name, value in tail.named_buffers() if "running" in name}


def test_in_portions_the_running_statistics_move_as_far_and_the_weights_nearly_so(tmp_path, training_in):
    """All images alike: a portion has the mean of the step, and its variance but for the degrees of freedom."""
    whole, alike = training_in(tmp_path / "whole", batch=8)
    parts, others = training_in(tmp_path / "parts", no_memory_for(4), batch=8)
    fresh, _ = training_in(tmp_path / "fresh")
    for made, rows in ((whole, alike), (parts, others)):
        rows._values[:] = rows._values[0, 0]
        made._tail.head.dropout.p = 0.0
        made.run(lambda *_: None, lambda _: None, iter([False, True]).__next__)
    fresh, before, after = norms(fresh._tail), norms(whole._tail), norms(parts._tail)
    assert parts.rescue.portions.rows == 4
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=1e-2 if name.endswith("var") else 1e-4, atol=1e-4)
        assert (value - fresh[name]).abs().max() > 2e-2
    for name, value in whole._tail.weights().items():
        if "running" not in name:
            np.testing.assert_allclose(parts._tail.weights()[name], value, atol=1e-4, err_msg=name)


def test_of_too_few_images_no_statistics_are_taken(tmp_path, training_in):
    made, _ = training_in(tmp_path, no_memory_for(FEWEST_NORMED - 2), batch=8)
    before = norms(made._tail)
    made.run(lambda *_: None, lambda _: None, iter([False, True]).__next__)
    assert all(torch.equal(before[name], value) for name, value in norms(made._tail).items())
    moved, _ = training_in(tmp_path / "moved", no_memory_for(FEWEST_NORMED), batch=8)
    moved.run(lambda *_: None, lambda _: None, iter([False, True]).__next__)
    assert not any(torch.equal(before[name], value) for name, value in norms(moved._tail).items())


def test_a_step_that_begins_anew_leaves_no_trace_of_its_first_attempt(tmp_path, training_in):
    """Memory fails at the second portion of a step; the first had moved statistics and drawn what to drop."""
    failed = []

    def fail(rows: int) -> None:
        failed.append(rows)
        if len(failed) == 2:
            raise MemoryError

    short, _ = training_in(tmp_path / "short", fail, batch=8, accumulation=2)
    always, _ = training_in(tmp_path / "always", batch=4, accumulation=4)
    assert same(run(short), run(always))


@pytest.mark.parametrize("stop_at", [1, 2, 4, 7])
def test_a_training_that_is_stopped_at_any_step_goes_on_bit_for_bit(tmp_path, training_in, stop_at):
    whole = run(training_in(tmp_path / "whole")[0])
    asked = iter(range(1000))
    stopped = run(training_in(tmp_path / "torn")[0], stop=lambda: next(asked) >= stop_at)
    assert stopped.epoch * 3 + stopped.step == stop_at
    assert same(run(training_in(tmp_path / "torn")[0]), whole)


@pytest.mark.parametrize(("every", "step"), [(60.0, 0), (-1.0, 1)])
def test_one_that_died_goes_on_from_its_checkpoint_bit_for_bit(tmp_path, training_in, monkeypatch, every, step):
    monkeypatch.setattr(training, "_SAVED_EVERY_S", every)
    whole = run(training_in(tmp_path / "whole")[0])

    class Died(BaseException):
        pass

    def die(epoch, step, _):
        if (epoch, step) == (2, 2):
            raise Died

    with pytest.raises(Died):
        run(training_in(tmp_path / "torn")[0], die)
    resumed, _ = training_in(tmp_path / "torn")
    assert (resumed.state.epoch, resumed.state.step) == (1, step)
    assert same(run(resumed), whole)


def test_a_loss_that_is_no_number_goes_back_with_half_the_rate(tmp_path, training_in, monkeypatch):
    real, asked, wrong = training.functional.binary_cross_entropy_with_logits, [], {5}

    def loss(*words, **options):
        asked.append(1)
        found = real(*words, **options)
        return found * float("nan") if len(asked) in wrong else found

    monkeypatch.setattr(training.functional, "binary_cross_entropy_with_logits", loss)
    made, _ = training_in(tmp_path / "once")
    state = run(made)
    assert made.rescue.rate == 0.5
    assert "the loss of step 2 of epoch 2 was no finite number" in made.notes[0]
    assert all(np.isfinite(weights).all() for weights in state.best.values())
    assert training_in(tmp_path / "once")[0].rescue.rate == 0.5
    wrong.update(range(1, 999))
    with pytest.raises(ModelError, match="Training does not hold"):
        run(training_in(tmp_path / "always")[0])


def test_a_full_disk_is_an_error_in_words_and_nothing_is_lost(tmp_path, training_in, monkeypatch):
    whole = run(training_in(tmp_path / "whole")[0])
    made, _ = training_in(tmp_path / "torn")

    def fill(epoch, step, _):
        if (epoch, step) == (2, 3):
            monkeypatch.setattr(checkpoints.os, "fsync", full)

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(HomeError, match="The disk is full: the checkpoint after epoch 2"):
        run(made, fill)
    monkeypatch.undo()
    assert same(run(training_in(tmp_path / "torn")[0]), whole)


def test_fewer_digits_change_little(tmp_path, training_in, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    whole = run(training_in(tmp_path / "whole")[0])
    fewer = run(training_in(tmp_path / "fewer", precision="bfloat16")[0])
    assert 0 < abs(fewer.history[-1]["loss"] - whole.history[-1]["loss"]) < 0.1
    with pytest.raises(DatasetError, match="float16 needs a GPU"):
        training_in(tmp_path / "none", precision="float16")


def test_patience_of_zero_goes_to_the_last_epoch(tmp_path, training_in):
    assert len(run(training_in(tmp_path / "ends", epochs=9, patience=1, rate=0.5)[0]).history) < 9
    assert len(run(training_in(tmp_path / "not", epochs=9, patience=0, rate=0.5)[0]).history) == 9


# ---------------------------------------------------------------- the run around it


class Quiet:
    """Takes reports; asks to stop when it was asked so often itself."""

    def __init__(self, most: int | None = None) -> None:
        self.seen, self._most, self._asked = [], most, 0

    def report(self, progress):
        self.seen.append(progress)

    def stop_requested(self):
        self._asked += 1
        return self._most is not None and self._asked > self._most


@pytest.fixture(scope="module")
def few(corpus):
    """Fewer of the phantoms."""
    parts = {split: [e for e in corpus.examples if e.split == split] for split in ("train", "validation", "test")}
    return corpus.model_copy(update={"examples": (*parts["train"][:16], *parts["validation"][:6], *parts["test"][:4])})


def task_in(directory, dataset, **recipe):
    directory.mkdir(exist_ok=True)
    return TrainingTask(
        run_id="R-3",
        dataset=dataset,
        base=None,
        recipe={"epochs": 4, "batch": 8, "error": 0.3, **recipe},
        run_directory=str(directory),
        limits=Limits(),
        device=Device(),
    )


def table(path):
    with path.open(newline="") as stream:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]


def test_tables_are_there_while_it_goes_on_and_the_end_is_told_again(tmp_path, few, monkeypatch):
    task = task_in(tmp_path / "run", few)
    progress = Quiet(26 + 2 * 2 + 1)  # images, then two steps an epoch
    stopped = XrayTrainer().train(task, progress)
    assert (stopped.state, len(stopped.history)) == ("stopped", 2)
    assert table(tmp_path / "run" / "training_history.csv") == list(stopped.history)
    computed = [seen.pf_days for seen in progress.seen]
    assert computed == sorted(computed)
    assert computed[-1] > 0
    done = XrayTrainer().train(task, Quiet())
    assert "Went on after epoch 2, 1 steps into the next." in done.notes
    best = json.loads((tmp_path / "run" / "training_summary.json").read_text())["best_epoch"]
    assert table(tmp_path / "run" / "best_results.csv")[-1]["epoch"] == best
    model = tmp_path / "run" / "model" / "model.toml"
    before = model.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("clinic_ai_xray.run.compute_parts", lambda *_: pytest.fail("looked again"))
        assert XrayTrainer().train(task, Quiet()) == done
    assert model.read_bytes() == before
    shutil.rmtree(model.parent)
    assert XrayTrainer().train(task, Quiet()).scores == done.scores


def test_the_recipe_says_how_much_disk_it_takes(few):
    one, many = (XrayTrainer().plan(few, Limits(), {"keep": keep}) for keep in (1, 50))
    assert one.disk_mb + 49 * 1.5 < many.disk_mb
    assert one.pf_days == many.pf_days
    halved = XrayTrainer().plan(few, Limits(), {"batch": 4, "accumulation": 2, "epochs": 3})
    assert halved.steps == 3 * 2


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"patience": -1}, "patience is at least 0"),
        ({"keep": 0}, "keep is at least 1"),
        ({"accumulation": 0}, "accumulation is"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_named(values, says):
    with pytest.raises(DatasetError, match=says):
        TailRecipe.parse(values)


def test_what_changes_nothing_that_is_trained_is_no_other_run():
    recipe = next(iter(DEFAULTS.values()))
    assert replace(recipe, keep=9, error=0.2).trained_by() == recipe.trained_by()
    assert replace(recipe, precision="bfloat16").trained_by() != recipe.trained_by()


# ---------------------------------------------------------------- described before it is loaded


def describe(model, **recipe):
    return XrayTrainer().describe(DescribeTask(model=model, recipe=recipe, limits=Limits()))


def test_a_model_is_described_by_its_layers(reference, small):
    fast = describe(reference)
    assert (fast.trained, fast.batch) == (FAST.tail_numbers, 64)
    assert [group.name for group in fast.groups if group.trained] == ["head.hidden", "head.out"]
    assert sum(group.parameters for group in fast.groups) == fast.parameters
    assert fast.fits
    parameters = {**reference.manifest.parameters, "tier": small.name}
    intensive = reference.model_copy(
        update={"manifest": reference.manifest.model_copy(update={"parameters": parameters})}
    )
    other = describe(intensive, batch=16)
    assert {group.name.split(".")[0] for group in other.groups if group.trained} == {"top", "head"}
    assert other.memory.activations == 2 * describe(intensive, batch=8).memory.activations > 0
    with pytest.raises(ModelError, match=f"of the tier {small.name}, the recipe asks for fast"):
        describe(intensive, tier="fast")
    with pytest.raises(DatasetError, match="no key layers"):
        describe(reference, layers=3)


def test_the_intensive_tier_counts_what_it_trains():
    network = IntensiveNetwork()
    trained = sum(weights.numel() for part in (network.top, network.head) for weights in part.parameters())
    assert trained == INTENSIVE.tail_numbers
