"""Exports the audit as JSON lines with a chain and a signature of their own, and examines such a file.

Without names an export cannot carry the hashes of its rows through, for what was hashed has been replaced. So each line
is chained to the one before it anew, and the last one is signed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from clinic_ai.heads.head import canonical
from clinic_ai.heads.keys import Signer, is_signed
from clinic_ai.heads.verifying import Finding
from clinic_ai.store import audit, meta
from clinic_ai.store.database import Database

BATCH = 1000
KEEP = (
    "Do not rely on this file: export the audit again, and compare with another copy of it; keep this one as evidence."
)
_OURS = "clinic-ai"
"""The actor that is no person, and the user whom the daemon runs as; any other may also be a user's name."""
_PEOPLE = frozenset({"by", "actor", "told_to", "reviewer", "signed_by", "person", "user", "ordered_by"})
"""Details that name persons."""
_WORDLESS = frozenset(
    {
        "action",
        "artefact",
        "audience",
        "boot",
        "category",
        "channel",
        "channels",
        "code",
        "dataset",
        "decision",
        "delivery",
        "digest",
        "document_sha256",
        "files_sha256",
        "form",
        "from",
        "import",
        "job",
        "kind",
        "method",
        "models",
        "object",
        "plugin",
        "plugins",
        "policy",
        "replaces",
        "review",
        "row_sha256",
        "rule",
        "rules",
        "run",
        "sha256",
        "shown",
        "slot",
        "state",
        "target",
        "to",
    }
)
"""Details in which the appliance itself writes ids, hashes, states and names of rules; nobody types them."""
_PLAIN = re.compile(r"[A-Za-z0-9._:/+-]{0,128}")
WITHHELD = "(withheld)"
OF_HOME = "that of this home"


class Pseudonyms:
    """Replaces what may name a person; the same person always gets the same pseudonym at this site."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def person(self, name: str) -> str:
        """Return the pseudonym of a person, such as ``U-7F3K9QXB``; our own actor keeps its name."""
        if name == _OURS or name.startswith("clinic-ai: "):
            return name
        digest = hmac.new(self._key, f"person\0{name}".encode(), hashlib.sha256).digest()
        return "U-" + base64.b32encode(digest)[:8].decode()

    def details(self, details: dict[str, object]) -> dict[str, object]:
        """Return details without words: what a person typed, were it one word, may name a patient."""
        return {key: self._detail(key, value) for key, value in details.items()}

    def _detail(self, key: str, value: object) -> object:
        if isinstance(value, list):
            return [self._detail(key, item) for item in value]
        if not isinstance(value, str):
            return value if isinstance(value, int | float) or value is None else WITHHELD
        if key in _PEOPLE:
            return self.person(value) if value else ""
        return value if key in _WORDLESS and _PLAIN.fullmatch(value) else WITHHELD

    @staticmethod
    def subject(subject: str) -> str:
        """Return what a row is about; where words may stand, nothing."""
        return subject if re.fullmatch(r"[A-Za-z0-9._:/+ -]{0,128}", subject) else WITHHELD


def pseudonyms(database: Database) -> Pseudonyms:
    """Return the pseudonyms of this site."""
    with database.write() as connection:
        return Pseudonyms(meta.site_key(connection))


def entries(database: Database) -> Iterator[audit.Entry]:
    """Yield the rows that the log has now, oldest first; what is written meanwhile is left out."""
    with database.read() as connection:
        newest = audit.newest(connection)
    last, seq = 0 if newest is None else newest.seq, 0
    while seq < last:
        with database.read() as connection:
            batch = audit.rows(connection, after=seq, limit=min(BATCH, last - seq))
        if not batch:
            return
        yield from batch
        seq = batch[-1].seq


def json_lines(database: Database, signer: Signer, at: float, *, names: bool) -> Iterator[bytes]:
    """Yield the audit, a line for each row and a signed one at the end. ``at`` is UTC seconds."""
    hidden = None if names else pseudonyms(database)
    check, count, last = audit.GENESIS, 0, audit.GENESIS
    for entry in entries(database):
        row = asdict(entry) | {"details": parsed(entry.details)}
        if hidden is not None:
            row["actor"] = hidden.person(entry.actor)
            row["subject"] = hidden.subject(entry.subject)
            row["details"] = hidden.details(row["details"])
        check = _check(check, row)
        yield canonical(row | {"check": check}) + b"\n"
        count, last = count + 1, entry.hash
    end = {"at": at, "check": check, "hash": last, "key": signer.public, "names": names, "rows": count}
    yield canonical({"end": end, "signature": signer.sign(canonical(end))}) + b"\n"


def parsed(details: str) -> dict[str, object]:
    """Return the details of a row."""
    try:
        found = json.loads(details)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"unreadable": WITHHELD}


def _check(previous: str, row: dict[str, object]) -> str:
    return hashlib.sha256(previous.encode() + canonical(row)).hexdigest()


def examine_lines(lines: Iterable[bytes], public: str | None, whose: str = OF_HOME) -> tuple[int, list[Finding]]:
    """Examine an exported file line by line; return the number of rows and the first thing that is wrong.

    ``public`` is the key it has to be signed with, None: the one it names; ``whose`` says in words which that is.
    """
    check, chain, number = audit.GENESIS, audit.GENESIS, 0
    end: dict[str, object] | None = None
    for number, line in enumerate(lines, start=1):
        if end is not None:
            return number, [Finding(None, f"Line {number} stands behind the signed end.", KEEP)]
        row = _object(line)
        if row is None:
            return number, [_no_row(number, line)]
        if "end" in row:
            end = row
            continue
        said = row.pop("check", None)
        check = _check(check, row)
        if said != check:
            return number, [Finding(number, f"Line {number}, row {row.get('seq')}, is not what was exported.", KEEP)]
        if row.get("previous_hash") != chain:
            words = f"Line {number}, row {row.get('seq')}, does not follow from the one before it in the audit itself."
            return number, [Finding(number, words, KEEP)]
        chain = str(row.get("hash"))
    if end is None:
        return number, [Finding(None, f"The signed end is missing; the file stops after line {number}.", KEEP)]
    return number - 1, _end_problems(end, number - 1, check, public, whose)


def _no_row(number: int, line: bytes) -> Finding:
    if number == 1 and line.startswith(b"<AuditMessage"):
        words = "These are DICOM audit messages, which carry no hashes: only an export as JSON lines can be verified."
        return Finding(None, words, "Name such a one, or make it: `clinic-ai audit export audit.jsonl`.")
    return Finding(number, f"Line {number} is not what was exported.", KEEP)


def _end_problems(last: dict[str, object], rows: int, check: str, public: str | None, whose: str) -> list[Finding]:
    end = last.get("end")
    if not isinstance(end, dict) or set(last) != {"end", "signature"}:
        return [Finding(None, "The signed end is not what was exported.", KEEP)]
    key = str(end.get("key"))
    if public is not None and key != public:
        return [Finding(None, f"The file is signed with another key than {whose}.", KEEP)]
    if not is_signed(canonical(end), str(last.get("signature")), key):
        return [Finding(None, "The signature at the end does not fit.", KEEP)]
    if (end.get("rows"), end.get("check")) != (rows, check):
        return [Finding(None, f"The end is signed for {end.get('rows')} rows, and {rows} are there.", KEEP)]
    return []


def _object(line: bytes) -> dict[str, object] | None:
    """Return the object of a line, None if it is not written exactly as an export writes it."""
    try:
        found = json.loads(line)
        written = canonical(found) + b"\n"
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and written == line else None
