"""What a run costs, before it starts."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch

from clinic_ai.contract import Limits, TrainingPlan
from clinic_ai_ct.configurations import NetworkConfig
from clinic_ai_ct.training.cases import Case, described, refuse_useless, usable
from clinic_ai_ct.training.costs import Costs, case_flops, costs_of, language_bytes, memory_mb
from clinic_ai_ct.training.phases import Phase
from clinic_ai_ct.training.prepared import prepared_bytes
from clinic_ai_ct.training.recipe import CTRecipe
from clinic_ai_ct.training.seeing import feature_bytes

PF_DAY = 1e15 * 86_400
"""Floating-point operations of one PFLOP/s in one day."""
_PREPARING_S = 3.0
"""Seconds to read a volume and its masks and to bring them to the network's grid."""
_MEASURED = 768
"""Side of the matrices that tell how fast this machine computes."""
_UTILISATION = 0.4
"""Of that speed, what the network gets: convolutions and small matrices wait for memory."""
_LOADING_S = 15.0
_CHECKPOINT_NUMBERS = 4
"""A checkpoint holds this many numbers for one that learns: itself, its best, two moments."""
_MIB = 1 << 20


def plan_of(cases: Sequence[Case], recipe: CTRecipe, config: NetworkConfig, limits: Limits) -> TrainingPlan:
    """Return what a run costs at most, should no phase end early.

    Raise DatasetError if a phase finds nothing to learn from.
    """
    for phase in recipe.phases:
        refuse_useless(cases, phase, config.classifier.labels)
    costs, speech, speed = costs_of(config), language_bytes(recipe), _speed(limits.threads)
    steps = epochs = 0
    flops, notes = 0.0, list(described(cases))
    for phase in recipe.phases:
        own_steps, own_flops = _of(phase, cases, recipe, config, costs, speech)
        steps, epochs, flops = steps + own_steps, epochs + recipe.epochs_of(phase), flops + own_flops
        rates = ", ".join(f"{part} {rate:g}" for part, rate in recipe.rates_of(phase).items())
        notes.append(
            f"Phase {phase.name}: {recipe.epochs_of(phase)} epochs, {own_steps} steps, rates {rates}; about "
            f"{own_flops / speed / 3600:.1f} h here."
        )
    looks = 0.0 if all(not phase.frozen for phase in recipe.phases) else len(cases) * costs.flops["encoder"]
    seconds = _LOADING_S + len(cases) * _PREPARING_S + (flops + looks) / speed
    memory = max(memory_mb(phase, recipe, costs, speech) for phase in recipe.phases)
    disk = _disk(cases, recipe, config, costs, notes)
    if memory > limits.memory_mb:
        notes.append(f"It needs about {memory} MiB and may use {limits.memory_mb} (training.max_memory_mb).")
    if seconds > limits.max_seconds:
        notes.append(f"It will be stopped after {limits.max_seconds:.0f} s and can go on later.")
    if recipe.language == "" and any(phase.name == "joint" for phase in recipe.phases):
        notes.append("No language model is named: the joint phase learns labels and masks only.")
    return TrainingPlan(
        steps=steps,
        epochs=epochs,
        memory_mb=memory,
        seconds=seconds,
        pf_days=(flops + looks) / PF_DAY,
        disk_mb=-(-disk // _MIB),
        notes=tuple(notes),
    )


def _of(
    phase: Phase, cases: Sequence[Case], recipe: CTRecipe, config: NetworkConfig, costs: Costs, speech: int
) -> tuple[int, float]:
    """Return the steps and the operations of one phase."""
    useful = usable(cases, phase, config.classifier.labels)
    train, judged = (sum(case.split == split for case in useful) for split in ("train", "validation"))
    epochs = recipe.epochs_of(phase)
    each = case_flops(phase, recipe, costs, speech)
    return epochs * math.ceil(train / recipe.effective_batch), epochs * (train + judged / 3) * each


def _disk(cases: Sequence[Case], recipe: CTRecipe, config: NetworkConfig, costs: Costs, notes: list[str]) -> int:
    limit, total = recipe.cache_mb << 20, 8 << 20
    kept = {"Prepared volumes": prepared_bytes(config, len(cases))}
    if any(phase.frozen for phase in recipe.phases):
        kept["What the frozen encoder sees"] = feature_bytes(config, len(cases))
    for what, size in kept.items():
        verb = "take" if what.endswith("s") and not what.startswith("What") else "takes"
        if size <= limit:
            notes.append(f"{what} {verb} {size >> 20} MiB on disk.")
            total += size
        else:
            notes.append(
                f"{what} would take {size >> 20} MiB, more than the {recipe.cache_mb} of cache_mb: it is computed anew "
                "in every epoch, which takes far longer than planned."
            )
    # While a checkpoint is written there is one more than is kept.
    each = _CHECKPOINT_NUMBERS * 4 * max(costs.numbers.values())
    return total + len(recipe.phases) * (recipe.keep + 2) * each + 4 * sum(costs.numbers.values())


def _speed(threads: int) -> float:
    """Return how many operations a second this machine makes of a network."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, threads))
    try:
        matrix = torch.ones(_MEASURED, _MEASURED)
        matrix @ matrix
        began = time.perf_counter()
        for _ in range(3):
            matrix @ matrix
        return _UTILISATION * 3 * 2 * _MEASURED**3 / (time.perf_counter() - began)
    finally:
        torch.set_num_threads(before)
