"""What a reviewer reads, as styled text: the words beside the rule that spoke of them and what they rest on."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence

from rich.text import Text

from clinic_ai.control.alert_views import CriticalView
from clinic_ai.control.review_views import FindingRow, ReviewRow, ReviewView
from clinic_ai.control.views import DecisionRow
from clinic_ai.domain import Presence, headed
from clinic_ai.tui.measures import line
from clinic_ai.tui.words import age

SIGNS = {"HELD": ("‖", "bold yellow"), "PRELIMINARY": ("○", "cyan"), "FINAL": ("✓", "green"), "REJECTED": ("✗", "red")}
"""Sign and colour of each state of a result."""
_FINDING_ID = re.compile(r"f_([1-9][0-9]{0,3})")
_SILENT = frozenset({"allow", ""})
_STOPS = frozenset({"hold", "block"})
_BAR = 20
"""Cells of a bar from 0 to 100 %."""
MOST_CRITICAL = 3
"""Critical findings that stand on top; the others are counted."""


def state_text(state: str) -> Text:
    """Return the state of a result with its sign."""
    sign, colour = SIGNS.get(state, ("?", ""))
    return Text(f"{sign} {state}", style=colour, no_wrap=True)


def why_words(row: ReviewRow) -> str:
    """Return in a few words why a result is before others, and the rules that spoke."""
    urgent = [f"urgent ({row.priority})"] if row.priority > 0 else []
    return "; ".join([*urgent, *row.rules])


def row_words(row: ReviewRow) -> str:
    """Return what anybody may see of a result: where it stands, the rules that spoke, why it goes before others."""
    rules = ", ".join(row.rules) or "none"
    lines = [
        f"{row.study_id} version {row.version}, {row.pseudonym}",
        f"{row.state} for the {row.audience}; rules that spoke: {rules}",
        f"Urgent: {row.priority_reason}" if row.priority_reason else "",
    ]
    return "\n".join(filter(None, lines))


def critical_text(found: Sequence[CriticalView], now: float) -> Text:
    """Return the open critical findings, a line each, and what to press."""
    text = Text()
    if not found:
        return text
    many = "1 critical finding" if len(found) == 1 else f"{len(found)} critical findings"
    text.append(f"▲ {many} that nobody acknowledged; t does", style="bold red")
    for one in found[:MOST_CRITICAL]:
        text.append(f"\n  {critical_words(one, now)}")
    if len(found) > MOST_CRITICAL:
        text.append(f"\n  and {len(found) - MOST_CRITICAL} more; t lists them all")
    return text


def critical_words(one: CriticalView, now: float) -> str:
    """Return a critical finding on one line: what, where, within what one has to act, how long it is open."""
    told = f"told {one.notices}×" if one.notices else "not told yet"
    escalated = ", escalated" if one.escalated else ""
    waits = age(now - one.raised_at)
    return f"{one.what}: act within {one.act_within}, open {waits}, {told}{escalated}; {one.study_id}"


# ---------------------------------------------------------------- one result


def words_text(view: ReviewView, corrections: Mapping[str, Presence]) -> Text:
    """Return whom a result is about and what it says, each statement with the rules and findings it goes with."""
    text = Text()
    text.append(f"{view.subject.patient}\n", style="bold")
    text.append(f"{view.subject.exam}, {view.subject.dates}\n")
    text.append_text(state_text(view.row.state))
    text.append(f" for the {view.row.audience}; the guard said {view.row.action}\n")
    about = _by_statement(view)
    _decisions(text, about.get("", ()), "")
    for heading, one in headed(view.statements):
        if heading:
            text.append(f"\n{heading}\n", style="bold underline")
        text.append(f"\n[{one.statement_id}] ", style="bold cyan")
        text.append(f"{one.text}\n")
        for note in one.annotations:
            text.append(f"  note: {note}\n", style="bright_black")
        _decisions(text, about.get(one.statement_id, ()), "  ")
        _evidence(text, view, one.statement_id, corrections)
    for statement_id in view.withheld:
        text.append(f"\n[{statement_id}] ", style="bold cyan")
        text.append("✗ kept back even from review; amend: write it anew or leave it out\n", style="bold red")
        _decisions(text, about.get(statement_id, ()), "  ")
        _evidence(text, view, statement_id, corrections)
    if not view.statements and not view.withheld:
        text.append("\nIt has no statement.\n")
    return text


def record_text(view: ReviewView, corrections: Mapping[str, Presence], *, signer: str, learning: str) -> Text:
    """Return how a decision will be signed, all findings, the marks, and the decisions so far."""
    text = Text()
    _heading(text, "Your decision")
    line(text, "signed as", signer)
    line(text, "learning", learning)
    for condition, presence in corrections.items():
        line(text, "corrected", f"{_label_of(view, condition)} is {presence.value}; goes with amend or reject")
    _heading(text, "\nFindings of the software")
    if not view.findings:
        text.append("No model gave a finding with a probability.\n")
    for finding in view.findings:
        _finding(text, finding, corrections, "")
    if view.marks:
        _heading(text, "\nMarks on every page")
        text.append("".join(f"{mark}\n" for mark in view.marks))
    _heading(text, "\nDecisions so far")
    if not view.history:
        text.append("none\n")
    for made in view.history:
        learned = "may be learned from" if made.consent else "not for learning"
        moment = time.strftime("%Y-%m-%d %H:%M", time.localtime(made.decided_at))
        text.append(f"{moment} {made.reviewer}: {made.decision}, {learned}\n")
        if made.reason:
            text.append(f"  {made.reason}\n")
        for changed in made.diff.splitlines():
            text.append(f"  {changed}\n", style=_diff_style(changed))
    _heading(text, "\nIds")
    line(text, "study", f"{view.row.study_id}, version {view.row.version}")
    line(text, "artefact", view.row.artefact_id)
    return text


def finding_words(finding: FindingRow) -> str:
    """Return a finding on one line: name and side, what the software says of it, its probability and the cut."""
    side = f", {finding.laterality}" if finding.laterality else ""
    sure = f"{percent(finding.probability)} %, threshold {percent(finding.threshold)} %"
    return f"{finding.label}{side}: {finding.presence.value} ({sure})"


def percent(probability: float) -> int:
    """Return a probability as whole per cent; never 0 or 100, which would claim certainty."""
    return min(99, max(1, round(probability * 100)))


def _by_statement(view: ReviewView) -> dict[str, tuple[DecisionRow, ...]]:
    """Return by statement why the result is held, and then what the guard says of it as the reviewer's own."""
    held = [decision for decision in view.original_decisions if decision.action in _STOPS]
    known = {*(one.statement_id for one in view.statements), *view.withheld}
    found: dict[str, dict[DecisionRow, None]] = {}
    for decision in (*held, *view.decisions):
        if decision.action not in _SILENT:
            # What is said of a statement that is not shown stands with what is said of all.
            found.setdefault(decision.statement_id if decision.statement_id in known else "", {})[decision] = None
    return {statement_id: tuple(those) for statement_id, those in found.items()}


def _decisions(text: Text, decisions: Iterable[DecisionRow], indent: str) -> None:
    for decision in decisions:
        stops = decision.action in _STOPS
        text.append(f"{indent}{'‖' if stops else '·'} {decision.rule}", style="bold yellow" if stops else "yellow")
        text.append(f" ({decision.action}): {decision.reason}\n")


def _evidence(text: Text, view: ReviewView, statement_id: str, corrections: Mapping[str, Presence]) -> None:
    """Append the finding a statement was made of: the n-th one is said under ``f_n``."""
    number = _FINDING_ID.fullmatch(statement_id)
    if number is not None and int(number[1]) <= len(view.findings):
        _finding(text, view.findings[int(number[1]) - 1], corrections, "  ")


def _finding(text: Text, finding: FindingRow, corrections: Mapping[str, Presence], indent: str) -> None:
    text.append(indent)
    text.append(bar(finding.probability, finding.threshold), style="blue")
    text.append(f" {finding_words(finding)}\n")
    said = corrections.get(finding.condition)
    if said is not None:
        text.append(f"{indent}you say: {said.value}\n", style="bold magenta")


def bar(probability: float, threshold: float) -> str:
    """Return a bar from 0 to 100 % with a mark where the threshold lies."""
    cells = ["█" if place < round(probability * _BAR) else "░" for place in range(_BAR)]
    cells.insert(min(round(threshold * _BAR), _BAR), "┃")
    return "".join(cells)


def _label_of(view: ReviewView, condition: str) -> str:
    return next((finding.label for finding in view.findings if finding.condition == condition), condition)


def _diff_style(line: str) -> str:
    return {"-": "red", "+": "green"}.get(line[:1], "bright_black")


def _heading(text: Text, words: str) -> None:
    text.append(f"{words}\n", style="bold")
