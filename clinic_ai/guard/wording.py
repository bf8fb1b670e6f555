"""The words that stand for a calibrated probability, and nothing else does.

A pack says them in its other languages under ``[words]``, and for patients under ``[patient_words]``.
"""

from __future__ import annotations

PROBABILITY_WORDS: tuple[tuple[float, str], ...] = (
    (0.75, "likely"),
    (0.25, "may represent"),
    (0.05, "unlikely"),
    (0.0, "very unlikely"),
)
"""Lowest probability and its word, descending; above 0.90 it is ``MOST_LIKELY``."""
MOST_LIKELY = "most likely"
ALL_WORDS = (MOST_LIKELY, *(word for _, word in PROBABILITY_WORDS))


def probability_word(probability: float) -> str:
    """Return the word for a calibrated probability in 0..1, such as "likely" for 0.82."""
    if probability > 0.90:
        return MOST_LIKELY
    return next((word for lowest, word in PROBABILITY_WORDS if probability >= lowest), "very unlikely")


def missing_words(table: dict[str, str]) -> list[str]:
    """Return the probability words that a table of translations leaves out, and keys in it that are none."""
    return [word for word in ALL_WORDS if not table.get(word, "").strip()] + sorted(set(table) - set(ALL_WORDS))


def percent(probability: float) -> str:
    """Return a probability as whole per cent; never 0 or 100, which would claim certainty."""
    return str(min(99, max(1, round(probability * 100))))
