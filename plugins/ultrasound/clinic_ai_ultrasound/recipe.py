"""How an adapter is trained: the keys of the recipe, their defaults, and what makes no sense."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from clinic_ai.contract import Recipe
from clinic_ai.errors import DatasetError
from clinic_ai.ml.recipes import chosen

SEEDS = 2**31
"""The seed of a recipe is below this: seeds of single steps, made of it, fit into 64 bits."""
_STEPS = 1_000_003


@dataclass(frozen=True)
class AdapterRecipe:
    """LoRA on the query and value projections of the language model.

    ``rank``, ``alpha`` and ``dropout`` are those of LoRA. ``rate`` rises over the share ``warm_up`` of all steps and
    then falls to zero at the last one, both evenly. A step of the optimiser is of ``batch`` times ``accumulation``
    answers; ``batch`` of them go through the model at once. Training ends after ``epochs``, or when ``patience`` epochs
    in a row were no better on the validation part; the best epoch is kept. One epoch is the first clinic's validation
    run.
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.05
    rate: float = 1e-4
    weight_decay: float = 0.0
    warm_up: float = 0.0
    batch: int = 1
    accumulation: int = 1
    epochs: int = 10
    patience: int = 3
    seed: int = 1

    @classmethod
    def parse(cls, values: Recipe) -> AdapterRecipe:
        """Return the recipe with ``values`` in place of defaults. Raise DatasetError if one makes no sense."""
        known = asdict(cls())
        recipe = cls(**{**known, **chosen(values, known)})
        for key in ("rank", "alpha", "batch", "accumulation", "epochs", "patience"):
            _require(key, getattr(recipe, key) >= 1, "at least 1")
        _require("rate", recipe.rate > 0, "above 0")
        _require("weight_decay", recipe.weight_decay >= 0, "at least 0")
        for key in ("dropout", "warm_up"):
            _require(key, 0 <= getattr(recipe, key) < 1, "from 0 to less than 1")
        _require("seed", 0 <= recipe.seed < SEEDS, f"from 0 to {SEEDS - 1}")
        return recipe

    @property
    def effective_batch(self) -> int:
        """Answers that one step of the optimiser is of."""
        return self.batch * self.accumulation

    def seed_of(self, epoch: int, step: int = 0) -> int:
        """Return the seed of one step, counted from 0: what is left to chance in it follows from its place alone."""
        return (self.seed * _STEPS + epoch) * _STEPS + step


def _require(key: str, holds: bool, range_: str) -> None:
    if not holds:
        raise DatasetError(f"The recipe's {key} is {range_}.")
