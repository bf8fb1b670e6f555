"""Which configuration fits a machine: what each needs of memory and time, against what is there."""

from __future__ import annotations

import time

import torch

from clinic_ai.describing import FitResult, FitTask, Fitting, NeedTerm
from clinic_ai_ct.configurations import CONFIGURATIONS, Configuration
from clinic_ai_ct.memory import Need, judging, learning, operations

KEPT_BYTES = 2 << 30
"""Memory of the machine that the system and the daemon keep."""
LONGEST_S = 120.0
"""The time in which an analysis has to be done: a configuration that takes longer on this processor does not fit."""
_MEASURED = 768
"""Side of the matrices that tell how fast this machine computes."""
_UTILISATION = 0.35
"""Of that speed, what a network gets: it also reads and writes what it computes with."""
_GB = 1e9


def fit(task: FitTask) -> FitResult:
    """Say what each configuration needs, and which fits; nothing is loaded."""
    speed = _flops_per_second()
    fittings = tuple(_fitting(one, task, speed) for one in CONFIGURATIONS.values())
    chosen = next((one.name for one in fittings if one.judges), "")
    notes = [
        "To learn means all tasks at once, one study at a time, with adapters on the language model.",
        f"Of the machine's memory the system keeps {KEPT_BYTES / _GB:.3g} GB. One core of this machine computes "
        f"{speed / _GB:.3g} billion operations a second; a network gets about a third of it.",
    ]
    return FitResult(fittings=fittings, chosen=chosen, notes=tuple(notes))


def _fitting(configuration: Configuration, task: FitTask, speed: float) -> Fitting:
    """Return the verdict on a GPU if it judges there, or else on the processor if it is made for one."""
    gpu = max(task.gpus, key=lambda one: one.memory_mb, default=None)
    if gpu is not None or configuration.device == "cuda":
        on_gpu = configuration.model_copy(update={"device": "cuda"})
        found = _verdict(on_gpu, 0 if gpu is None else gpu.memory_mb << 20, None if gpu is None else gpu.name, None)
        if found.judges or configuration.device == "cuda":
            return found
    seconds = operations(configuration.network) / (_UTILISATION * speed * task.cpus)
    return _verdict(configuration, max(0, (task.memory_mb << 20) - KEPT_BYTES), "this processor", seconds)


def _verdict(configuration: Configuration, room: int, where: str | None, seconds: float | None) -> Fitting:
    needs, learns = judging(configuration), learning(configuration)
    judged = where is not None and needs.total <= room and (seconds is None or seconds <= LONGEST_S)
    learned = where is not None and learns.total <= room
    return Fitting(
        name=configuration.name,
        summary=configuration.summary,
        where=configuration.device,
        judging=_terms(needs),
        learning=_terms(learns),
        room_bytes=room,
        seconds=seconds,
        judges=judged,
        learns=judged and learned,
        sentence=_sentence(needs, learns, room, where, seconds),
    )


def _sentence(needs: Need, learns: Need, room: int, where: str | None, seconds: float | None) -> str:
    if where is None:
        return f"It does not fit: it needs a GPU with {needs.total / _GB:.3g} GB, and there is none."
    there = f"{where} has room for {room / _GB:.3g} GB"
    if needs.total > room:
        return f"It does not fit: it needs {needs.total / _GB:.3g} GB, and {there}."
    if seconds is not None and seconds > LONGEST_S:
        return (
            f"It does not fit: a study would take about {seconds / 60:.0f} minutes on {where}, and more than "
            f"{LONGEST_S / 60:.0f} is too long; with a GPU it takes seconds."
        )
    pace = "" if seconds is None else f" A study takes about {max(1.0, seconds):.0f} s."
    taught = "It can also learn here." if learns.total <= room else f"To learn it needs {learns.total / _GB:.3g} GB."
    return f"It fits: it needs {needs.total / _GB:.3g} GB, and {there}.{pace} {taught}"


def _terms(need: Need) -> tuple[NeedTerm, ...]:
    return tuple(NeedTerm(what=term.what, size_bytes=term.size) for term in need.terms)


def _flops_per_second() -> float:
    """Return how many operations a second one core of this machine does, by multiplying matrices."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one = torch.ones(_MEASURED, _MEASURED)
        one @ one
        rounds, began = 5, time.process_time()
        for _ in range(rounds):
            one @ one
        return rounds * 2.0 * _MEASURED**3 / (time.process_time() - began)
    finally:
        torch.set_num_threads(before)
