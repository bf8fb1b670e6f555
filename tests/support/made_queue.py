"""Studies of nobody for pictures of the queue, and an exhibit that answers about them as the daemon does."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

from screens import NOW, Exhibit, made_status

from clinic_ai import waiting
from clinic_ai.control.queue_views import QueuePage, QueueRow
from clinic_ai.control.views import (
    ArtefactRow,
    DecisionRow,
    DeliveryRow,
    EngineRow,
    FileRow,
    InboxRow,
    PaceRow,
    PolicyView,
    StatusView,
    StudyView,
    VersionView,
)
from clinic_ai.domain import Job, JobKind, JobState, QueueSort, StudyFacts, StudyState, WaitReason
from clinic_ai.errors import NotFound
from clinic_ai.tasks import PackInfo

S = StudyState
PACK = PackInfo(name="default", version="1", digest="c" * 64, rules=("test.rule",), cases=1)
INBOXES = (
    InboxRow(name="ct room", path="/var/lib/clinic-ai/inbox/ct", online=True, quiet_s=30),
    InboxRow(name="x-ray", path="/var/lib/clinic-ai/inbox/xray", online=True, quiet_s=5),
    InboxRow(
        name="ward 3",
        path="/mnt/ward3",
        online=False,
        sentence="Nothing is mounted at /mnt/ward3.",
        remedy="Mount the share; files are taken in again by themselves.",
    ),
)


def made_row(number: int, state: StudyState = S.DONE, **changes: Any) -> QueueRow:
    """Return a study that arrived ``number`` minutes before now, with what a test wants otherwise."""
    opened = NOW - 60 * number
    wait: WaitReason | None = changes.pop("wait", None)
    study_id = f"S-20261121-{number:08d}"
    usual: dict[str, Any] = {
        "study_id": study_id,
        "version": 1,
        "state": state,
        "pseudonym": _pseudonym(number),
        "source": "x-ray",
        "facts": StudyFacts(source="x-ray", modalities=("DX",), body_parts=("CHEST",), slices=1),
        "priority": 0,
        "opened_at": opened,
        "last_instance_at": opened + 2,
        "closed_at": None if state is S.RECEIVING else opened + 7,
        "closed_reason": "" if state is S.RECEIVING else "nothing new arrived for 5 s, 1 image",
        "wait": None if wait is None else waiting.addressed(wait, study_id),
    }
    return QueueRow.model_validate(usual | changes)


def _pseudonym(number: int) -> str:
    return "P-" + base64.b32encode(hashlib.sha256(str(number).encode()).digest())[:8].decode()


def _ct(slices: int = 250) -> dict[str, Any]:
    facts = StudyFacts(
        source="ct room",
        modalities=("CT",),
        body_parts=("CHEST",),
        slices=slices,
        study_description="CT chest without contrast",
    )
    return {"source": "ct room", "facts": facts}


def busy() -> tuple[QueueRow, ...]:
    """Return twelve studies as a busy noon has them: each state, and what is urgent on top."""
    ultrasound = StudyFacts(source="ward 3", modalities=("US",), body_parts=("ABDOMEN",), slices=24)
    return (
        made_row(41, wait=waiting.held("critical.pneumothorax", "A person has to look at it first."), critical=True,
                 urgent=True, priority=50, priority_reason="+50 as its headers say STAT", verdict="hold"),
        made_row(3, S.ROUTED, **_ct(), urgent=True, priority=50, priority_reason="+50 as its headers say STAT",
                 at_work=("ct",)),
        made_row(0, S.RECEIVING, **_ct(112), opened_at=NOW - 45, last_instance_at=NOW - 10,
                 wait=waiting.receiving(30)),
        made_row(1, S.CLOSED),
        made_row(2, S.ROUTED, wait=waiting.no_model("xray")),
        made_row(4, S.ROUTED, turns=1),
        made_row(9, S.UNROUTED, source="ward 3", facts=ultrasound, wait=waiting.no_rule()),
        made_row(12, S.RECEIVING, **_ct(80), last_instance_at=NOW - 400,
                 wait=waiting.receiving_more("slices 81 to 250 of series 3", 600)),
        made_row(17, verdict="annotate"),
        made_row(25, S.FAILED, wait=waiting.failed("The image has 16 bits, and the model reads 8.")),
        made_row(58, verdict="allow",
                 wait=waiting.undelivered("pacs", "The PACS does not answer.", 300)),
        made_row(1500, verdict="hold", rejected=True, **_ct()),
    )  # fmt: skip


def made_version(row: QueueRow, **changes: Any) -> VersionView:
    """Return the newest version of a study with jobs and a result as its state has them."""
    usual: dict[str, Any] = {"study": row, "instances": row.facts.slices, "jobs": (), "artefacts": ()}
    if row.state is S.ROUTED:
        state = JobState.LEASED if row.at_work else JobState.QUEUED
        usual["jobs"] = (made_job(row, state),)
    if row.state is S.DONE:
        usual["artefacts"] = (made_artefact(row),)
    return VersionView.model_validate(usual | changes)


def made_job(row: QueueRow, state: JobState, kind: JobKind = JobKind.ANALYSE, **changes: Any) -> Job:
    """Return a job of a study."""
    usual: dict[str, Any] = {
        "job_id": f"J-{row.study_id}",
        "kind": kind,
        "study_id": row.study_id,
        "version": row.version,
        "plugin": (row.at_work or ("xray",))[0] if kind is JobKind.ANALYSE else "",
        "state": state,
        "attempt": 1 if state is JobState.LEASED else 0,
        "wait": row.wait,
        "created_at": NOW - 30,
        "started_at": NOW - 25 if state is JobState.LEASED else None,
    }
    return Job.model_validate(usual | changes)


def made_artefact(row: QueueRow, **changes: Any) -> ArtefactRow:
    """Return the result of a study for clinicians, delivered if the guard let it out."""
    kept = row.verdict in {"hold", "block"}
    delivery = DeliveryRow(
        target="outbox",
        state="SENT",
        attempt=1,
        place="/var/lib/clinic-ai/outbox/x-ray/1",
        error="",
        done_at=NOW - 30,
    )
    usual: dict[str, Any] = {
        "artefact_id": f"A-{row.study_id}",
        "audience": "clinician",
        "state": "REJECTED" if row.rejected else "HELD" if kept else "PRELIMINARY",
        "action": row.verdict or "allow",
        "policy_name": "default",
        "policy_hash": "c" * 64,
        "decisions": (DecisionRow(rule="test.rule", action=row.verdict or "allow", reason="Because."),),
        "files": (),
        "deliveries": () if kept else (delivery,),
        "signed_by": "",
        "created_at": NOW - 40,
        "released": None,
        "marks": (),
    }
    return ArtefactRow.model_validate(usual | changes)


def made_file(number: int, **changes: Any) -> FileRow:
    """Return a file in quarantine that is in no study."""
    usual: dict[str, Any] = {
        "file_id": number,
        "source": "ct room",
        "name": f"odd/{number}.dcm",
        "size_bytes": 1000,
        "sha256": "d" * 64,
        "fate": "QUARANTINED",
        "reason_code": "damaged",
        "reason": "The file ends inside the image.",
        "remedy": "Send it again from where it came; the copy here is kept as it is.",
        "study_id": None,
        "seen_at": NOW - 100,
        "decided_at": None,
    }
    return FileRow.model_validate(usual | changes)


def queue_exhibit(rows: Sequence[QueueRow] = (), *, status: StatusView | None = None, **answers: Any) -> Exhibit:
    """Return an exhibit with these studies, in this order whatever is sorted by; words are found in their texts."""
    exhibit = Exhibit(answers, status=busy_status(rows) if status is None else status)
    exhibit.answers["rows"] = list(rows)

    def queue(
        *,
        sort: QueueSort,
        reverse: bool,
        words: str,
        offset: int,
        limit: int,
        study_id: str | None,
        version: int | None,
    ) -> QueuePage:
        kept = [row for row in exhibit.answers["rows"] if all(w in _text(row) for w in words.casefold().split())]
        if reverse:
            kept.reverse()
        place = next((i for i, row in enumerate(kept) if (row.study_id, row.version) == (study_id, version)), None)
        return QueuePage(studies=tuple(kept[offset : offset + limit]), offset=offset, total=len(kept), place=place)

    def study(study_id: str) -> StudyView:
        found = [row for row in exhibit.answers["rows"] if row.study_id == study_id]
        if not found:
            raise NotFound(f"There is no study {study_id}.")
        versions = tuple(map(made_version, found))
        return StudyView(study_id=study_id, content=False, versions=versions, files=())

    exhibit.answers |= {"queue": queue, "study": study, "series": NotFound("It has no pictures.")} | answers
    return exhibit


def busy_status(rows: Sequence[QueueRow], **changes: Any) -> StatusView:
    """Return the status of a daemon that has these studies."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.state.value] = counts.get(row.state.value, 0) + 1
    usual: dict[str, Any] = {
        "studies": counts,
        "artefacts": {"HELD": sum(row.verdict == "hold" and not row.rejected for row in rows)},
        "inboxes": INBOXES,
        "policy": PolicyView(
            pack=PackInfo(name="default", version="1", digest="c" * 64, rules=("test.rule",), cases=1)
        ),
        "paces": (PaceRow(source="ct room", quiet_s=30, studies=12, late=0),),
        "engines": (EngineRow(plugin="ct", pid=4711, busy=True, resident_bytes=900 << 20, models=(), idle_s=0),),
    }
    return made_status(**usual | changes)


def _text(row: QueueRow) -> str:
    parts = (row.study_id, row.pseudonym, row.source, row.state.value, *row.facts.modalities, *row.facts.body_parts)
    return " ".join((*parts, "" if row.wait is None else row.wait.sentence)).casefold()
