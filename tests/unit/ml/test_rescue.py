"""What goes wrong in a training and is helped: what counts as what, and what a resumed run still knows of it."""

from __future__ import annotations

import pytest
import torch

from clinic_ai.errors import DatasetError, ModelError
from clinic_ai.ml.precision import Computing, refuse_precision
from clinic_ai.ml.rescue import NoMemoryLeft, NotFinite, Portions, Rescue, require_finite

CPU = torch.device("cpu")


class Trouble:
    """Work that goes wrong with these errors, one after the other, and then gives 7."""

    def __init__(self, *errors: Exception) -> None:
        self._errors, self.went_back = list(errors), 0

    def work(self) -> int:
        if self._errors:
            raise self._errors.pop(0)
        return 7

    def go_back(self) -> None:
        self.went_back += 1


def test_a_loss_that_is_not_finite_halves_the_rate_twice_and_then_ends_the_run():
    rescue, trouble = Rescue(8), Trouble(*(NotFinite("the loss", 2, step) for step in (3, 4)))
    assert rescue.attempt(trouble.work, trouble.go_back) == 7
    assert (rescue.rate, trouble.went_back) == (0.25, 2)
    assert rescue.notes[0] == (
        "The training began to diverge: the loss of step 3 of epoch 2 was no finite number. It went on from the newest "
        "checkpoint with 0.5 of the recipe's rate."
    )
    resumed, again = Rescue(8), Trouble(NotFinite("a gradient", 2, 4))
    resumed.load(rescue.state())
    with pytest.raises(
        ModelError, match="a gradient of step 4 of epoch 2 is no finite number, with the rate"
    ) as caught:
        resumed.attempt(again.work, again.go_back)
    assert "lower rate" in caught.value.remedy
    assert again.went_back == 0


def test_what_a_checkpoint_knows_and_what_this_process_learned_are_both_kept():
    rescue = Rescue(8)
    rescue.portions.rows, rescue.lowered = 2, 0
    rescue.load({"portion": 4, "lowered": 1})
    assert rescue.state() == {"portion": 2, "lowered": 1}


def test_a_gpu_that_fails_is_tried_once_more():
    failed = RuntimeError("CUDA error: an illegal memory access was encountered")
    once, twice = Trouble(failed), Trouble(failed, failed)
    assert Rescue(1).attempt(once.work, once.go_back) == 7
    with pytest.raises(ModelError, match="failed twice"):
        Rescue(1).attempt(twice.work, twice.go_back)
    with pytest.raises(RuntimeError, match="size mismatch"):
        Rescue(1).attempt(Trouble(RuntimeError("size mismatch")).work, lambda: None)


def test_thirty_two_rows_go_from_eight_portions_to_thirty_two():
    portions, seen = Portions(4, "image"), []

    def work(rows):
        if len(rows) > 1:
            raise MemoryError
        seen.append(len(rows))

    portions.each(range(32), work)
    assert seen == [1] * 32
    assert [note.split(";")[0] for note in portions.notes] == [
        f"Memory did not suffice for {held} images at once" for held in (4, 2)
    ]
    with pytest.raises(NoMemoryLeft, match="one image at a time"):
        portions.each(range(2), lambda _: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory")))


@pytest.mark.parametrize(("loss", "gradient", "what"), [("nan", 1.0, "the loss"), (1.0, "inf", "a gradient")])
def test_numbers_without_a_value_are_noticed(loss, gradient, what):
    weights = torch.zeros(2, requires_grad=True)
    weights.grad = torch.tensor([0.0, float(gradient)])
    with pytest.raises(NotFinite, match=f"{what} of step 2 of epoch 1"):
        require_finite(float(loss), [weights], 1, 2)
    weights.grad = torch.ones(2)
    require_finite(1.0, [weights, torch.zeros(1)], 1, 2)


# ---------------------------------------------------------------- precision


def able(monkeypatch, cpu: bool, gpu: bool | None = None) -> None:
    """Let the processor compute in bfloat16 or not; with ``gpu``, so a GPU that is there."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": cpu})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bool(gpu))


@pytest.mark.parametrize(
    ("wanted", "cpu", "gpu", "place", "says"),
    [
        ("half", True, True, None, "is 'half'; it is one of auto, float32, bfloat16, float16"),
        ("float16", True, None, None, "float16 needs a GPU"),
        ("float16", True, True, CPU, "float16 needs a GPU"),
        ("bfloat16", False, None, None, "bfloat16, which this processor cannot compute in"),
        ("bfloat16", False, True, CPU, "bfloat16, which this processor"),
        ("bfloat16", True, False, torch.device("cuda", 0), "bfloat16, which this GPU"),
    ],
)
def test_a_precision_that_does_not_work_is_refused(monkeypatch, wanted, cpu, gpu, place, says):
    able(monkeypatch, cpu, gpu)
    with pytest.raises(DatasetError, match=says):
        refuse_precision(wanted, place)


def test_a_precision_that_works_somewhere_is_not_refused_before_that_is_known(monkeypatch):
    able(monkeypatch, cpu=False, gpu=True)
    for wanted in ("auto", "float32", "bfloat16", "float16"):
        refuse_precision(wanted)
    with pytest.raises(DatasetError, match="float32, and the base is held in bfloat16"):
        refuse_precision("float32", CPU, torch.bfloat16)


def test_fewer_digits_are_used_in_the_forward_pass_alone(monkeypatch):
    able(monkeypatch, cpu=True)
    computing, weights = Computing("bfloat16", CPU), torch.ones(2, 2, requires_grad=True)
    optimiser = torch.optim.SGD([weights], lr=0.5)
    with computing.forward():
        found = weights @ torch.ones(2, 2)
    assert found.dtype is torch.bfloat16
    computing.backward(found.float().sum())
    assert computing.unscale(optimiser)
    computing.step(optimiser)
    assert weights.dtype is torch.float32
    assert torch.equal(weights, torch.zeros(2, 2))
    assert computing.state() == {}
    with Computing("auto", CPU).forward():
        assert (weights @ weights).dtype is torch.float32


def test_a_scaled_loss_that_overflows_leaves_a_step_out_and_lowers_its_scale(monkeypatch):
    """On a processor, where a recipe would be refused; the scaling is the same as on a GPU."""
    monkeypatch.setattr("clinic_ai.ml.precision.refuse_precision", lambda *_: None)
    computing, weights = Computing("float16", CPU), torch.ones(2, requires_grad=True)
    optimiser = torch.optim.SGD([weights], lr=0.5)

    def step(factor: float) -> None:
        optimiser.zero_grad()
        computing.backward((weights * factor).sum())
        assert not computing.unscale(optimiser)
        computing.step(optimiser)

    step(1.0)
    assert torch.equal(weights, torch.full((2,), 0.5))
    scale = computing.state()["scale"]
    step(float("inf"))
    assert torch.equal(weights, torch.full((2,), 0.5))
    assert computing.state()["scale"] == scale / 2
    resumed = Computing("float16", CPU)
    resumed.load(computing.state())
    assert resumed.state() == computing.state()
