"""What number type the steps of a training compute in: refused where it does not work, with loss scaling where needed.

Weights that are trained, and their optimiser, are always float32; torch's autocast chooses what may be computed with
fewer digits.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from clinic_ai.errors import DatasetError

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
"""``auto``: as the base is held in memory."""
_FEWER_DIGITS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def has_bfloat16(place: torch.device) -> bool:
    """Return whether a processor or GPU computes in bfloat16 by itself, not by an emulation that takes far longer."""
    if place.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def refuse_precision(wanted: str, place: torch.device | None = None, held_in: torch.dtype | None = None) -> None:
    """Raise DatasetError if a recipe cannot have the precision ``wanted``.

    ``place`` is where the run computes, None before that is known: then what no device of this machine can is refused.
    ``held_in`` is what the base is held in, None if that is not known yet.
    """
    if wanted not in PRECISIONS:
        raise DatasetError(f"The recipe's precision is {wanted!r}; it is one of {', '.join(PRECISIONS)}.")
    cpu = torch.device("cpu")
    places = [place] if place is not None else [cpu, *([torch.device("cuda")] if torch.cuda.is_available() else [])]
    where = "this processor" if all(each.type == "cpu" for each in places) else "this GPU"
    if wanted == "float16" and all(each.type == "cpu" for each in places):
        raise DatasetError(
            "The recipe's precision float16 needs a GPU: on a processor its losses overflow and it is slower.",
            remedy="Leave precision out, or set precision=float32.",
        )
    if wanted == "bfloat16" and not any(has_bfloat16(each) for each in places):
        raise DatasetError(
            f"The recipe's precision is bfloat16, which {where} cannot compute in.",
            remedy="Leave precision out, or set precision=float32.",
        )
    if wanted == "float32" and held_in not in {None, torch.float32}:
        raise DatasetError(
            f"The recipe's precision is float32, and the base is held in {str(held_in).removeprefix('torch.')} here.",
            remedy='Leave precision out, or import the base with dtype = "float32" under [parameters].',
        )


class Computing:
    """How one run computes its steps."""

    def __init__(self, wanted: str, place: torch.device, held_in: torch.dtype = torch.float32) -> None:
        """Raise DatasetError if the precision ``wanted`` does not work; see ``refuse_precision``."""
        refuse_precision(wanted, place, held_in)
        self._place = place.type
        self._dtype = _FEWER_DIGITS.get(wanted)
        self._scaler = torch.amp.GradScaler(place.type, enabled=self._dtype is torch.float16)

    def forward(self) -> AbstractContextManager[Any]:
        """Return the context in which the model and its loss are computed."""
        return nullcontext() if self._dtype is None else torch.autocast(self._place, dtype=self._dtype)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of ``loss``, scaled where small ones would vanish."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimiser: torch.optim.Optimizer) -> bool:
        """Give the gradients their own size; return whether they are to be looked at.

        With a scaled loss they may overflow now and then: such a step is left out, and the scale lowered.
        """
        if not self._scaler.is_enabled():
            return True
        self._scaler.unscale_(optimiser)
        return False

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        """Take a step of the optimiser, unless scaled gradients overflowed."""
        self._scaler.step(optimiser)
        self._scaler.update()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the scaling, as plain JSON; empty without one."""
        return dict(self._scaler.state_dict())

    def load(self, state: dict[str, Any]) -> None:
        """Take up what ``state`` gave."""
        if state:
            self._scaler.load_state_dict(state)
