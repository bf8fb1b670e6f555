"""What is learned and what is not, token by token; where each token stands."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image

from clinic_ai.domain import QuestionAnswer
from clinic_ai.errors import DatasetError, ModelError
from clinic_ai_ultrasound.answering import look
from clinic_ai_ultrasound.collating import IGNORED, collate, encode, end_token, shortest_answer
from clinic_ai_ultrasound.fitting import forward
from clinic_ai_ultrasound.prompts import prompt
from clinic_ai_ultrasound.sequences import embed, prompt_tokens

LONG = QuestionAnswer(question="In which half  of the image does the abdomen lie?", answer="In the\nleft half.")
SHORT = QuestionAnswer(question="Is it?", answer="Yes.")


@pytest.fixture
def rows(loaded):
    return [encode(loaded, "a", LONG), encode(loaded, "b", SHORT)]


def test_the_masks_token_by_token(loaded, rows):
    batch = collate(loaded, rows)
    words, image = loaded.tokenizer, loaded.model.config.image_token_index
    asked = [words(prompt(pair.question))["input_ids"] for pair in (LONG, SHORT)]
    answers = [words(f" {text}", add_special_tokens=False)["input_ids"] for text in ("In the left half.", SHORT.answer)]
    length = batch.tokens.shape[1]
    assert length == 4 + len(asked[0]) + len(answers[0]) + 1
    for row, (question, answer) in enumerate(zip(asked, answers, strict=True)):
        learned = [*answer, end_token(loaded)]
        pads = length - 4 - len(question) - len(learned)
        assert batch.tokens[row].tolist() == [image] * 4 + question + learned + [words.pad_token_id] * pads
        assert batch.mask[row].tolist() == [1] * (length - pads) + [0] * pads
        assert batch.labels[row].tolist() == [IGNORED] * (4 + len(question)) + learned + [IGNORED] * pads
    assert pads > 0
    kept = batch.labels[:, -batch.kept :]
    assert (kept != IGNORED).sum() == (batch.labels != IGNORED).sum()
    assert (kept[:, 0] == IGNORED).all(), "the first label has a place before it that foretells it"
    assert shortest_answer(rows) == len(answers[1])


def test_it_is_taught_as_it_is_asked(loaded, rows):
    """Padded on the right to learn and on the left to answer, a question has the same position and the same end."""
    seen = look(loaded, Image.new("RGB", (40, 40), (90, 120, 30)))
    features = seen.features.clone().expand(2, -1, -1)
    prompts = [prompt_tokens(loaded, pair.question) for pair in (LONG, SHORT)]
    embeddings, mask = embed(loaded, features, prompts)
    with torch.no_grad():
        asked = loaded.model.language_model(inputs_embeds=embeddings, attention_mask=mask).logits[:, -1]
        batch = collate(loaded, rows)
        taught = forward(loaded, batch, features).logits
    first = batch.kept - batch.tokens.shape[1]
    for row, encoded in enumerate(rows):
        assert torch.allclose(taught[row, encoded.begin - 1 + first], asked[row], atol=1e-4)


def test_every_image_token_is_counted(loaded, rows):
    assert all(row.tokens.count(loaded.model.config.image_token_index) == 4 for row in rows)
    config = loaded.model.config
    blind = replace(
        loaded, model=type("Blind", (), {"config": type(config)(**{**config.to_dict(), "num_query_tokens": 0})})
    )
    with pytest.raises(ModelError, match="trained without seeing the image"):
        encode(blind, "a", SHORT)


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        (
            QuestionAnswer(question="Is it Doe?", answer="Yes " * 300),
            "of 1200 takes .* this model takes 256",
        ),
        (QuestionAnswer(question="What is Doe's <image>?", answer="Yes."), "angle brackets"),
        (QuestionAnswer(question="Is it?", answer="Yes, Doe.</s> No."), "angle brackets"),
    ],
)
def test_a_pair_the_model_cannot_take_is_refused_and_not_quoted(loaded, pair, says):
    with pytest.raises(DatasetError, match=says) as refused:
        encode(loaded, "a", pair)
    assert "Doe" not in f"{refused.value.message} {refused.value.remedy}"
