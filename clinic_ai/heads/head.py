"""A signed head: the number and hash of the newest row of the audit at a time, in a file outside the database.

The chain finds a row that was changed; the head finds what the chain cannot: rows cut off at the end, and a log that
was written anew from some row on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import ValidationError
from sqlalchemy import Connection

from clinic_ai.domain import Sha256, Word
from clinic_ai.errors import HomeError
from clinic_ai.heads.keys import Signer, is_signed, is_signed_aside, load_signer, make_key, public_key
from clinic_ai.home import Home, write_whole
from clinic_ai.store import alerts, audit, meta
from clinic_ai.store.database import Damaged, Database

log = structlog.get_logger()

HEAD_S = 60.0
"""A log that has grown gets a new head after this many seconds at the latest."""
BROKEN = "audit_broken"
UNSIGNED = "audit_unsigned"
FILE = "head.json"
IN_DATABASE = "in the database"
_ANEW = "Row {seq} of the audit is not the one of the signed head {name}: the log was written anew."
REMEDY = (
    "Run `clinic-ai audit verify`; it says which row and what to do. Nothing of the log is removed, and nothing of it "
    "is signed as long as it does not continue its last head."
)


Check = Callable[[bytes, str, str], bool]
"""Whether a text has a signature by a public key."""


class Head(Word):
    """What the log was at ``at`` (UTC seconds); ``key`` is the public key that signed it.

    One of format 2 was stored in the database before it was written into a file.
    """

    format: int = 2
    seq: int
    hash: Sha256
    at: float
    key: str
    signature: str = ""

    def content(self) -> bytes:
        """Return the bytes that are signed."""
        return canonical(self.model_dump(exclude={"signature"}))

    def holds(self, public: str | None, check: Check = is_signed) -> bool:
        """Return whether the key signed it; ``public`` is the key it has to be, None: the one it names."""
        return public in {None, self.key} and check(self.content(), self.signature, self.key)


def canonical(value: object) -> bytes:
    """Return a value as JSON in one way only, so that no byte may change unseen."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def head_file(home: Home) -> Path:
    """Return where the newest head of a home lies."""
    return home.audit / FILE


@dataclass(frozen=True)
class Kept:
    """A head where it is kept; ``head`` is None where none can be read any more."""

    name: str
    head: Head | None


def heads(home: Home, connection: Connection) -> list[Kept]:
    """Return the heads of a home: that of the database, that of the file, and those that were put aside.

    Ask before anything else is read in a transaction, or the file may be newer than what that sees of the log.
    """
    filed = []
    for place in sorted(home.audit.glob("head*.json")):
        try:
            content = place.read_bytes()
        except OSError:
            content = b""
        filed.append(Kept(place.name, _head(content)))
    stored = meta.audit_head(connection)
    return filed if stored is None else [Kept(IN_DATABASE, _head(stored)), *filed]


def _head(content: bytes) -> Head | None:
    try:
        head = Head.model_validate_json(content)
    except ValidationError:
        return None
    return head if content == canonical(head.model_dump()) else None


@dataclass(frozen=True)
class Misfit:
    """How the log does not continue a head; ``seq`` is the row that is wrong, None if none can be named."""

    seq: int | None
    sentence: str
    kept: str = ""
    """The name of the head, if it is one by which the log is not what it was."""


def misfits(
    connection: Connection, found: Iterable[Kept], public: str | None, check: Check = is_signed
) -> list[Misfit]:
    """Return how the log does not continue these heads; nothing if it does."""
    return [problem for kept in found if (problem := _misfit(connection, kept, public, check)) is not None]


def _misfit(connection: Connection, kept: Kept, public: str | None, check: Check) -> Misfit | None:
    head, name = kept.head, kept.name
    if head is None or not head.holds(public, check):
        return Misfit(None, f"The signed head {name} was changed or is not of this home's key.")
    newest = audit.newest(connection)
    there = 0 if newest is None else newest.seq
    if head.seq > there:
        words = (
            f"The audit ends with row {there}, and the signed head {name} vouches for row {head.seq}: it was cut off."
        )
        return Misfit(there + 1, words, name)
    if audit.hash_at(connection, head.seq) != head.hash:
        words = _ANEW.format(seq=head.seq, name=name)
        return Misfit(head.seq, words, name)
    return None


def lost(connection: Connection, found: Iterable[Kept], now: float) -> str:
    """Return which head is gone that has to be there, nothing if none is. ``now`` is UTC seconds."""
    known = {kept.name: kept.head for kept in found}
    stored, filed = known.get(IN_DATABASE), known.get(FILE)
    oldest = audit.oldest(connection)
    if IN_DATABASE not in known and FILE not in known:
        # A home that was just made has none for a moment; a clock that was set back must not hide that one is gone.
        if oldest is None or 0 <= now - oldest.at < 2 * HEAD_S:
            return ""
        return "The audit has rows and no signed head is left: nobody can tell whether rows were cut off or changed."
    if FILE not in known:
        return f"The signed head {FILE} is gone; the one in the database is still there."
    if filed is not None and filed.format > 1 and (IN_DATABASE not in known or (stored and stored.seq < filed.seq)):
        return f"The signed head in the database is gone or older than {FILE}."
    return ""


class HeadKeeper:
    """Signs a head when the log has grown. ``clock`` is UTC seconds."""

    def __init__(self, home: Home, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._home = home
        self._database = database
        self._clock = clock
        self._signer: Signer | None = None
        self._signed_at = float("-inf")
        self._said: set[str] = set()
        self._held: tuple[bytes, str, str] | None = None

    def open(self) -> None:
        """Make or load the key and compare the log with its last heads; what does not fit is an alert.

        Raise HomeError if the key is gone or cannot be used, or the head cannot be written.
        """
        fresh = make_key(self._home)
        self._signer = load_signer(self._home)
        if not fresh or self._begin_anew():
            self.sign()

    def _begin_anew(self) -> bool:
        """Sign what there is with a new key, and say so if there was anything; return whether that could be done."""
        with self._database.read() as connection:
            oldest = audit.oldest(connection)
            kept = [one for one in heads(self._home, connection) if one.name == IN_DATABASE]
            wrong = misfits(connection, kept, None, is_signed_aside)  # it was signed by the key before
        if wrong:
            self._alert(wrong[0].sentence)
            return False
        if oldest is not None:
            words = "The audit had rows before its present key was made; that key vouches for them only from now on."
            self._alert(words)
        self._write()
        return True

    @property
    def signer(self) -> Signer:
        """What signs for this home. Raise HomeError before ``open``."""
        if self._signer is None:
            raise HomeError("The key that signs the audit is not loaded.")
        return self._signer

    def close(self) -> None:
        """Sign what the log is in the end, if there is a key to do it with."""
        if self._signer is None:
            return
        try:
            self.sign()
        except HomeError as error:  # a full disk must not keep the daemon from stopping
            log.error("head.not_written", why=error.message)

    def step(self) -> bool:
        """Sign a head if one is due; always return False: there is never more to do at once."""
        if self._signer is None or 0 <= self._clock() - self._signed_at < HEAD_S:
            return False
        try:
            self.sign()
        except HomeError as error:
            with self._database.write() as connection:
                alerts.raise_alert(connection, UNSIGNED, "audit", error.message, error.remedy)
        return False

    def sign(self) -> None:
        """Sign the row that is the newest now, if the log continues its last heads; else say that it does not."""
        try:
            problem, grown = self._look()
        except Damaged:  # what can be told, is told; the log cannot
            problem, grown = "The audit cannot be read: the database is damaged.", False
        self._signed_at = self._clock()
        if problem:
            self._alert(problem)
        elif grown:
            self._write()

    def _look(self) -> tuple[str, bool]:
        """Return what forbids to sign, and whether there is anything to sign."""
        with self._database.read() as connection:
            kept = [one for one in heads(self._home, connection) if one.name in {IN_DATABASE, FILE}]
            newest = audit.newest(connection)
            last = max((one.head for one in kept if one.head is not None), key=lambda head: head.seq, default=None)
            known = {one.head for one in kept}
            if last is not None and newest is not None and (len(kept), known, last.seq) == (2, {last}, newest.seq):
                there = audit.hash_at(connection, last.seq)  # nothing was written meanwhile
                return ("", False) if there == last.hash else (_ANEW.format(seq=last.seq, name=FILE), True)
            wrong = misfits(connection, kept, public_key(self._home), self._holds)
            if wrong:
                return wrong[0].sentence, True
            broken = audit.chain_break(
                connection, after=last.seq if last else 0, previous=last.hash if last else audit.GENESIS
            )
            if broken is not None:
                return broken.sentence, True
            gone = lost(connection, kept, self._clock())
        if gone and last is not None:
            self._alert(gone)  # the other one still tells what the log was, and the log continues it
            gone = ""
        return gone, True

    def _holds(self, content: bytes, signature: str, public: str) -> bool:
        """Return whether a head is signed; it lies in two places, and each question costs a process."""
        asked = (content, signature, public)
        if asked == self._held:
            return True
        if holds := is_signed_aside(*asked):
            self._held = asked
        return holds

    def _write(self) -> None:
        """Sign the newest row, and keep that in the database and in the file. Raise HomeError if that fails."""
        with self._database.read() as connection:
            newest = audit.newest(connection)
        seq, last = (0, audit.GENESIS) if newest is None else (newest.seq, newest.hash)
        head = Head(seq=seq, hash=last, at=self._clock(), key=self.signer.public)
        content = canonical(head.model_copy(update={"signature": self.signer.sign(head.content())}).model_dump())
        with self._database.write() as connection:
            meta.set_audit_head(connection, content)
        try:
            write_whole(head_file(self._home), content)
        except OSError as error:
            raise HomeError(
                f"The signed head {head_file(self._home)} cannot be written: {error.strerror}.",
                remedy="Check who owns that folder and whether its disk is full; it is tried again every minute.",
            ) from error

    def _alert(self, words: str) -> None:
        """Say once what is wrong with the audit."""
        if words in self._said:
            return
        log.error("audit.broken", what=words)
        with self._database.write() as connection:
            alerts.raise_alert(connection, BROKEN, "audit", words, REMEDY)
        self._said.add(words)
