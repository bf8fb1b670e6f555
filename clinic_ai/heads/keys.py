"""The key of this home that signs heads of the audit: Ed25519, made once, readable by the daemon's user alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from clinic_ai.errors import HomeError
from clinic_ai.home import Home

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class Signer:
    """Signs with the private key of a home."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes_raw().hex()
        """The public key: 64 hexadecimal digits."""

    def sign(self, content: bytes) -> str:
        """Return the signature of some bytes: 128 hexadecimal digits."""
        return self._key.sign(content).hex()


def key_file(home: Home) -> Path:
    """Return where the private key of a home lies."""
    return home.audit / "key.pem"


def public_file(home: Home) -> Path:
    """Return where the public key of a home lies, for people to copy elsewhere."""
    return home.audit / "public.txt"


def make_key(home: Home) -> None:
    """Make the key of a home that has none. Raise HomeError if heads are there that a lost key signed."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    place = key_file(home)
    if place.exists():
        return
    if public_file(home).exists():
        raise HomeError(
            f"The key {place} that signs the audit is gone.",
            remedy=f"Restore it from a backup of the home; if there is none, move {home.audit} aside, note why, "
            "and start again: a new key is made.",
        )
    try:
        home.audit.mkdir(mode=0o700, exist_ok=True)
        key = Ed25519PrivateKey.generate()
        # First the private one: a public key without it says that one was lost.
        write_whole(place, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        write_whole(public_file(home), (Signer(key).public + "\n").encode())
    except OSError as error:
        raise HomeError(
            f"The key that signs the audit cannot be made in {home.audit}: {error.strerror}.",
            remedy="Check who owns that folder and whether its disk is full.",
        ) from error


def load_signer(home: Home) -> Signer:
    """Return what signs for a home. Raise HomeError if its key cannot be used."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    place = key_file(home)
    try:
        key = load_pem_private_key(place.read_bytes(), password=None)
    except (OSError, ValueError) as error:
        raise HomeError(
            f"The key {place} that signs the audit cannot be read.", remedy="Restore it from a backup of the home."
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise HomeError(f"The key {place} is no Ed25519 key.", remedy="Restore it from a backup of the home.")
    return Signer(key)


def public_key(home: Home) -> str | None:
    """Return the public key of a home, None if it has none."""
    try:
        return public_file(home).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def is_signed(content: bytes, signature: str, public: str) -> bool:
    """Return whether the holder of a key signed these bytes; both in lower-case hexadecimal digits."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if (signature, public) != (signature.lower(), public.lower()):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(bytes.fromhex(signature), content)
    except (InvalidSignature, ValueError):
        return False
    return True


def write_whole(place: Path, content: bytes) -> None:
    """Write a file with mode 0600 so that after a power cut it is whole, or what it was before."""
    fresh = place.with_name(f".{place.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    fresh.rename(place)
    folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
