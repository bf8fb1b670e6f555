"""Whether text is text: no hidden characters, no markup, not too long, not too hard to read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import groupby

from pydantic import Field

from clinic_ai.guard.detectors.base import Detector, Flag, Span, View
from clinic_ai.guard.reading import LANGUAGES, reading_grade
from clinic_ai.guard.text import unseen

_NOT_PLAIN = re.compile(r"[^\x20-\x7e\n\t]")
_NOT_PLAIN_RUN = re.compile(r"[^\x20-\x7e\n\t]{5,}")
_MOST_MARKS = 4
"""Combining marks on one letter; no orthography needs more (Unicode Technical Standard 39, section 5.4)."""
_MARKUP_SIGNS = frozenset("<[]`$\\&")
_SCHEMES = ("http:", "https:", "ftp:", "file:", "data:", "javascript:", "vbscript:", "mailto:")
_MARKUP = re.compile(
    r"</?[a-z!][^<>]*>"  # HTML, XML, chat-template tags
    r"|</?[a-z][a-z0-9]*[\s/]+[a-z][a-z:-]*\s*="  # one with an attribute that nobody closes: browsers do
    r"|<\s*/?\s*(?:script|img|svg|iframe|embed)\b"
    r"|<\|[^|<>]{0,40}\|>|\[/?(?:inst|sys|system)\]"  # special tokens of language models
    r"|\]\(|```|\$\$|\\(?:begin|end|input|include|write|openin|read|immediate|catcode|def|csname)(?![a-z])"
    r"|\\[a-z]{2,}\s*[{\[]"  # Markdown, TeX
    rf"|(?<![a-z])(?:{'|'.join(_SCHEMES)})(?://|\S)|(?<![a-z0-9])www\.[a-z0-9]"
    r"|&(?:#\d{1,6}|#x[0-9a-f]{1,5});?|&(?:lt|gt|amp|quot)\b|&[a-z]{2,8};",
)


class ControlCharacters(Detector):
    """Fires on characters a reader cannot see: controls, direction overrides, zero-width, filling and private-use ones.

    Variation selectors are among them, and combining marks that are piled up behind one letter.
    """

    def detect(self, view: View) -> Flag | None:
        """Return every such character; line feed and tab are allowed."""
        if view.text.plain:
            return None
        raw = view.text.raw
        spans = tuple(m.span() for m in _NOT_PLAIN.finditer(raw) if unseen(m.group()))
        spans += tuple(_piled_up(raw))
        return Flag("characters that a reader cannot see", spans) if spans else None


def _piled_up(raw: str) -> Iterator[Span]:
    """Yield each run of more combining marks than a letter carries."""
    for run in _NOT_PLAIN_RUN.finditer(raw):
        at = run.start()
        for is_mark, marks in groupby(run.group(), lambda c: unicodedata.category(c) in {"Mn", "Me"}):
            start, at = at, at + sum(1 for _ in marks)
            if is_mark and at - start > _MOST_MARKS:
                yield start, at


class Markup(Detector):
    """Fires on tags, links and special tokens: what a program downstream could obey and a reader does not expect."""

    def detect(self, view: View) -> Flag | None:
        """Return every piece of markup."""
        text = view.text
        # Every kind of markup has one of these; to look for them is cheaper than the expression.
        if text.characters.isdisjoint(_MARKUP_SIGNS) and not any(sign in text.folded for sign in (*_SCHEMES, "www.")):
            return None
        spans = tuple(text.span(*m.span()) for m in _MARKUP.finditer(text.folded))
        return Flag("markup, a link or a special token", spans) if spans else None


class TextLength(Detector):
    """Fires on text longer than ``maximum`` characters."""

    maximum: int = Field(gt=0)

    def detect(self, view: View) -> Flag | None:
        """Compare the number of characters."""
        length = len(view.text.raw)
        return Flag(f"{length} characters, at most {self.maximum} are allowed") if length > self.maximum else None


class ReadingGrade(Detector):
    """Fires on text above a school grade by its language's formula, judged from ``words`` words on."""

    maximum: float = Field(default=8.0, gt=0)
    words: int = Field(default=5, ge=1)

    def detect(self, view: View) -> Flag | None:
        """Estimate the grade from the length of sentences and words; a language without a formula is a flag."""
        if sum(w.isalpha() for w in view.text.words) < self.words:
            return None
        grade = reading_grade(view.text, view.subject.language)
        if grade is None:
            return Flag(f"there is a reading formula for {' and '.join(LANGUAGES)} only")
        return Flag(f"reading grade {grade:.0f}") if grade > self.maximum else None
