"""How a run learns: the keys of the recipe, their defaults, and what makes no sense."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

from clinic_ai.contract import Recipe
from clinic_ai.errors import DatasetError
from clinic_ai.ml.precision import refuse_precision
from clinic_ai.ml.recipes import chosen, require
from clinic_ai_ct.configurations import CONFIGURATIONS
from clinic_ai_ct.training.phases import LORA, Phase, phases_of

SEEDS = 2**31
_OF_NO_WEIGHT = {"keep", "cache_mb", "language", "text_encoder"}
"""Keys that change nothing of what is trained; what lies in the two directories is hashed on its own."""


@dataclass(frozen=True)
class CTRecipe:
    """What a person may choose.

    ``phase`` names the phases that are learned, in that order, with commas between them. ``epochs`` and ``rate`` of 0
    are those of each phase; any other ``rate`` is that of the fastest part, the other parts keep their share of it. A
    step of the optimiser is of ``batch`` times ``accumulation`` cases, ``batch`` of them at once as long as memory
    suffices. The rate rises over the share ``warm_up`` of a phase's steps and then falls evenly to zero. A phase ends
    early when ``patience`` epochs in a row were no better (0: never); the ``keep`` best checkpoints of each are kept.

    A network that is new is of ``configuration``; otherwise it is that of the base. ``language`` is the directory of a
    language model, ``text_encoder`` that of a BERT for a network that bundles none. ``rank`` and ``alpha`` of 0 are
    those of the configuration. ``samples`` reports are drawn of each case in ``grpo``, of ``longest`` tokens at most;
    ``paraphrase`` lets the language model write a fifth of the reports to learn from. ``cache_mb`` is what prepared
    volumes and frozen features may take on disk, for each of the two.
    """

    phase: str = "classification,localisation"
    configuration: str = "reference"
    language: str = ""
    text_encoder: str = ""
    epochs: int = 0
    rate: float = 0.0
    weight_decay: float = 0.01
    warm_up: float = 0.05
    batch: int = 1
    accumulation: int = 4
    patience: int = 0
    keep: int = 3
    hidden: float = 0.5
    samples: int = 2
    longest: int = 256
    rank: int = 0
    alpha: int = 0
    paraphrase: bool = False
    cache_mb: int = 8192
    precision: str = "auto"
    seed: int = 1

    @classmethod
    def parse(cls, values: Recipe) -> CTRecipe:
        """Return the recipe with ``values`` in place of defaults. Raise DatasetError if one makes no sense."""
        known = asdict(cls())
        recipe = cls(**{**known, **chosen(values, known)})
        for key in ("batch", "accumulation", "keep", "longest"):
            require(key, getattr(recipe, key) >= 1, "at least 1")
        for key in ("epochs", "rate", "weight_decay", "patience", "rank", "alpha", "cache_mb"):
            require(key, getattr(recipe, key) >= 0, "at least 0")
        require("samples", recipe.samples >= 2, "at least 2: a report is better or worse than another")
        require("warm_up", 0 <= recipe.warm_up < 1, "from 0 to less than 1")
        require("hidden", 0 < recipe.hidden < 1, "a share above 0 and below 1")
        require("seed", 0 <= recipe.seed < SEEDS, f"from 0 to {SEEDS - 1}")
        require("configuration", recipe.configuration in CONFIGURATIONS, f"one of {', '.join(CONFIGURATIONS)}")
        refuse_precision(recipe.precision)
        for phase in recipe.phases:
            if phase.speaks and not recipe.language and phase.name != "joint":
                raise DatasetError(
                    f"The phase {phase.name} needs a language model, and the recipe names none.",
                    remedy="Set language=DIRECTORY to a causal language model with its tokenizer, as safetensors.",
                )
        return recipe

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases in the order in which they are learned."""
        return phases_of(self.phase)

    @property
    def effective_batch(self) -> int:
        """Cases that one step of the optimiser is of."""
        return self.batch * self.accumulation

    def epochs_of(self, phase: Phase) -> int:
        """Return for how many epochs a phase is learned at most."""
        return self.epochs or phase.epochs

    def rates_of(self, phase: Phase) -> dict[str, float]:
        """Return the rate of each part that a phase trains; without a language model there is no LoRA."""
        share = self.rate / max(phase.rates.values()) if self.rate else 1.0
        return {part: share * rate for part, rate in phase.rates.items() if part != LORA or self.language}

    def trained_by(self) -> dict[str, Any]:
        """Return what the trained weights follow from."""
        return {key: value for key, value in asdict(self).items() if key not in _OF_NO_WEIGHT}

    def seed_of(self, phase: Phase, epoch: int, step: int = 0) -> int:
        """Return the seed of one step, counted from 0: what is left to chance in it follows from its place alone."""
        place = hashlib.sha256(f"{self.seed} {phase.name} {epoch} {step}".encode()).digest()
        return int.from_bytes(place[:7], "big")
