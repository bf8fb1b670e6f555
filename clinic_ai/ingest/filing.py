"""Files that lie in the spool are read, hashed, assembled into studies, stored or quarantined: a batch at a time.

The order is what makes it safe against a crash at any line: bytes synced and hashed, then linked into the object
store or moved to the quarantine, then one transaction for all that the database says of the batch, and only then
is the spool emptied. Doing any of it twice is harmless.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
from sqlalchemy import Connection

from clinic_ai import waiting
from clinic_ai.domain import CloseCode, Fate, FileDecision, FileKind, PatientIdentity, StudyState
from clinic_ai.ingest import assemble, matching, undecided
from clinic_ai.ingest.assemble import Arrival, Sorted
from clinic_ai.ingest.closing import Added
from clinic_ai.ingest.facts import facts_of
from clinic_ai.ingest.headers import HeaderReader
from clinic_ai.ingest.identifiers import study_uid
from clinic_ai.ingest.quarantine import Quarantine, Reason, utc
from clinic_ai.ingest.restoring import restore
from clinic_ai.ingest.spool import Spool
from clinic_ai.ingest.urgency import priority_of, raised_by, urgency_of
from clinic_ai.settings import IngestSettings
from clinic_ai.store import audit, ledger, meta, originals, studies
from clinic_ai.store.database import Database
from clinic_ai.store.groups import find_group, instance_by_uid, replaced_hashes
from clinic_ai.store.ledger import Outcome
from clinic_ai.store.objects import ObjectStore
from clinic_ai.tasks import ParsedFile, Problem

log = structlog.get_logger()

ACTOR = "ingest"
_HASHERS = 8
"""More than cores: syncs that wait together are committed together."""


@dataclass(frozen=True)
class Claim:
    """A file in the spool; ``name`` is its path below the inbox, the hints are what that inbox says of images.

    ``decision`` is what a person decided about it if it comes out of the quarantine, when it had the hash ``judged``.
    """

    file_id: int
    source: str
    name: str
    size_bytes: int
    seen_at: float
    modality: str = ""
    body_part: str = ""
    priority: int = 0
    owner: str = ""
    """Who looks after what sends there, in the clinic's words."""
    sha256: str = ""
    decision: FileDecision | None = None
    judged: str = ""

    @property
    def changed(self) -> bool:
        """Whether, now that it is hashed, it is not what the person decided about."""
        return self.judged not in {"", self.sha256}


@dataclass(frozen=True)
class Filed:
    """What a batch did: what the studies got that are still open, and whether any was closed."""

    added: tuple[Added, ...]
    closed: bool


@dataclass(frozen=True)
class _Rejected:
    """A file for the quarantine; ``key`` is the grouping key of the study that it contradicts."""

    claim: Claim
    problem: Problem
    key: str = ""

    @property
    def remedy(self) -> str:
        """What a person can do, and who looks after the source it came from."""
        owner = self.claim.owner
        return f"{self.problem.remedy} {owner} looks after this source.".strip() if owner else self.problem.remedy


class Filing:
    """Files batches of claims. One caller at a time."""

    def __init__(
        self,
        *,
        spool: Spool,
        quarantine: Quarantine,
        database: Database,
        objects: ObjectStore,
        reader: HeaderReader,
        settings: Callable[[], IngestSettings],
        quiet_s: Callable[[str], float],
    ) -> None:
        self._spool = spool
        self._quarantine = quarantine
        self._database = database
        self._objects = objects
        self._reader = reader
        self._settings = settings
        self._quiet_s = quiet_s
        self._threads = ThreadPoolExecutor(_HASHERS + 1, thread_name_prefix="ingest")

    def close(self) -> None:
        """Wait for what runs, and end the parser child."""
        self._threads.shutdown()
        self._reader.close()

    def file(self, batch: Sequence[Claim]) -> Filed:
        """Decide the fate of every file of a batch.

        Raise ChildError if no parser can be started, and HomeError or OSError if the disk does not take it;
        the files are then still in the spool, and the same call later goes on.
        """
        settings = self._settings()
        limit = settings.max_file_mb << 20
        small = [claim for claim in batch if claim.size_bytes <= limit]
        # The child reads headers while our threads sync and hash the same files.
        reading = self._threads.submit(self._reader.read, [self._spool.path(c.file_id) for c in small], settings)
        claims, rejected = self._hash(small)
        rejected += [_too_large(claim, limit) for claim in batch if claim.size_bytes > limit]
        with self._database.write() as connection:
            _confirm(connection, [claim for claim in claims if not claim.changed])
        parsed = {claim.file_id: file for claim, file in zip(small, reading.result(), strict=True)}
        arrivals = []
        for claim in claims:
            found = _Rejected(claim, _CHANGED) if claim.changed else _arrival(claim, parsed[claim.file_id])
            if isinstance(found, Arrival):
                arrivals.append(found)
            else:
                rejected.append(found)
        return self._store(arrivals, rejected, {claim.file_id: claim for claim in claims})

    # ------------------------------------------------------------

    def _hash(self, batch: Sequence[Claim]) -> tuple[list[Claim], list[_Rejected]]:
        def one(claim: Claim) -> Claim | _Rejected:
            try:
                sha256, size = self._spool.sync_and_hash(claim.file_id)
            except PermissionError:
                return _Rejected(claim, _NOT_READABLE)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                # A second sync would say yes without having written what the first one could not (fsync(2)).
                return _Rejected(claim, _DISK_FAILED)
            return replace(claim, sha256=sha256, size_bytes=size)

        results = list(self._threads.map(one, batch))
        claims = [result for result in results if isinstance(result, Claim)]
        return claims, [result for result in results if isinstance(result, _Rejected)]

    def _store(self, arrivals: list[Arrival], rejected: list[_Rejected], claims: dict[int, Claim]) -> Filed:
        sorted_groups = {}
        with self._database.read() as connection:
            groups = matching.grouped(connection, arrivals)
            for key, members in groups.items():
                sorted_groups[key] = assemble.sort_out(members, matching.known(connection, key, members))
            beside = self._beside(connection, sorted_groups)
            waiting_already = matching.waiting_already(connection, sorted_groups)
        alike = self._alike(beside) - waiting_already.keys()
        for key, found in sorted_groups.items():
            rejected += [
                _Rejected(claims[arrival.file_id], problem, key)
                for arrival, problem in found.conflicts
                if arrival.file_id not in alike and arrival.file_id not in waiting_already
            ]
        kept = [a for found in sorted_groups.values() for a in (*found.new, *found.duplicates)]
        self._objects.adopt_files([(self._spool.path(arrival.file_id), arrival.sha256) for arrival in kept])
        for item in rejected:
            self._put_away(item)
        with self._database.write() as connection:
            site_key = meta.site_key(connection)
            added = [
                some
                for key, found in sorted_groups.items()
                if (some := self._add(connection, key, found, site_key)) is not None
            ]
            matching.note_not_kept(
                connection, sorted_groups, {**dict.fromkeys(alike, matching.ALIKE), **waiting_already}
            )
            _record_rejected(connection, rejected)
        for file_id in (*(arrival.file_id for arrival in kept), *alike, *waiting_already):
            self._spool.discard(file_id)
        for item in rejected:
            why = item.problem
            place = self._quarantine.place(item.claim.file_id, item.claim.seen_at)
            log.warning("file.quarantined", place=place.name, code=why.code, sentence=why.sentence, remedy=item.remedy)
        closed = any(members[0].header.kind is not FileKind.DICOM for members in groups.values())
        log.info("ingest.filed", files=len(kept) + len(rejected), quarantined=len(rejected), studies=len(groups))
        return Filed(tuple(added), closed)

    def _beside(self, connection: Connection, groups: Mapping[str, Sorted]) -> dict[int, Path]:
        """Return for each file that comes under a UID that is known where the bytes are that have it, if they are."""
        beside = {}
        for key, found in groups.items():
            others = [arrival for arrival, problem in found.conflicts if problem.code == assemble.SAME_UID]
            if not others:
                continue
            group = find_group(connection, key)
            coming = {arrival.header.sop_instance_uid: self._spool.path(arrival.file_id) for arrival in found.new}
            for arrival in others:
                uid = arrival.header.sop_instance_uid
                stored = instance_by_uid(connection, group.study_id, uid) if group else None
                if stored is not None and self._objects.has(stored.sha256):
                    beside[arrival.file_id] = self._objects.path(stored.sha256)
                elif stored is None and uid in coming:
                    beside[arrival.file_id] = coming[uid]
        return beside

    def _alike(self, beside: Mapping[int, Path]) -> frozenset[int]:
        """Return those files in the spool that have the same data set as the file given for each."""
        arrived = [self._spool.path(number) for number in beside]
        read = self._reader.read([*arrived, *beside.values()], self._settings(), digest=True)
        pairs = zip(beside, read, read[len(beside) :], strict=False)
        return frozenset(number for number, one, other in pairs if one.dataset and one.dataset == other.dataset)

    def _add(self, connection: Connection, key: str, found: Sorted, site_key: bytes) -> Added | None:
        """Add the arrivals of one study; return them if it got new instances and is open."""
        group = find_group(connection, key)
        if not found.new:
            if group is not None:
                self._note_duplicates(connection, found.duplicates, group.study_id)
            return None
        first = found.new[0]
        identity = group.identity if group else PatientIdentity()
        merged = assemble.merged_identity(identity, found.new)
        patient = _patient_key(site_key, merged, key, first)
        urgency = urgency_of((arrival.header for arrival in found.new), max(a.priority for a in found.new))
        wait = waiting.receiving(self._quiet_s(first.source))
        if group is None:
            version = 1
            study_id = studies.open_study(
                connection,
                grouping_key=key,
                study_instance_uid=study_uid(first.header, key),
                pseudonym=meta.pseudonym(patient),
                patient_key=patient,
                source=first.source,
                facts=facts_of([arrival.header for arrival in found.new], first.source),
                identity=merged,
                priority=priority_of(urgency),
                urgency=urgency,
            )
        else:
            study_id, version = group.study_id, group.version
            if group.state is not StudyState.RECEIVING:
                version = studies.open_next_version(connection, study_id)
            if (raised := raised_by(group.urgency, urgency)) != group.urgency:
                studies.set_urgency(connection, study_id, version, raised, priority_of(raised))
            if merged != identity:
                studies.set_identity(
                    connection, study_id, version, merged, patient_key=patient, pseudonym=meta.pseudonym(patient)
                )
        new = [studies.NewInstance(a.file_id, a.sha256, a.size_bytes, a.header) for a in found.new]
        studies.add_instances(connection, study_id, version, new, wait=wait)
        studies.end_instances(connection, study_id, version, found.replacing)
        ledger.decide(connection, [Outcome(a.file_id, Fate.STORED, study_id=study_id) for a in found.new])
        self._note_duplicates(connection, found.duplicates, study_id)
        if first.header.kind is FileKind.DICOM:
            return Added(study_id, version, first.source, tuple(arrival.header for arrival in found.new))
        facts = facts_of([first.header], first.source)
        studies.close_version(
            connection,
            study_id,
            version,
            facts=facts,
            code=CloseCode.ONE_IMAGE,
            reason=assemble.ONE_IMAGE,
            actor=ACTOR,
        )
        return None

    def _note_duplicates(self, connection: Connection, arrivals: Sequence[Arrival], study_id: str) -> None:
        """Decide the fate of bytes the study has or had; what retention removed of them is stored again by now."""
        if arrivals:
            ledger.decide(connection, _duplicates(connection, arrivals, study_id))
            restore(connection, self._objects, study_id)

    def _put_away(self, item: _Rejected) -> None:
        claim = item.claim
        self._quarantine.put(
            self._spool.path(claim.file_id),
            claim.seen_at,
            Reason(
                code=item.problem.code,
                sentence=item.problem.sentence,
                remedy=item.remedy,
                file_number=claim.file_id,
                original_name=claim.name,
                source=claim.source,
                sha256=claim.sha256,
                size_bytes=claim.size_bytes,
                seen_at=utc(claim.seen_at),
                quarantined_at=utc(time.time()),
            ),
        )


def _arrival(claim: Claim, parsed: ParsedFile) -> Arrival | _Rejected:
    if parsed.header is None:
        return _Rejected(claim, parsed.problem or _NO_ANSWER)
    folder = claim.name.rpartition("/")[0]
    return Arrival(
        file_id=claim.file_id,
        sha256=claim.sha256,
        size_bytes=claim.size_bytes,
        source=claim.source,
        folder=folder,
        header=assemble.with_folder_hints(parsed.header, folder, claim.modality, claim.body_part),
        priority=claim.priority,
        decision=claim.decision,
    )


def _too_large(claim: Claim, limit: int) -> _Rejected:
    return _Rejected(
        claim,
        Problem(
            code="too_large",
            sentence=f"The file has {claim.size_bytes >> 20} MiB; this appliance takes at most {limit >> 20} MiB.",
            remedy="If it is a scan, raise ingest.max_file_mb in clinic.toml, reload, and accept it with "
            "`clinic-ai file accept`.",
        ),
    )


def _patient_key(site_key: bytes, identity: PatientIdentity, key: str, first: Arrival) -> str:
    if identity.patient_id:
        return meta.patient_key(site_key, identity.patient_id)
    # Nobody knows whose it is: a patient of its own, the same one for the same picture wherever it was dropped.
    whose = key if first.header.kind is FileKind.DICOM else f"image:{first.sha256}"
    return meta.patient_key(site_key, "", whose)


def _duplicates(connection: Connection, arrivals: Sequence[Arrival], study_id: str) -> list[Outcome]:
    """Return what is said of bytes that the study has, or that a person replaced: a resend does not undo that."""
    gone = replaced_hashes(connection, study_id, [arrival.sha256 for arrival in arrivals])
    known = ("duplicate", "The study has exactly these bytes already.")
    if originals.removed_at(connection, study_id) is not None:
        known = ("restored", "The study has this image; its bytes, which retention had removed, are stored again.")
    return [
        Outcome(
            arrival.file_id,
            Fate.DUPLICATE,
            *(("replaced_before", _REPLACED_BEFORE) if arrival.sha256 in gone else known),
            study_id=study_id,
        )
        for arrival in arrivals
    ]


def _confirm(connection: Connection, claims: Sequence[Claim]) -> None:
    ledger.confirm_claims(connection, [(claim.file_id, claim.sha256, claim.size_bytes) for claim in claims])


def _record_rejected(connection: Connection, rejected: Sequence[_Rejected]) -> None:
    groups = {item.key: find_group(connection, item.key) for item in rejected if item.key}
    contradicted = {key: group.study_id for key, group in groups.items() if group is not None}
    _confirm(connection, [item.claim for item in rejected if item.problem is _CHANGED])
    ledger.decide(
        connection,
        [
            Outcome(
                item.claim.file_id,
                Fate.QUARANTINED,
                item.problem.code,
                item.problem.sentence,
                item.remedy,
                contradicted.get(item.key),
            )
            for item in rejected
        ],
    )
    undecided.raise_alerts(connection, {item.claim.source for item in rejected}, set(contradicted.values()))
    for item in rejected:
        audit.record(
            connection,
            actor=ACTOR,
            action="file.quarantine",
            subject=f"file {item.claim.file_id}",
            details={"code": item.problem.code},
        )


_NOT_READABLE = Problem(
    code="no_permission",
    sentence="The appliance was allowed to take the file but not to read it.",
    remedy="Let the sender write files that the group of the inbox may read, then drop it again.",
)
_CHANGED = Problem(
    code="changed_in_quarantine",
    sentence="Its bytes changed after a person had decided about them.",
    remedy="Look at it again with `clinic-ai file show`; then accept or discard what is there now.",
)
_REPLACED_BEFORE = "The study had exactly these bytes; a person accepted others in their place."
_DISK_FAILED = Problem(
    code="disk_failed",
    sentence="The disk of the appliance could not write the file down or read it back.",
    remedy="Have the disk checked (`journalctl -k`, `smartctl -a`). Then drop the file again if its sender has it; "
    "otherwise accept this one with `clinic-ai file accept`.",
)
_NO_ANSWER = Problem(
    code="unreadable",
    sentence="Its header could not be read.",
    remedy="Send it again from where it came.",
)
