"""All about a study but what it shows: first why it waits and what to do, or what is done for it, or where it went."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from rich.text import Text

from clinic_ai.control.views import ArtefactRow, DeliveryRow, FileRow, StatusView, StudyRow, StudyView, VersionView
from clinic_ai.domain import Fate, Job, JobKind, JobState, StudyState
from clinic_ai.tui.measures import counted, line
from clinic_ai.tui.words import MEANINGS, age, held, modality, stand_text

TO_DO = "What to do"
NOTHING_TO_DO = "Nothing: it goes on by itself."
MAX_FILES = 20
"""Files that are told of one by one."""
_HELD_BACK = frozenset({Fate.QUARANTINED.value, Fate.VANISHED.value, Fate.DISCARDED.value})


def details_text(
    row: StudyRow,
    study: StudyView | None,
    status: StatusView | None,
    now: float,
    *,
    hint: str = "",
    critical: bool = False,
    all_files: str = "press f for all",
) -> Text:
    """Return all about a study but what it shows; ``hint`` says which keys help, ``all_files`` where all files stand.

    ``critical``: nobody has acknowledged an alert about what it shows. ``study`` is None until it has come.
    """
    version = None if study is None else _version_of(row, study)
    text = Text()
    version_words = f" version {row.version}" if row.version > 1 else ""
    text.append(f"{row.study_id}{version_words}  ", style="bold")
    text.append_text(stand_text(row))
    text.append(": analysed, a person has to decide\n" if held(row) else f": {MEANINGS[row.state]}\n")
    for sentence in why(row, version, status, now):
        text.append(sentence + "\n", style="bold")
    if row.wait is not None:
        _to_do(text, f"{row.wait.remedy or NOTHING_TO_DO} {hint}".rstrip())
    if study is not None:
        _files(text, study.files, all_files)
    _facts(text, row, now, critical=critical)
    if version is not None:
        _history(text, version)
    if study is not None:
        others = [v.study for v in study.versions if v.study.version != row.version]
        line(text, "Other versions", ", ".join(f"{v.version} {v.state.value}" for v in others))
    return text


def _version_of(row: StudyRow, study: StudyView) -> VersionView | None:
    return next((version for version in study.versions if version.study.version == row.version), None)


# ---------------------------------------------------------------- why


def why(row: StudyRow, version: VersionView | None, status: StatusView | None, now: float) -> Iterator[str]:
    """Yield in sentences why a study waits, or what is done for it, or where its result went."""
    if row.wait is not None:
        yield row.wait.sentence
    if row.state is StudyState.RECEIVING:
        yield _until(row, status, now)
    elif row.state is StudyState.ROUTED and version is not None:
        yield from (_of_job(job, status, now, said=row.wait is not None) for job in version.jobs if _open(job))
    elif row.state is StudyState.DONE and version is not None and row.wait is None:
        yield from _where(version.artefacts)


def _until(row: StudyRow, status: StatusView | None, now: float) -> str:
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
        elif artefact.state in {"HELD", "BLOCKED"}:
            yield f"{whose} is held by the guard until a clinician decides: screen Review."
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


def _files(text: Text, files: Sequence[FileRow], all_files: str) -> None:
    """Say what became of the files that are not in the study, and why."""
    back = [file for file in files if file.fate in _HELD_BACK]
    for file in back[:MAX_FILES]:
        text.append(f"File {file.file_id} is not in it: {file.name} ({file.fate})\n", style="bold")
        text.append(file.reason + "\n")
        _to_do(text, file.remedy)
    if len(back) > MAX_FILES:
        text.append(f"… and {counted(len(back) - MAX_FILES, 'file', 'files')} more; {all_files}.\n")


def _facts(text: Text, row: StudyRow, now: float, *, critical: bool) -> None:
    facts = row.facts
    images = counted(facts.slices, "image", "images") if facts.slices else ""
    what = (modality(row), "/".join(facts.body_parts), images, facts.study_description)
    line(text, "What", ", ".join(filter(None, what)))
    line(text, "Patient", f"{row.pseudonym}, from {row.source}")
    closed = f"; closed: {row.closed_reason}" if row.closed_reason else ""
    arrived = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.opened_at))
    line(text, "Arrived", f"{arrived}, {age(now - row.opened_at)} ago{closed}")
    if critical:
        line(text, "Critical", "nobody has acknowledged the alert about its result; a clinician looks at it")
    if row.priority or row.priority_reason:
        line(text, "Priority", f"{row.priority}: {row.priority_reason}".removesuffix(": "))


def _history(text: Text, version: VersionView) -> None:
    line(text, "Files", f"{counted(version.instances, 'file', 'files')} in this version")
    for job in version.jobs:
        _job(text, job)
    for artefact in version.artefacts:
        _artefact(text, artefact)


def _job(text: Text, job: Job) -> None:
    """Say who did what, how it stands, and why it waits."""
    who = f"{job.kind.value} {job.plugin}".strip()
    attempt = f", attempt {job.attempt}" if job.attempt > 1 or job.state is not JobState.DONE else ""
    models = "".join(f", {model.name} {model.version}" for model in job.models)
    line(text, "Job", f"{who}: {job.state.value}{attempt}{models}")
    if job.wait is not None:
        line(text, "  waits", f"{job.wait.sentence} {job.wait.remedy}".strip())
    if job.error:
        line(text, "  error", job.error)


def _artefact(text: Text, artefact: ArtefactRow) -> None:
    """Say for whom a result is, what the guard said of it, who signed it, and where it went."""
    signed = f", signed by {artefact.signed_by}" if artefact.signed_by else ""
    line(text, "Result", f"for the {artefact.audience}: {artefact.state}; the guard said {artefact.action}{signed}")
    for rule, action, reason in dict.fromkeys((d.rule, d.action, d.reason) for d in artefact.decisions):
        if action not in {"allow", "annotate"}:
            line(text, "  guard", f"{rule}, {action}: {reason}")
    for delivery in artefact.deliveries:
        where = f"{delivery.place} {delivery.error}".strip()
        line(text, "  sent to", f"{delivery.target}: {delivery.state} {where}".rstrip())


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _to_do(text: Text, words: str) -> None:
    if words:
        text.append(f"{TO_DO}: ", style="bold")
        text.append(words + "\n")
