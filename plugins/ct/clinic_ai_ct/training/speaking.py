"""The alignment phase: projector and adapters learn to write each case's report with a frozen language model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from clinic_ai_ct.encoder import Features
from clinic_ai_ct.language import IGNORED, assembled
from clinic_ai_ct.training.cases import Case
from clinic_ai_ct.training.objective import VALIDATION_LOSS, Objective, Scene, Whole
from clinic_ai_ct.training.prepared import Prepared


class Aligning(Objective):
    """Learns the projector and the adapters."""

    def whole(self, cases: Sequence[Case]) -> Whole:
        """Return how many words, as the language model counts them, the reports have."""
        return {"words": words_of(self.scene, cases)}

    def loss(self, cases: Sequence[Case], whole: Whole, seed: int) -> Tensor:  # noqa: ARG002 - nothing is drawn
        """Return the cross-entropy of the words of the reports."""
        ready = [self.scene.prepare(case) for case in cases]
        return Words(self.scene).share(self.scene.see(cases, ready), cases, ready, whole["words"])

    @torch.no_grad()
    def judge(self, cases: Sequence[Case]) -> dict[str, float]:
        """Return the loss, and the share of words that are the likeliest after those before them."""
        words = Words(self.scene)
        for case in cases:
            ready = self.scene.prepare(case)
            words.add(self.scene.see([case], [ready]), case, ready)
        return {VALIDATION_LOSS: words.loss, self.phase.metric: words.foretold}


class Words:
    """What a language model behind the projector makes of reports."""

    def __init__(self, scene: Scene) -> None:
        self._scene, self._language = scene, scene.speaker()
        self._total, self._right, self._count = 0.0, 0.0, 0.0

    def share(self, features: Features, cases: Sequence[Case], ready: Sequence[Prepared], words: float) -> Tensor:
        """Return the share that some cases have of the loss of a step with so many ``words``."""
        losses, _, known = self._losses(features, cases, ready)
        return (losses * known).sum() / max(words, 1.0)

    def add(self, features: Features, case: Case, ready: Prepared) -> None:
        """Judge one case."""
        losses, right, known = self._losses(features, [case], [ready])
        self._total += float((losses * known).sum())
        self._right += float((right * known).sum())
        self._count += float(known.sum())

    @property
    def loss(self) -> float:
        """Mean over the words."""
        return self._total / max(1.0, self._count)

    @property
    def foretold(self) -> float:
        """Share of the words that are the likeliest ones."""
        return self._right / max(1.0, self._count)

    def _losses(
        self, features: Features, cases: Sequence[Case], ready: Sequence[Prepared]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return loss, whether it is the likeliest, and whether it counts, of each place (B, T)."""
        image = self._scene.network.project(features)
        reports = [one.report for one in ready]
        inputs, mask, labels = assembled(self._language, image, [one.asked for one in ready], reports)
        # A case that has nothing to tell teaches other tasks only.
        told = torch.tensor([case.told for case in cases], device=labels.device).unsqueeze(1)
        labels = torch.where(told, labels, IGNORED)[:, 1:]
        logits = self._language.model(inputs_embeds=inputs, attention_mask=mask).logits[:, :-1].float()
        losses = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
        return losses, (logits.argmax(dim=-1) == labels).float(), (labels != IGNORED).float()


def words_of(scene: Scene, cases: Sequence[Case]) -> float:
    """Return how many words the reports of some cases have, each with its end."""
    tokenizer = scene.speaker().tokenizer
    reports = [scene.prepare(case).report for case in cases if case.told]
    return float(sum(len(tokenizer(report, add_special_tokens=False)["input_ids"]) + 1 for report in reports))
