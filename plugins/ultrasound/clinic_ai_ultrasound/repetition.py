"""Takes out of an answer what the model said over and over, such as "cec. cec. cec."."""

from __future__ import annotations

import re

_LONGEST_PHRASE = 24
"""Words of the longest phrase that is looked for in a row: a loop of two sentences or so."""
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def without_repetition(text: str) -> tuple[str, bool]:
    """Return ``text`` without what is repeated, and whether anything was.

    Of a word or a pair of words three times in a row, of a longer phrase twice in a row, of a sentence of three
    words or more anywhere, and of a shorter one next to itself, the first stays. With a loop goes a last round of it
    that broke off. Other text stays as it is.
    """
    words = text.split()
    kept = _without_phrases(words)
    sentences = _SENTENCE_END.split(" ".join(kept))
    once = _without_sentences(sentences)
    if len(kept) == len(words) and len(once) == len(sentences):
        return text, False
    return without_repetition(" ".join(once))[0], True  # what now stands beside each other may be a repetition again


def _without_phrases(words: list[str]) -> list[str]:
    keys = [_key(word) or word for word in words]
    kept: list[str] = []
    at = 0
    while at < len(words):
        length, times = _loop(keys, at)
        kept += words[at : at + length]
        at += length * times
        if times > 1 and len(keys) - at < length and keys[at:] == keys[at - length : len(keys) - length]:
            break  # the text ends in the middle of another round
    return kept


def _loop(keys: list[str], at: int) -> tuple[int, int]:
    """Return the words of the shortest phrase that is repeated at ``at``, and how often; (1, 1) if none is."""
    for length in range(1, min(_LONGEST_PHRASE, (len(keys) - at) // 2) + 1):
        phrase, times = keys[at : at + length], 1
        while keys[at + times * length : at + (times + 1) * length] == phrase:
            times += 1
        if times >= (3 if length < 3 else 2):
            return length, times
    return 1, 1


def _without_sentences(sentences: list[str]) -> list[str]:
    kept: list[str] = []
    said: set[str] = set()
    for sentence in sentences:
        key = _key(sentence)
        again = key in said if len(sentence.split()) > 2 else bool(kept) and key == _key(kept[-1])
        if not (key and again):
            kept.append(sentence)
            said.add(key)
    return kept


def _key(text: str) -> str:
    """Return what counts of ``text``: letters and digits, without case, one blank between words."""
    return " ".join(re.findall(r"\w+", text.casefold()))
