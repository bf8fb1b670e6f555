"""What a text says of each condition it names: affirmed or denied, on which side, how large, how many, where."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from clinic_ai.guard.detectors.quantities import SIDES, Size, count_before, sizes
from clinic_ai.guard.lexicon import Lexicon, Match
from clinic_ai.guard.text import Text
from clinic_ai.guard.wording import ALL_WORDS

Entry = TypeVar("Entry")

WORDED = Lexicon((word, word) for word in ALL_WORDS)
_BACK = 8
"""A denial behind a condition speaks of it at most so many words on; one before it reaches to the end of the clause."""
_BREAKS = frozenset({"but", "however", "although", "though", "yet", "while", "whereas", "except"})
_JOINTS = frozenset({"and", "with", "plus", "as"})


class Claim(NamedTuple):
    """One condition in one sentence. ``denied`` is None where a probability word leaves it open."""

    match: Match
    denied: bool | None
    sides: frozenset[str]
    """"left", "right"; both for "bilateral"; empty if none is named."""
    sizes: tuple[Size, ...]
    number: tuple[int, bool] | None
    """How many, and whether at least so many."""
    clause: tuple[int, int]
    """The tokens (first, last + 1) that speak of it."""


def claims(text: Text, names: Lexicon, negations: Lexicon) -> tuple[Claim, ...]:
    """Return what the text says of each condition that ``names`` knows, from left to right."""
    key = (names, negations)
    if key not in text.found:
        text.found[key] = _claims(text, names, negations)
    made: tuple[Claim, ...] = text.found[key]
    return made


def _claims(text: Text, names: Lexicon, negations: Lexicon) -> tuple[Claim, ...]:
    named = names.find(text)
    if not named:
        return ()
    cues = negations.find(text)
    worded = WORDED.find(text)
    measured = sizes(text)
    starts = text.starts
    placed = [(bisect_left(starts, text.span(s.start, s.end)[0]), s) for s in measured]
    begins = [first for first, _ in text.sentences]

    def by_sentence(places: Iterable[tuple[int, Entry]]) -> dict[int, list[Entry]]:
        """Group what stands at a token by its sentence; most sentences have none of it."""
        groups: dict[int, list[Entry]] = {}
        for at, entry in places:
            groups.setdefault(bisect_right(begins, at) - 1, []).append(entry)
        return groups

    names_in, lengths_in = by_sentence((m.first, m) for m in named), by_sentence((at, (at, s)) for at, s in placed)
    hedges_in, cues_in = by_sentence((w.first, w) for w in worded), by_sentence((c.first, c) for c in cues)
    made: list[Claim] = []
    for number in sorted({*names_in, *lengths_in}):
        first, last = text.sentences[number]
        here, lengths = names_in.get(number, []), lengths_in.get(number, [])
        if not here:
            # "It measures 14 mm": of what was named last.
            if lengths and made and made[-1].match.last >= first - 40:
                made[-1] = made[-1]._replace(sizes=made[-1].sizes + tuple(s for _, s in lengths))
            continue
        hedged, spoken = number in hedges_in, cues_in.get(number, [])
        for index, match in enumerate(here):
            low, high = _clause(text, here, index, first, last)
            sides = _sides(text.words[low:high]) or (_sides(text.words[first:last]) if len(here) == 1 else frozenset())
            made.append(
                Claim(
                    match,
                    None if hedged else denied(text, match, spoken, first),
                    sides,
                    tuple(s for at, s in lengths if _nearest(at, here) is match),
                    count_before(text.words, match.first, low),
                    (low, high),
                )
            )
    return tuple(made)


def _nearest(at: int, here: Sequence[Match]) -> Match:
    return min(here, key=lambda m: m.first - at if at < m.first else at - m.last + 1)


def _sides(words: Sequence[str]) -> frozenset[str]:
    said = {SIDES[w] for w in words if w in SIDES}
    if "both" in said or "both" in words:
        return frozenset({"left", "right"})
    return frozenset(said)


def _clause(text: Text, here: Sequence[Match], index: int, first: int, last: int) -> tuple[int, int]:
    """Return the tokens that speak of one condition: up to the joint between it and its neighbours."""
    match = here[index]
    low = _joint(text, here[index - 1].last, match.first) if index else first
    high = _joint(text, match.last, here[index + 1].first) if index + 1 < len(here) else last
    return low, max(high, match.last)


def _joint(text: Text, low: int, high: int) -> int:
    """Return the first token behind the joint between two conditions; without one, the second condition's place."""
    for at in range(low, high):
        gap = text.raw[text.ends[at - 1] : text.starts[at]] if at else ""
        if "," in gap or ";" in gap or text.words[at] in _JOINTS or text.words[at] in _BREAKS:
            return at
    return high


def denied(text: Text, match: Match, cues: Sequence[Match], first: int) -> bool:
    """Return whether the sentence denies the condition. ``cues`` are the pack's negations in that sentence."""
    ends = [c.first for c in cues if c.key == "ends"]
    for cue in cues:
        low, high = sorted((cue.first, match.first))
        if any(low < end < high for end in ends) or _semicolon(text, low, high):
            continue
        if cue.key == "before" and first <= cue.first < match.first and _lists(text, cue.last, match.first):
            return True
        if cue.key == "after" and 0 <= cue.first - match.last <= _BACK:
            return True
    return False


def _semicolon(text: Text, low: int, high: int) -> bool:
    gaps = text.raw[text.ends[low] : text.starts[high]]
    return ";" in gaps or ":" in gaps


def _lists(text: Text, low: int, high: int) -> bool:
    """Whether a denial still reaches: within eight words, or farther along a list of commas and "or"."""
    since = low
    for at in range(low, high):
        gap = text.raw[text.ends[at - 1] : text.starts[at]] if at else ""
        if "," in gap or text.words[at] in {"or", "nor", "and"}:
            since = at
    return high - since <= _BACK
