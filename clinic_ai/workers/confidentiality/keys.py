"""Pseudonyms, UIDs and days, all derived from one key of the site.

The same input gives the same output at this site and another one elsewhere; without the key nobody can turn it back
or try out guesses. Each kind of output has a label of its own inside the HMAC, so that none tells anything of another.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import re
import uuid

MIN_DAYS = 366
MAX_DAYS = 3653
"""Dates go back by so many whole days: one to ten years, the same for all images of a patient."""

_DATE = re.compile(r"(\d{4})[.]?(\d{2})[.]?(\d{2})", re.ASCII)
_DATE_TIME = re.compile(r"(\d{4})(\d{2})?(\d{2})?((?:\d{2}){0,3}(?:\.\d{1,6})?(?:[+-]\d{4})?)", re.ASCII)
_TIME = re.compile(r"\d{2}(?::?\d{2}){0,2}(?:\.\d{1,6})?", re.ASCII)


class Keys:
    """Derives everything from ``key``; ``key`` is the site's, for this purpose alone."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def _digest(self, purpose: str, value: str) -> bytes:
        return hmac.new(self._key, f"{purpose}\0{value}".encode("utf-8", "surrogateescape"), hashlib.sha256).digest()

    def uid(self, original: str) -> str:
        """Return the UID that stands for ``original`` everywhere, under 2.25 (PS3.5 B.2)."""
        return f"2.25.{uuid.UUID(bytes=self._digest('uid', original)[:16], version=5).int}"

    def pseudonym(self, patient: str) -> str:
        """Return the name of a patient in copies, such as ``D-7F3K9QXB5T2M4WAE``: 80 bits."""
        return "D-" + base64.b32encode(self._digest("patient", patient)[:10]).decode()

    def station(self, name: str) -> str:
        """Return what stands for a scanner, such as ``station 3fa1b2c4``: 32 bits, enough for those of one house."""
        return f"station {self._digest('station', name).hex()[:8]}"

    def days(self, patient: str) -> int:
        """Return by how many days the dates of a patient go back."""
        number = int.from_bytes(self._digest("days", patient)[:8], "big")
        return MIN_DAYS + number % (MAX_DAYS - MIN_DAYS + 1)


def shift_date(text: str, days: int) -> str:
    """Return a DA value ``days`` earlier, empty if it is no date."""
    found = _DATE.fullmatch(text.strip())
    return "" if found is None else _earlier(int(found[1]), int(found[2]), int(found[3]), days)


def shift_date_time(text: str, days: int) -> str:
    """Return a DT value ``days`` earlier, as precise as it was; empty if it is none."""
    found = _DATE_TIME.fullmatch(text.strip())
    if found is None:
        return ""
    year, month, day, rest = found.groups()
    shifted = _earlier(int(year), int(month or 1), int(day or 1), days)
    if day is not None:
        return shifted + rest if shifted else ""
    return shifted[: 4 if month is None else 6]


def checked_time(text: str) -> str:
    """Return a TM value, empty if it is none: the time of day is kept, since only whole days are shifted."""
    return text.strip() if _TIME.fullmatch(text.strip()) else ""


def _earlier(year: int, month: int, day: int, days: int) -> str:
    try:
        date = datetime.date(year, month, day) - datetime.timedelta(days=days)
    except (ValueError, OverflowError):
        return ""
    return f"{date.year:04d}{date.month:02d}{date.day:02d}"
