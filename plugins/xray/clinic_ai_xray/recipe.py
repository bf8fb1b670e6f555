"""How a tail is trained: the keys of the recipe, their defaults, and what makes no sense."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from clinic_ai.errors import DatasetError
from clinic_ai.ml.checkpoints import KEPT
from clinic_ai.ml.precision import refuse_precision
from clinic_ai.ml.recipes import chosen, require
from clinic_ai_xray.tiers import FAST, INTENSIVE, tier_named

ERRORS = (0.01, 0.4)
"""Error rates that a recipe may ask for."""
SEEDS = 2**32
"""The seed of a recipe is below this: seeds of epochs, made of it, fit into 64 bits."""
_OF_NO_WEIGHT = {"error", "keep"}
"""Keys that change nothing of what is trained: a run may go on with other values of them."""


@dataclass(frozen=True)
class TailRecipe:
    """How the tail is trained. ``warm`` starts from the weights of the base's own head.

    A step of the optimiser is of ``batch`` times ``accumulation`` images; ``batch`` of them go through at once.
    Training ends after ``epochs``, or when ``patience`` epochs in a row were no better on the validation part (0: it
    never ends early); the best epoch is kept. ``keep`` checkpoints are kept beside that of the best epoch. ``views`` of
    each training image are kept: itself, its mirror, and others changed by chance. ``error`` is the share of images of
    either class that may be called the other one; beyond it the model abstains.
    """

    tier: str = FAST.name
    epochs: int = 30
    batch: int = 64
    accumulation: int = 1
    rate: float = 2e-3
    weight_decay: float = 1e-2
    patience: int = 10
    views: int = 2
    warm: bool = False
    precision: str = "auto"
    keep: int = KEPT
    seed: int = 1
    error: float = 0.1

    @classmethod
    def parse(cls, values: dict[str, float | int | str | bool]) -> TailRecipe:
        """Return the recipe with ``values`` for its tier's defaults. Raise DatasetError if one makes no sense."""
        known = asdict(DEFAULTS[tier_named(values.get("tier", FAST.name))])
        recipe = cls(**{**known, **chosen(values, known, also=("condition", "slot"))})
        for key in ("epochs", "batch", "accumulation", "views", "keep"):
            require(key, getattr(recipe, key) >= 1, "at least 1")
        require("patience", recipe.patience >= 0, "at least 0, which never ends a run early")
        require("rate", recipe.rate > 0, "above 0")
        require("weight_decay", recipe.weight_decay >= 0, "at least 0")
        require("seed", 0 <= recipe.seed < SEEDS, f"from 0 to {SEEDS - 1}")
        refuse_precision(recipe.precision)
        low, high = ERRORS
        if not low <= recipe.error <= high:
            raise DatasetError(f"The recipe's error is {recipe.error:g}; it is a share from {low:g} to {high:g}.")
        return recipe

    @property
    def effective_batch(self) -> int:
        """Images that one step of the optimiser is of."""
        return self.batch * self.accumulation

    def trained_by(self) -> dict[str, Any]:
        """Return what the trained weights follow from."""
        return {key: value for key, value in asdict(self).items() if key not in _OF_NO_WEIGHT}


DEFAULTS = {
    FAST: TailRecipe(),
    INTENSIVE: TailRecipe(tier=INTENSIVE.name, epochs=20, batch=32, rate=5e-4, patience=6, views=4),
}
