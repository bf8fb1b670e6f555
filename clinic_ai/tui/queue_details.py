"""All about the study under the cursor: first why it waits and what to do, or what is done for it, or where it went."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from rich.text import Text

from clinic_ai.control.queue_views import QueueRow
from clinic_ai.control.views import ArtefactRow, DeliveryRow, FileRow, StatusView, StudyView, VersionView
from clinic_ai.domain import Fate, Job, JobKind, JobState, StudyState
from clinic_ai.tui.queue_words import counted, held
from clinic_ai.tui.words import MEANINGS, add_artefact, add_job, age, modality, stand_text

TO_DO = "What to do"
NOTHING_TO_DO = "Nothing: it goes on by itself."
MAX_FILES = 20
"""Files that are told of one by one."""
_HELD_BACK = frozenset({Fate.QUARANTINED.value, Fate.VANISHED.value, Fate.DISCARDED.value})


def details_text(row: QueueRow, study: StudyView | None, status: StatusView | None, now: float, hint: str = "") -> Text:
    """Return all about a study but what it shows; ``hint`` says which keys help."""
    version = None if study is None else _version_of(row, study)
    text = Text()
    version_words = f" version {row.version}" if row.version > 1 else ""
    text.append(f"{row.study_id}{version_words}  ", style="bold")
    text.append_text(stand_text(row))
    text.append(": analysed, a person has to decide\n" if held(row) else f": {MEANINGS[row.state]}\n")
    for sentence in why(row, version, status, now):
        text.append(sentence + "\n", style="bold")
    if row.wait is not None:
        _line(text, TO_DO, f"{row.wait.remedy or NOTHING_TO_DO} {hint}".rstrip())
    if study is not None:
        _files(text, study.files)
    _facts(text, row, now)
    if version is not None:
        _history(text, version)
    if study is not None:
        others = [v.study for v in study.versions if v.study.version != row.version]
        _line(text, "Other versions", ", ".join(f"{v.version} {v.state.value}" for v in others))
    return text


def _version_of(row: QueueRow, study: StudyView) -> VersionView | None:
    return next((version for version in study.versions if version.study.version == row.version), None)


# ---------------------------------------------------------------- why


def why(row: QueueRow, version: VersionView | None, status: StatusView | None, now: float) -> Iterator[str]:
    """Yield in sentences why a study waits, or what is done for it, or where its result went."""
    if row.wait is not None:
        yield row.wait.sentence
    if row.state is StudyState.RECEIVING:
        yield _until(row, status, now)
    elif row.state is StudyState.ROUTED and version is not None:
        yield from (_of_job(job, status, now, said=row.wait is not None) for job in version.jobs if _open(job))
    elif row.state is StudyState.DONE and version is not None and row.wait is None:
        yield from _where(version.artefacts)


def _until(row: QueueRow, status: StatusView | None, now: float) -> str:
    """Say until when a study waits for more of itself."""
    last = f"Its last file came at {_clock(row.last_instance_at)}, {age(now - row.last_instance_at)} ago."
    quiet_s = next((pace.quiet_s for pace in status.paces if pace.source == row.source), None) if status else None
    if quiet_s is None or (row.wait is not None and row.wait.code != "receiving"):
        return last
    return f"{last} It is complete at {_clock(row.last_instance_at + quiet_s)} if nothing more comes."


def _open(job: Job) -> bool:
    return job.state in {JobState.LEASED, JobState.QUEUED}


def _of_job(job: Job, status: StatusView | None, now: float, *, said: bool) -> str:
    """Say what is done about a job, since when and by which process; ``said``: the study says why it waits."""
    if job.state is JobState.LEASED:
        since = job.started_at if job.started_at is not None else job.created_at
        return f"{_worker(job, status)} since {_clock(since)} ({age(now - since)})."
    what = f"for {job.plugin}" if job.kind is JobKind.ANALYSE else "for its report"
    if job.wait is not None:
        return f"Its job {what} waits." if said else job.wait.sentence
    return f"Its job {what} waits for its turn since {_clock(job.created_at)}: what is more urgent or older goes first."


def _worker(job: Job, status: StatusView | None) -> str:
    if job.kind is not JobKind.ANALYSE:
        signed = "signed " if job.kind is JobKind.SIGN else ""
        return f"The guard and the renderer work on its {signed}report"
    busy = [engine.pid for engine in status.engines if engine.plugin == job.plugin] if status else []
    process = f" (process {busy[0]})" if busy else ""
    return f"The engine of {job.plugin}{process} works on it"


def _where(artefacts: Sequence[ArtefactRow]) -> Iterator[str]:
    """Say where the results of a finished study are."""
    current = [artefact for artefact in artefacts if artefact.state != "SUPERSEDED"]
    if not current:
        yield "It is finished, and there is no result."
    for artefact in current:
        whose = f"The result for the {artefact.audience}"
        if artefact.state == "REJECTED":
            yield f"{whose} was rejected by a person; nothing of it goes out."
        elif not artefact.deliveries:
            yield f"{whose} is ready; nothing says where to deliver it."
        for delivery in artefact.deliveries:
            yield f"{whose} {_delivered(delivery)}"


def _delivered(delivery: DeliveryRow) -> str:
    place = f" ({delivery.place})" if delivery.place else ""
    if delivery.state in {"SENT", "RECEIPTED"}:
        at = f" at {_clock(delivery.done_at)}" if delivery.done_at is not None else ""
        receipt = ", and its receipt is here" if delivery.state == "RECEIPTED" else ""
        return f"was delivered to {delivery.target}{at}{receipt}{place}."
    if delivery.state == "FAILED":
        return f"could not be delivered to {delivery.target}: {delivery.error or 'it was given up'}"
    return f"is on its way to {delivery.target}."


# ---------------------------------------------------------------- the rest


def _files(text: Text, files: Sequence[FileRow]) -> None:
    """Say what became of the files that are not in the study, and why."""
    back = [file for file in files if file.fate in _HELD_BACK]
    for file in back[:MAX_FILES]:
        text.append(f"File {file.file_id} is not in it: {file.name} ({file.fate})\n", style="bold")
        text.append(file.reason + "\n")
        _line(text, TO_DO, file.remedy)
    if len(back) > MAX_FILES:
        text.append(f"… and {counted(len(back) - MAX_FILES, 'file', 'files')} more; press f for all.\n")


def _facts(text: Text, row: QueueRow, now: float) -> None:
    facts = row.facts
    images = counted(facts.slices, "image", "images") if facts.slices else ""
    what = (modality(row), "/".join(facts.body_parts), images, facts.study_description)
    _line(text, "What", ", ".join(filter(None, what)))
    _line(text, "Patient", f"{row.pseudonym}, from {row.source}")
    closed = f"; closed: {row.closed_reason}" if row.closed_reason else ""
    arrived = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.opened_at))
    _line(text, "Arrived", f"{arrived}, {age(now - row.opened_at)} ago{closed}")
    if row.critical:
        _line(text, "Critical", "nobody has acknowledged the alert about its result; a clinician looks at it")
    if row.priority or row.priority_reason:
        _line(text, "Priority", f"{row.priority}: {row.priority_reason}".removesuffix(": "))


def _history(text: Text, version: VersionView) -> None:
    _line(text, "Files", f"{counted(version.instances, 'file', 'files')} in this version")
    for job in version.jobs:
        add_job(text, job)
    for artefact in version.artefacts:
        add_artefact(text, artefact)


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _line(text: Text, name: str, words: str) -> None:
    if words:
        text.append(f"{name}: ", style="bold" if name == TO_DO else "dim")
        text.append(words + "\n")
