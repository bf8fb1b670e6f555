"""Turns views into styled text. Colour never says anything that a sign or word does not say too."""

from __future__ import annotations

import time

from rich.text import Text

from clinic_ai.control.views import ArtefactRow, StudyRow, StudyView, VersionView
from clinic_ai.domain import Job, JobState, StudyState

SIGNS: dict[StudyState, tuple[str, str]] = {
    StudyState.RECEIVING: ("↓", "cyan"),
    StudyState.CLOSED: ("○", "cyan"),
    StudyState.ROUTED: ("▶", "blue"),
    StudyState.UNROUTED: ("?", "yellow"),
    StudyState.DONE: ("✓", "green"),
    StudyState.FAILED: ("✗", "red"),
    StudyState.SUPERSEDED: ("–", "bright_black"),
}
"""Sign and colour of each state."""

HELD = "held"
"""Code of the WaitReason of a study whose result the guard held."""

MEANINGS: dict[StudyState, str] = {
    StudyState.RECEIVING: "images are still arriving",
    StudyState.CLOSED: "complete, about to be routed",
    StudyState.ROUTED: "in work, or waiting for its turn",
    StudyState.UNROUTED: "no rule and no plugin takes it",
    StudyState.DONE: "finished",
    StudyState.FAILED: "given up; retry when the cause is gone",
    StudyState.SUPERSEDED: "a newer version replaced it",
}

WAITS: dict[str, str] = {
    "receiving": "Its files are arriving. Nothing is needed.",
    "receiving_more": "An image seems to be missing. Nothing is needed; or close the study to go on without.",
    "no_rule": "No rule and no plugin takes it. Add a rule to clinic.toml, reload, then retry.",
    "originals_removed": "Some of its images were removed by age. Send the whole study again.",
    "no_plugin": "A rule wants a plugin that is not there. Install it, or change the rule and re-route.",
    "no_model": "The plugin has no model in use. Import one and promote it: screen Models.",
    "bad_model": "The files of the model are damaged. Restore them, or roll back: screen Models.",
    "engine_crashing": "The plugin died too often and rests. See the log; roll back a model that is new.",
    "retry_later": "An attempt failed. The next comes by itself; retry tries at once.",
    "no_memory": "The model is larger than execution.memory_mb in clinic.toml. Raise it.",
    "memory_in_use": "Other models use the memory just now. Nothing is needed.",
    "no_policy": "No policy pack is in force, so nothing may go out. Correct the pack and reload.",
    "held": "The guard held the result. A clinician accepts, amends or rejects it: screen Review.",
    "not_signed": "The signed report could not be made. Review it once more: screen Review.",
    "failed": "Every attempt failed. Retry when the cause, which stands beside it, is gone.",
    "undelivered": "The result could not be delivered; it is tried again. Check the target.",
}
"""What each code of a WaitReason means and what to do, in a line; the study itself says it in full."""


def state_text(state: StudyState) -> Text:
    """Return a state with its sign."""
    sign, colour = SIGNS[state]
    return Text(f"{sign} {state.value}", style=colour, no_wrap=True)


def stand_text(row: StudyRow) -> Text:
    """Return where a study stands: its state, or that its result is held."""
    if _held(row):
        return Text("‖ HELD", style="bold yellow", no_wrap=True)
    return state_text(row.state)


def _held(row: StudyRow) -> bool:
    return row.state is StudyState.DONE and row.wait is not None and row.wait.code == HELD


def age(seconds: float) -> str:
    """Return a length of time in one unit, such as ``3 min``."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0) // 5 * 5:.0f} s"  # in steps of five: a number that changes each second draws the eye


def modality(row: StudyRow) -> str:
    """Return the modalities of a study."""
    return "/".join(row.facts.modalities) or "?"


# ---------------------------------------------------------------- details


def details_text(row: StudyRow, study: StudyView | None) -> Text:
    """Return all about a study but what it shows: first of all why it waits and what to do."""
    text = Text()
    _heading(text, f"{row.study_id} version {row.version}")
    text.append_text(stand_text(row))
    text.append(": analysed, a person has to decide\n" if _held(row) else f": {MEANINGS[row.state]}\n")
    if row.wait is not None:
        text.append(row.wait.sentence + "\n", style="bold yellow")
        if row.wait.remedy:
            _line(text, "What to do", row.wait.remedy)
    _facts(text, row)
    if study is None:
        return text
    for version in study.versions:
        if version.study.version == row.version:
            _version(text, version)
    for file in study.files:
        reason = f" {file.reason} {file.remedy}".rstrip()
        _line(text, "File", f"{file.name} {file.fate}{reason}")
    others = [v.study for v in study.versions if v.study.version != row.version]
    if others:
        _line(text, "Other versions", ", ".join(f"{v.version} {v.state.value}" for v in others))
    return text


def _facts(text: Text, row: StudyRow) -> None:
    facts = row.facts
    body = "/".join(facts.body_parts)
    images = f"{facts.slices} image{'' if facts.slices == 1 else 's'}" if facts.slices else ""
    _line(text, "What", ", ".join(filter(None, (modality(row), body, images, facts.study_description))))
    _line(text, "Patient", f"{row.pseudonym}, from {row.source}")
    arrived = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.opened_at))
    closed = f"; closed: {row.closed_reason}" if row.closed_reason else ""
    _line(text, "Arrived", f"{arrived}{closed}")
    if row.priority_reason:
        _line(text, "Priority", f"{row.priority}: {row.priority_reason}")


def _version(text: Text, version: VersionView) -> None:
    for job in version.jobs:
        add_job(text, job)
    for artefact in version.artefacts:
        add_artefact(text, artefact)


def add_job(text: Text, job: Job) -> None:
    """Append a job: who did what, how it stands, and why it waits."""
    who = f"{job.kind.value} {job.plugin}".strip()
    attempt = f", attempt {job.attempt}" if job.attempt > 1 or job.state is not JobState.DONE else ""
    models = "".join(f", {model.name} {model.version}" for model in job.models)
    _line(text, "Job", f"{who}: {job.state.value}{attempt}{models}")
    if job.wait is not None:
        _line(text, "  waits", f"{job.wait.sentence} {job.wait.remedy}".strip())
    if job.error:
        _line(text, "  error", job.error)


def add_artefact(text: Text, artefact: ArtefactRow) -> None:
    """Append a result: for whom, what the guard said of it, who signed it, and where it went."""
    signed = f", signed by {artefact.signed_by}" if artefact.signed_by else ""
    _line(text, "Result", f"for the {artefact.audience}: {artefact.state}; the guard said {artefact.action}{signed}")
    for rule, action, reason in dict.fromkeys((d.rule, d.action, d.reason) for d in artefact.decisions):
        if action not in {"allow", "annotate"}:
            _line(text, "  guard", f"{rule}, {action}: {reason}")
    for delivery in artefact.deliveries:
        where = f"{delivery.place} {delivery.error}".strip()
        _line(text, "  sent to", f"{delivery.target}: {delivery.state} {where}".rstrip())


def _heading(text: Text, words: str) -> None:
    text.append(words + "\n", style="bold")


def _line(text: Text, name: str, words: str) -> None:
    if words:
        text.append(f"{name}: ", style="bright_black")
        text.append(words + "\n")
