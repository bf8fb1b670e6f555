"""What goes wrong in the middle of a run and can be helped.

Memory that does not suffice: fewer rows go through the model at once, in more portions, so that a step of the optimiser
is still of the same rows. A loss that is no finite number: back to the newest checkpoint, with half the rate. A GPU
that stumbles: once more from the newest checkpoint. What was learned of such mishaps is part of the next checkpoint.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from clinic_ai.errors import ModelError

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_LOWERED = 2
"""So often the rate is halved; a loss that is not finite after that ends the run."""
_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")
"""How errors say it that are no OutOfMemoryError: CUDA and its libraries, and torch's allocator on the processor."""


class NotFinite(ArithmeticError):
    """A loss, a gradient or a weight is no finite number; ``step`` and ``epoch`` say where, for people."""

    def __init__(self, what: str, epoch: int, step: int) -> None:
        super().__init__(f"{what} of step {step} of epoch {epoch}")
        self.where = str(self)


class NoMemoryLeft(ModelError):
    """Memory does not suffice for the smallest portion."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory, of the GPU or of the machine, did not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_MEMORY)


def is_cuda_error(error: BaseException) -> bool:
    """Return whether the GPU failed for another reason than memory."""
    known = isinstance(error, torch.AcceleratorError) or "cuda error" in str(error).lower()
    return isinstance(error, RuntimeError) and known and not is_out_of_memory(error)


def clear_cache() -> None:
    """Give back the memory that nothing uses any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def require_finite(loss: float, trained: Iterable[Tensor], epoch: int, step: int) -> None:
    """Raise NotFinite unless ``loss`` and the gradients of all ``trained`` weights are finite numbers."""
    if not math.isfinite(loss):
        raise NotFinite("the loss", epoch, step)
    gradients = [weights.grad for weights in trained if weights.grad is not None]
    if not torch.isfinite(torch.nn.utils.get_total_norm(gradients)):
        raise NotFinite("a gradient", epoch, step)


class Portions:
    """How many rows go through the model at once: a step of the optimiser takes as many portions as it needs.

    Where memory does not suffice the portion is halved and the step begins anew; the rows that a step is of stay the
    same, and with the loss taken over all of them so does what is learned: 4 x 8 becomes 2 x 16, down to 1 x 32.
    """

    def __init__(self, rows: int, unit: str = "answer") -> None:
        """``unit`` is what people call a row."""
        self.rows, self._unit = rows, unit
        self.notes: list[str] = []

    def each(
        self,
        rows: Sequence[Item],
        work: Callable[[Sequence[Item]], Result],
        begin: Callable[[], None] = lambda: None,
    ) -> list[Result]:
        """Return what ``work`` gives of each portion of ``rows``, in order.

        ``begin`` is called before the first, and again where all begins anew. Raise NoMemoryLeft if memory does not
        suffice for a single row.
        """
        while True:
            begin()
            try:
                return [work(rows[at : at + self.rows]) for at in range(0, len(rows), self.rows)]
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Only here is the error gone, and with it what its frames held.
            self._halve(len(rows))

    def _halve(self, asked: int) -> None:
        held = min(self.rows, asked)
        if held == 1:
            raise NoMemoryLeft(
                f"The memory does not suffice to train on one {self._unit} at a time.",
                remedy="Raise training.max_memory_mb in clinic.toml, or train on a smaller or quantised base; "
                "`clinic-ai train resume` goes on from the newest checkpoint.",
            )
        clear_cache()
        self.rows = held // 2
        self.notes.append(f"Memory did not suffice for {held} {self._unit}s at once; it went on with {self.rows}.")


class Rescue:
    """What went wrong in a run so far, and how it is helped; ``state`` goes into each checkpoint."""

    def __init__(self, rows: int, unit: str = "answer") -> None:
        """``rows`` go through the model at once as long as memory suffices; see ``Portions``."""
        self.portions = Portions(rows, unit)
        self.lowered = 0
        """How often the rate was halved."""
        self._gpu_failed = False
        self._notes: list[str] = []

    @property
    def rate(self) -> float:
        """The share of the recipe's rate that is left."""
        return 0.5**self.lowered

    @property
    def notes(self) -> tuple[str, ...]:
        """What happened, for people."""
        return (*self._notes, *self.portions.notes)

    def state(self) -> dict[str, Any]:
        """Return what the next process has to know, as plain JSON."""
        return {"portion": self.portions.rows, "lowered": self.lowered}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what a checkpoint says; what this process has learned since stays."""
        self.portions.rows = min(self.portions.rows, int(state["portion"]))
        self.lowered = max(self.lowered, int(state["lowered"]))

    def attempt(self, work: Callable[[], Result], go_back: Callable[[], None]) -> Result:
        """Return what ``work`` gives; where something went wrong that can be helped, ``go_back`` and do it again.

        ``go_back`` takes up the newest checkpoint, and writes one with what is new here. Raise ModelError if the loss
        is still not finite with a rate halved twice, or if the GPU fails a second time.
        """
        while True:
            try:
                return work()
            except NotFinite as error:
                self._lower(error)
            except RuntimeError as error:
                if not is_cuda_error(error):
                    raise
                self._bear(error)
            # Only here is the error gone, and with it what its frames held.
            clear_cache()
            go_back()

    def _lower(self, error: NotFinite) -> None:
        if self.lowered == MOST_LOWERED:
            raise ModelError(
                f"Training does not hold: {error.where} is no finite number, with the rate halved "
                f"{MOST_LOWERED} times already.",
                remedy="Start a new run with a lower rate, such as a tenth of it (--set rate=…), in float32.",
            ) from error
        self.lowered += 1
        self._notes.append(
            f"The training began to diverge: {error.where} was no finite number. It went on from the newest checkpoint "
            f"with {self.rate:g} of the recipe's rate."
        )

    def _bear(self, error: RuntimeError) -> None:
        if self._gpu_failed:
            raise ModelError(
                "The GPU failed twice in this run.",
                remedy="Look at the log of its driver, then go on with `clinic-ai train resume`.",
            ) from error
        self._gpu_failed = True
        self._notes.append("The GPU failed; the run went on once more from its newest checkpoint.")
