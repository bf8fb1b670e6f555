"""What the guard is asked and what it answers: the only text that may go out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Literal

from clinic_ai.domain.analyses import Finding, ReportSection
from clinic_ai.domain.words import Audience, Key, Sha256, Word, Words

StatementKind = Literal["finding", "answer", "remark", "refusal", "notice", "report"]
"""What a statement is: it words a finding, answers a question, remarks on or refuses an image, tells of a state, or is
a sentence of a written report."""


class Statement(Word):
    """One sentence somebody would like to say, with the evidence it rests on. Unguarded."""

    statement_id: Key
    kind: StatementKind
    text: Words
    finding: Finding | None = None
    """The finding a sentence of kind ``finding`` words."""
    section: ReportSection | None = None
    """Where in a written report it stands, if it belongs to one."""


class GuardAction(StrEnum):
    """What the guard does; listed from mildest to strictest, the strictest of all rules wins."""

    ALLOW = "allow"
    ANNOTATE = "annotate"
    HEDGE = "hedge"
    REDACT = "redact"
    REPLACE = "replace"
    HOLD = "hold"
    BLOCK = "block"

    @property
    def severity(self) -> int:
        """Return the place in the lattice, 0 the mildest."""
        return _SEVERITY[self]


_SEVERITY = {action: place for place, action in enumerate(GuardAction)}


class Decision(Word):
    """One rule that spoke about one statement."""

    statement_id: str
    rule: str
    action: GuardAction
    reason: str
    spans: tuple[tuple[int, int], ...] = ()
    """Character offsets in the statement's text that made the rule fire."""


class Released(Word):
    """Text that may go out. Only ``guard.engine`` makes it; renderers, delivery, API and terminal take nothing else."""

    statement_id: str
    audience: Audience
    kind: StatementKind = "notice"
    """That of the statement it was made of; ids do not tell."""
    section: ReportSection | None = None
    """Where in a written report it stands, for clinicians; that of the statement as well."""
    text: str
    annotations: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    """What it was made of, if it is no draft: ids such as ``template:en/patient/finding``."""
    policy_hash: Sha256


SECTION_HEADINGS: dict[ReportSection, str] = {
    "findings": "Findings",
    "impression": "Impression",
    "recommendations": "Recommendations",
}
"""What stands above the sections of a written report."""
BESIDE_REPORT = "Beside the report"
"""What stands above the statements that follow a written report."""


def headed(said: Iterable[Released]) -> Iterator[tuple[str, Released]]:
    """Yield what was released with what stands above each: the name of a section where one begins, or nothing."""
    before: ReportSection | None = None
    for one in said:
        if one.section == before:
            yield "", one
        else:
            yield BESIDE_REPORT if one.section is None else SECTION_HEADINGS[one.section], one
        before = one.section


class GuardVerdict(Word):
    """What the guard says of all statements of one artefact; ``released`` is empty unless everything may go out."""

    audience: Audience
    action: GuardAction
    decisions: tuple[Decision, ...]
    released: tuple[Released, ...]
    marks: tuple[str, ...] = ()
    """Sentences that stand on every page, such as the investigational mark."""
    policy_hash: Sha256
    policy_name: str
