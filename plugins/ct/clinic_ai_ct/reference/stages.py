"""Takes the steps of one stage of learning within the time it is allowed, and goes on with it where it was ended."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from clinic_ai.ml.checkpoints import write_durably

Report = Callable[[str], None]
_MEASURED, _EVERY, _WARM_UP = 3, 50, 0.08
_STEM_SHARE = 0.3
"""Rate of the stem, relative to that of the rest, once it has learned alone."""


@dataclass(frozen=True)
class Stage:
    """One stage: its name, the CPU seconds it may take, the largest rate, and volumes or tiles in a step."""

    name: str
    seconds: float
    rate: float
    batch: int


def learn(
    module: nn.Module,
    step: Callable[[torch.Generator], Tensor],
    stage: Stage,
    work: Path,
    report: Report,
    *,
    slow: nn.Module | None = None,
) -> None:
    """Take steps until those that the time allows are done; every ``_EVERY`` of them all is kept.

    ``slow`` is a part of the module that learns with ``_STEM_SHARE`` of the rate.
    """
    module.train()
    held = {id(parameter) for parameter in slow.parameters()} if slow is not None else set()
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in parameters if (id(parameter) in held) == slowly], "share": share}
        for slowly, share in ((False, 1.0), (True, _STEM_SHARE))
    ]
    optimiser = torch.optim.AdamW([group for group in groups if group["params"]], lr=stage.rate, weight_decay=0.02)
    state = State(work, stage.name)
    done, steps = state.restore(module, optimiser)
    losses: list[float] = []
    began, first = time.process_time(), done
    while steps is None or done < steps:
        if done - first == 1:
            began = time.process_time()  # the first step also reads what it needs
        if steps is None and done - first == 1 + _MEASURED:
            each = (time.process_time() - began) / _MEASURED
            steps = max(_MEASURED + 2, math.ceil(stage.seconds / each))
            report(f"{stage.name}: {each:.2f} s of CPU a step, {steps} steps")
        rate = stage.rate * _share(done, steps)
        for group in optimiser.param_groups:
            group["lr"] = rate * group["share"]
        generator = torch.Generator().manual_seed(7919 * done + 17)  # a step draws the same wherever it is resumed
        torch.manual_seed(7919 * done + 18)
        optimiser.zero_grad(set_to_none=True)
        loss = step(generator)
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        losses.append(float(loss))
        done += 1
        if steps is not None and (done % _EVERY == 0 or done == steps):
            state.keep(module, optimiser, done, steps)
            report(f"{stage.name}: step {done} of {steps}, loss {np.mean(losses[-_EVERY:]):.4f}")
    module.eval()


def _share(done: int, steps: int | None) -> float:
    """Return the share of the largest rate at a step: a warm-up, then half a cosine."""
    if steps is None:
        return 0.1
    warm = max(1, round(_WARM_UP * steps))
    if done < warm:
        return (done + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (done - warm) / max(1, steps - warm))) + 0.01


class State:
    """Weights, moments and place of a stage on disk: one file, so that they are of the same step.

    A file ``NAME.json`` beside it, as earlier builds wrote them, may say how many ``steps`` there shall be.
    """

    def __init__(self, work: Path, name: str) -> None:
        self._kept, self._said = work / f"{name}.safetensors", work / f"{name}.json"

    def restore(self, module: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[int, int | None]:
        """Take up what was kept; return the steps that were done, and how many there will be if that is known.

        Raise ValueError if the file does not say it and no other beside it does.
        """
        if not self._kept.exists():
            self._said.unlink(missing_ok=True)  # it was of what is no longer there, and this stage begins anew
            return 0, None
        beside = json.loads(self._said.read_text()) if self._said.exists() else {}
        with safe_open(self._kept, framework="pt") as file:
            own = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
        done, steps = own.get("done", beside.get("done")), beside.get("steps", own.get("steps"))
        if done is None or steps is None:
            raise ValueError(f"{self._kept.name} does not say of which step it is")
        module.load_state_dict(dict(_below("module.", tensors)))
        saved = optimiser.state_dict()
        saved["state"] = {
            place: dict(_below(f"moment.{place}.", tensors))
            for place in range(sum(len(group["params"]) for group in saved["param_groups"]))
            if f"moment.{place}.step" in tensors
        }
        optimiser.load_state_dict(saved)
        return int(done), int(steps)

    def keep(self, module: nn.Module, optimiser: torch.optim.Optimizer, done: int, steps: int) -> None:
        """Replace what was kept."""
        tensors = {f"module.{name}": value.contiguous().clone() for name, value in module.state_dict().items()}
        for place, moments in optimiser.state_dict()["state"].items():
            tensors |= {f"moment.{place}.{name}": value.contiguous().clone() for name, value in moments.items()}
        write_durably(self._kept, save(tensors, metadata={"done": str(done), "steps": str(steps)}))


def _below(prefix: str, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    return ((name.removeprefix(prefix), value) for name, value in tensors.items() if name.startswith(prefix))
