"""Text that a language model produced after it lost the thread: loops, stutter, filler."""

from __future__ import annotations

import re
import zlib
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
_LONGEST_PHRASE = 12
_LONGEST_RUN = 8
"""The same character so often in a row."""
_CHARACTER_RUN = re.compile(r"([^\W\d_])\1{7,}|([^\s\w.=*-])\2{7,}")


class DegenerateText(Detector):
    """Union of five tests; each catches what the others miss. Limits were set on real reports (see docs/guard.md)."""

    token_run: int = Field(default=3, ge=2)
    """The same word so often in a row."""
    phrase_run: int = Field(default=3, ge=2)
    """The same phrase of two to twelve words so often in a row."""
    top_word_share: float = Field(default=0.15, gt=0, le=1)
    top_word_tokens: int = Field(default=20, ge=1)
    """The share of the most frequent content word is judged from so many words on."""
    duplicate_share: float = Field(default=0.30, gt=0, le=1)
    duplicate_sentences: int = Field(default=4, ge=2)
    """The share of repeated sentences is judged from so many sentences on."""
    compression_ratio: float = Field(default=2.4, gt=1)
    compression_tokens: int = Field(default=40, ge=1)
    """Length by length after zlib, judged from so many words on, in windows of ``compression_window`` characters."""
    compression_window: int = Field(default=400, ge=200)

    def detect(self, view: View) -> Flag | None:
        """Return the first of the tests that fails."""
        text = view.text
        return (
            self._runs(text)
            or self._top_word(text)
            or self._duplicates(text)
            or self._compression(text)
            or _character_run(text)
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
        return None

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
        if len(text.words) < self.compression_tokens:
            return None
        body = text.folded.encode(errors="replace")
        window = self.compression_window
        # A long proper text compresses better than a short one, so a window of fixed length is what can be compared.
        for start in range(0, max(1, len(body) - window // 2), window):
            piece = body[start : start + window]
            ratio = len(piece) / len(zlib.compress(piece, 6))
            if ratio > self.compression_ratio:
                return Flag(f"the text shrinks {ratio:.1f} times when compressed")
        return None


def _repeats_from(words: Sequence[str], period: int, wanted: int) -> int | None:
    """Return the first token of a stretch of ``wanted`` equal pieces of ``period`` words, or None.

    In such a stretch ``needed`` words in a row equal the word one period before; one of them stands at a multiple
    of ``needed``, so only those are looked at, and around those that are equal.
    """
    needed = (wanted - 1) * period
    for probe in range(needed, len(words), needed):
        if words[probe] != words[probe - period]:
            continue
        first = probe
        while first - 1 >= period and words[first - 1] == words[first - 1 - period]:
            first -= 1
        last = probe
        while last + 1 < len(words) and words[last + 1] == words[last + 1 - period]:
            last += 1
        if last - first + 1 >= needed:
            return first - period
    return None


def _character_run(text: Text) -> Flag | None:
    folded = text.folded
    # To look for each character eight times is cheaper than the expression, which then says where and which count.
    if not any(character * _LONGEST_RUN in folded for character in text.characters):
        return None
    match = _CHARACTER_RUN.search(folded)
    return Flag("one character is repeated over and over", (text.span(*match.span()),)) if match else None
