"""Whether a home is whole: what was dropped against what the ledger, the store, the quarantine and the outbox say.

``Drops`` is what the droppers wrote down, one JSON line a file, before the file came into view. ``faults`` compares it
with a home that nothing works in any more and returns every difference in words.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from clinic_ai.domain import StudyState
from clinic_ai.home import Home
from clinic_ai.store import audit
from clinic_ai.store.database import Database

STORED = ("STORED", "DUPLICATE")
QUARANTINED = ("QUARANTINED",)
_OPEN = ("RECEIVING", "CLOSED", "ROUTED")


@dataclass(frozen=True)
class Drop:
    """One file: its path below its inbox, the UID of the study it belongs to, and what may become of it."""

    name: str
    sha256: str
    study: str = ""
    fates: tuple[str, ...] = STORED
    kept: bool = True
    """Whether its bytes have to be somewhere in the end."""


class Drops:
    """The list of what was dropped, kept in a file that several processes append to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, drop: Drop) -> None:
        """Append one; a line is one write, so that processes do not mix theirs."""
        line = (json.dumps(asdict(drop)) + "\n").encode()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def all(self) -> list[Drop]:
        """Return all of them."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [Drop(**{**fields, "fates": tuple(fields["fates"])}) for fields in map(json.loads, lines)]


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def faults(home: Home, drops: Iterable[Drop], *, delivered: bool = True, network: str = "") -> list[str]:
    """Return all that is not as it must be, in words.

    ``delivered`` is whether studies went on to a result; ``network`` is a peer whose objects are not in ``drops``.
    """
    drops = list(drops)
    with closing(sqlite3.connect(f"file:{home.database}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        files = connection.execute("SELECT * FROM files").fetchall()
        found = [
            *_of_ledger(files, drops, network),
            *_of_bytes(home, files, _without_originals(connection)),
            *_of_studies(connection, drops, delivered=delivered),
            *_of_audit(connection),
        ]
        if delivered:
            found += _of_results(home, connection)
    return found + _leftovers(home) + _of_chain(home)


def _of_ledger(files: list[sqlite3.Row], drops: list[Drop], network: str) -> list[str]:
    """Every file that was dropped has one final fate, and nothing else has any."""
    found = []
    rows = defaultdict(list)
    for row in files:
        if row["source"] != network and row["reason_code"] != "closed":  # that is a folder nobody may look into
            rows[row["name"]].append(row)
        if row["fate"] in {"CLAIMING", "CLAIMED"}:
            found.append(f"file {row['file_id']} ({row['name']}) has no final fate but {row['fate']}")
    for drop in drops:
        its = [row for row in rows.pop(drop.name, []) if row["reason_code"] != "cannot_take" or not drop.kept]
        if drop.kept and len(its) != 1:
            found.append(f"{drop.name} is in the ledger {len(its)} times")
        for row in its:
            if row["fate"] not in drop.fates:
                found.append(f"{drop.name} became {row['fate']} ({row['reason']}) instead of {drop.fates}")
            if row["sha256"] not in {None, drop.sha256}:
                found.append(f"{drop.name} has other bytes in the ledger than were dropped")
            if row["fate"] not in STORED and not row["reason"]:
                found.append(f"{drop.name} became {row['fate']} and nobody said why")
    found += [f"{name} is in the ledger and was never dropped" for name in rows]
    stored = Counter((row["study_id"], row["sha256"]) for row in files if row["fate"] == "STORED")
    return found + [f"{sha256} is STORED {n} times in {study}" for (study, sha256), n in stored.items() if n > 1]


def _without_originals(connection: sqlite3.Connection) -> set[str]:
    """Return the studies of which retention removed the bytes on purpose."""
    rows = connection.execute("SELECT study_id FROM studies WHERE originals_removed_at IS NOT NULL")
    return {row["study_id"] for row in rows}


def _of_bytes(home: Home, files: list[sqlite3.Row], removed: set[str]) -> list[str]:
    """What is stored is in the object store, what is quarantined is there with its reason, each with its bytes."""
    found = []
    quarantined = set()
    for row in files:
        if row["fate"] in STORED and row["study_id"] not in removed:
            place = home.objects / row["sha256"][:2] / row["sha256"][2:]
            if not place.is_file() or digest(place) != row["sha256"]:
                found.append(f"the bytes of file {row['file_id']} are not in the store")
        elif row["fate"] == "QUARANTINED":
            places = list(home.quarantine.glob(f"*-{row['file_id']}"))
            quarantined.update(places)
            if len(places) != 1 or not (places[0] / "file").is_file() or not (places[0] / "reason.json").is_file():
                found.append(f"file {row['file_id']} is not in the quarantine with its reason")
            elif row["sha256"] and digest(places[0] / "file") != row["sha256"]:
                found.append(f"file {row['file_id']} has other bytes in the quarantine")
    return found + [
        f"{place.name} is in the quarantine by mistake" for place in set(home.quarantine.iterdir()) - quarantined
    ]


def _of_studies(connection: sqlite3.Connection, drops: list[Drop], *, delivered: bool) -> list[str]:
    """Each study is there once; its newest version has ended and has each object once; the others are superseded."""
    found = []
    versions = defaultdict(list)
    for row in connection.execute("SELECT * FROM studies ORDER BY version"):
        versions[row["study_instance_uid"], row["study_id"]].append(row)
    found += [f"{uid} is {n} studies" for uid, n in Counter(uid for uid, _ in versions).items() if n > 1]
    expected = defaultdict(set)
    stored = {row["name"] for row in connection.execute("SELECT name FROM files WHERE fate IN ('STORED', 'DUPLICATE')")}
    for drop in drops:
        if drop.study and drop.name in stored:
            expected[drop.study].add(drop.sha256)
    for (uid, study_id), its in versions.items():
        *older, newest = its
        if [row["version"] for row in its] != list(range(1, len(its) + 1)):
            found.append(f"{study_id} lacks a version")
        found += [f"{study_id} v{row['version']} is {row['state']}" for row in older if row["state"] != "SUPERSEDED"]
        if newest["state"] in (_OPEN if delivered else ("RECEIVING",)):
            found.append(f"{study_id} v{newest['version']} is still {newest['state']} ({newest['wait']})")
        found += [f"{study_id} v{r['version']} was closed for no reason" for r in its if not r["closed_reason"]]
        rows = connection.execute("SELECT sha256 FROM instances WHERE study_id = ?", (study_id,)).fetchall()
        instances = sorted(row["sha256"] for row in rows)
        if uid in expected and instances != sorted(expected[uid]):
            found.append(f"{study_id} has {len(instances)} objects, {len(expected[uid])} of them were dropped")
    found += [f"study {uid} is missing" for uid in set(expected) - {uid for uid, _ in versions}]
    return found


def _of_audit(connection: sqlite3.Connection) -> list[str]:
    """A version is opened, closed and delivered once."""
    once = Counter(
        (row["action"], row["subject"], json.loads(row["details"]).get("version"))
        for row in connection.execute(
            "SELECT * FROM audit WHERE action IN ('study.open', 'study.close', 'study.finish')"
        )
    )
    sent = Counter(
        json.loads(row["details"])["delivery"]
        for row in connection.execute("SELECT details FROM audit WHERE action = 'delivery.sent'")
    )
    return [f"{what} is in the audit {n} times" for what, n in [*once.items(), *sent.items()] if n > 1]


def _of_chain(home: Home) -> list[str]:
    database = Database(home.database)
    try:
        with database.read() as connection:
            broken = audit.first_break(connection)
    finally:
        database.close()
    return [] if broken is None else [f"the audit is broken at row {broken}"]


def _of_results(home: Home, connection: sqlite3.Connection) -> list[str]:
    """The outbox has one whole result for each version that was sent, and nothing else."""
    found = []
    sent = {
        (row["study_id"], row["version"], row["revision"])
        for row in connection.execute(
            "SELECT study_id, version, revision FROM deliveries JOIN artefacts USING (artefact_id) "
            "WHERE deliveries.state = 'SENT'"
        )
    }
    places = {}
    for place in home.outbox.glob("*/v*"):
        version, _, revision = place.name.removeprefix("v").partition("-signed-")
        places[place.parent.name, int(version), int(revision or 0)] = place
    for key in sent ^ set(places):
        found.append(
            f"{key} is {'sent and not in' if key in sent else 'in'} the outbox{'' if key in sent else ' unsent'}"
        )
    for place in places.values():
        document = json.loads((place / "result.json").read_text())
        wrong = [f["name"] for f in document["files"] if digest(place / f["name"]) != f["sha256"]]
        found += [f"{place.parent.name}: {name} is not what result.json says" for name in wrong]
    results = Counter(
        (row["study_id"], row["version"], row["revision"], row["audience"])
        for row in connection.execute("SELECT study_id, version, revision, audience FROM artefacts")
    )
    found += [f"{which} has {n} results" for which, n in results.items() if n > 1]
    for row in connection.execute(
        "SELECT study_id, version, revision FROM studies JOIN artefacts USING (study_id, version) "
        "WHERE studies.state = ? AND artefacts.state IN ('PRELIMINARY', 'FINAL')",
        (StudyState.DONE.value,),
    ):
        if tuple(row) not in places:
            found.append(f"the released result of {tuple(row)} is not in the outbox")
    found += _of_decisions(connection)
    open_jobs = connection.execute("SELECT job_id, state FROM jobs WHERE state IN ('QUEUED', 'LEASED')").fetchall()
    return found + [f"job {row['job_id']} is still {row['state']}" for row in open_jobs]


def _of_decisions(connection: sqlite3.Connection) -> list[str]:
    """Nothing is FINAL without the decision of a named person, and each decision led to what it says."""
    found = [
        f"{row['artefact_id']} is FINAL and nobody decided that"
        for row in connection.execute(
            "SELECT artefacts.artefact_id FROM artefacts LEFT JOIN reviews USING (review_id) "
            "WHERE artefacts.revision > 0 AND "
            "(reviewer IS NULL OR reviewer = '' OR reviewer != signed_by OR decision NOT IN ('accept', 'amend'))"
        )
    ]
    for row in connection.execute(
        "SELECT reviews.review_id, decision, reviewed.state AS state, made.artefact_id AS made, studies.state AS study "
        "FROM reviews JOIN artefacts AS reviewed ON reviewed.artefact_id = reviews.artefact_id "
        "JOIN studies ON (studies.study_id, studies.version) = (reviews.study_id, reviews.version) "
        "LEFT JOIN artefacts AS made ON made.review_id = reviews.review_id"
    ):
        if row["decision"] == "reject" and (row["state"] != "REJECTED" or row["made"]):
            found.append(f"review {row['review_id']} rejected, and the artefact is {row['state']}")
        if row["decision"] != "reject" and row["study"] != "SUPERSEDED" and not row["made"]:
            found.append(f"review {row['review_id']} signed, and nothing came of it")
    return found


def _leftovers(home: Home) -> list[str]:
    """Nothing half-done lies about."""
    places = [home.spool, home.jobs, *home.incoming.glob("*"), *home.incoming.glob(".arriving")]
    found = [path for place in places if place.is_dir() for path in place.rglob("*") if path.is_file()]
    found += [path for root in (home.objects, home.quarantine, home.outbox) for path in root.rglob(".*")]
    return [f"{path.relative_to(home.path)} was left behind" for path in found]
