"""What happened to a study, in words: the actions that the audit names, and the page that lists them."""

from __future__ import annotations

import time

from rich.text import Text

from clinic_ai.control.study_views import HappenedRow, HistoryView
from clinic_ai.control.views import StudyView, VersionView
from clinic_ai.tui.words import stand_text

WIDTH = 34
"""Columns for what happened; who did it stands beside it, and both fit into 80."""

HAPPENED: dict[str, str] = {
    "study.open": "a version of it was opened",
    "study.receive": "files came in",
    "study.close": "closed: no more is awaited",
    "study.route": "routed: its jobs were made",
    "study.no_rule": "no rule and no plugin took it",
    "study.lack_originals": "not routed: images were removed",
    "study.reroute": "the rules were asked again",
    "study.finish": "all its jobs are done",
    "study.fail": "given up: a job failed for good",
    "study.supersede": "a newer version replaced it",
    "study.priority": "its priority was changed",
    "study.category": "its category was set",
    "study.question": "a question was asked about it",
    "study.exported": "its originals were exported",
    "study.exported_deidentified": "exported de-identified",
    "study.originals_removed": "its images were removed by age",
    "study.originals_restored": "its removed images came again",
    "job.queued": "a job waits for its turn",
    "job.lease": "a job was begun",
    "job.succeed": "a job is done",
    "job.retry": "a job failed and is tried again",
    "job.interrupt": "a job was interrupted",
    "job.give_up": "a job failed for good",
    "job.cancel": "a job was dropped",
    "analysis.stored": "what the plugin found was stored",
    "artefact.preliminary": "a result was released, unsigned",
    "artefact.held": "a result was held by the guard",
    "artefact.blocked": "a result was blocked by the guard",
    "artefact.rejected": "a result was rejected",
    "artefact.final": "the signed result was made",
    "artefact.superseded": "a result was replaced",
    "review.accept": "a person accepted the result",
    "review.amend": "a person amended the result",
    "review.reject": "a person rejected the result",
    "review.consent": "learning from it: consent changed",
    "delivery.sent": "a result was delivered",
    "delivery.given_up": "a delivery failed for good",
    "critical.found": "a critical finding raised an alert",
    "alert.announced": "a critical finding was announced",
    "alert.repeated": "a critical finding was told again",
    "alert.escalated": "a critical finding went further up",
    "notice.sent": "a notice was sent",
}
"""What each action of the audit that is about a study or its jobs means."""


def happened(action: str) -> str:
    """Return an action of the audit in words; one that nobody foresaw by its name."""
    return HAPPENED.get(action, action.replace(".", " ").replace("_", " "))


def history_text(study: StudyView, history: HistoryView | None) -> Text:
    """Return the versions, and what the audit says, the newest first."""
    text = Text()
    for version in study.versions:
        text.append_text(_version(version))
    if history is None:
        return text
    text.append("\n")
    day = ""
    for row in history.rows:
        if day != (today := time.strftime("%Y-%m-%d", time.localtime(row.at))):
            day = today
            text.append(f"{day}\n", style="bold")
        _row(text, row, study.study_id)
    if history.more:
        text.append("\nOlder rows are left out; `clinic-ai audit export` has them all.")
    return text


def _row(text: Text, row: HappenedRow, study_id: str) -> None:
    job = "" if row.subject == study_id else f" {row.subject}"
    text.append(f"  {time.strftime('%H:%M:%S', time.localtime(row.at))}  ", style="dim")
    text.append(f"{happened(row.action):<{WIDTH}}")
    text.append(f" {row.actor}{job}\n", style="dim")


def _version(version: VersionView) -> Text:
    row = version.study
    opened = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.opened_at))
    text = Text.assemble((f"Version {row.version} ", "bold"), stand_text(row))
    text.append(f"  {opened}, {version.instances} image{'' if version.instances == 1 else 's'}")
    text.append(f"; closed: {row.closed_reason}\n" if row.closed_reason else "\n")
    return text
