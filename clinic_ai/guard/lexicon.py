"""Word lists that are found in text by a dictionary of tokens: linear in the text, whatever the number of terms.

A file has one entry per line: ``term``, or ``key: term, term`` to name a group; ``#`` starts a comment. A term is
one or more words; ``metasta*`` stands for every word that begins so. ``!word`` is a word that is never taken for
a misspelling of another. Plurals in -s and one misspelt letter in words of seven letters or more are found too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from clinic_ai.guard.text import Text

_FUZZY_LENGTH = 7
_REMEMBERED = 20_000
_TERM_WORD = re.compile(r"[^\W_]+\*?")


class Match(NamedTuple):
    """A term found: its group, and the tokens (first, last + 1) and characters (start, end) it covers."""

    key: str
    first: int
    last: int
    start: int
    end: int


class Lexicon:
    """A word list, ready to search. Immutable but for a bounded memory of spellings it has already resolved."""

    def __init__(self, terms: Iterable[tuple[str, str]], *, never: Iterable[str] = ()) -> None:
        """Take (key, term) pairs. Raise ValueError if a term holds no word or a star it cannot have."""
        self.terms = tuple(terms)
        self._single: dict[str, str] = {}
        self._longer: dict[str, dict[str, list[tuple[tuple[str, ...], str]]]] = {}
        """Terms of several words by their first and second word."""
        self._prefixes: dict[str, str] = {}
        for key, term in self.terms:
            self._add(key, term)
        for by_second in self._longer.values():
            for entries in by_second.values():
                entries.sort(key=lambda entry: -len(entry[0]))  # the longest term wins
        self._prefix_lengths = sorted({len(prefix) for prefix in self._prefixes}, reverse=True)
        long_terms = (e for seconds in self._longer.values() for entries in seconds.values() for e in entries)
        self._vocabulary = {*self._single, *(word for words, _ in long_terms for word in words)}
        self._never = {singular(Text(word).folded.strip()) for word in never}
        self._deletions = _deletions(w for w in self._vocabulary if len(w) >= _FUZZY_LENGTH)
        # A misspelling keeps its first letter and its length but for one: a cheap test that spares most of the work.
        long = (w for w in self._vocabulary if len(w) >= _FUZZY_LENGTH)
        self._shapes = {(w[0], n) for w in long for n in range(len(w) - 1, len(w) + 2)}
        self._resolved: dict[str, str] = {}
        self._named: dict[str, frozenset[str]] = {}
        self._shelf: Shelf | None = None

    def _add(self, key: str, term: str) -> None:
        words = _TERM_WORD.findall(Text(term).folded)
        if not words:
            raise ValueError(f"the term {term!r} holds no word")
        if any("*" in word for word in words):
            if len(words) != 1 or len(words[0]) < 5:
                raise ValueError(f"the term {term!r} must be one word with a star behind at least four letters")
            self._prefixes[words[0].rstrip("*")] = key
            return
        parts = tuple(singular(word) for word in words)
        if len(parts) == 1:
            self._single.setdefault(parts[0], key)
        else:
            self._longer.setdefault(parts[0], {}).setdefault(parts[1], []).append((parts, key))

    def find(self, text: Text) -> list[Match]:
        """Return the terms in ``text`` from left to right, none overlapping another."""
        if self not in text.found:
            text.found[self] = self._search(text)
        matches: list[Match] = text.found[self]
        return matches

    def keys_of(self, name: str) -> frozenset[str]:
        """Return the groups of the terms in a short name, such as a plugin's label; asked again and again."""
        keys = self._named.get(name)
        if keys is None:
            if len(self._named) >= _REMEMBERED:
                self._named.clear()
            keys = self._named[name] = frozenset(m.key for m in self.find(Text(name)))
        return keys

    def _search(self, text: Text) -> list[Match]:
        shelf = self._shelf
        words = shelf.starts(text).get(self, ()) if shelf else [w for w in text.vocabulary if self.starts_with(w)]
        if not words:
            return []
        places = text.places
        found: list[Match] = []
        free = 0
        for at in sorted([at for word in words for at in places[word]]):
            if at >= free and (hit := self._match_at(text.words, at)) is not None:
                key, free = hit
                found.append(Match(key, at, free, text.starts[at], text.ends[free - 1]))
        return found

    def starts_with(self, word: str) -> bool:
        """Whether any term may start with this folded word, read as it is or as a misspelling."""
        meant = self._meant(word)
        return meant in self._single or meant in self._longer or bool(self._prefixes and self._prefix(meant))

    def _match_at(self, words: tuple[str, ...], at: int) -> tuple[str, int] | None:
        """Return the group of the longest term that starts at this token, and the token behind it."""
        first = self._meant(words[at])
        longer = self._longer.get(first)
        if longer and at + 1 < len(words):
            for parts, key in longer.get(self._meant(words[at + 1]), ()):
                end = at + len(parts)
                if len(parts) == 2 or (end <= len(words) and parts == tuple(map(self._meant, words[at:end]))):
                    return key, end
        if first in self._single:
            return self._single[first], at + 1
        prefix = self._prefix(first) if self._prefixes else ""
        return (self._prefixes[prefix], at + 1) if prefix else None

    def _prefix(self, word: str) -> str:
        return next((word[:n] for n in self._prefix_lengths if word[:n] in self._prefixes), "")

    def _meant(self, word: str) -> str:
        """Return the word of the vocabulary that is meant, or the word itself."""
        meant = self._resolved.get(word)
        if meant is None:
            if len(self._resolved) >= _REMEMBERED:
                self._resolved.clear()
            meant = self._resolved[word] = self._spelling(singular(word))
        return meant

    def _spelling(self, word: str) -> str:
        if word in self._vocabulary or word in self._never or (word[0], len(word)) not in self._shapes:
            return word
        for shorter in _one_left_out(word):
            if len(shorter) >= _FUZZY_LENGTH and shorter in self._vocabulary:
                return shorter
            for candidate in self._deletions.get(shorter, ()):
                if one_edit_apart(word, candidate):
                    return candidate
        return word


class Shelf:
    """Lexicons that are asked about the same texts: which of them know a word is found out once for each word."""

    def __init__(self, lexicons: Iterable[Lexicon]) -> None:
        """Take the lexicons; each searches by this shelf from now on."""
        self._lexicons = tuple(lexicons)
        self._known: dict[str, tuple[Lexicon, ...]] = {}
        for lexicon in self._lexicons:
            lexicon._shelf = self

    def starts(self, text: Text) -> dict[Lexicon, list[str]]:
        """Return for each lexicon that has any the words of the text that a term may start with."""
        if self not in text.found:
            text.found[self] = self._sorted(text)
        found: dict[Lexicon, list[str]] = text.found[self]
        return found

    def _sorted(self, text: Text) -> dict[Lexicon, list[str]]:
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        known = self._known
        for word in text.vocabulary.difference(known):
            known[word] = tuple(lexicon for lexicon in self._lexicons if lexicon.starts_with(word))
        found: dict[Lexicon, list[str]] = {}
        for word in text.vocabulary:
            for lexicon in known[word]:
                found.setdefault(lexicon, []).append(word)
        return found


@lru_cache(maxsize=4096)
def _one_left_out(word: str) -> tuple[str, ...]:
    """Return the word, and it with each one of its letters left out."""
    return (word, *(word[:i] + word[i + 1 :] for i in range(len(word))))


def singular(word: str) -> str:
    """Return an English word without the plural -s: nodules → nodule; thus, mass and pelvis stay."""
    if len(word) > 3 and word.endswith("s") and word[-2] not in "sui":
        return word[:-1]
    return word


def _deletions(words: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Map each spelling with one letter left out to the words it comes from."""
    table: dict[str, tuple[str, ...]] = {}
    for word in sorted(words):
        for shorter in set(_one_left_out(word)[1:]):
            table[shorter] = (*table.get(shorter, ()), word)
    return table


def one_edit_apart(left: str, right: str) -> bool:
    """Return whether one inserted, left out, wrong or swapped letter turns one word into the other."""
    if abs(len(left) - len(right)) > 1:
        return False
    start = 0
    shorter = min(len(left), len(right))
    while start < shorter and left[start] == right[start]:
        start += 1
    rest_left, rest_right = left[start:], right[start:]
    return (
        rest_left[1:] == rest_right[1:]
        or rest_left[1:] == rest_right
        or rest_left == rest_right[1:]
        or (rest_left[:2] == rest_right[1::-1] and rest_left[2:] == rest_right[2:])
    )


def parse_lexicon(name: str, content: str) -> Lexicon:
    """Read a lexicon file. Raise ValueError, naming every bad line, if it cannot be used."""
    terms: list[tuple[str, str]] = []
    never: list[str] = []
    problems: list[str] = []
    for number, line in enumerate(content.splitlines(), start=1):
        entry = line.partition("#")[0].strip()
        if entry.startswith("!"):
            never.append(entry[1:])
        elif entry:
            key, colon, rest = entry.partition(":")
            group = [part.strip() for part in rest.split(",")] if colon else [entry]
            for term in group:
                try:
                    Lexicon([(key.strip(), term)])
                except ValueError as error:
                    problems.append(f"lexicons/{name}.txt line {number}: {error}")
                else:
                    terms.append((key.strip(), term))
    if not terms and not problems:
        problems.append(f"lexicons/{name}.txt holds no term")
    if problems:
        raise ValueError("; ".join(problems))
    return Lexicon(terms, never=never)
