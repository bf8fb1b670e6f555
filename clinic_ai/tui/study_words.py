"""The pages of the study's screen as text: findings, report, decisions of the guard, routing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.text import Text

from clinic_ai.control.preview_views import PreviewView
from clinic_ai.control.study_views import FindingsView, FoundRow
from clinic_ai.control.views import ArtefactRow, FileRow, Role, RouteView, StatusView, StudyRow, StudyView
from clinic_ai.domain import Presence, headed
from clinic_ai.tui.showing import Looking
from clinic_ai.tui.words import modality, stand_text

NOT_FOR_DIAGNOSIS = "NOT FOR DIAGNOSIS"
NO_STUDY = "No study is chosen. Go to the queue (1), put the cursor on a study and press enter."
BAR = 30
"""Cells of the bar of a probability."""
_HELD = "Held: its words are read in the review (3) alone."
_SIGNS = {
    Presence.PRESENT: ("●", "bold"),
    Presence.ABSENT: ("○", ""),
    Presence.UNCERTAIN: ("?", "bold yellow"),
}
_MARKS = {
    "PRELIMINARY": ("◐", "yellow"),
    "FINAL": ("✓", "green"),
    "HELD": ("‖", "bold yellow"),
    "BLOCKED": ("✗", "bold red"),
    "REJECTED": ("✗", "red"),
    "SUPERSEDED": ("–", "dim"),
    "DRAFT": ("○", ""),
}
"""Sign and colour of each state of an artefact."""


def head_text(study: StudyView, width: int) -> Text:
    """Return the line at the top: which study it is, that it is not for diagnosis, and why it waits."""
    row = study.versions[0].study
    what = "  ".join(filter(None, (f"{modality(row)} {'/'.join(row.facts.body_parts)}".strip(), row.pseudonym)))
    warning = Text(f" {NOT_FOR_DIAGNOSIS} ", style="bold reverse")
    line = Text.assemble((row.study_id, "bold"), f" v{row.version}  ", stand_text(row), f"  {what}", no_wrap=True)
    line.truncate(max(0, width - warning.cell_len - 1), overflow="ellipsis")
    line.append(" " * (width - line.cell_len - warning.cell_len))
    line.append_text(warning)
    if row.wait is not None:
        line.append(f"\n{row.wait.sentence}", style="bold yellow")
        if row.wait.remedy:
            line.append(f" {row.wait.remedy}")
    return line


def no_content_text(status: StatusView | None) -> Text:
    """Return why this person does not see what the study shows."""
    text = Text("What a study shows (pictures, findings, words of the report) is for clinicians.\n")
    if status is None or not status.role.covers(Role.CLINICIAN):
        who = "" if status is None else f"{status.person} is {status.role.value}. "
        text.append(f"{who}An administrator gives roles in [control] of clinic.toml.")
    else:
        text.append("The monitor socket never shows it. Leave out --monitor to use the control socket.")
    return text


# ---------------------------------------------------------------- findings


def findings_text(found: FindingsView | None) -> Text:
    """Return each finding with its probability as a bar; nothing while they are on their way."""
    text = Text()
    if found is None:
        return text
    if not found.findings:
        text.append(found.note or "The report says nothing of single conditions.")
        return text
    _mark(text, found.state)
    text.append(f" {_STATES.get(found.state, found.state)}\n\n")
    for row in sorted(found.findings, key=lambda row: -row.probability):
        _finding(text, row)
    text.append(f"\n┃ is the threshold of a condition: from there it counts as {Presence.PRESENT.value}. ")
    text.append("Probabilities are calibrated: of 100 images at 0.80, about 80 show it.\n")
    if found.note:
        text.append(f"\n‖ {found.note}\n", style="bold yellow")
    return text


_STATES = {
    "PRELIMINARY": "preliminary: nobody has signed it",
    "FINAL": "final: signed",
}


def _finding(text: Text, row: FoundRow) -> None:
    sign, style = _SIGNS[row.presence]
    side = f", {row.laterality}" if row.laterality else ""
    text.append(f"{sign} {row.label}{side}", style=style)
    text.append(f": {row.presence.value}\n")
    text.append(f"  {row.probability:.2f} ")
    text.append_text(bar_text(row.probability, row.threshold))
    text.append(f" threshold {row.threshold:.2f}\n")
    if row.signed is not None:
        text.append(f"  ✎ who signed it says: {row.signed.value}\n", style="bold")
    text.append(f"  {row.words}\n")
    where = f"stack {row.stack}, image {row.image}" if row.stack else ""
    heat = "has a heat map (o)" if row.heatmap else ""
    told = ", ".join(filter(None, (where, heat)))
    if told:
        text.append(f"  {told}\n", style="dim")
    if row.validation is not None:
        figures = row.validation
        text.append(
            f"  validated on {figures.positives} images with and {figures.negatives} without it: AUROC "
            f"{figures.auroc:.2f} ({figures.auroc_low:.2f} to {figures.auroc_high:.2f})\n",
            style="dim",
        )


def bar_text(probability: float, threshold: float) -> Text:
    """Return a bar from 0 to 1, with a mark at the threshold."""
    filled, mark = round(probability * BAR), min(BAR - 1, int(threshold * BAR))
    text = Text()
    for cell in range(BAR):
        if cell == mark:
            text.append("┃", style="bold")
        else:
            text.append("█" if cell < filled else "·", style="" if cell < filled else "dim")
    return text


# ---------------------------------------------------------------- report and guard


def report_text(study: StudyView) -> Text:
    """Return the words that may be read, of each audience, with state and marks."""
    text = Text()
    for artefact in _artefacts(study):
        _heading(text, artefact)
        if artefact.signed_by:
            text.append(f"signed by {artefact.signed_by}\n")
        if artefact.released is None:
            text.append("This result is not to be read here.\n" if artefact.state not in _CLOSED else f"{_HELD}\n")
        for heading, said in headed(artefact.released or ()):
            if heading:
                text.append(f"{heading}\n", style="bold")
            text.append(f"{said.text}\n")
            for note in said.annotations:
                text.append(f"  {note}\n", style="italic")
        for mark in artefact.marks:
            text.append(f"! {mark}\n", style="bold")
        text.append("\n")
    if not text:
        text.append("There is no report yet. The overview says what the study waits for.")
    return text


_CLOSED = frozenset({"HELD", "BLOCKED"})


def guard_text(study: StudyView) -> Text:
    """Return what the guard decided of each result, and why; without the words it decided about."""
    text = Text()
    for artefact in _artefacts(study):
        _heading(text, artefact)
        text.append(f"The guard said {artefact.action}, by the policy {artefact.policy_name}")
        text.append(f" ({artefact.policy_hash[:12]}).\n")
        counted = Counter((d.rule, d.action, d.reason) for d in artefact.decisions)
        for (rule, action, reason), number in counted.items():
            text.append(f"  {rule}", style="bold")
            text.append(f" {action}{f' ×{number}' if number > 1 else ''}: {reason}\n")
        if not counted:
            text.append("  No rule had anything to say.\n")
        for delivery in artefact.deliveries:
            text.append(f"  sent to {delivery.target}: {delivery.state} {delivery.place} {delivery.error}".rstrip())
            text.append("\n")
        text.append("\n")
    if not text:
        text.append("The guard has decided nothing about this study yet.")
    return text


def _artefacts(study: StudyView) -> Iterator[ArtefactRow]:
    """Yield the results of the newest version: the newest first, superseded ones last."""
    made = sorted(study.versions[0].artefacts, key=lambda a: (a.state == "SUPERSEDED", -a.created_at))
    yield from made


def _heading(text: Text, artefact: ArtefactRow) -> None:
    text.append(f"For the {artefact.audience}: ", style="bold")
    _mark(text, artefact.state)
    text.append(f" {artefact.state}\n", style="bold")


def _mark(text: Text, state: str) -> None:
    sign, style = _MARKS.get(state, ("?", ""))
    text.append(sign, style=style)


# ---------------------------------------------------------------- routing, files


def routing_text(row: StudyRow, route: RouteView | None) -> Text:
    """Return where the present rules send the study, and why."""
    text = Text()
    if route is None:
        return text
    text.append("By the rules as they are now\n", style="bold")
    for line in route.lines:
        text.append(f"{line}\n")
    if row.priority_reason:
        text.append(f"\nPriority {row.priority}: {row.priority_reason}\n")
    return text


def file_text(row: FileRow | None) -> Text:
    """Return what became of a file, and what to do."""
    if row is None:
        return Text("This study has no file in the ledger.")
    text = Text(f"{row.name}\n", style="bold")
    text.append(f"{row.fate.lower()}, from {row.source}, {row.size_bytes:,} bytes\n", style="not bold")
    for words in (row.reason, row.remedy):
        if words:
            text.append(f"{words} ", style="not bold")
    if row.decision:
        text.append(f"\n{row.decided_by} decided: {row.decision}", style="not bold")
    return text


# ---------------------------------------------------------------- the picture


def caption_text(shown: PreviewView, looking: Looking, *, playing: bool) -> Text:
    """Return what a picture is of, how it is shown, and what else is to be said of it, each on a line."""
    where = [f"image {shown.image} of {shown.images}"]
    if 1 < shown.frames != shown.images:
        where.append(f"frame {shown.frame} of {shown.frames}")
    if shown.position_mm is not None:
        where.append(f"at {shown.position_mm:.1f} mm")
    where.append(_window(shown, looking))
    if playing:
        where.append("▶ playing")
    text = Text(f"Stack {shown.stack} of {shown.stacks}: {shown.line}\n")
    text.append(" · ".join(where), style="bold")
    text.append("\n" + " ".join((*_overlay(shown), *shown.remarks)))
    return text


def _overlay(shown: PreviewView) -> Iterator[str]:
    if shown.overlay:
        yield f"▒ {shown.overlay} (o hides it)."
    elif shown.overlays:
        yield f"o shows: {', '.join(shown.overlays)}."
    elif shown.overlay_note:
        yield shown.overlay_note


def _window(shown: PreviewView, looking: Looking) -> str:
    if shown.window is None:
        return "in colour" if shown.colour else "by a table of the file"
    name = "moved" if looking.window is not None else looking.preset or "default"
    unit = f" {shown.window.unit}" if shown.window.unit else ""
    return f"window {shown.window.centre:g} ± {shown.window.width / 2:g}{unit} ({name})"
