"""The key of this home that signs heads of the audit: Ed25519, made once, readable by the daemon's user alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from clinic_ai.errors import HomeError
from clinic_ai.home import Home, write_whole

ASK_S = 60.0
"""Longest time the process that signs may take."""


class Signer:
    """Signs with the private key of a home, in a process that ends at once."""

    def __init__(self, place: Path, public: str) -> None:
        self._place = place
        self.public = public
        """The public key: 64 hexadecimal digits."""

    def sign(self, content: bytes) -> str:
        """Return the signature of some bytes: 128 hexadecimal digits. Raise HomeError if the key cannot be used."""
        return _signed(self._place, content)["signature"]


def key_file(home: Home) -> Path:
    """Return where the private key of a home lies."""
    return home.audit / "key.pem"


def public_file(home: Home) -> Path:
    """Return where the public key of a home lies, for people to copy elsewhere."""
    return home.audit / "public.txt"


def make_key(home: Home) -> bool:
    """Make the key of a home that has none; return whether it was made now.

    Raise HomeError if heads are there that a lost key signed.
    """
    place = key_file(home)
    if place.exists():
        return False
    if public_file(home).exists():
        raise HomeError(
            f"The key {place} that signs the audit is gone.",
            remedy=f"Restore it from a backup of the home; if there is none, move {home.audit} aside, note why, "
            "and start again: a new key is made.",
        )
    made = _ask({"make": True})
    try:
        home.audit.mkdir(mode=0o700, exist_ok=True)
        # First the private one: a public key without it says that one was lost.
        write_whole(place, made["pem"].encode())
        write_whole(public_file(home), (made["public"] + "\n").encode())
    except OSError as error:
        raise HomeError(
            f"The key that signs the audit cannot be made in {home.audit}: {error.strerror}.",
            remedy="Check who owns that folder and whether its disk is full.",
        ) from error
    return True


def load_signer(home: Home) -> Signer:
    """Return what signs for a home. Raise HomeError if its key cannot be used."""
    place = key_file(home)
    return Signer(place, _signed(place, b"")["public"])


def _signed(place: Path, content: bytes) -> dict[str, str]:
    try:
        return _ask({"key": str(place), "sign": content.decode()})
    except HomeError as error:
        raise HomeError(
            f"The key {place} that signs the audit cannot be used.", remedy="Restore it from a backup of the home."
        ) from error


def _ask(order: dict[str, object]) -> dict[str, str]:
    """Have an order of ``signing`` done in a process of its own."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "clinic_ai.heads.signing"],
            input=json.dumps(order).encode(),
            capture_output=True,
            timeout=ASK_S,
            check=True,
        )
        found: dict[str, str] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise HomeError("The process that signs the audit failed.", remedy="See the log for other faults.") from error
    return found


def public_key(home: Home) -> str | None:
    """Return the public key of a home, None if it has none."""
    try:
        return public_file(home).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def is_signed(content: bytes, signature: str, public: str) -> bool:
    """Return whether the holder of a key signed these bytes; loads the cryptographic library."""
    from clinic_ai.heads.signing import is_signed as check

    return check(content, signature, public)


def is_signed_aside(content: bytes, signature: str, public: str) -> bool:
    """Return the same, found out in a process of its own, as the daemon does. Raise HomeError if that fails."""
    return bool(_ask({"check": [content.decode(), signature, public]})["holds"])
