"""Several processes, one for each GPU, that learn one thing: gradients are summed, one of them writes.

``accelerate launch`` starts them; see ``clinic_ai_ct.training.__main__``. Alone, nothing of accelerate is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

Item = TypeVar("Item")


class Processes:
    """This process and the others of its run."""

    def __init__(self) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self._accelerator: Any = None
        if self.count > 1:
            from accelerate import Accelerator

            self._accelerator = Accelerator()

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self._accelerator is None or bool(self._accelerator.is_main_process)

    @property
    def index(self) -> int:
        """Which one this is, from 0."""
        return 0 if self._accelerator is None else int(self._accelerator.process_index)

    @property
    def device(self) -> torch.device | None:
        """The device of this process; None where it is alone and its task says which."""
        return None if self._accelerator is None else torch.device(self._accelerator.device)

    def own(self, rows: Sequence[Item]) -> Sequence[Item]:
        """Return those of the rows of a step that this process learns from; some may get none of the last step."""
        return rows if self._accelerator is None else rows[self._accelerator.process_index :: self.count]

    def sum_gradients(self, weights: Iterable[nn.Parameter]) -> None:
        """Add up the gradients of all processes."""
        if self._accelerator is None:
            return
        for each in weights:
            gradient = torch.zeros_like(each) if each.grad is None else each.grad
            each.grad = self._accelerator.reduce(gradient, reduction="sum")

    def sum(self, value: float) -> float:
        """Return the sum of a number over all processes."""
        if self._accelerator is None:
            return value
        told = torch.tensor(value, dtype=torch.float64)
        return float(self._accelerator.reduce(told.to(self._accelerator.device), reduction="sum"))

    def any(self, value: bool) -> bool:
        """Return whether any process says so: all stop at the same step."""
        return value if self._accelerator is None else self.sum(float(value)) > 0

    def wait(self) -> None:
        """Wait until all are here."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()
