"""What a person reads, signs and corrects, as statements for the guard; pure functions."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Sequence

from clinic_ai.domain import Artefact, Finding, GuardVerdict, Presence, Released, Statement
from clinic_ai.domain.reviews import Correction, Passage, ReviewDecision, ReviewDocument, ReviewLabel
from clinic_ai.errors import InputError
from clinic_ai.results.codes import finding_code, table
from clinic_ai.results.rendering import Material
from clinic_ai.results.statements import SIDES, statements_of

NEW = re.compile(r"n_[1-9][0-9]{0,3}")
"""Ids of statements that persons add; no statement of the software has one."""
_SAID = {Presence.PRESENT: "is present", Presence.ABSENT: "is absent", Presence.UNCERTAIN: "cannot be decided"}


def draft_of(artefact: Artefact, material: Material) -> tuple[Passage, ...]:
    """Return what there is to review: what was released, or of a held artefact what the software wanted to say."""
    if artefact.verdict.released:
        return tuple(Passage(statement_id=said.statement_id, text=said.text) for said in artefact.verdict.released)
    return tuple(Passage(statement_id=s.statement_id, text=s.text) for s in statements_of(material.analyses))


def statements_for(passages: Iterable[Passage], material: Material) -> tuple[Statement, ...]:
    """Return the passages as statements with the evidence of those they stand for; new ones are notices.

    A new one that stands among the sentences of a written report belongs to the section of the one before it. One at
    the very end stands for itself: nobody can tell whether it was meant to go on with a section.
    """
    known = {statement.statement_id: statement for statement in statements_of(material.analyses)}
    said = list(passages)
    last = max((place for place, passage in enumerate(said) if passage.statement_id in known), default=-1)
    statements: list[Statement] = []
    for place, passage in enumerate(said):
        before = statements[-1].section if statements and place < last else None
        draft = known.get(
            passage.statement_id,
            Statement(statement_id=passage.statement_id, kind="notice", text="", section=before),
        )
        statements.append(draft.model_copy(update={"text": passage.text}))
    return tuple(statements)


def check_known(said: Iterable[Passage], artefact: Artefact, material: Material) -> None:
    """Raise InputError if a passage stands under an id that the artefact does not have and that is not of a new one.

    A mistyped id would take the words away from the finding they speak of.
    """
    known = dict.fromkeys(passage.statement_id for passage in draft_of(artefact, material))
    known |= dict.fromkeys(statement.statement_id for statement in statements_of(material.analyses))
    unknown = sorted(
        {p.statement_id for p in said if p.statement_id not in known and not NEW.fullmatch(p.statement_id)}
    )
    if unknown:
        raise InputError(
            "unknown_statement",
            f"Artefact {artefact.artefact_id} has no statement {_bracketed(unknown)}; "
            + (f"it has {_bracketed(known)}." if known else "it has none."),
            remedy="Nothing was decided. Write the id of the statement your words stand for; [new] begins a new one.",
        )


def check_conditions(corrections: Iterable[Correction]) -> None:
    """Raise InputError, with the names nearest to it, if a correction names a condition that no code is known for."""
    known = table()
    for correction in corrections:
        if correction.condition not in known:
            near = difflib.get_close_matches(correction.condition, known, n=3)
            meant = f" Is {' or '.join(near)} meant?" if near else ""
            raise InputError(
                "unknown_condition",
                f"There is no condition {correction.condition}.{meant}",
                remedy="Nothing was decided. `clinic-ai review conditions` lists those there are.",
            )


def _bracketed(ids: Iterable[str]) -> str:
    return ", ".join(f"[{key}]" for key in ids)


def digest_of(
    artefact_id: str,
    said: Iterable[Released],
    withheld: Iterable[str],
    verdict: GuardVerdict,
    findings: Iterable[Finding],
) -> str:
    """Return the SHA-256 of what a reviewer was shown; a decision names it, so that nobody signs what was not read.

    It covers the words with their notes, what is withheld, the marks, what the software found, and the policy pack.
    """
    parts = [
        artefact_id,
        [[one.statement_id, one.text, one.annotations] for one in said],
        sorted(withheld),
        verdict.marks,
        [[finding.condition, finding.presence] for finding in findings],
        verdict.policy_hash,
    ]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()


def corrected(
    said: Sequence[Passage], shown: Sequence[Passage], corrections: Sequence[Correction], findings: Sequence[Finding]
) -> tuple[Passage, ...]:
    """Return the passages with what the corrections say, in words of our own where the person wrote none."""
    before = {passage.statement_id: passage.text for passage in shown}
    after = list(said)
    for correction in corrections:
        label = finding_code(correction.condition).label
        own = {f"f_{n}": f for n, f in enumerate(findings, start=1) if f.condition == correction.condition}
        for number, passage in enumerate(after):
            finding = own.get(passage.statement_id)
            if finding is not None and before.get(passage.statement_id) == passage.text:
                text = f"{label}{SIDES[finding.laterality]} {_SAID[correction.presence]}."
                after[number] = passage.model_copy(update={"text": text})
        if not own:
            used = {passage.statement_id for passage in after} | set(before)
            fresh = next(f"n_{n}" for n in range(1, len(used) + 2) if f"n_{n}" not in used)
            after.append(Passage(statement_id=fresh, text=f"{label} {_SAID[correction.presence]}."))
    return tuple(after)


def difference(shown: Sequence[Passage], said: Sequence[Passage]) -> str:
    """Return what a person changed, as a unified diff of one statement a line."""
    before = [f"[{passage.statement_id}] {' '.join(passage.text.split())}" for passage in shown]
    after = [f"[{passage.statement_id}] {' '.join(passage.text.split())}" for passage in said]
    return "\n".join(difflib.unified_diff(before, after, "draft", "signed", lineterm="", n=0))


def labels_for(decision: ReviewDecision, document: ReviewDocument, material: Material) -> tuple[ReviewLabel, ...]:
    """Return what the decision says that images show.

    A finding whose words were signed unchanged is confirmed; one that was reworded or left out is not labelled unless
    it was corrected, for words alone do not tell why. A rejection confirms nothing.
    """
    given = {correction.condition: correction.presence for correction in document.corrections}
    shown = {passage.statement_id: passage.text for passage in document.shown}
    said = {passage.statement_id: passage.text for passage in document.said}
    labels: dict[tuple[str, str], ReviewLabel] = {}
    for number, finding in enumerate(material.findings, start=1):
        key = f"f_{number}"
        if finding.condition in given:
            presence, changed = given[finding.condition], given[finding.condition] is not finding.presence
        elif decision.signs and key in said and said[key] == shown.get(key):
            presence, changed = finding.presence, False
        else:
            continue
        labels[finding.instance_sha256, finding.condition] = ReviewLabel(
            instance_sha256=finding.instance_sha256,
            condition=finding.condition,
            presence=presence,
            corrected=changed,
        )
    images = [instance.sha256 for instance in material.instances if instance.header.rows or instance.header.frames]
    for condition, presence in given.items():
        if not any(found == condition for _, found in labels):
            where = images[0] if len(images) == 1 else ""
            labels[where, condition] = ReviewLabel(
                instance_sha256=where, condition=condition, presence=presence, corrected=True
            )
    return tuple(labels.values())
