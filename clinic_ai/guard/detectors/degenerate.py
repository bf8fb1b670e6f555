"""Text that a language model produced after it lost the thread: loops, stutter, filler."""

from __future__ import annotations

import re
import zlib
from bisect import bisect_left
from collections.abc import Sequence

from pydantic import Field

from clinic_ai.guard.detectors.base import Detector, Flag, View
from clinic_ai.guard.text import Text

# Words a good report repeats: function words, the words of negative lists, places and units.
_COMMON = frozenset(
    word
    for line in (
        "a an and are as at be been both by can for from has have in into is it its may no nor not of on or over",
        "seen than that the there these this to was were which with within without normal unremarkable left right",
        "upper lower middle lobe size sized mm cm x lung lungs side bilateral",
    )
    for word in line.split()
)
_SPOKEN = frozenset({"answer", "remark", "report"})
_LONGEST_PHRASE = 12
_LONG_WINDOWS = 5
_ANCHOR = 4
"""A longer phrase is recognised by so many words in a row."""
_CANDIDATES = 8
"""Earlier places of an anchor that are looked at."""
_LONGEST_TOKEN = 30
"""A word of more letters than any language has; in scripts without blanks, half a sentence."""
_TOKEN_LOOP = re.compile(r"(.{1,24}?)\1{3,}")
_LONGEST_RUN = 8
"""The same character so often in a row."""
_CHARACTER_RUN = re.compile(r"([^\W\d_])\1{7,}|([^\s\w.=*-])\2{7,}")


class DegenerateText(Detector):
    """Several tests; each catches what the others miss. Limits were set on real reports (see docs/guard.md)."""

    token_run: int = Field(default=3, ge=2)
    """The same word so often in a row."""
    phrase_run: int = Field(default=3, ge=2)
    """The same phrase of two words or more so often in a row."""
    top_word_share: float = Field(default=0.15, gt=0, le=1)
    top_word_tokens: int = Field(default=20, ge=1)
    """The share of the most frequent content word is judged from so many words on."""
    duplicate_share: float = Field(default=0.30, gt=0, le=1)
    duplicate_sentences: int = Field(default=4, ge=2)
    """The share of repeated sentences is judged from so many sentences on."""
    compression_ratio: float = Field(default=2.4, gt=1)
    compression_tokens: int = Field(default=40, ge=1)
    """Length by length after zlib, judged from so many words on, in windows of ``compression_window`` bytes.

    Text of fewer words is judged from one whole window on: scripts without blanks, one long word, strokes.
    """
    compression_window: int = Field(default=400, ge=200)
    long_ratio: float = Field(default=3.0, gt=1)
    """The same in windows of five times the length."""
    long_vocabulary: float = Field(default=0.4, gt=0, le=1)
    """Those are looked at only where fewer of the words than this share are different ones."""
    statement_run: int = Field(default=10, ge=2)
    """The same answer, remark or sentence of a report so often in one result; of the rest there is one an image."""

    def detect(self, view: View) -> Flag | None:
        """Return the first of the tests that fails."""
        text = view.text
        return (
            self._runs(text)
            or _token_loop(text)
            or self._top_word(text)
            or self._duplicates(text)
            or self._compression(text)
            or _character_run(text)
            or self._statements(view)
        )

    def _runs(self, text: Text) -> Flag | None:
        words = text.words
        for period in range(1, _LONGEST_PHRASE + 1):
            wanted = self.token_run if period == 1 else self.phrase_run
            start = _repeats_from(words, period, wanted)
            if start is not None:
                span = (text.starts[start], text.ends[start + wanted * period - 1])
                what = "a word" if period == 1 else f"a phrase of {period} words"
                return Flag(f"{what} stands {wanted} times in a row", (span,))
        return _long_loop(text, self.phrase_run)

    def _top_word(self, text: Text) -> Flag | None:
        if len(text.words) < self.top_word_tokens:
            return None
        limit = self.top_word_share * len(text.words)
        if max(map(len, text.places.values())) <= limit:
            return None
        content = (len(at) for w, at in text.places.items() if len(w) > 1 and w.isalpha() and w not in _COMMON)
        share = max(content, default=0) / len(text.words)
        return Flag(f"one word makes up {share:.0%} of the text") if share > self.top_word_share else None

    def _duplicates(self, text: Text) -> Flag | None:
        sentences = [text.words[first:last] for first, last in text.sentences]
        if len(sentences) < self.duplicate_sentences:
            return None
        share = 1 - len(set(sentences)) / len(sentences)
        return Flag(f"{share:.0%} of the sentences are repeated") if share > self.duplicate_share else None

    def _compression(self, text: Text) -> Flag | None:
        window = self.compression_window
        if len(text.words) < self.compression_tokens and len(text.folded) < window // 4:
            return None
        body = text.folded.encode(errors="replace")
        if len(text.words) < self.compression_tokens and len(body) < window:
            return None
        # A long proper text compresses better than a short one, so a window of fixed length is what can be compared.
        for start in range(0, max(1, len(body) - window // 2), window):
            piece = body[start : start + window]
            ratio = len(piece) / len(zlib.compress(piece, 6))
            if ratio > self.compression_ratio:
                return Flag(f"the text shrinks {ratio:.1f} times when compressed")
        # What comes again after more than a window is seen in a longer one alone.
        if len(text.vocabulary) >= self.long_vocabulary * len(text.words):
            return None
        for start in range(0, len(body), _LONG_WINDOWS * window):
            piece = body[start : start + _LONG_WINDOWS * window]
            ratio = len(piece) / len(zlib.compress(piece, 6))
            if len(piece) > 2 * window and ratio > self.long_ratio:
                return Flag(f"a long stretch of the text shrinks {ratio:.1f} times when compressed")
        return None

    def _statements(self, view: View) -> Flag | None:
        if len(view.texts) < self.statement_run or view.statement is None or view.statement.kind not in _SPOKEN:
            return None
        words = view.text.words
        same = sum(other.words == words for other in view.texts)
        return Flag(f"the result says this {same} times") if words and same >= self.statement_run else None


def _repeats_from(words: Sequence[str], period: int, wanted: int) -> int | None:
    """Return the first token of a stretch of ``wanted`` equal pieces of ``period`` words, or None.

    In such a stretch ``needed`` words in a row equal the word one period before; one of them stands at a multiple
    of ``needed``, so only those are looked at, and around those that are equal.
    """
    needed = (wanted - 1) * period
    for probe in range(needed, len(words), needed):
        if words[probe] != words[probe - period]:
            continue
        first, last = _stretch(words, probe, period)
        if last - first + 1 >= needed:
            return first - period
    return None


def _long_loop(text: Text, wanted: int) -> Flag | None:
    """Find a phrase longer than the longest that is tried word by word, so often in a row.

    In such a stretch every ``_LONGEST_PHRASE`` words begins one of the anchors looked at. Its rarest word is looked up
    where it stood before; that distance is the length of the phrase, if what lies around it repeats as well.
    """
    words, places = text.words, text.places
    for probe in range(2 * _LONGEST_PHRASE, len(words) - _ANCHOR, _LONGEST_PHRASE):
        # In a loop each word stands as often; asked word by word, for most probes end here.
        if len(places[words[probe]]) < wanted or len(places[words[probe + 1]]) < wanted:
            continue
        anchor = words[probe : probe + _ANCHOR]
        offset, rarest = min(enumerate(anchor), key=lambda word: len(places[word[1]]))
        earlier = places[rarest][: bisect_left(places[rarest], probe + offset)][-_CANDIDATES:]
        for start in (at - offset for at in reversed(earlier)):
            period = probe - start
            if start < 0 or period <= _LONGEST_PHRASE or words[start : start + _ANCHOR] != anchor:
                continue
            first, last = _stretch(words, probe, period)
            if last - first + 1 >= (wanted - 1) * period:
                first -= period
                span = (text.starts[first], text.ends[first + wanted * period - 1])
                return Flag(f"a phrase of {period} words stands {wanted} times in a row", (span,))
            break
    return None


def _stretch(words: Sequence[str], probe: int, period: int) -> tuple[int, int]:
    """Return the first and the last word around ``probe`` such that all equal the word one period before."""
    first = last = probe
    while first - 1 >= period and words[first - 1] == words[first - 1 - period]:
        first -= 1
    while last + 1 < len(words) and words[last + 1] == words[last + 1 - period]:
        last += 1
    return first, last


def _token_loop(text: Text) -> Flag | None:
    """Find a piece that stands over and over inside one word, as in a script without blanks."""
    long = [word for word in text.vocabulary if len(word) > _LONGEST_TOKEN]
    for word in long:
        loop = next((m for m in _TOKEN_LOOP.finditer(word) if m.end() - m.start() > _LONGEST_TOKEN), None)
        if loop is not None:
            at = text.places[word][0]
            return Flag("a piece of a word is repeated over and over", ((text.starts[at], text.ends[at]),))
    return None


def _character_run(text: Text) -> Flag | None:
    folded = text.folded
    # To look for each character eight times is cheaper than the expression, which then says where and which count.
    if not any(character * _LONGEST_RUN in folded for character in text.characters):
        return None
    match = _CHARACTER_RUN.search(folded)
    return Flag("one character is repeated over and over", (text.span(*match.span()),)) if match else None
