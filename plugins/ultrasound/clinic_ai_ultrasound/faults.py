"""What goes wrong in the middle of a run and can be helped: memory that does not suffice, and a GPU that stumbles."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from clinic_ai.errors import ModelError

Item = TypeVar("Item")
Result = TypeVar("Result")

_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")
"""How errors say it that are no OutOfMemoryError: CUDA and its libraries, and torch's allocator on the processor."""


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


class Portions:
    """How many rows go through the model at once: a step of the optimiser takes as many portions as it needs.

    Where memory does not suffice the portion is halved and the step begins anew; the rows that a step is of stay the
    same, and with the loss taken over all of them so does what is learned.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.notes: list[str] = []

    def each(
        self,
        rows: Sequence[Item],
        work: Callable[[Sequence[Item]], Result],
        begin: Callable[[], None] = lambda: None,
    ) -> list[Result]:
        """Return what ``work`` gives of each portion of ``rows``, in order.

        ``begin`` is called before the first, and again where all begins anew. Raise ModelError if memory does not
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
            raise ModelError(
                "The memory does not suffice to train on one answer at a time.",
                remedy="Raise training.max_memory_mb in clinic.toml, or train on a smaller or quantised base; "
                "`clinic-ai train resume` goes on from the newest checkpoint.",
            )
        clear_cache()
        self.rows = held // 2
        self.notes.append(f"Memory did not suffice for {held} answers at once; it went on with {self.rows}.")
