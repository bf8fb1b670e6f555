"""Text as the detectors see it: folded, cut into tokens and sentences, with the way back to the original offsets.

Folding undoes what could hide a word from a lexicon: case, accents, width, invisible characters, and letters of
other alphabets that look like Latin ones. Offsets handed out are always those of the original text.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

_PLAIN = re.compile(r"[\x20-\x7e\n\t]*\Z")
_RUN = re.compile(r"[\x20-\x7e\n\t]+|.", re.DOTALL)
"""A stretch of plain characters, or one that is not."""
_GAP = re.compile(r"([\W_]+)")
"""What stands between two tokens; a token is a stretch of letters and digits."""
_PLAIN_GAPS = str.maketrans({c: " " for c in map(chr, range(128)) if not c.isalnum()})
_SENTENCE_END = re.compile(r"[.!?]+[\"”]?(?=\s|\Z)|\n+")
_ABBREVIATED = (" max", " min", " approx", " ca", " vs", " dr", " incl", "i.e", "e.g")
"""A point behind these ends no sentence."""

# Letters of other alphabets that a reader takes for Latin ones (from Unicode's confusables, the lower-case letters),
# Latin letters that do not decompose into one without a stroke, and letters that look like an apostrophe or a colon.
_LOOKALIKES = str.maketrans("аеорсухіјѕԁһӏαερονικτυктмнвıłøđħŧ∶", "aeopcyxijsdhlaepoviktuktmhbilodht:") | str.maketrans(
    {"æ": "ae", "œ": "oe", "þ": "th", "ð": "d", "ʼ": "'", "ʻ": "'", "ʹ": "'"}
)
_UNSEEN = re.compile(  # Default_Ignorable_Code_Point of Unicode 15.1, and what most fonts draw as nothing or as a blank
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffc\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_SPELT_OUT = 4
"""So many single letters in a row are read as one word."""


class Token(NamedTuple):
    """A folded word and where it stands in the original text."""

    word: str
    start: int
    end: int


def unseen(character: str) -> bool:
    """Return whether a reader sees nothing where this character stands; a line feed and a tab are seen."""
    if character in "\n\t":
        return False
    return unicodedata.category(character) in _HIDDEN_CATEGORIES or bool(_UNSEEN.match(character))


@lru_cache(maxsize=8192)
def _fold_character(character: str) -> str:
    if character in "\n\t":
        return character
    if _UNSEEN.match(character):
        return ""
    folded = unicodedata.normalize("NFKD", character).casefold().translate(_LOOKALIKES)
    kept = (c for c in folded if unicodedata.category(c) not in {"Mn", "Me", "Cf", "Cc", "Cs", "Co"})
    return "".join(_fold_kind(c) for c in kept)


def _fold_kind(character: str) -> str:
    """Return any blank as a space, a digit of any script as 0 to 9, and the rest as it is."""
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.decimal(character))
    return " " if category in {"Zs", "Zl", "Zp"} else character


@dataclass(frozen=True)
class Text:
    """One statement's text. All spans are (start, end) character offsets in ``raw``."""

    raw: str

    @cached_property
    def _folded(self) -> tuple[str, list[int] | None]:
        """The folded text, and for each of its characters the offset in ``raw`` (None: they are the same)."""
        if _PLAIN.match(self.raw):
            return self.raw.lower(), None
        pieces: list[str] = []
        origin: list[int] = []
        for run in _RUN.finditer(self.raw):
            start, end = run.span()
            if end - start > 1 or _PLAIN.match(run.group()):
                pieces.append(run.group().lower())
                origin.extend(range(start, end))
            else:
                piece = _fold_character(run.group())
                pieces.append(piece)
                origin.extend([start] * len(piece))
        return "".join(pieces), origin

    @property
    def plain(self) -> bool:
        """Whether the text is printable ASCII, line feeds and tabs only."""
        return self._folded[1] is None

    @property
    def folded(self) -> str:
        """The text as the lexicons see it."""
        return self._folded[0]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the span in ``raw`` of a non-empty span of ``folded``."""
        origin = self._folded[1]
        return (start, end) if origin is None else (origin[start], origin[end - 1] + 1)

    @cached_property
    def _cut(self) -> tuple[list[str], list[int], list[int]]:
        """The words with the offsets in ``raw`` where they start and end."""
        pieces = _GAP.split(self.folded)  # word, gap, word, …; the first and the last word may be empty
        bounds = list(accumulate(map(len, pieces), initial=0))
        words, starts, ends = pieces[::2], bounds[:-1:2], bounds[1::2]
        first, last = int(not words[0]), len(words) - int(not words[-1])
        words, starts, ends = words[first:last], starts[first:last], ends[first:last]
        origin = self._folded[1]
        if origin is not None:
            starts, ends = [origin[at] for at in starts], [origin[at - 1] + 1 for at in ends]
        return _join_spelt_out(words, starts, ends) if _spelt_out(words) else (words, starts, ends)

    @property
    def starts(self) -> list[int]:
        """Where each token starts in ``raw``."""
        return self._cut[1]

    @property
    def ends(self) -> list[int]:
        """Where each token ends in ``raw``, one behind its last character."""
        return self._cut[2]

    @cached_property
    def tokens(self) -> tuple[Token, ...]:
        """The words and numbers in order; letters s-p-e-l-t out are one word."""
        return tuple(map(Token, *self._cut))

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The folded words without their places."""
        if self.plain:
            # Most text ends here: where its words stand is asked only of text in which something was found.
            words = self.folded.translate(_PLAIN_GAPS).split()
            if not _spelt_out(words):
                return tuple(words)
        return tuple(self._cut[0])

    @cached_property
    def characters(self) -> frozenset[str]:
        """The characters of ``folded``, each once."""
        return frozenset(self.folded)

    @cached_property
    def places(self) -> dict[str, list[int]]:
        """Where each word stands: its token indices, ascending."""
        places: defaultdict[str, list[int]] = defaultdict(list)
        for at, word in enumerate(self.words):
            places[word].append(at)
        return dict(places)

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """The folded words, each once."""
        return frozenset(self.places)

    @cached_property
    def sentences(self) -> tuple[tuple[int, int], ...]:
        """Ranges (first token, last token + 1) of the sentences that have any token."""
        starts = self.starts
        folded = self.folded
        found = (m.span() for m in _SENTENCE_END.finditer(folded))
        spans = [(at, end) for at, end in found if not folded.endswith(_ABBREVIATED, 0, at)]
        ends = [bisect_left(starts, self.span(*span)[1]) for span in spans]
        bounds = [0, *ends, len(starts)]
        return tuple((first, last) for first, last in pairwise(bounds) if last > first)

    @cached_property
    def found(self) -> dict[object, Any]:
        """What a lexicon found here, by the lexicon: several detectors ask the same one."""
        return {}


def word_set(words: str) -> frozenset[str]:
    """Return words written in one line."""
    return frozenset(words.split())


def _spelt_out(words: list[str]) -> bool:
    """Whether so many single characters stand in a row; asked of every text, so all of it runs in C."""
    return bytes(_SPELT_OUT * [1]) in bytes(map((1).__eq__, map(len, words)))


def _join_spelt_out(words: list[str], starts: list[int], ends: list[int]) -> tuple[list[str], list[int], list[int]]:
    joined: tuple[list[str], list[int], list[int]] = ([], [], [])
    at = 0
    while at < len(words):
        end = at
        while end < len(words) and len(words[end]) == 1 and words[end].isalpha():
            end += 1
        run = words[at:end]
        if len(run) >= _SPELT_OUT and len(set(run)) > 1:
            joined[0].append("".join(run))
            joined[1].append(starts[at])
            joined[2].append(ends[end - 1])
            at = end
            continue
        # The whole run is left apart at once: from its second letter on it would be walked through again and again.
        end = max(end, at + 1)
        joined[0].extend(words[at:end])
        joined[1].extend(starts[at:end])
        joined[2].extend(ends[at:end])
        at = end
    return joined
