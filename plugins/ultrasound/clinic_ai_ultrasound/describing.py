"""A base by its layers, what an adapter over it trains, and the memory that takes: from its config.json alone."""

from __future__ import annotations

from collections import Counter

from clinic_ai.contract import LoadedModel
from clinic_ai.describing import DescribeTask, Laid, MemoryNeed, ModelStats
from clinic_ai.errors import ModelError
from clinic_ai.ml.sizes import kinds_of_layers
from clinic_ai_ultrasound.costs import INTERPRETER_MB, Sizes, unloaded
from clinic_ai_ultrasound.laying import Held, Where, places
from clinic_ai_ultrasound.loading import adapted_layers
from clinic_ai_ultrasound.recipe import AdapterRecipe

TOKENS = 64
"""Tokens of a question with its answer, where no dataset says how long they are."""
_MIB = 1 << 20


def describe(task: DescribeTask) -> ModelStats:
    """Say what ``UltrasoundTrainer.describe`` says."""
    recipe = AdapterRecipe.parse(task.recipe)
    base = _base(task)
    model, config = unloaded(base)
    sizes = Sizes.of_model(model, config)
    recipe.check_targets(sizes.linears)
    held = Held.of(model, base.manifest)
    trained = {
        f"{name}.weight": recipe.rank * (columns + rows)
        for name, (columns, rows) in adapted_layers(model, recipe.target_names).items()
    }
    lora = sum(trained.values())
    groups = kinds_of_layers(model.named_parameters(), lambda name, _: held.bytes_of(name), trained)
    numbers = held.rest.itemsize
    found = sizes.training(base.manifest.quantisation, numbers, lora, recipe.batch, TOKENS)
    memory = MemoryNeed(
        weights=found.weights, gradients=found.gradients, optimiser=found.optimiser, activations=found.activations
    )
    notes = [
        f"LoRA of rank {recipe.rank} on {', '.join(recipe.target_names)} trains {lora:,} numbers, "
        f"{100 * lora / sizes.total:.3g} % of the base.",
        f"Activations are those of answers that take {TOKENS} tokens with their question.",
    ]
    available = task.limits.memory_mb * _MIB
    laid: tuple[Laid, ...] = ()
    fits = INTERPRETER_MB * _MIB + memory.total <= available
    if task.gpu_memory_mb:
        besides = memory.total - (found.weights - 4 * lora)
        room = task.gpu_memory_mb * _MIB - besides
        laid = _laid(places(model, held, room, available - INTERPRETER_MB * _MIB), held)
        fits, said = _judged(laid, base, room)
        notes.append(said)
    elif not fits:
        notes.append(
            f"It needs {INTERPRETER_MB} MiB for Python and its libraries besides, and may use {task.limits.memory_mb} "
            "MiB in all (training.max_memory_mb in clinic.toml)."
        )
    return ModelStats(
        parameters=sizes.total,
        trained=lora,
        groups=groups,
        batch=recipe.batch,
        memory=memory,
        laid=laid,
        fits=fits,
        notes=tuple(notes),
    )


def _base(task: DescribeTask) -> LoadedModel:
    if task.model.manifest.base_digest is None:
        return task.model
    if task.base is None:
        raise ModelError(
            f"The base of {task.model.ref.label()} is not in use, so it cannot be described.",
            remedy="Promote the base again, or describe one of `clinic-ai model list`.",
        )
    return task.base


def _laid(where: dict[str, Where], held: Held) -> tuple[Laid, ...]:
    parts, taken = Counter(where.values()), Counter[Where]()
    for name in held.names:
        # The longest part of the model that the weight belongs to says where it lies.
        part = max((part for part in where if name == part or name.startswith(f"{part}.") or not part), key=len)
        taken[where[part]] += held.bytes_of(name)
    return tuple(
        Laid(where=place, parts=parts[place], size_bytes=taken[place])
        for place in ("gpu", "cpu", "disk")
        if parts[place]
    )


def _judged(laid: tuple[Laid, ...], base: LoadedModel, room: int) -> tuple[bool, str]:
    aside = sum(one.size_bytes for one in laid if one.where != "gpu")
    if room <= 0:
        return False, "What training needs beside the weights does not fit into this GPU; lower the recipe's batch."
    if not aside:
        return True, "All weights fit into this GPU."
    if base.manifest.quantisation != "none":
        return False, (
            f"{aside / 1e9:.3g} GB do not fit into this GPU, and weights of a quantised base cannot be laid aside: "
            "take a larger GPU, a smaller base, or one that is not quantised."
        )
    return True, f"{aside / 1e9:.3g} GB do not fit into this GPU; they are laid aside and brought when needed."
