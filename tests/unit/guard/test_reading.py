"""Reading grades against texts whose level is known, and sentences worked out by hand."""

from __future__ import annotations

import pytest

from clinic_ai.guard.reading import LANGUAGES, reading_grade
from clinic_ai.guard.text import Text


def grade(text: str, language: str) -> float:
    found = reading_grade(Text(text), language)
    assert found is not None
    return found


def test_english_by_hand() -> None:
    # Six words, two sentences, seven syllables.
    assert grade("The heart beats. It is open.", "en") == pytest.approx(0.39 * 3 + 11.8 * 7 / 6 - 15.59)


def test_german_by_hand() -> None:
    # Seven words in two sentences: five of one syllable, one of three ("arbeitet"), which is the only long one.
    by_hand = 0.1935 * 100 / 7 + 0.1672 * 3.5 + 0.1297 * 100 / 7 - 0.0327 * 500 / 7 - 0.875
    assert grade("Das ist Ihr Bild. Die Lunge arbeitet.", "de") == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("language", "easy", "hard"),
    [
        (
            "en",
            "The team will talk with you soon.",
            "Heterogeneous opacification necessitates subsequent multidisciplinary evaluation.",
        ),
        (
            "de",
            "Das Team spricht bald mit Ihnen.",
            "Heterogene Verschattungen erfordern anschließende interdisziplinäre Abklärungsuntersuchungen.",
        ),
    ],
)
def test_specialists_language_is_far_above_and_plain_language_far_below(language: str, easy: str, hard: str) -> None:
    assert grade(easy, language) < 5
    assert grade(hard, language) > 12
    assert grade(easy, f"{language}-AT") == grade(easy, language)


def test_a_language_without_a_formula_has_no_grade() -> None:
    assert LANGUAGES == ("en", "de")
    assert reading_grade(Text("Les poumons sont clairs."), "fr") is None
    assert reading_grade(Text("12 !"), "en") is None
