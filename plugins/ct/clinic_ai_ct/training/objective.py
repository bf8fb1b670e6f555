"""What a phase learns: which weights at which rates, the loss of some cases, and how it is judged."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clinic_ai_ct.encoder import Features
from clinic_ai_ct.language import Language
from clinic_ai_ct.network import CTNetwork
from clinic_ai_ct.training.cases import Case
from clinic_ai_ct.training.phases import ENCODER, LORA, PROJECTOR, TASKS, Phase
from clinic_ai_ct.training.prepared import Prepared, stacked
from clinic_ai_ct.training.recipe import CTRecipe
from clinic_ai_ct.training.seeing import Seeing

VALIDATION_LOSS = "validation_loss"
Whole = dict[str, float]
"""What all the cases of a step have of something, so that the losses of portions add up to that of the step."""


@dataclass
class Scene:
    """What all phases of a run share; ``seeing`` is there where the encoder is frozen."""

    network: CTNetwork
    language: Language | None
    prepare: Callable[[Case], Prepared]
    recipe: CTRecipe
    device: torch.device
    seeing: Seeing | None = None

    def see(self, cases: Sequence[Case], ready: Sequence[Prepared]) -> Features:
        """Return the features of some cases: kept ones, or by the encoder as it learns."""
        if self.seeing is not None:
            return self.seeing(cases, self.prepare)
        images, regions = stacked(ready)
        return self.network.encode(images.to(self.device), None if regions is None else regions.to(self.device))

    def speaker(self) -> Language:
        """Return the language model, which the recipe of a phase that speaks has named."""
        assert self.language is not None  # as CTRecipe.parse has it
        return self.language


class Objective(ABC):
    """One phase over a scene."""

    def __init__(self, phase: Phase, scene: Scene, extra: nn.Module | None = None) -> None:
        """``extra`` learns with the encoder and is of no use afterwards."""
        self.phase, self.scene = phase, scene
        self.trained: dict[str, nn.Parameter] = {}
        """Weights that learn, by name."""
        self.rates: list[tuple[list[nn.Parameter], float]] = []
        scene.network.requires_grad_(False)
        rates = scene.recipe.rates_of(phase)
        if scene.language is not None:
            for name, weights in scene.language.model.named_parameters():
                weights.requires_grad_(LORA in rates and "lora_" in name)
        for part, rate in rates.items():
            learned = dict(self._weights(part, extra))
            self.trained |= learned
            self.rates.append((list(learned.values()), rate))
        for weights in self.trained.values():
            weights.requires_grad_(True)

    def _weights(self, part: str, extra: nn.Module | None) -> Iterator[tuple[str, nn.Parameter]]:
        network, language = self.scene.network, self.scene.language
        modules: dict[str, nn.Module] = {}
        if part == ENCODER:
            modules = {"encoder": network.encoder} | ({} if extra is None else {"extra": extra})
        if part == TASKS:
            modules |= {} if self.phase.name == "localisation" else {"classifier": network.classifier}
            modules |= {} if self.phase.name == "classification" else {"localiser": network.localiser}
        if part == PROJECTOR and (language is not None or self.phase.name != "joint"):
            modules = {"projector": network.projector}
        for module_name, module in modules.items():
            yield from ((f"{module_name}.{n}", w) for n, w in module.named_parameters() if w.numel())
        if part == LORA and language is not None:
            yield from ((f"lora.{n}", w) for n, w in language.model.named_parameters() if "lora_" in n)

    def training(self) -> None:
        """Switch to learning; a frozen encoder stays as it judges."""
        self.scene.network.train()
        if self.phase.frozen:
            self.scene.network.encoder.eval()

    def evaluating(self) -> None:
        """Switch to judging."""
        self.scene.network.eval()

    @abstractmethod
    def whole(self, cases: Sequence[Case]) -> Whole:
        """Return what all cases of a step have together."""

    @abstractmethod
    def loss(self, cases: Sequence[Case], whole: Whole, seed: int) -> Tensor:
        """Return the share that some cases have of the loss of their step; ``seed`` is that of the step."""

    @abstractmethod
    def judge(self, cases: Sequence[Case]) -> dict[str, float]:
        """Return ``validation_loss``, the phase's metric and other figures of cases; all are finite numbers."""


def generator_of(seed: int, case: Case) -> torch.Generator:
    """Return a generator for one case in one step: it does not depend on which cases are beside it."""
    said = hashlib.sha256(f"{seed} {case.name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(said[:7], "big"))
