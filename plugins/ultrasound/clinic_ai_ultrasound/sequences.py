"""Rows of tokens and what an image says as one batch of embeddings, as the language model takes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clinic_ai.errors import InputError
from clinic_ai_ultrasound.loading import Base
from clinic_ai_ultrasound.prompts import prompt


def prompt_tokens(base: Base, question: str) -> list[int]:
    """Return the tokens of a question with its prompt: those of the image first, as the processor sets them.

    Raise InputError if the question has a word that is a token of its own, such as <image> or </s>: the model would
    take it for a part of the image, or for the end of what it was asked.
    """
    words = prompt(question)
    # The image token is not among all_special_ids; the unknown one stands for a sign the tokenizer does not have.
    special = {number for number, token in base.tokenizer.added_tokens_decoder.items() if token.special}
    said = base.tokenizer(words, add_special_tokens=False)["input_ids"]
    if special.intersection(said) - {base.tokenizer.unk_token_id}:
        raise InputError(
            "unusable_question",
            "The question has a word in angle brackets that the model uses for something else.",
            remedy="Ask in plain words.",
        )
    return [base.model.config.image_token_index] * base.image_tokens + list(base.tokenizer(words)["input_ids"])


def embed(base: Base, features: torch.Tensor, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return embeddings (n, length, width) and attention mask (n, length) of rows of tokens.

    ``features`` (n, image tokens, width) go where the image tokens are. Shorter rows are padded on the left, before
    the image: the processor would put the pads between image and text.
    """
    length = max(map(len, rows))
    pad: int = base.tokenizer.pad_token_id
    tokens = torch.tensor([[pad] * (length - len(row)) + list(row) for row in rows], device=base.device)
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows], device=base.device)
    embeddings = base.model.get_input_embeddings()(tokens)
    image = (tokens == base.model.config.image_token_index)[..., None]
    return embeddings.masked_scatter(image, features.to(embeddings.dtype)), mask
