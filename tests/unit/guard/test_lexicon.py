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


def places(content: str, text: str) -> list[tuple[str, str]]:
    return [(m.key, text[m.start : m.end]) for m in parse_lexicon("trial", content).find(Text(text))]


def test_a_gap_lets_words_of_the_same_part_of_a_sentence_stand_between() -> None:
    terms = "nodes: enlarged ... lymph node\nheart: enlarged heart"
    long = "enlarged hilar, mediastinal or axillary lymph nodes"
    assert places(terms, f"No {long}.") == [("nodes", long)]
    assert places(terms, "enlarged lymph nodes") == [("nodes", "enlarged lymph nodes")]
    assert places(terms, "Enlarged heart and lymph nodes") == [("heart", "Enlarged heart")]
    for parted in (
        "enlarged. Lymph node",
        "enlarged; lymph node",
        "enlarged but lymph node",
        "enlarged a b c d e f lymph",
    ):
        assert places(terms, parted) == []


def test_the_longest_words_before_a_gap_win() -> None:
    terms = "artery: calcified plaque\ncoronary: calcified plaque ... coronary"
    assert places(terms, "Calcified plaque of the coronary arteries") == [
        ("coronary", "Calcified plaque of the coronary")
    ]
    assert places(terms, "Calcified plaque of the aorta") == [("artery", "Calcified plaque")]


def test_a_noun_is_shared() -> None:
    terms = "pleura: pleural / effusion, pleural effusion\nheart: pericardial effusion"
    assert [key for key, _ in places(terms, "pleural or pericardial effusion")] == ["pleura", "heart"]
    assert places(terms, "pleural thickening or effusion") == []


def test_what_is_none_of_them_is_passed_over() -> None:
    terms = "lung: nodule\n-: thyroid nodule"
    assert places(terms, "thyroid nodule, lung nodule") == [("lung", "nodule")]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "no term"),
        ("a*", "star"),
        ("lung: ,", "no word"),
        ("two wor*", "star"),
        ("lung: ... node", "both sides"),
        ("lung: node ...", "both sides"),
        ("lung: pleural / small effusion", "each side"),
    ],
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
