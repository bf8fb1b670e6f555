"""How an adapter is trained: the keys of the recipe, their defaults, and what makes no sense."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from clinic_ai.contract import Recipe
from clinic_ai.errors import DatasetError
from clinic_ai.ml.checkpoints import KEPT
from clinic_ai.ml.precision import refuse_precision
from clinic_ai.ml.recipes import chosen, require
from clinic_ai_ultrasound.curriculum import Curriculum

SEEDS = 2**31
"""The seed of a recipe is below this: seeds of single steps, made of it, fit into 64 bits."""
_STEPS = 1_000_003
_OF_NO_WEIGHT = {"keep"}
"""Keys that change nothing of what is trained: a run may go on with other values of them."""


@dataclass(frozen=True)
class AdapterRecipe:
    """LoRA on linear layers of the language model.

    ``rank``, ``alpha`` and ``dropout`` are those of LoRA; ``targets`` are the layers it is put on, by the last part of
    their names. ``rate`` rises over the share ``warm_up`` of all steps and then falls to zero at the last one, both
    evenly. A step of the optimiser is of ``batch`` times ``accumulation`` answers; ``batch`` of them go through the
    model at once. Training ends after ``epochs``, or when ``patience`` epochs in a row were no better on the validation
    part (0: it never ends early); the best epoch is kept. ``curriculum`` begins with short answers; see ``Curriculum``.
    ``precision`` is what steps compute in; ``keep`` checkpoints are kept beside that of the best epoch. One epoch is
    the first clinic's validation run.
    """

    rank: int = 8
    alpha: int = 16
    targets: str = "q_proj,v_proj"
    dropout: float = 0.05
    rate: float = 1e-4
    weight_decay: float = 0.0
    warm_up: float = 0.0
    batch: int = 1
    accumulation: int = 1
    epochs: int = 10
    patience: int = 3
    curriculum: str = ""
    precision: str = "auto"
    keep: int = KEPT
    seed: int = 1

    @classmethod
    def parse(cls, values: Recipe) -> AdapterRecipe:
        """Return the recipe with ``values`` in place of defaults. Raise DatasetError if one makes no sense."""
        known = asdict(cls())
        recipe = cls(**{**known, **chosen(values, known)})
        for key in ("rank", "alpha", "batch", "accumulation", "epochs", "keep"):
            require(key, getattr(recipe, key) >= 1, "at least 1")
        require("patience", recipe.patience >= 0, "at least 0, which never ends a run early")
        require("rate", recipe.rate > 0, "above 0")
        require("weight_decay", recipe.weight_decay >= 0, "at least 0")
        for key in ("dropout", "warm_up"):
            require(key, 0 <= getattr(recipe, key) < 1, "from 0 to less than 1")
        require("seed", 0 <= recipe.seed < SEEDS, f"from 0 to {SEEDS - 1}")
        plain = all(re.fullmatch(r"[a-z0-9_]+", name) for name in recipe.target_names)
        require("targets", plain and recipe.target_names != (), "names of layers with commas between them")
        refuse_precision(recipe.precision)
        recipe.stages()
        return recipe

    @property
    def effective_batch(self) -> int:
        """Answers that one step of the optimiser is of."""
        return self.batch * self.accumulation

    @property
    def target_names(self) -> tuple[str, ...]:
        """The last parts of the names of the layers that get an adapter, each once, in order."""
        return tuple(sorted({name.strip() for name in self.targets.split(",") if name.strip()}))

    def check_targets(self, there: Collection[str]) -> None:
        """Raise DatasetError unless all targets are among ``there``, the linear layers of the base's language model."""
        strange = [name for name in self.target_names if name not in there]
        if strange:
            raise DatasetError(
                f"The recipe's targets name {', '.join(strange)}; the language model of this base has "
                f"{', '.join(sorted(there))}."
            )

    def stages(self) -> Curriculum:
        """Return the stages of the curriculum. Raise DatasetError if they make no sense."""
        return Curriculum.parse(self.curriculum, self.epochs)

    def trained_by(self) -> dict[str, Any]:
        """Return what the trained weights follow from."""
        return {key: value for key, value in asdict(self).items() if key not in _OF_NO_WEIGHT}

    def seed_of(self, epoch: int, step: int = 0) -> int:
        """Return the seed of one step, counted from 0: what is left to chance in it follows from its place alone."""
        return (self.seed * _STEPS + epoch) * _STEPS + step
