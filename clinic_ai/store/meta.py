"""Small facts about this home that the database keeps."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert

from clinic_ai.store.raw import raw, values
from clinic_ai.store.tables import meta

_SITE_KEY = "site_key"
_HEAD = "audit_head"


def site_key(connection: Connection) -> bytes:
    """Return the key of this site's pseudonyms, made once; needs a write transaction the first time."""
    found = connection.execute(select(meta.c.value).where(meta.c.key == _SITE_KEY)).scalar()
    if found is None:
        found = secrets.token_hex(32)
        connection.execute(insert(meta).values(key=_SITE_KEY, value=found))
    return bytes.fromhex(found)


def audit_head(connection: Connection) -> bytes | None:
    """Return the newest signed head of the audit as it was stored, None if there is none."""
    row = connection.execute(raw(meta, "value").where(meta.c.key == _HEAD)).first()
    if row is None:
        return None
    content = values(row)[0].content
    return content if isinstance(content, bytes) else b""


def set_audit_head(connection: Connection, head: bytes) -> None:
    """Store the newest signed head of the audit."""
    new = insert(meta).values(key=_HEAD, value=head.decode())
    connection.execute(new.on_conflict_do_update(index_elements=["key"], set_={"value": head.decode()}))


def patient_key(key: bytes, patient_id: str, issuer: str = "") -> str:
    """Return the stable key of a patient at this site: 64 hexadecimal digits that cannot be turned back."""
    return hmac.new(key, f"{patient_id}\0{issuer}".encode(), hashlib.sha256).hexdigest()


def pseudonym(patient: str) -> str:
    """Return the short name of a patient key for people, such as ``P-7F3K9QXB``."""
    return "P-" + base64.b32encode(bytes.fromhex(patient))[:8].decode()
