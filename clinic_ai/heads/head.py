"""A signed head: the number and hash of the newest row of the audit at a time, in a file outside the database.

The chain finds a row that was changed; the head finds what the chain cannot: rows cut off at the end, and a log that
was written anew from some row on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog
from pydantic import ValidationError

from clinic_ai.domain import Sha256, Word
from clinic_ai.errors import HomeError
from clinic_ai.heads.keys import Signer, is_signed, is_signed_aside, load_signer, make_key, public_key
from clinic_ai.home import Home, write_whole
from clinic_ai.store import alerts, audit
from clinic_ai.store.database import Database

log = structlog.get_logger()

HEAD_S = 60.0
"""A log that has grown gets a new head after this many seconds at the latest."""
BROKEN = "audit_broken"
UNSIGNED = "audit_unsigned"
REMEDY = "Run `clinic-ai audit verify`; it says which row and what to do. Nothing of the log is removed."


Check = Callable[[bytes, str, str], bool]
"""Whether a text has a signature by a public key."""


class Head(Word):
    """What the log was at ``at`` (UTC seconds); ``key`` is the public key that signed it."""

    format: int = 1
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
    return home.audit / "head.json"


def heads(home: Home) -> Iterator[tuple[Path, Head | None]]:
    """Yield the heads of a home: the newest, and those that did not fit and were put aside; None: not readable."""
    for place in sorted(home.audit.glob("head*.json")):
        try:
            content = place.read_bytes()
            head = Head.model_validate_json(content)
        except (OSError, ValidationError):
            yield place, None
            continue
        yield place, head if content == canonical(head.model_dump()) else None


class HeadKeeper:
    """Signs a head when the log has grown. ``clock`` is UTC seconds."""

    def __init__(self, home: Home, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._home = home
        self._database = database
        self._clock = clock
        self._signer: Signer | None = None
        self._signed_at = float("-inf")

    def open(self) -> None:
        """Make or load the key and compare the log with its newest head; what does not fit is an alert.

        Raise HomeError if the key is gone or cannot be used.
        """
        make_key(self._home)
        self._signer = load_signer(self._home)
        self.sign()

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
        except (OSError, HomeError) as error:  # a full disk must not keep the daemon from stopping
            log.error("head.not_written", error=type(error).__name__)

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
        """Compare the log with its newest head, and sign the row that is the newest now."""
        place, public = head_file(self._home), public_key(self._home)
        with self._database.read() as connection:
            newest = audit.newest(connection)
            before = next((head for path, head in heads(self._home) if path == place), None)
            there = None if before is None else audit.hash_at(connection, before.seq)
        grown = newest is not None and (before is None or before.seq != newest.seq or before.hash != newest.hash)
        fits = not place.exists() or (before is not None and there == before.hash)
        if fits and grown and before is not None:  # a forged head must not be replaced by a good one
            fits = before.holds(public, is_signed_aside)
        if not fits:
            self._put_aside(place)
        self._signed_at = self._clock()
        if newest is None or not (grown or not fits):
            return
        head = Head(seq=newest.seq, hash=newest.hash, at=self._signed_at, key=self.signer.public)
        head = head.model_copy(update={"signature": self.signer.sign(head.content())})
        write_whole(place, canonical(head.model_dump()))

    def _put_aside(self, place: Path) -> None:
        """Keep a head that the log does not fit as evidence, and say so."""
        aside = place.with_name(f"head-{int(self._clock())}.json")
        if not aside.exists():
            place.rename(aside)
        words = f"The audit is not what its signed head {aside.name} says: rows were cut off or changed."
        log.error("audit.broken", head=aside.name)
        with self._database.write() as connection:
            alerts.raise_alert(connection, BROKEN, "audit", words, REMEDY)
