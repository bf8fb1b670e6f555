"""The words around a question; the same in training and in serving, so a model is asked as it was taught."""

from __future__ import annotations

PROMPT_VERSION = 1
"""Goes up with every change of ``prompt``; an adapter pins the version it was trained with."""


def prompt(question: str) -> str:
    """Return the question as BLIP-2 is asked it; blanks and line breaks in a row become one blank."""
    return f"Question: {' '.join(question.split())} Answer:"
