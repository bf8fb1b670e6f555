"""The GRPO phase: of several reports drawn of a case, those better than the mean of them become likelier.

Group relative policy optimisation (Shao et al. 2024, arXiv:2402.03300) with one step of the optimiser for each draw, so
that the ratio of new and old policy is 1 and nothing is clipped; without a penalty for leaving the start, as TRL has it
by default. A loop of its own, because trainers of language models have no way for an image before the words. Only the
adapters learn; the image is what the frozen encoder and projector made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, pstdev

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from clinic_ai_ct.language import continued, draw
from clinic_ai_ct.training.cases import Case
from clinic_ai_ct.training.objective import VALIDATION_LOSS, Objective, Whole, generator_of
from clinic_ai_ct.training.prepared import Prepared
from clinic_ai_ct.training.reward import Reward, reward

_LEAST_SPREAD = 1e-4


class Rewarding(Objective):
    """Learns the adapters from rewards."""

    def training(self) -> None:
        """Everything stays as it judges: the language model has no dropout, and the rest is frozen."""
        self.scene.network.eval()

    def whole(self, cases: Sequence[Case]) -> Whole:
        """Return how many cases there are."""
        return {"cases": float(len(cases))}

    def loss(self, cases: Sequence[Case], whole: Whole, seed: int) -> Tensor:
        """Draw reports of each case and return what makes the better ones likelier."""
        losses = [self._of(case, generator_of(seed, case).initial_seed()) for case in cases]
        return torch.stack(losses).sum() / whole["cases"]

    @torch.no_grad()
    def judge(self, cases: Sequence[Case]) -> dict[str, float]:
        """Return the mean reward of the likeliest report of each case, and its parts."""
        language, rewards = self.scene.speaker(), []
        for case in cases:
            ready = self.scene.prepare(case)
            said = draw(language, self._image(case, ready), ready.asked, longest=self.scene.recipe.longest)
            rewards.append(self._reward(case, ready, said[0]))
        mean = fmean(one.total for one in rewards)
        return {
            VALIDATION_LOSS: 1 - mean,
            self.phase.metric: mean,
            "validation_bleu_rouge": fmean(one.words for one in rewards),
            "validation_label_f1": fmean(one.label_f1 for one in rewards),
            "validation_objected": fmean(one.objected for one in rewards),
        }

    def _of(self, case: Case, seed: int) -> Tensor:
        language, recipe = self.scene.speaker(), self.scene.recipe
        ready = self.scene.prepare(case)
        image = self._image(case, ready)
        with torch.random.fork_rng(devices=[image.device] if image.device.type == "cuda" else []):
            torch.manual_seed(seed)
            said = draw(language, image, ready.asked, longest=recipe.longest, samples=recipe.samples)
        rewards = [self._reward(case, ready, words).total for words in said]
        spread = pstdev(rewards)
        advantages = [(one - fmean(rewards)) / (spread + _LEAST_SPREAD) for one in rewards]
        parts = []
        for words, advantage in zip(said, advantages, strict=True):
            logits = continued(language, image, ready.asked, words).float()
            parts.append(advantage * F.cross_entropy(logits, words.to(logits.device)))
        return torch.stack(parts).mean()

    @torch.no_grad()
    def _image(self, case: Case, ready: Prepared) -> Tensor:
        return self.scene.network.project(self.scene.see([case], [ready]))

    def _reward(self, case: Case, ready: Prepared, words: Tensor) -> Reward:
        text = str(self.scene.speaker().tokenizer.decode(words, skip_special_tokens=True)).strip()
        return reward(text, ready.report, case.labels, ready.findings, ready.lesions)
