"""The only module that loads the cryptographic library; the daemon runs it as a process, for it costs 20 MB.

As a process it reads one order as JSON and writes one answer: ``make`` a key, ``sign`` a text with the key in a file,
or ``check`` a text, its signature and a public key.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key


def answer(order: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked for. Raise OSError, ValueError or TypeError if the key cannot be read or is of another kind."""
    if "check" in order:
        content, signature, public = order["check"]
        return {"holds": is_signed(content.encode(), signature, public)}
    if "make" in order:
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return {"pem": pem, "public": _public(key)}
    loaded = load_pem_private_key(Path(order["key"]).read_bytes(), password=None)
    if not isinstance(loaded, Ed25519PrivateKey):
        raise TypeError("not an Ed25519 key")
    return {"public": _public(loaded), "signature": loaded.sign(order["sign"].encode()).hex()}


def is_signed(content: bytes, signature: str, public: str) -> bool:
    """Return whether the holder of a key signed these bytes; both in lower-case hexadecimal digits."""
    if (signature, public) != (signature.lower(), public.lower()):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(bytes.fromhex(signature), content)
    except (InvalidSignature, ValueError):
        return False
    return True


def _public(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex()


if __name__ == "__main__":
    try:
        sys.stdout.write(json.dumps(answer(json.load(sys.stdin))))
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        sys.exit(1)  # who asked says in words which key it was
