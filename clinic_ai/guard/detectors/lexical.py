"""Words and patterns that a pack lists."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, PrivateAttr

from clinic_ai.guard.detectors.base import Detector, Flag, View

_RE2_MEMORY = 1 << 20


class LexiconHit(Detector):
    """Fires on every term of a lexicon, whether it is affirmed or denied: "no cancer" is a diagnosis too."""

    lexicon: str
    lexicon_fields: ClassVar[tuple[str, ...]] = ("lexicon",)

    @property
    def sought(self) -> str:
        """Name the list."""
        return f"a term of the list {self.lexicon!r}"

    def detect(self, view: View) -> Flag | None:
        """Return all places of all terms."""
        found = self._lexicons["lexicon"].find(view.text)
        if not found:
            return None
        return Flag(self.sought, tuple((m.start, m.end) for m in found))


class Pattern(Detector):
    """Fires where a regular expression of the pack matches the text; RE2 only, so its time is linear."""

    pattern: str = Field(max_length=1000)
    what: str = Field(min_length=1, max_length=100)
    """What the pattern finds, in words."""
    _compiled: Any = PrivateAttr(default=None)

    @property
    def sought(self) -> str:
        """Say what the pattern finds."""
        return self.what

    def model_post_init(self, context: object, /) -> None:
        """Compile the pattern. Raise ValueError if RE2 does not take it."""
        super().model_post_init(context)
        import re2  # in the guard child only; the daemon never builds a detector

        options = re2.Options()
        options.max_mem = _RE2_MEMORY
        options.log_errors = False
        options.case_sensitive = False
        try:
            self._compiled = re2.compile(self.pattern, options)
        except re2.error as error:
            reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else error
            raise ValueError(f"RE2 does not take this pattern: {reason}") from error

    def detect(self, view: View) -> Flag | None:
        """Return all matches that are not empty, in the text as it is and as the lexicons see it."""
        text = view.text
        spans = {m.span(): None for m in self._compiled.finditer(text.raw) if m.end() > m.start()}
        if not text.plain:  # digits of full width, letters with marks
            folded = (m.span() for m in self._compiled.finditer(text.folded) if m.end() > m.start())
            spans |= dict.fromkeys(text.span(*span) for span in folded)
        return Flag(self.what, tuple(spans)) if spans else None
