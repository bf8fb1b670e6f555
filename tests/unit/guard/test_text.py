"""Folding hides nothing from a lexicon and never loses the way back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.guard.text import Text


@pytest.mark.parametrize(
    "written",
    [
        "CANCER",
        "cáncer",
        "c\u200ba\u200bncer",
        "саncer",
        "ｃａｎｃｅｒ",
        "c a n c e r",
        "c-a-n-c-e-r",
        "can\u00adcer",
        "can\x00cer",
    ],
)
def test_a_disguised_word_is_the_word(written: str) -> None:
    assert "cancer" in Text(f"it is {written} here").words


def test_abbreviations_are_not_joined_into_words() -> None:
    assert "|".join(Text("X x x x, 1 2 3 4 5; a b").words) == "x|x|x|x|1|2|3|4|5|a|b"


def test_sentences_are_ranges_of_tokens() -> None:
    assert Text("One two. Three 4.5 five!\nSix").sentences == ((0, 2), (2, 6), (6, 7))


@given(st.text(max_size=200))
def test_every_span_lies_in_the_original_and_in_order(raw: str) -> None:
    text = Text(raw)
    end = 0
    for token in text.tokens:
        assert token.word
        assert 0 <= token.start < token.end <= len(raw)
        assert token.start >= end - 1  # one character may fold to several words, which then share it
        end = token.end
    covered = [at for first, last in text.sentences for at in range(first, last)]
    assert covered == list(range(len(text.tokens)))


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=200))
def test_plain_text_keeps_its_offsets(raw: str) -> None:
    for token in Text(raw).tokens:
        assert raw[token.start : token.end].lower() == token.word
