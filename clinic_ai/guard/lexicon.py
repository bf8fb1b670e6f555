"""Word lists that are found in text by a dictionary of tokens: linear in the text, whatever the number of terms.

A file has one entry per line: ``term``, or ``key: term, term`` to name a group; ``#`` starts a comment. A term is
one or more words; ``metasta*`` stands for every word that begins so, and ``enlarged ... lymph node`` lets up to five
words of the same part of a sentence stand between; ``pleural / effusion`` finds the first of two that share a noun, as
in "pleural or pericardial effusion". What the group ``-`` names is passed over: ``-: thyroid nodule``
keeps ``nodule`` from being found in it. ``!word`` is a word that is never taken for a misspelling of another.
Plurals in -s and one misspelt letter in words of seven letters or more are found too.

In a pack that extends another, a list of the same name says with a line ``@base`` that it takes the other's terms in,
or with a line ``@replace`` that it does without them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

from clinic_ai.guard.text import Text

_FUZZY_LENGTH = 7
_REMEMBERED = 20_000
_REMEMBERED_LABELS = 1_000
_TERM_WORD = re.compile(r"[^\W_]+\*?")
NEITHER = "-"
"""The group of the terms that are passed over."""
TAKE_IN = "@base"
REPLACE = "@replace"
_GAP = "..."
_GAP_WORDS = 5
_SHARED = " / "
_SHARED_WORDS = 3
_SHARING = frozenset({"and", "or", "nor"})
_GAP_ENDS = frozenset({"but", "with", "without", "while", "whereas", "although", "however", "no", "not", "normal"})


class Match(NamedTuple):
    """A term found: its group, and the tokens (first, last + 1) and characters (start, end) it covers."""

    key: str
    first: int
    last: int
    start: int
    end: int


Pairs = dict[str, list[tuple[tuple[str, ...], str]]]
"""Terms of several words and their groups, by their second word."""
Gapped = tuple[tuple[str, ...], tuple[str, ...], str]
"""The words before a gap, those behind it, the group."""


class Begun(NamedTuple):
    """What may start with a word: a term alone (its group), terms of several words, with a gap, with a shared noun."""

    alone: str | None
    pairs: Pairs | None
    gapped: list[Gapped] | None
    shared: list[tuple[str, str]] | None


class Lexicon:
    """A word list, ready to search. Immutable but for a bounded memory of what it has already resolved."""

    def __init__(self, terms: Iterable[tuple[str, str]], *, never: Iterable[str] = ()) -> None:
        """Take (key, term) pairs. Raise ValueError if a term holds no word or a star it cannot have."""
        self.terms = tuple(terms)
        self.groups = frozenset(key for key, _ in self.terms)
        self._single: dict[str, str] = {}
        self._by_pair: dict[str, Pairs] = {}
        """Terms of several words by their first and second: many begin with "not"."""
        self._gapped: dict[str, list[Gapped]] = {}
        """By its first word: the words before the gap, those behind it, the group."""
        self._shared: dict[str, list[tuple[str, str]]] = {}
        """By its word: the noun it shares, the group."""
        self._prefixes: dict[str, str] = {}
        for key, term in self.terms:
            self._add(key, term)
        several = [entries for seconds in self._by_pair.values() for entries in seconds.values()]
        for entries in several:
            entries.sort(key=lambda entry: -len(entry[0]))  # the longest term wins
        self._prefix_lengths = sorted({len(prefix) for prefix in self._prefixes}, reverse=True)
        self._vocabulary = {*self._single, *(word for entries in several for words, _ in entries for word in words)}
        self._vocabulary |= {w for e in self._gapped.values() for before, behind, _ in e for w in (*before, *behind)}
        self._vocabulary |= {word for first, pairs in self._shared.items() for word in (first, *(n for n, _ in pairs))}
        self._never = {singular(Text(word).folded.strip()) for word in never}
        self._deletions = _deletions(w for w in self._vocabulary if len(w) >= _FUZZY_LENGTH)
        # A misspelling keeps its first letter and its length but for one: a cheap test that spares most of the work.
        long = (w for w in self._vocabulary if len(w) >= _FUZZY_LENGTH)
        self._shapes = {(w[0], n) for w in long for n in range(len(w) - 1, len(w) + 2)}
        self._resolved: dict[str, str] = {}
        self._starts: dict[str, Begun] = {}
        self._keys: dict[str, frozenset[str]] = {}
        self._shelf = Shelf((self,))

    def _add(self, key: str, term: str) -> None:
        kind, parts, before = _read_term(term)
        if kind == "star":
            self._prefixes[parts[0]] = key
        elif kind == "gap":
            self._gapped.setdefault(parts[0], []).append((parts[:before], parts[before:], key))
        elif kind == "shared":
            self._shared.setdefault(parts[0], []).append((parts[1], key))
        elif len(parts) == 1:
            self._single.setdefault(parts[0], key)
        else:
            self._by_pair.setdefault(parts[0], {}).setdefault(parts[1], []).append((parts, key))

    def find(self, text: Text) -> list[Match]:
        """Return the terms in ``text`` from left to right, none overlapping another."""
        if self not in text.found:
            text.found[self] = self._search(text)
        matches: list[Match] = text.found[self]
        return matches

    def keys(self, label: str) -> frozenset[str]:
        """Return the groups found in a short text that is asked for often, such as the label of a finding."""
        if label not in self._keys:
            if len(self._keys) >= _REMEMBERED_LABELS:
                self._keys.clear()
            self._keys[label] = frozenset(match.key for match in self.find(Text(label)))
        return self._keys[label]

    def _search(self, text: Text) -> list[Match]:
        words = self._shelf.starts(text).get(self)
        if not words:
            return []
        places = text.places
        found: list[Match] = []
        free = 0
        for at in sorted([at for word in words for at in places[word]]):
            if at >= free and (hit := self._match_at(text, at)) is not None:
                key, free = hit
                if key != NEITHER:
                    found.append(Match(key, at, free, text.starts[at], text.ends[free - 1]))
        return found

    @property
    def first_words(self) -> set[str]:
        """The words that terms begin with, stars aside."""
        return {*self._single, *self._by_pair, *self._gapped, *self._shared}

    @property
    def prefixes(self) -> set[str]:
        """What words begin with that a term with a star stands for."""
        return {*self._prefixes}

    @property
    def near(self) -> set[str]:
        """The long words, and each with one letter left out."""
        return {*self._deletions, *(word for word in self._vocabulary if len(word) >= _FUZZY_LENGTH)}

    def starts_with(self, word: str) -> bool:
        """Whether any term may start with this folded word, read as it is or as a misspelling."""
        return any(self._begun(word))

    def _begun(self, word: str) -> Begun:
        """Return what may start with a word; remembered, for the same words come again and again."""
        begun = self._starts.get(word)
        if begun is None:
            if len(self._starts) >= _REMEMBERED:
                self._starts.clear()
            meant = self._meant(word)
            prefix = self._prefix(meant)
            begun = self._starts[word] = Begun(
                self._single.get(meant) or self._prefixes.get(prefix),
                self._by_pair.get(meant),
                self._gapped.get(meant),
                self._shared.get(meant),
            )
        return begun

    def _match_at(self, text: Text, at: int) -> tuple[str, int] | None:
        """Return the group of the longest term that starts at this token, and the token behind it."""
        words = text.words
        alone, pairs, gapped, shared = self._begun(words[at])
        hit = self._over_gap(text, at, gapped) if gapped else None
        # "Enlarged heart and lymph nodes": a gap is bridged only where no longer term stands before it.
        ahead = hit[2] if hit is not None else 0
        if pairs and at + 1 < len(words):
            for parts, key in pairs.get(self._meant(words[at + 1]), ()):
                if ahead >= len(parts):
                    break
                end = at + len(parts)
                if len(parts) == 2 or tuple(map(self._meant, words[at:end])) == parts:
                    return key, end
        if hit is not None:
            return hit[:2]
        if shared and (key := self._shares(words, at, shared)):
            return key, at + 1
        return (alone, at + 1) if alone is not None else None

    def _over_gap(self, text: Text, at: int, gapped: Sequence[Gapped]) -> tuple[str, int, int] | None:
        """Return group and end of the shortest term with a gap that starts here, and its words before the gap."""
        words = text.words
        hits: list[tuple[int, str, int]] = []
        near = set(map(self._meant, words[at : at + 4 + _GAP_WORDS]))
        for before, behind, key in gapped:
            start = at + len(before)
            if behind[0] not in near and len(before) <= 3:
                continue  # spares the search of most
            if tuple(map(self._meant, words[at:start])) != before:
                continue
            for place in range(start, min(start + _GAP_WORDS, len(words) - len(behind)) + 1):
                gap = text.raw[text.ends[place - 1] : text.starts[place]]
                # A point with no white space around it is a decimal one.
                if any(c in gap for c in ";:!?()\n") or ("." in gap and gap != "."):
                    break
                if tuple(map(self._meant, words[place : place + len(behind)])) == behind:
                    hits.append((place + len(behind), key, len(before)))
                    break
                # "Artery calcification, no calcification of the aorta": the words sought stand there once.
                if words[place] in _GAP_ENDS or self._meant(words[place]) in behind:
                    break
        if not hits:
            return None
        end, key, ahead = min(hits)
        return key, end, ahead

    def _shares(self, words: tuple[str, ...], at: int, shared: Sequence[tuple[str, str]]) -> str:
        """Return the group of the term whose noun stands behind an "or" and another word that shares it."""
        rest = words[at + 1 : at + 2 + _SHARED_WORDS]
        if _SHARING.isdisjoint(rest[:1]):
            return ""
        nouns = set(map(self._meant, rest[2:]))
        return next((key for noun, key in shared if noun in nouns), "")

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


@lru_cache(maxsize=8192)
def _read_term(term: str) -> tuple[Literal["words", "star", "gap", "shared"], tuple[str, ...], int]:
    """Return what kind of term it is, its words, and how many stand before the gap. Raise ValueError if it is none.

    Remembered between checking the lines of a file and making a lexicon of them.
    """
    folded = Text(term).folded
    words = _TERM_WORD.findall(folded)
    if not words:
        raise ValueError(f"the term {term!r} holds no word")
    if any("*" in word for word in words):
        if len(words) != 1 or len(words[0]) < 5:
            raise ValueError(f"the term {term!r} must be one word with a star behind at least four letters")
        return "star", (words[0].rstrip("*"),), 0
    parts = tuple(singular(word) for word in words)
    if _GAP in folded:
        before = len(_TERM_WORD.findall(folded.partition(_GAP)[0]))
        if not 0 < before < len(parts):
            raise ValueError(f"the term {term!r} must have words on both sides of the gap")
        return "gap", parts, before
    if _SHARED in folded:
        if len(parts) != 2:
            raise ValueError(f"the term {term!r} must have one word on each side of the stroke")
        return "shared", parts, 0
    return "words", parts, 0


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
            known[word] = self._starting(word)
        found: dict[Lexicon, list[str]] = {}
        for word in text.vocabulary:
            for lexicon in known[word]:
                found.setdefault(lexicon, []).append(word)
        return found

    def _starting(self, word: str) -> tuple[Lexicon, ...]:
        """Return the lexicons with a term that may start with a word.

        Most new words are no misspelling of any word of any lexicon. This is asked once for all of them, and then each
        lexicon that has the word is known by it.
        """
        meant = singular(word)
        if not self._near.isdisjoint(_one_left_out(meant)):
            return tuple(lexicon for lexicon in self._lexicons if lexicon.starts_with(word))
        found = dict.fromkeys(self._first.get(meant, ()))
        for length in self._prefix_lengths:
            found |= dict.fromkeys(self._prefixes.get(meant[:length], ()))
        return tuple(found)

    @cached_property
    def _near(self) -> frozenset[str]:
        """All that a misspelt word of any lexicon may be with one letter left out."""
        return frozenset().union(*(lexicon.near for lexicon in self._lexicons))

    @cached_property
    def _first(self) -> dict[str, list[Lexicon]]:
        """The lexicons by the first words of their terms."""
        return _by_word((word, lexicon) for lexicon in self._lexicons for word in lexicon.first_words)

    @cached_property
    def _prefixes(self) -> dict[str, list[Lexicon]]:
        """The lexicons by the terms with a star."""
        return _by_word((prefix, lexicon) for lexicon in self._lexicons for prefix in lexicon.prefixes)

    @cached_property
    def _prefix_lengths(self) -> frozenset[int]:
        return frozenset(map(len, self._prefixes))


def _by_word(pairs: Iterable[tuple[str, Lexicon]]) -> dict[str, list[Lexicon]]:
    table: dict[str, list[Lexicon]] = {}
    for word, lexicon in pairs:
        table.setdefault(word, []).append(lexicon)
    return table


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


def parse_lexicon(name: str, content: str, *, base: str | None = None) -> Lexicon:
    """Read a lexicon file; ``base`` is the list of the same name in the pack that is extended, None if there is none.

    Raise ValueError, naming every bad line by its number in its own file, if it cannot be used.
    """
    entries = _Entries()
    entries.read(f"lexicons/{name}.txt", content, base)
    if not entries.terms and not entries.problems:
        entries.problems.append(f"lexicons/{name}.txt holds no term")
    if entries.problems:
        raise ValueError("; ".join(entries.problems))
    return Lexicon(entries.terms, never=entries.never)


class _Entries:
    """What stands in a lexicon file, and what is wrong with it."""

    def __init__(self) -> None:
        self.terms: list[tuple[str, str]] = []
        self.never: list[str] = []
        self.problems: list[str] = []

    def read(self, path: str, content: str, base: str | None) -> None:
        """Add the lines of a file, and those of the list it builds on where it says so."""
        said = False
        for number, line in enumerate(content.splitlines(), start=1):
            entry = line.partition("#")[0].strip()
            if entry.startswith("@"):
                said = True
                self._instruction(f"{path} line {number}", path, entry, base)
            elif entry.startswith("!"):
                self.never.append(entry[1:])
            elif entry:
                self._terms(f"{path} line {number}", entry)
        if base is not None and not said:
            # A list that silently took the place of hundreds of words would look like one that adds a few.
            self.problems.append(
                f"{path} does not say what becomes of the list that it builds on: write {TAKE_IN} on a line of its own "
                f"to take its words in, or {REPLACE} to do without them"
            )

    def _instruction(self, where: str, path: str, entry: str, base: str | None) -> None:
        if entry not in {TAKE_IN, REPLACE}:
            near = get_close_matches(entry.lower(), (TAKE_IN, REPLACE), n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {TAKE_IN} and {REPLACE}"
            self.problems.append(f"{where}: {entry!r} is no instruction; {hint}")
        elif base is None:
            self.problems.append(f"{where}: {entry} stands for a list of this name in an extended pack; there is none")
        elif entry == TAKE_IN:
            self.read(f"base/{path}", base, None)

    def _terms(self, where: str, entry: str) -> None:
        key, colon, rest = entry.partition(":")
        for term in [part.strip() for part in rest.split(",")] if colon else [entry]:
            try:
                _read_term(term)
            except ValueError as error:
                self.problems.append(f"{where}: {error}")
            else:
                self.terms.append((key.strip(), term))
