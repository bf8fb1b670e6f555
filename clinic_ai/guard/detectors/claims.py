"""What a text says of each condition it names: affirmed or denied, on which side, how large, how many, where."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from clinic_ai.guard.detectors.denials import Denial, denial
from clinic_ai.guard.detectors.quantities import Size, count_before, present_sizes
from clinic_ai.guard.detectors.sections import silent
from clinic_ai.guard.detectors.sides import sides_of
from clinic_ai.guard.lexicon import Lexicon, Match
from clinic_ai.guard.text import Text, word_set
from clinic_ai.guard.wording import ALL_WORDS

Entry = TypeVar("Entry")

WORDED = Lexicon((word, word) for word in ALL_WORDS)
_BREAKS = frozenset({"but", "however", "although", "though", "yet", "while", "whereas", "except"})
_JOINTS = frozenset({"and", "with", "plus", "as"})
_TAKEN_FOR = frozenset({"keeping", "consistent", "compatible", "representing", "represents", "reflecting", "reflects"})
_REFERRING = word_set(
    "it its this these that those they them which largest larger biggest measures measuring measured measurement"
    " maximum maximal greatest dominant size diameter"
)
"""A sentence without a condition that begins with one of these speaks of the condition before it."""
_FIRST_WORDS = 4
_FAR = 40
"""A sentence more tokens behind a condition does not speak of it."""


class Claim(NamedTuple):
    """One condition in one sentence. ``denied`` is None where it is left open, as by a probability word."""

    match: Match
    denied: bool | None
    sides: frozenset[str]
    """"left", "right"; both for "bilateral"; empty if none is named."""
    sizes: tuple[Size, ...]
    number: tuple[int, bool] | None
    """How many, and whether at least so many."""
    clause: tuple[int, int]
    """The tokens (first, last + 1) that speak of it."""


def claims(
    text: Text,
    names: Lexicon,
    negations: Lexicon,
    normals: Lexicon | None = None,
    wanted: frozenset[str] | None = None,
) -> tuple[Claim, ...]:
    """Return what the text says of each condition that ``names`` knows, from left to right.

    If only ``wanted`` conditions matter, sentences that name none of them may be left out.

    ``normals`` knows what denies a condition without naming it, such as "heart size is normal". Sections that say
    nothing of this study, such as its indication, claim nothing.
    """
    key = (names, negations, normals, wanted)
    if key not in text.found:
        text.found[key] = _claims(text, names, negations, normals, wanted)
    made: tuple[Claim, ...] = text.found[key]
    return made


def _claims(
    text: Text, names: Lexicon, negations: Lexicon, normals: Lexicon | None, wanted: frozenset[str] | None
) -> tuple[Claim, ...]:
    normal = normals.find(text) if normals is not None else []
    named = _laid_over(names.find(text), normal)
    quiet = silent(text) if named else ()
    if quiet:
        named = [m for m in named if not any(first <= m.first < last for first, last in quiet)]
    if not named:
        return ()
    cues = negations.find(text)
    worded = WORDED.find(text)
    starts = text.starts
    placed = [(bisect_left(starts, text.span(s.start, s.end)[0]), s) for s in present_sizes(text)]
    begins = [first for first, _ in text.sentences]

    def by_sentence(places: Iterable[tuple[int, Entry]]) -> dict[int, list[Entry]]:
        """Group what stands at a token by its sentence; most sentences have none of it."""
        groups: dict[int, list[Entry]] = {}
        for at, entry in places:
            groups.setdefault(bisect_right(begins, at) - 1, []).append(entry)
        return groups

    names_in, lengths_in = by_sentence((m.first, m) for m in named), by_sentence((at, (at, s)) for at, s in placed)
    hedges_in, cues_in = by_sentence((w.first, w) for w in worded), by_sentence((c.first, c) for c in cues)
    lengths_in = {n: found for n, found in lengths_in.items() if n in names_in or _refers_back(text, n)}
    if wanted is not None and names_in.keys() >= lengths_in.keys():
        # "It measures 14 mm" may speak of any condition before it; here there is no such sentence.
        names_in = {n: here for n, here in names_in.items() if any(m.key in wanted for m in here)}
        lengths_in = {n: lengths for n, lengths in lengths_in.items() if n in names_in}
    healthy = set(normal)
    made: list[Claim] = []
    further: set[int] = set()
    for number in sorted({*names_in, *lengths_in}):
        first, last = text.sentences[number]
        here, lengths = names_in.get(number, []), lengths_in.get(number, [])
        if not here:
            if not any(low <= first < high for low, high in quiet):
                _measure(made, first, [s for _, s in lengths])
            continue
        spoken = cues_in.get(number, [])
        said = [Denial.YES if m in healthy else denial(text, m, here, spoken) for m in here]
        further.update(len(made) + n for n, d in enumerate(said) if d is Denial.FURTHER)
        there = [m for m, d in zip(here, said, strict=True) if d is not Denial.YES] or here
        owned = [(_owner(text, at, there), s) for at, s in lengths]
        for index, (match, how) in enumerate(zip(here, said, strict=True)):
            low, high = _clause(text, here, index, first, last)
            made.append(
                Claim(
                    match,
                    None if number in hedges_in or how is Denial.OPEN else how is not Denial.NO,
                    sides_of(text, low, high, match)
                    or (sides_of(text, first, last, match) if len(here) == 1 else frozenset()),
                    tuple(s for of, s in owned if of is match),
                    count_before(text, match.first, low),
                    (low, high),
                )
            )
    affirmed = {c.match.key for c in made if c.denied is False}
    # "No new nodule" behind a nodule says nothing against it.
    return tuple(c._replace(denied=None) if n in further and c.match.key in affirmed else c for n, c in enumerate(made))


def _laid_over(named: list[Match], normal: list[Match]) -> list[Match]:
    """Return both from left to right; a name inside a normal statement is part of it."""
    if not normal:
        return named
    kept = [m for m in named if not any(n.first < m.last and m.first < n.last for n in normal)]
    return sorted([*kept, *normal], key=lambda m: m.first)


def _refers_back(text: Text, number: int) -> bool:
    """Whether a sentence that names no condition may speak of the one before: "it measures 14 mm"."""
    first = text.sentences[number][0]
    return not _REFERRING.isdisjoint(text.words[first : first + _FIRST_WORDS])


def _measure(made: list[Claim], first: int, lengths: Sequence[Size]) -> None:
    """Give lengths of a sentence that names no condition to the one before, if it refers back: "it measures 14 mm"."""
    for index in range(len(made) - 1, -1, -1):
        if made[index].match.last < first - _FAR:
            return
        if not made[index].denied:
            made[index] = made[index]._replace(sizes=made[index].sizes + tuple(lengths))
            return


def _owner(text: Text, at: int, there: Sequence[Match]) -> Match:
    """Return the condition a length is of: the one it is parted from the least, else the one before it."""
    around = next((m for m in there if m.first <= at < m.last), None)
    if around is not None:
        return around  # a term with a gap: "heart size at 18 cm is increased"
    behind = next((m for m in there if m.first > at), None)
    before = next((m for m in reversed(there) if m.last <= at), None)
    if behind is None or before is None:
        return behind or before or there[0]
    apart = _parted(text, before.last - 1, at), _parted(text, at, behind.first)
    if apart == (0, 0):
        return behind if behind.first - at <= at - before.last + 1 else before
    return behind if apart[1] < apart[0] else before


def _parted(text: Text, low: int, high: int) -> int:
    """Return how strongly two tokens are parted: 2 by a semicolon or a "but", 1 by a comma or an "and"."""
    between, gaps = text.words[low + 1 : high], text.raw[text.ends[low] : text.starts[high]]
    if ";" in gaps or not _BREAKS.isdisjoint(between):
        return 2
    return int("," in gaps or not _JOINTS.isdisjoint(between))


def _clause(text: Text, here: Sequence[Match], index: int, first: int, last: int) -> tuple[int, int]:
    """Return the tokens that speak of one condition: up to the joint between it and its neighbours."""
    match, begin, end = here[index], index, index
    # "Pneumonic infiltrate of the left lower lobe": what stands together speaks of one place.
    while begin and _together(text, here[begin - 1], here[begin]):
        begin -= 1
    while end + 1 < len(here) and _together(text, here[end], here[end + 1]):
        end += 1
    low = _joint(text, here[begin - 1].last, here[begin].first) if begin else first
    high = _joint(text, here[end].last, here[end + 1].first) if end + 1 < len(here) else last
    low, high = _own_part(text, low, high, match)
    return low, max(high, match.last)


def _together(text: Text, one: Match, other: Match) -> bool:
    """Whether two conditions are told as one: side by side, or the second as what the first is taken for."""
    if not _TAKEN_FOR.isdisjoint(text.words[one.last : other.first]):
        return True
    return one.last == other.first and not text.raw[text.ends[one.last - 1] : text.starts[other.first]].strip()


def _own_part(text: Text, low: int, high: int, match: Match) -> tuple[int, int]:
    """Leave out what a semicolon parts from the condition."""
    if ";" not in text.raw[text.starts[low] : text.ends[high - 1]]:
        return low, high
    for at in range(match.first, low, -1):
        if ";" in text.raw[text.ends[at - 1] : text.starts[at]]:
            low = at
            break
    for at in range(match.last, high):
        if ";" in text.raw[text.ends[at - 1] : text.starts[at]]:
            return low, at
    return low, high


def _joint(text: Text, low: int, high: int) -> int:
    """Return the token behind the joint between two conditions; without one, the second condition's place.

    A semicolon counts before a "but", that before a comma or an "and"; of several the last: what stands between
    commas mostly goes on about the first ("nodule, 8 mm, and effusion").
    """
    best, weight = high, 0
    for at in range(low, high + 1):
        gap = text.raw[text.ends[at - 1] : text.starts[at]] if 0 < at < len(text.starts) else ""
        word = text.words[at] if at < high else ""
        found = 3 if ";" in gap else 2 if word in _BREAKS else int("," in gap or word in _JOINTS)
        if found and found >= weight:
            best, weight = at, found
    return best
