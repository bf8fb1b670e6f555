"""How sure a model is of an answer: what its own probabilities of the words say, calibrated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from clinic_ai.contract import ModelManifest
from clinic_ai.errors import ModelError
from clinic_ai.ml.calibration import sigmoid
from clinic_ai_ultrasound.loading import Base
from clinic_ai_ultrasound.sequences import embed

SLOPE, INTERCEPT = "confidence_slope", "confidence_intercept"
"""Parameters of a manifest: the probability that an answer is right is sigmoid(slope * mean + intercept)."""
QUESTIONS = "questions"
"""Parameter of an adapter: the questions it learned, one in each line. Its calibration holds for these."""


def holds_for(manifest: ModelManifest, question: str) -> bool:
    """Return whether the calibration of a model holds for a question, because it is one that the model learned.

    Capital letters, blanks and the mark at the end do not count. A model that does not list its questions is believed.
    """
    listed = manifest.parameters.get(QUESTIONS)
    return not isinstance(listed, str) or _plain(question) in set(map(_plain, listed.splitlines()))


def listed(questions: Iterable[str]) -> str:
    """Return questions as a manifest lists them."""
    return "\n".join(sorted({" ".join(question.split()) for question in questions}))


def _plain(question: str) -> str:
    return " ".join(question.casefold().split()).rstrip(" ?.!")


@dataclass(frozen=True)
class Calibration:
    """Turns the mean log-probability of an answer's tokens into the probability that the answer is right."""

    slope: float
    intercept: float

    @classmethod
    def of(cls, manifest: ModelManifest) -> Calibration | None:
        """Return the calibration of a model, None if it has none. Raise ModelError if it is no pair of numbers."""
        values = [manifest.parameters.get(key) for key in (SLOPE, INTERCEPT)]
        if values == [None, None]:
            return None
        numbers = [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]
        if len(numbers) != 2:
            raise ModelError(
                f"The calibration of {manifest.name} {manifest.version} is not a pair of numbers.",
                remedy=f"Its model.toml needs both {SLOPE} and {INTERCEPT}, or neither.",
            )
        return cls(*numbers)

    def probability(self, mean_log_probability: float) -> float:
        """Return the probability, 0..1, that an answer of this mean log-probability is right."""
        return sigmoid(self.slope * mean_log_probability + self.intercept)


@torch.inference_mode()
def mean_log_probabilities(
    base: Base, features: torch.Tensor, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> list[float]:
    """Return the mean natural log-probability of each answer's tokens after its prompt, as the model has them.

    ``features`` (n, image tokens, width) are of the images, ``prompts`` and ``answers`` token ids, no answer empty.
    The scores of the beam search will not do: they have the penalty for repetition in them, and what was forbidden.
    """
    rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    embeddings, mask = embed(base, features, rows)
    longest = max(map(len, answers))
    logits = base.model.language_model(
        inputs_embeds=embeddings, attention_mask=mask, logits_to_keep=longest + 1, use_cache=False
    ).logits.float()
    log_probabilities = logits.log_softmax(dim=-1)[:, :-1]  # a token is foretold one place before its own
    means = []
    for row, answer in zip(log_probabilities, answers, strict=True):
        tokens = torch.tensor(answer, device=row.device)
        means.append(row[-len(answer) :].gather(1, tokens[:, None]).mean().item())
    return means
