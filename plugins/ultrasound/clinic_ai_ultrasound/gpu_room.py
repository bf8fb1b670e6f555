"""How much of a base may lie on the GPU of a run, from the plan, and less of it where the plan was too hopeful."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from clinic_ai.contract import TrainingTask
from clinic_ai.ml.checkpoints import write_durably
from clinic_ai_ultrasound.costs import INTERPRETER_MB, TrainingMemory
from clinic_ai_ultrasound.laying import Room

_TIGHT = "laid-aside"
"""A file of the run directory: memory did not suffice for one answer at a time, so half of the base is laid aside."""
_MIB = 1 << 20


def _free(index: int) -> int:
    free: int = torch.cuda.mem_get_info(index)[0]
    return free


class GpuRoom:
    """The room of one run on a GPU; on the processor there is none to keep to."""

    def __init__(self, task: TrainingTask, memory: TrainingMemory, free: Callable[[int], int] = _free) -> None:
        """``memory`` is what the plan says that training takes, ``free`` tells the free bytes of a GPU."""
        self._task, self._memory, self._free_of = task, memory, free
        self._directory = Path(task.run_directory)

    def room(self) -> Room | None:
        """Return what the base may take, None if all of it may lie where the run computes."""
        device, limits = self._task.device, self._task.limits
        if device.kind != "cuda":
            return None
        free, needed = self._free_of(device.index), self._memory.total
        if limits.gpu_memory_mb:
            free = min(free, limits.gpu_memory_mb * _MIB)
        tight = (self._directory / _TIGHT).exists()
        if needed <= free and not tight:
            return None
        room = free - (needed - self._memory.weights)
        folder = self._directory / "aside"
        folder.mkdir(parents=True, exist_ok=True)
        return Room(max(0, room // (2 if tight else 1)) // _MIB, max(0, limits.memory_mb - INTERPRETER_MB), folder)

    def shrink(self, quantisation: str) -> bool:
        """Let less of the base lie on the GPU from now on; return False if that cannot help, or was done before."""
        tight = self._directory / _TIGHT
        if self._task.device.kind != "cuda" or quantisation != "none" or tight.exists():
            return False
        write_durably(tight, b"")
        return True
