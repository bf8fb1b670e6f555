"""What training on a dataset costs, before it starts and while it goes on."""

from __future__ import annotations

from clinic_ai.contract import Example, Limits, TrainingPlan
from clinic_ai_xray.candidate import CHECKED_IMAGES
from clinic_ai_xray.recipe import TailRecipe
from clinic_ai_xray.tiers import Tier, tier_named

PF_DAY = 1e15 * 86_400
"""Floating-point operations of one PFLOP/s in one day."""
SECONDS_PER_FILE = 0.01
"""Reading and preparing one image, one thread."""
PASSES = 4
"""Passes through the whole network for each validation image that the exported model is compared on."""
_NUMBERS_OF_TAIL = 5
"""A checkpoint holds this many numbers for one that is trained: itself, its best, two moments; and something over."""
_RECORD_BYTES = 4 << 20
"""Figures, tables and the summary."""
_MIB = 1 << 20


def plan_of(examples: list[Example], recipe: TailRecipe, limits: Limits, model_bytes: int) -> TrainingPlan:
    """Return what training on labelled ``examples`` would cost at most, should no epoch end it early.

    ``model_bytes`` are those of the base, which are those of the model that is made.
    """
    tier = tier_named(recipe.tier)
    train = sum(example.split == "train" for example in examples)
    views = train * recipe.views + len(examples) - train
    rows = recipe.epochs * train
    checks = PASSES * min(len(examples) - train, CHECKED_IMAGES)
    computing = views * tier.seconds_per_view + rows * tier.seconds_per_row
    exporting = export_seconds(tier, len(examples) - train)
    seconds = len(examples) * SECONDS_PER_FILE + computing + exporting + 5.0
    checkpoint = 4 * _NUMBERS_OF_TAIL * tier.tail_numbers
    # While one is written there is one more than is kept, and that of the best epoch.
    disk = views * tier.kept_bytes + (recipe.keep + 2) * checkpoint + 2 * model_bytes + _RECORD_BYTES
    disk_mb = -(-disk // _MIB)
    notes = [
        f"{len(examples)} images, {train} of them for training in {recipe.views} views; the base is frozen.",
        f"The run directory takes about {disk_mb} MiB of disk.",
    ]
    if seconds > limits.max_seconds:
        notes.append(f"It will be stopped after {limits.max_seconds:.0f} s and can go on later.")
    return TrainingPlan(
        steps=recipe.epochs * -(-train // recipe.effective_batch),
        epochs=recipe.epochs,
        memory_mb=tier.memory_mb,
        seconds=seconds,
        pf_days=((views + checks) * tier.base_flops + rows * tier.tail_flops) / PF_DAY,
        disk_mb=disk_mb,
        notes=tuple(notes),
    )


def export_seconds(tier: Tier, measured: int) -> float:
    """Return about how long a model takes to be exported, checked and measured on ``measured`` images, one thread."""
    return 5.0 + PASSES * min(measured, CHECKED_IMAGES) * tier.seconds_per_view
