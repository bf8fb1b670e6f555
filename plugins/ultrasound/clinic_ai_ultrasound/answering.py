"""Answers questions about one picture with whatever adapter is in use."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from clinic_ai.contract import ModelManifest
from clinic_ai.domain import Generation
from clinic_ai.domain.words import MAX_TEXT
from clinic_ai.errors import InputError
from clinic_ai_ultrasound.confidence import mean_log_probabilities
from clinic_ai_ultrasound.loading import Base
from clinic_ai_ultrasound.prompts import prompt
from clinic_ai_ultrasound.repetition import without_repetition
from clinic_ai_ultrasound.sequences import embed, prompt_tokens

SHORTEST = "shortest_answer"
"""Parameter of an adapter: tokens of the shortest answer it learned from, without the end."""
REPETITION, CUT_OFF = "repetition", "cut_off"
"""Flags of an answer: something repeated was cut out; it did not end by itself."""


@dataclass(frozen=True)
class Seen:
    """What the vision tower makes of one picture; done once, however many questions follow.

    ``features`` (1, image tokens, width of the language model) is None where the Q-Former reads the question too.
    ``pooled`` (width of the vision tower) is the mean of the tower's last hidden states, float32.
    """

    pixels: torch.Tensor
    features: torch.Tensor | None
    pooled: torch.Tensor


@dataclass(frozen=True)
class Answered:
    """A question's answer as text for people, empty if there is none.

    ``mean_log_probability`` is that of its tokens as generated, its end among them: what calibration starts from.
    """

    text: str
    mean_log_probability: float
    flags: tuple[str, ...]


def fitting(generation: Generation, manifest: ModelManifest) -> Generation:
    """Return how the model of ``manifest`` generates: it need not say more than the shortest answer it learned.

    Forced to, it would go on behind "Yes." with words that nobody taught it.
    """
    shortest = manifest.parameters.get(SHORTEST, generation.min_new_tokens)
    if not isinstance(shortest, int) or not 0 <= shortest < generation.min_new_tokens:
        return generation
    return generation.model_copy(update={"min_new_tokens": shortest})


@torch.inference_mode()
def look(base: Base, picture: Image.Image) -> Seen:
    """Run the vision tower, and the Q-Former where it does not read the question, over an RGB picture."""
    pixels = base.processor.image_processor(picture, return_tensors="pt")["pixel_values"].to(base.device)
    if base.family == "instructblip":
        hidden = base.model.vision_model(pixels).last_hidden_state
        return Seen(pixels, None, hidden[0].float().mean(dim=0))
    output = base.model.get_image_features(pixels)
    return Seen(pixels, output.pooler_output, output.vision_outputs.last_hidden_state[0].float().mean(dim=0))


def batches(base: Base, questions: Sequence[str]) -> list[Sequence[str]]:
    """Return the questions about one picture as they are answered together.

    An int8 base answers one at a time: LLM.int8 chooses what it computes in floating point over the whole batch, so
    an answer would depend on what else is asked.
    """
    return [[question] for question in questions] if base.quantisation == "int8" else [questions]


def answer(
    base: Base, seen: Seen, questions: Sequence[str], generation: Generation, *, timeout_s: float
) -> list[Answered]:
    """Answer questions about one picture, as one batch where that is right; see ``batches``.

    Raise InputError if a question is too long for the model or has a word it cannot be asked, if the model computes
    what is no finite number, or if the answers to a batch are not finished in ``timeout_s`` seconds; then there is none
    at all.
    """
    return [
        one for batch in batches(base, questions) for one in _answer(base, seen, batch, generation, timeout_s=timeout_s)
    ]


@torch.inference_mode()
def _answer(
    base: Base, seen: Seen, questions: Sequence[str], generation: Generation, *, timeout_s: float
) -> list[Answered]:
    prompts = [prompt_tokens(base, question) for question in questions]
    _require_room(base, prompts, generation)
    features = image_features(base, seen, questions)
    embeddings, mask = embed(base, features, prompts)
    # Without the tokens of the prompt: with them the model returns the prompt too, and the penalties for repetition
    # would forbid an answer the words of the question.
    generated = base.model.language_model.generate(
        inputs_embeds=embeddings,
        attention_mask=mask,
        generation_config=_settings(base, generation),
        stopping_criteria=StoppingCriteriaList([_Deadline(time.monotonic() + timeout_s, timeout_s)]),
    )
    answers = [_ended(row, _stops(base)) for row in generated.tolist()]
    means = mean_log_probabilities(base, features, prompts, answers)
    if not all(map(math.isfinite, means)):  # weights may be finite each and overflow together
        raise InputError(
            "not_finite",
            "The model computes numbers that are not finite; what it says is not passed on.",
            remedy="Take its promotion back with `clinic-ai model rollback`, then train or import it again.",
        )
    return [
        _said(base, question, tokens, mean) for question, tokens, mean in zip(questions, answers, means, strict=True)
    ]


def image_features(base: Base, seen: Seen, questions: Sequence[str]) -> torch.Tensor:
    """Return what the language model is told of the picture for each question: (n, image tokens, width)."""
    if seen.features is not None:
        return seen.features.expand(len(questions), -1, -1)
    rows = []
    for question in questions:  # one by one, so that none is padded to the length of another
        words = base.processor.qformer_tokenizer(prompt(question), return_tensors="pt").to(base.device)
        rows.append(
            base.model.get_image_features(seen.pixels, words["input_ids"], words["attention_mask"]).pooler_output
        )
    return torch.cat(rows)


def _require_room(base: Base, prompts: Sequence[Sequence[int]], generation: Generation) -> None:
    longest = max(map(len, prompts)) + generation.max_new_tokens
    room = getattr(base.model.config.text_config, "max_position_embeddings", longest)
    if longest > room:
        raise InputError(
            "question_too_long",
            f"The question and its answer would take {longest} tokens; this model takes {room}.",
            remedy="Ask in fewer words.",
        )


def _stops(base: Base) -> tuple[int, ...]:
    """Return the tokens that end an answer: BLIP-2 checkpoints have a line break beside the tokenizer's own end."""
    ends = [base.tokenizer.eos_token_id]
    for config in (base.model.config.text_config, base.model.generation_config):
        its = config.eos_token_id
        ends += its if isinstance(its, list) else [its]
    return tuple(sorted({end for end in ends if end is not None}))


def _settings(base: Base, generation: Generation) -> GenerationConfig:
    return GenerationConfig(
        **generation.model_dump(),
        do_sample=False,
        suppress_tokens=[base.model.config.image_token_index],  # said, it would be taken for a part of the image
        eos_token_id=list(_stops(base)),
        pad_token_id=base.tokenizer.pad_token_id,
        bos_token_id=base.tokenizer.bos_token_id,
    )


class _Deadline(StoppingCriteria):
    """Ends the generation by an exception: criteria that return True would hand on answers broken off in the middle."""

    def __init__(self, at: float, timeout_s: float) -> None:
        self._at = at
        self._timeout_s = timeout_s

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        if time.monotonic() > self._at:
            raise InputError(
                "answer_timeout",
                f"No answer was finished within {self._timeout_s:g} s; an unfinished one is not passed on.",
                remedy="Ask again when the machine is less busy, or raise questions.answer_timeout_s in clinic.toml.",
            )
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def _ended(row: list[int], stops: Sequence[int]) -> list[int]:
    """Return the tokens up to and with the end; what follows in the row is padding."""
    ends = [at for at, token in enumerate(row) if token in stops]
    return row[: ends[0] + 1] if ends else row


def _said(base: Base, question: str, tokens: list[int], mean: float) -> Answered:
    flags = [] if tokens[-1] in _stops(base) else [CUT_OFF]
    decoded = base.tokenizer.decode(tokens, skip_special_tokens=True)
    text = " ".join("".join(c if c.isprintable() else " " for c in decoded).split())
    # A model that was hardly trained may say the prompt before the answer.
    text = text.removeprefix(prompt(question)).lstrip()
    text, repeated = without_repetition(text)
    if repeated:
        flags.append(REPETITION)
    if len(text) > MAX_TEXT:
        text, flags = text[:MAX_TEXT], [*flags, CUT_OFF]
    return Answered(text, mean, tuple(dict.fromkeys(flags)))
