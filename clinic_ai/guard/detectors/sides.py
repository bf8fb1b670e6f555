"""On which side a clause says that its condition lies."""

from __future__ import annotations

from itertools import pairwise

from clinic_ai.guard.lexicon import Match
from clinic_ai.guard.text import Text, word_set

BOTH = frozenset({"left", "right"})
_LEFT = word_set("left l lt leftsided leftward lul lll lingula lingular links linke linken linker linkes linksseitig")
_RIGHT = word_set("right r rt rightsided rul rml rll rechts rechte rechten rechter rechtes rechtsseitig")
_EITHER = word_set("both bilateral bilaterally bilat bibasilar bibasal biapical beide beiden beidseits beidseitig bds")
SIDES = {**dict.fromkeys(_LEFT, "left"), **dict.fromkeys(_RIGHT, "right"), **dict.fromkeys(_EITHER, "both")}
_MOVED = word_set(
    "shift shifted shifting shifts displacement displaced displaces displacing deviation deviated deviates pushed"
    " pushing rotated rotation tilted"
)
"""Something is moved to a side; where the condition lies is another."""
_TO = frozenset({"to", "toward", "towards"})
_AT = frozenset({"on", "in", "at"})
_DEVICES = word_set(
    "picc line catheter port pacemaker tube drain electrode icd cannula sheath atrium ventricle atrial ventricular"
    " arch approach decubitus"
)
"""What a side belongs to that stands up to three words before it."""
_COMMA_COLON = frozenset(",:")
_LINKS = frozenset({"and", "or", "than", "as", "und"})
_TOGETHER = 6
"""Two sides so many words apart with a link between them are meant both."""


def sides_of(text: Text, low: int, high: int, match: Match) -> frozenset[str]:
    """Return "left", "right", both or none: the side nearest the condition among the tokens ``low`` to ``high``."""
    words = text.words
    said = [
        (at, side)
        for at in range(low, high)
        if (side := SIDES.get(words[at])) is not None and _of_condition(text, at, low, match)
    ]
    for at in range(low, high - 1):
        # Only the right lung has a middle lobe; whoever writes "left middle lobe" all the same says left.
        if words[at] == "middle" and words[at + 1] == "lobe" and not any(at - 3 < s < at + 6 for s, _ in said):
            said.append((at, "right"))
    if not said:
        return frozenset()
    named = {side for _, side in said}
    if len(named) == 1 or "both" in named:
        return BOTH if "both" in named else frozenset(named)
    at, side = min(said, key=lambda s: (_distance(s[0], match), s[0]))
    linked = any(
        other != side and abs(place - at) <= _TOGETHER and _linked(text, *sorted((place, at))) for place, other in said
    )
    return BOTH if linked else frozenset({side})


def _distance(at: int, match: Match) -> int:
    return match.first - at if at < match.first else max(0, at - match.last + 1)


def _linked(text: Text, low: int, high: int) -> bool:
    # "R>L", "left/right"
    gap = text.raw[text.ends[low] : text.starts[high]]
    return any(c in gap for c in ">/&+") or not _LINKS.isdisjoint(text.words[low + 1 : high])


def _of_condition(text: Text, at: int, low: int, match: Match) -> bool:
    """Whether the side word at ``at`` is not that of a shift or of a tube."""
    words = text.words
    if not _TO.isdisjoint(words[max(low, at - 2) : at]) and not _MOVED.isdisjoint(words[max(low, at - 7) : at]):
        return False
    if at + 1 < len(words) and words[at + 1] in _MOVED:
        return False
    if any(word in {"none", "not"} and after in _AT for word, after in pairwise(words[max(low, at - 3) : at])):
        return False  # "on the right, not on the left"
    return not _of_device(text, at, match)


def _of_device(text: Text, at: int, match: Match) -> bool:
    """Whether a device or a chamber of the heart stands behind the side word, before the condition and any comma."""
    for place in range(at + 1, min(at + 4, len(text.words))):
        # A heading: "Right: chest drain, no pneumothorax"
        if place == match.first or not _COMMA_COLON.isdisjoint(text.raw[text.ends[place - 1] : text.starts[place]]):
            return False
        if text.words[place] in _DEVICES:
            return True
    return False
