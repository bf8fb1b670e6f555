"""Which entries of the clinic's list of critical findings a result meets.

It looks at what the engine answered, before any guard or renderer: an alert must not depend on whether the rest goes
well. Whatever it reads stays inside: an alert names the entry of the list, never the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

from clinic_ai.domain import Analysis, Answer, Finding, Mask, Presence
from clinic_ai.guard.lexicon import one_edit_apart
from clinic_ai.guard.text import Text, word_set
from clinic_ai.settings import CriticalSettings
from clinic_ai.store.critical import Hit

REPEATS_MIN = {1: (5.0, 5.0, 10.0, 15.0), 2: (60.0,), 3: (1440.0,)}
"""Waits in minutes between notices, by category, where the entry names none."""

# Only a negation that stands right before the term counts: a miss costs more than an alarm too many.
_NEGATIONS = tuple(
    tuple(phrase.split())
    for phrase in (
        "no", "without", "no evidence of", "no sign of", "no signs of",
        "kein", "keine", "keinen", "ohne", "kein hinweis auf",
    )
)  # fmt: skip
_AFFIRMS = word_set("yes yeah correct indeed ja possible possibly probable probably likely may might moglich")
_DENIES = word_set("no not none without nor neither negative absent excluded nein kein keine keinen nicht ohne")
_LEAVES_OPEN = word_set("cannot can could kann")
"""An answer with one of these and "excluded" denies nothing."""
_WORD = re.compile(r"[^\W_]+")
_JOINED = 8
"""Terms of so many letters are found joined up or split by a hyphen too; shorter ones stand in other words."""
_MISSPELT = 7
"""Words of so many letters are found with one letter wrong."""
_PLURALS = (  # what a plural ends in, and what the word ends in
    ("s", ""), ("es", ""), ("ses", "sis"), ("ces", "x"), ("ies", "y"), ("i", "us"), ("ae", "a"), ("ata", "a"),
    ("a", "um"), ("n", ""), ("en", ""), ("e", ""),
)  # fmt: skip
_SPACE = re.compile(r"\s+")


class _Reading(NamedTuple):
    """A text as the guard reads it: its words, and what stands before each."""

    words: tuple[str, ...]
    gaps: tuple[str, ...]


def hits(entries: Iterable[CriticalSettings], analysis: Analysis) -> list[Hit]:
    """Return the entries that a result meets, each thing once, by its most urgent entry."""
    said = (*(sentence.text for sentence in analysis.report), *(answer.text for answer in analysis.answers))
    texts = [_read(text) for text in (*said, *analysis.remarks)]
    found: dict[str, Hit] = {}
    for entry in entries:
        if not (_condition_met(entry, analysis) if entry.condition else _term_met(entry, analysis, texts)):
            continue
        hit = _hit(entry)
        if hit.what not in found or hit.category < found[hit.what].category:
            found[hit.what] = hit
    return list(found.values())


def unknown_conditions(entries: Iterable[CriticalSettings], known: Iterable[str]) -> list[str]:
    """Return the conditions of the list that no result can have."""
    there = set(known)
    return sorted({entry.condition for entry in entries if entry.condition and entry.condition not in there})


def plain(text: str) -> str:
    """Return a text in one form: no capitals, one space between words, compatible characters made one."""
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def says(text: str, term: str) -> bool:
    """Return whether a text has a term as whole words, not denied by the words right before it.

    Both are read as the guard reads them: a hyphen is a blank, characters that no reader sees are none, letters that
    look alike are one. Plurals and one wrong letter in a word of seven letters count.
    """
    return _says(_read(text), term)


def _condition_met(entry: CriticalSettings, analysis: Analysis) -> bool:
    named = (finding.condition == entry.condition and _counts(entry, finding) for finding in analysis.findings)
    return any(named) or any(_says(_read(mask.name), entry.condition) for mask in analysis.masks if _positive(mask))


def _term_met(entry: CriticalSettings, analysis: Analysis, texts: Iterable[_Reading]) -> bool:
    """Return whether a text says the term, an answer affirms a question with it, or evidence is named by it."""
    if any(_says(text, entry.term) for text in texts):
        return True
    if any(_affirmed(answer, entry.term) for answer in analysis.answers):
        return True
    named = [name for f in analysis.findings if _counts(entry, f) for name in (f.condition, f.label)]
    named += [mask.name for mask in analysis.masks if _positive(mask)]
    return any(_says(_read(name), entry.term) for name in named)


def _counts(entry: CriticalSettings, finding: Finding) -> bool:
    return finding.presence is Presence.PRESENT or (entry.uncertain and finding.presence is Presence.UNCERTAIN)


def _positive(mask: Mask) -> bool:
    return mask.role == "finding" and mask.count > 0


def _affirmed(answer: Answer, term: str) -> bool:
    """Return whether the question has the term and the answer does not deny it; what is neither counts as a yes."""
    if not answer.text.strip() or not any(_places(_read(answer.question), term)):
        return False
    words = _read(answer.text).words
    if _AFFIRMS.intersection(words) or not _DENIES.intersection(words):
        return True
    return "excluded" in words and not _LEAVES_OPEN.isdisjoint(words)


def _read(text: str) -> _Reading:
    folded = Text(text).folded
    places = [match.span() for match in _WORD.finditer(folded)]
    ends = [0, *(end for _, end in places)]
    return _Reading(
        tuple(folded[start:end] for start, end in places),
        tuple(folded[end:start] for end, (start, _) in zip(ends, places, strict=False)),
    )


def _says(text: _Reading, term: str) -> bool:
    return any(not _denied(text, at) for at in _places(text, term))


def _places(text: _Reading, term: str) -> Iterator[int]:
    """Yield the words of a text where a term begins, as whole words or joined up and split otherwise."""
    wanted = _words_of(term)
    count = len(wanted)
    for at, word in enumerate(text.words[: len(text.words) - count + 1] if wanted else ()):
        if _same(word, wanted[0]) and all(map(_same, text.words[at + 1 : at + count], wanted[1:])):
            yield at
    joined = "".join(wanted)
    if len(joined) >= _JOINED and joined in (squeezed := "".join(text.words)):
        offsets = accumulate(map(len, text.words), initial=0)
        yield from (at for at, offset in enumerate(offsets) if squeezed.startswith(joined, offset))


@lru_cache(maxsize=256)
def _words_of(term: str) -> tuple[str, ...]:
    return _read(term).words


def _denied(text: _Reading, at: int) -> bool:
    """Return whether a negation ends right before a word, with nothing but blanks up to it."""
    return any(
        text.words[max(0, at - len(negation)) : at] == negation
        and all(gap.isspace() for gap in text.gaps[at - len(negation) + 1 : at + 1])
        for negation in _NEGATIONS
    )


@lru_cache(maxsize=65536)
def _same(word: str, wanted: str) -> bool:
    if word == wanted or not _singulars(word).isdisjoint(_singulars(wanted)):
        return True
    return min(len(word), len(wanted)) >= _MISSPELT and word[0] == wanted[0] and one_edit_apart(word, wanted)


@lru_cache(maxsize=8192)
def _singulars(word: str) -> frozenset[str]:
    """Return the word and what it may be the plural of."""
    found = (word[: -len(plural)] + end for plural, end in _PLURALS if word.endswith(plural))
    return frozenset({word, *(single for single in found if len(single) > 3)})


def _hit(entry: CriticalSettings) -> Hit:
    waits = entry.repeat_min or REPEATS_MIN[entry.category]
    return Hit(
        what=f"condition:{entry.condition}" if entry.condition else f"term:{plain(entry.term)}",
        category=entry.category,
        waits_s=tuple(60.0 * wait for wait in waits),
        escalate_after=entry.escalate_after,
        escalate_to=entry.escalate_to,
    )
