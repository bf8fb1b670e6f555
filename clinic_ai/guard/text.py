"""Text as the detectors see it: folded, cut into tokens and sentences, with the way back to the original offsets.

Folding undoes what could hide a word from a lexicon: case, accents, width, invisible characters, and letters of
other alphabets that look like Latin ones. Offsets handed out are always those of the original text.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

_PLAIN = re.compile(r"[\x20-\x7e\n\t]*\Z")
_RUN = re.compile(r"[\x20-\x7e\n\t]+|.", re.DOTALL)
"""A stretch of plain characters, or one that is not."""
_TOKEN = re.compile(r"[^\W_]+")
_SENTENCE_END = re.compile(r"[.!?]+(?=\s|\Z)|\n+")

# Letters of other alphabets that a reader takes for Latin ones (from Unicode's confusables, the lower-case letters).
_LOOKALIKES = str.maketrans("аеорсухіјѕԁһӏαερονικτυктмнв", "aeopcyxijsdhlaepoviktuktmhb")
_SPELT = re.compile(r"(?<![^\W_])[^\W\d_](?:[\W_]+[^\W\d_](?![^\W_])){3}")
"""Four single letters in a row; to look for them is cheaper than to walk the words."""
_SPELT_OUT = 4
"""So many single letters in a row are read as one word."""


class Token(NamedTuple):
    """A folded word and where it stands in the original text."""

    word: str
    start: int
    end: int


@lru_cache(maxsize=8192)
def _fold_character(character: str) -> str:
    if character in "\n\t":
        return character
    folded = unicodedata.normalize("NFKD", character).casefold().translate(_LOOKALIKES)
    kept = (c for c in folded if unicodedata.category(c) not in {"Mn", "Me", "Cf", "Cc", "Cs", "Co"})
    return "".join(" " if unicodedata.category(c) in {"Zs", "Zl", "Zp"} else c for c in kept)


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
    def folded(self) -> str:
        """The text as the lexicons see it."""
        return self._folded[0]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the span in ``raw`` of a non-empty span of ``folded``."""
        origin = self._folded[1]
        return (start, end) if origin is None else (origin[start], origin[end - 1] + 1)

    @cached_property
    def tokens(self) -> tuple[Token, ...]:
        """The words and numbers in order; letters s-p-e-l-t out are one word."""
        origin = self._folded[1]
        found = _TOKEN.finditer(self.folded)
        if origin is None:
            plain = [Token(m.group(), m.start(), m.end()) for m in found]
        else:
            plain = [Token(m.group(), *self.span(*m.span())) for m in found]
        return tuple(_join_spelt_out(plain) if _SPELT.search(self.folded) else plain)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The folded words without their places."""
        return tuple([token[0] for token in self.tokens])

    @cached_property
    def places(self) -> dict[str, list[int]]:
        """Where each word stands: its token indices, ascending."""
        places: dict[str, list[int]] = {}
        for at, word in enumerate(self.words):
            if word in places:
                places[word].append(at)
            else:
                places[word] = [at]
        return places

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """The folded words, each once."""
        return frozenset(self.places)

    @cached_property
    def sentences(self) -> tuple[tuple[int, int], ...]:
        """Ranges (first token, last token + 1) of the sentences that have any token."""
        starts = [token[1] for token in self.tokens]
        ends = [bisect_left(starts, self.span(*m.span())[1]) for m in _SENTENCE_END.finditer(self.folded)]
        bounds = [0, *ends, len(starts)]
        return tuple((first, last) for first, last in pairwise(bounds) if last > first)

    @cached_property
    def found(self) -> dict[object, Any]:
        """What a lexicon found here, by the lexicon: several detectors ask the same one."""
        return {}


def _join_spelt_out(tokens: list[Token]) -> list[Token]:
    joined: list[Token] = []
    at = 0
    while at < len(tokens):
        end = at
        while end < len(tokens) and len(tokens[end].word) == 1 and tokens[end].word.isalpha():
            end += 1
        run = tokens[at:end]
        if len(run) >= _SPELT_OUT and len({token.word for token in run}) > 1:
            joined.append(Token("".join(token.word for token in run), run[0].start, run[-1].end))
            at = end
        else:
            joined.append(tokens[at])
            at += 1
    return joined
