"""Small facts about this home that the database keeps."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

from sqlalchemy import Connection, insert, select

from clinic_ai.store.tables import meta

_SITE_KEY = "site_key"


def site_key(connection: Connection) -> bytes:
    """Return the key of this site's pseudonyms, made once; needs a write transaction the first time."""
    found = connection.execute(select(meta.c.value).where(meta.c.key == _SITE_KEY)).scalar()
    if found is None:
        found = secrets.token_hex(32)
        connection.execute(insert(meta).values(key=_SITE_KEY, value=found))
    return bytes.fromhex(found)


def patient_key(key: bytes, patient_id: str, issuer: str = "") -> str:
    """Return the stable key of a patient at this site: 64 hexadecimal digits that cannot be turned back."""
    return hmac.new(key, f"{patient_id}\0{issuer}".encode(), hashlib.sha256).hexdigest()


def pseudonym(patient: str) -> str:
    """Return the short name of a patient key for people, such as ``P-7F3K9QXB``."""
    return "P-" + base64.b32encode(bytes.fromhex(patient))[:8].decode()
