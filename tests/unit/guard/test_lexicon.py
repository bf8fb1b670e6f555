"""Terms are found as people write and misspell them, and words that only look alike are not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.guard.lexicon import Lexicon, one_edit_apart, parse_lexicon, singular
from clinic_ai.guard.text import Text

LEXICON = parse_lexicon(
    "trial", "lung: pneumonia, pleural effusion, pleural fluid # a comment\nmetasta*\n\n# nothing\nmass\n!pneumonias\n"
)


def keys(text: str) -> list[str]:
    return [match.key for match in LEXICON.find(Text(text))]


@pytest.mark.parametrize(
    "text",
    [
        "pneumonia",
        "Pneumonia.",
        "pnuemonia",
        "pneumnia",
        "pneumoniia",
        "a pleural-effusion",
        "PLEURAL\nEFFUSIONS",
        "plural effusion",
    ],
)
def test_terms_are_found(text: str) -> None:
    assert keys(text) == ["lung"]


def test_prefixes_and_single_words() -> None:
    assert keys("Mass and metastases, metastatic") == ["mass", "metasta*", "metasta*"]


@pytest.mark.parametrize(
    "text", ["pneumonitis", "pleural thickening", "effusion", "massive", "moss", "", "pneumonectomy"]
)
def test_other_words_are_not_found(text: str) -> None:
    assert keys(text) == []


def test_the_place_is_that_of_the_original() -> None:
    raw = "Kein Größe: pleural  effusion!"
    (match,) = LEXICON.find(Text(raw))
    assert raw[match.start : match.end] == "pleural  effusion"


@pytest.mark.parametrize(
    ("content", "problem"), [("", "no term"), ("a*", "star"), ("lung: ,", "no word"), ("two wor*", "star")]
)
def test_a_lexicon_that_means_nothing_is_refused(content: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_lexicon("trial", content)


def edits(word: str, at: int, letter: str, how: str) -> str:
    at %= len(word)
    swapped = word[:at] + word[at + 1 : at + 2] + word[at : at + 1] + word[at + 2 :]
    return {
        "drop": word[:at] + word[at + 1 :],
        "add": word[:at] + letter + word[at:],
        "wrong": word[:at] + letter + word[at + 1 :],
        "swap": swapped,
    }[how]


@given(
    st.sampled_from(["pneumonia", "carcinoma", "effusion", "fracture"]),
    st.integers(1, 20),
    st.sampled_from("abcdefghijklmnopqrtuvwxyz"),
    st.sampled_from(["drop", "add", "wrong", "swap"]),
)
def test_any_one_edit_behind_the_first_letter_is_found(word: str, at: int, letter: str, how: str) -> None:
    at = 1 + at % (len(word) - 1)
    written = edits(word, at, letter, how)
    assert one_edit_apart(word, written)
    assert Lexicon([("k", word)]).find(Text(written))


@given(st.text(alphabet="abc", max_size=6), st.text(alphabet="abc", max_size=6))
def test_one_edit_apart_is_symmetric(left: str, right: str) -> None:
    assert one_edit_apart(left, right) == one_edit_apart(right, left)


def test_plurals_lose_their_s_and_other_words_keep_it() -> None:
    assert [singular(w) for w in ("nodules", "mass", "thus", "pelvis", "gas")] == [
        "nodule",
        "mass",
        "thus",
        "pelvis",
        "gas",
    ]


VOCABULARY = ["no", "pleural", "fluid", "effusion", "mass", "of", "the", "metastatic", "pneumonia"]


@given(st.lists(st.sampled_from(VOCABULARY), max_size=40))
def test_the_dictionary_finds_what_a_plain_search_finds(words: list[str]) -> None:
    terms = [("pneumonia",), ("pleural", "effusion"), ("pleural", "fluid"), ("mass",)]
    expected, at = 0, 0
    while at < len(words):
        hit = next((t for t in terms if tuple(words[at : at + len(t)]) == t), None)
        length = len(hit) if hit else 1
        expected += bool(hit) or words[at].startswith("metasta")
        at += length
    assert len(keys(" ".join(words))) == expected
