"""Folding hides nothing from a lexicon and never loses the way back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.guard.text import Text, _join_spelt_out


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
    ends = [0]
    for token in text.tokens:
        assert token.word
        assert 0 <= token.start < token.end <= len(raw)
        assert token.start >= ends[-1] or token.start >= ends[-1] - 1  # one character may fold to several words
        ends.append(token.end)
    covered = [at for first, last in text.sentences for at in range(first, last)]
    assert covered == list(range(len(text.tokens)))


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=200))
def test_plain_text_keeps_its_offsets(raw: str) -> None:
    for token in Text(raw).tokens:
        if token.end - token.start == len(token.word):
            assert raw[token.start : token.end].lower() == token.word


@pytest.mark.parametrize(
    "written",
    ["can\ufe0fcer", "can\U000e0147cer", "can\u034fcer", "can\u3164cer", "can\u115fcer", "can\uffa0cer", "can\u2800cer",
     "can\u17b4cer", "can\U0001d159cer", "can\ufffccer", "c\u0327" + "\u0301" * 50 + "ancer"],
)  # fmt: skip
def test_a_word_with_something_unseen_inside_is_the_word(written: str) -> None:
    assert Text(f"it is {written} here").words == ("it", "is", "cancer", "here")


def test_digits_of_any_script_and_letters_with_a_stroke_are_plain_ones() -> None:
    assert Text("١٢/٠٥/１９７０ Łukasz Sørensen Smıth Smithʼs").words == (
        "12", "05", "1970", "lukasz", "sorensen", "smith", "smith", "s",
    )  # fmt: skip


def test_a_long_row_of_one_letter_takes_linear_time() -> None:
    class Counted(list[str]):
        asked = 0

        def __getitem__(self, at):  # type: ignore[no-untyped-def]
            Counted.asked += 1
            return super().__getitem__(at)

    words = Counted("a" for _ in range(2000))
    bounds = list(range(2000))
    assert _join_spelt_out(words, bounds, bounds) == (["a"] * 2000, bounds, bounds)
    assert Counted.asked < 20 * len(words)
