"""Questions and answers as tokens, and several of them as one batch with its labels.

A row is: the tokens of the image, the question in its prompt, the answer, the end. Only answer and end are learned.
Rows are padded on the right, so that nothing stands between image and text, and each token has the position that it has
when the model answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from clinic_ai.domain import QuestionAnswer
from clinic_ai.errors import DatasetError, InputError, ModelError
from clinic_ai_ultrasound.curriculum import words_of
from clinic_ai_ultrasound.loading import Base
from clinic_ai_ultrasound.prompts import prompt
from clinic_ai_ultrasound.sequences import prompt_tokens

IGNORED = -100
"""Label of a token that nothing is learned from."""


@dataclass(frozen=True)
class Row:
    """One question about one image, with its answer, as tokens.

    ``features`` is the key of what the image says; see ``features.key_of``. ``begin`` is where the answer begins,
    ``words`` how many words it has.
    """

    features: str
    tokens: tuple[int, ...]
    begin: int
    words: int = 1

    @property
    def learned(self) -> int:
        """How many tokens are learned: those of the answer, and the end."""
        return len(self.tokens) - self.begin


class Batch(NamedTuple):
    """Several rows: ``tokens``, ``mask`` and ``labels`` are int64 (rows, length), ``kept`` the positions that count.

    ``kept`` is the length of the tail of every row that holds all labels, and the one position before them, which
    foretells the first.
    """

    tokens: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    kept: int


def end_token(base: Base) -> int:
    """Return the token that ends an answer: the one the language model was trained to end with.

    BLIP-2 over OPT ends with a line break, which its config names; the tokenizer's own end would be new to it.
    """
    named = base.model.config.text_config.eos_token_id
    return int(named) if isinstance(named, int) else int(base.tokenizer.eos_token_id)


def encode(base: Base, features: str, pair: QuestionAnswer) -> Row:
    """Return one pair as tokens.

    Raise DatasetError if it is too long for the model or has words that mean something else to it, ModelError if the
    model would not see the image. The error quotes nothing: the audit keeps why a run failed, and a sheet may name
    people.
    """
    try:
        asked = prompt_tokens(base, pair.question)
        prompt_tokens(base, pair.answer)  # what a question may not hold, an answer may not either
    except InputError as error:
        raise DatasetError(
            "A question or its answer has a word in angle brackets that the model uses for something else.",
            remedy="Search the sheet for < and write it in plain words.",
        ) from error
    text = list(base.tokenizer(f"{prompt(pair.question)} {' '.join(pair.answer.split())}")["input_ids"])
    tokens = [*asked[: base.image_tokens], *text, end_token(base)]
    if tokens[: len(asked)] != asked:
        raise ModelError(f"The tokenizer of {base.ref.label()} joins the end of the question with the answer.")
    _require_image(base, tokens)
    room = getattr(base.model.config.text_config, "max_position_embeddings", len(tokens))
    if len(tokens) > room:
        raise DatasetError(
            f"A question of {len(pair.question)} characters with an answer of {len(pair.answer)} takes {len(tokens)} "
            f"tokens, those of the image among them; this model takes {room}.",
            remedy="Shorten it in the sheet.",
        )
    return Row(features, tuple(tokens), len(asked), words_of(pair.answer))


def shortest_answer(rows: Sequence[Row]) -> int:
    """Return the tokens of the shortest answer, without its end."""
    return min(row.learned for row in rows) - 1


def _require_image(base: Base, tokens: Sequence[int]) -> None:
    """Raise ModelError unless the image has its tokens, all of them at the beginning."""
    image, count = base.model.config.image_token_index, base.image_tokens
    places = [at for at, token in enumerate(tokens) if token == image]
    if not count or places != list(range(count)):
        raise ModelError(
            f"{base.ref.label()} has {count} tokens for an image, and a question has {len(places)} of them; it would "
            "be trained without seeing the image."
        )


def collate(base: Base, rows: Sequence[Row]) -> Batch:
    """Return rows as one batch on the device of the base; shorter ones are padded on the right."""
    length = max(len(row.tokens) for row in rows)
    shape = (len(rows), length)
    tokens = torch.full(shape, base.tokenizer.pad_token_id)
    mask = torch.zeros(shape, dtype=torch.int64)
    labels = torch.full(shape, IGNORED)
    for at, row in enumerate(rows):
        own = torch.tensor(row.tokens)
        tokens[at, : len(own)] = own
        mask[at, : len(own)] = 1
        labels[at, row.begin : len(own)] = own[row.begin :]
    kept = length - min(row.begin for row in rows) + 1
    return Batch(tokens.to(base.device), mask.to(base.device), labels.to(base.device), kept)
