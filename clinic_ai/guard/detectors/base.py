"""What every detector is given and gives back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, PrivateAttr

from clinic_ai.domain import Audience, Finding, Statement
from clinic_ai.guard.lexicon import Lexicon
from clinic_ai.guard.text import Text
from clinic_ai.tasks import GuardSubject

Span = tuple[int, int]


class Flag(NamedTuple):
    """Why a detector spoke, in words without personal data, and where (character offsets in the text)."""

    reason: str
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class View:
    """What a detector looks at: one statement, or with ``statement`` None the artefact as a whole."""

    audience: Audience
    subject: GuardSubject
    statement: Statement | None
    text: Text
    """The statement's text; empty for the artefact as a whole."""
    texts: tuple[Text, ...] = ()
    """The texts of all statements of the artefact."""

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """The evidence: the subject's findings, and first the one that the statement words."""
        own = self.statement.finding if self.statement is not None else None
        return self.subject.findings if own is None else (own, *self.subject.findings)


class Detector(BaseModel):
    """Base of all detectors. Its fields are the parameters in ``policy.toml``; unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lexicon_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that name a lexicon of the pack."""
    optional_lexicons: ClassVar[tuple[str, ...]] = ()
    """Those of them whose lexicon a pack may lack; then nothing is found of it."""

    _lexicons: Mapping[str, Lexicon] = PrivateAttr(default_factory=dict)

    def bind(self, lexicons: Mapping[str, Lexicon]) -> None:
        """Take the pack's lexicons. Raise ValueError if one that a field names is missing."""
        needed = set(self.lexicon_fields) - set(self.optional_lexicons)
        missing = sorted({getattr(self, f) for f in needed} - set(lexicons))
        if missing:
            raise ValueError(f"there is no lexicons/{missing[0]}.txt in this pack")
        self._lexicons = {f: lexicons[name] for f in self.lexicon_fields if (name := getattr(self, f)) in lexicons}

    def lexicon_names(self) -> frozenset[str]:
        """Return the names of the lexicons it looks in, also of those that a pack may lack."""
        return frozenset(getattr(self, field) for field in self.lexicon_fields)

    def lexicons(self) -> Iterable[Lexicon]:
        """Return the lexicons it was bound to."""
        return self._lexicons.values()

    @abstractmethod
    def detect(self, view: View) -> Flag | None:
        """Return why this view is remarkable, or None."""
