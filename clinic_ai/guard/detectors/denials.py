"""Whether a sentence denies a condition it names. The words that deny are the pack's; how far they reach is here.

Groups of the lexicon of negations: ``before`` denies what follows ("no"), ``after`` what stands before it ("not
seen"), ``next`` what ends right before it ("none"), ``done`` what stands before it or, without such, right behind it
("resolved"); ``open`` leaves it open ("cannot be excluded"); ``ends`` ends the reach of what denies ("but").
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from itertools import pairwise

from clinic_ai.guard.lexicon import Match
from clinic_ai.guard.text import Text, word_set

_AHEAD = 10
"""A denial reaches so many words on, and along a list from item to item."""
_BACK = 8
"""One behind a condition reaches so many words back."""
_ASIDE = 3
"""So many words behind a comma go on with a list: "infiltration, mass lesion is not seen"."""
_NEAR = 4
"""What leaves open, and what is done, stands so near."""
_JOINED = frozenset({"or", "nor", "and"})
_IS = frozenset({"is", "are", "was", "were"})
_VERBS = word_set("is are was were has have seen present noted shows with")
_ANEW = word_set(
    "a an the there small tiny minimal mild moderate marked severe extensive large new stable unchanged persistent"
    " residual known left right bilateral multiple several"
)
"""Behind a comma in a list that no "or" joins, these begin something that is there: "no effusion, small nodule"."""
_LOOKED_FOR = word_set(
    "detected identified observed seen noted found evident visible demonstrated appreciated visualized visualised"
    " distinguished suspected"
)
"""Behind a list without "or", these show that all of it was looked for: "no mass, nodule is detected"."""
_STATES = word_set("is are has have size increased enlarged calcified collapsed increase")
"""A condition in such words is a statement of its own: "no effusion, heart is enlarged"."""
_FURTHER = word_set(
    "new other additional further more newly second increasing acute recent fresh displaced significant large hilar"
    " axillary supraclavicular infraclavicular cervical retroperitoneal tension loculated cavitary cavitating calcified"
)
"""Who denies these of a condition does not deny one that is named elsewhere: "no new nodule", "no hilar adenopathy"."""


class Denial(Enum):
    """What a sentence says of a condition."""

    NO = "affirmed"
    YES = "denied"
    FURTHER = "others than one named elsewhere are denied"
    OPEN = "left open"


def denial(text: Text, match: Match, here: Sequence[Match], cues: Sequence[Match]) -> Denial:
    """Return whether one sentence denies ``match``. ``here`` and ``cues``: its conditions and its negations."""
    ends = [c.first for c in cues if c.key == "ends"]
    for cue in cues:
        low, high = (cue.last, match.first) if cue.first < match.first else (match.last, cue.first)
        if any(low <= end < high for end in ends) or _apart(text, low, high, adjacent=cue.first == match.last):
            continue
        ahead = cue.first < match.first
        if cue.key == "open" and high - low <= _NEAR:
            return Denial.OPEN
        if cue.key == "before" and ahead and _reaches(text, cue, match, cues):
            return _extent(text, cue.last, match)
        if (cue.key == "next" and cue.first == match.last) or (not ahead and _ends_on(text, match, cue)):
            return Denial.YES
        if cue.key in {"after", "done"} and not ahead and _reaches_back(text, match, cue, here):
            return _extent(text, match.first - 1, match)
        if cue.key == "done" and ahead and high - low < _NEAR and _nothing_before(cue, here):
            return Denial.YES
    return Denial.NO


def _extent(text: Text, first: int, match: Match) -> Denial:
    """Return whether all of a condition is denied, or only the kind that the words from ``first`` on tell."""
    kinds = text.words[max(0, first) : match.first]
    return Denial.YES if _FURTHER.isdisjoint((*kinds[:1], *kinds[-1:])) else Denial.FURTHER


def _ends_on(text: Text, match: Match, cue: Match) -> bool:
    """Whether nothing follows what denies: "pneumothorax: no", "but edema is not"."""
    between = text.words[match.last : cue.first]
    if cue.key != "before" or len(between) > 1 or not _IS.issuperset(between):
        return False
    behind = text.raw[text.ends[cue.last - 1] : text.starts[cue.last] if cue.last < len(text.starts) else None]
    return cue.last == len(text.words) or any(c in behind for c in ".;,\n|)")


def _apart(text: Text, low: int, high: int, *, adjacent: bool) -> bool:
    """Whether a semicolon or a colon stands between; "pneumothorax: none" is one statement all the same."""
    gaps = text.raw[text.ends[low - 1] : text.starts[high]] if low else ""
    return ";" in gaps or (":" in gaps and not adjacent)


def _comma(text: Text, at: int) -> bool:
    """Whether a comma stands before this token."""
    return at > 0 and "," in text.raw[text.ends[at - 1] : text.starts[at]]


def _reaches(text: Text, cue: Match, match: Match, cues: Sequence[Match]) -> bool:
    if any(c.key == "before" and cue.last <= c.first < match.first for c in cues):
        return False  # the nearer one decides
    since = cue.last
    commas: list[int] = []
    for at in range(cue.last, match.first + 1):
        comma = _comma(text, at)
        if comma and at > cue.last:
            commas.append(at)
        if comma or text.words[at] in _JOINED:
            since = at
    if match.first - since > _AHEAD:
        return False
    if not commas:
        return True
    words, end = text.words, _segment_end(text, match, cues)
    # "No effusion, no pneumothorax, small nodule": where each has its own "no", the reach ends at the comma.
    series = any(c.key == "before" and c.last <= cue.first for c in cues) and _comma(text, cue.first)
    looked_for = not _LOOKED_FOR.isdisjoint(words[match.last : end])
    bare = match.first - commas[-1] <= 1 and _STATES.isdisjoint(words[match.first : match.last])
    bare = bare and (match.last == end or _comma(text, match.last))
    for at in commas:
        rest = words[at:end]
        if "or" in rest or "nor" in rest:
            continue
        begins = words[at + 1] if words[at] == "and" else words[at]
        if series or begins in _ANEW or not ("and" in rest or looked_for or bare):
            return False
    return True


def _segment_end(text: Text, match: Match, cues: Sequence[Match]) -> int:
    """Return the token where a list of denied conditions must have ended."""
    after = [c.first for c in cues if c.key in {"before", "ends"} and c.first >= match.last]
    end = min([*after, match.last + 3 * _BACK, len(text.words)])
    for at in range(match.last, end):
        if any(c in text.raw[text.ends[at - 1] : text.starts[at]] for c in ";:.\n"):
            return at
    return end


def _reaches_back(text: Text, match: Match, cue: Match, here: Sequence[Match]) -> bool:
    """Whether what denies the condition before it denies this one: the nearest, or one of a list with it."""
    listed = [match, *(m for m in here if match.last <= m.first and m.last <= cue.first)]
    nearest = listed[-1]
    # "The nodule, known since May, is not seen" has two commas; "large effusion, the valve is not seen" has one.
    commas = [at for at in range(nearest.last, cue.first + 1) if _comma(text, at)]
    aside = commas[-1] - commas[0] if commas else 0
    if cue.first - nearest.last - aside > _BACK:
        return False
    if len(commas) == 1 and not _goes_on(text.words[commas[0] : cue.first]):
        return False
    joined = len(listed) == 1
    for one, two in pairwise(listed):
        words = text.words[one.last : two.first]
        joins = [w for w in words if w in _JOINED]
        if len(words) - len(joins) > 2 or not _VERBS.isdisjoint(words):
            return False
        if not joins and words and not any(_comma(text, at) for at in range(one.last, two.first + 1)):
            return False
        joined = joined or bool(joins) or not words
    return joined


def _goes_on(words: Sequence[str]) -> bool:
    """Whether what stands between a comma and a denial is a further item of a list."""
    if not _JOINED.isdisjoint(words):
        return True
    return len(words) <= _ASIDE and (not words or words[0] not in _ANEW)


def _nothing_before(cue: Match, here: Sequence[Match]) -> bool:
    """Whether no condition stands before what says that something is over, so that it speaks of the next."""
    return not any(m.last <= cue.first and cue.first - m.last <= _BACK for m in here)
