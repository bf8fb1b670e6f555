"""Single values of a header that a stranger wrote, as text and numbers that can do no harm."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from clinic_ai.ml.dicom_errors import UNREADABLE

MAX_VALUE_BYTES = 4096
"""A longer header value is not read; the standard allows none of those we want more than 64 characters."""
MAX_ANNOUNCED = 100_000
"""A larger number of instances or series is not believed."""
UID_FORM = re.compile(r"[0-9]+(\.[0-9]+)+")
_BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def text_of(dataset: Dataset, keyword: str, cap: int, remarks: list[str] | None = None) -> str:
    """Return the (first) value as clean text, empty if there is none or it cannot be read."""
    try:
        value = value_of(dataset, keyword)
        text = "" if value is None else str(value)
    except UNREADABLE:
        if remarks is not None:
            remarks.append(f"Its {keyword} could not be read.")
        return ""
    return clean(text, cap)


def value_of(dataset: Dataset, keyword: str) -> object:
    tag = Tag(keyword)
    if tag not in dataset:
        return None
    raw = dataset.get_item(tag, keep_deferred=True)  # without this, it reads what was left out
    if isinstance(raw, RawDataElement) and raw.value is None and raw.length:
        return None  # too long to be read (deferred)
    value = dataset[tag].value
    if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue":
        return value[0] if len(value) else None
    return value


def uid_of(dataset: Dataset, keyword: str, remarks: list[str]) -> str:
    text = text_of(dataset, keyword, 256)
    if not text:
        remarks.append(f"Its {keyword} is missing or empty.")
    elif len(text) > 64 or not UID_FORM.fullmatch(text):
        remarks.append(f"Its {keyword} is not a UID and was left out.")
        return ""
    return text


def number_of(dataset: Dataset, keyword: str) -> int | None:
    try:
        value = value_of(dataset, keyword)
        number = None if value is None or value == "" else int(value)  # type: ignore[call-overload]
    except UNREADABLE:
        return None
    return number if number is None or abs(number) < 1 << 53 else None


def announced_of(dataset: Dataset, keyword: str) -> int | None:
    """Return how many there are in all by the header; None if it does not say, or says what cannot be."""
    number = number_of(dataset, keyword)
    return number if number is not None and 0 < number <= MAX_ANNOUNCED else None


def charset_remark(dataset: Dataset) -> str | None:
    named = text_of(dataset, "SpecificCharacterSet", 64)
    if named and named.replace("_", " ").strip() not in {
        name.replace("_", " ") for name in pydicom.charset.python_encoding
    }:
        return "It names a character set that does not exist; names may look wrong."
    return None


def clean(text: str, cap: int) -> str:
    """Return ``text`` without control and direction-changing characters, trimmed, at most ``cap`` characters."""
    if not text.isprintable():
        text = "".join(_kept(text))
    return text.strip()[:cap]


def _kept(text: str) -> Iterable[str]:
    for character in text[:MAX_VALUE_BYTES]:
        if unicodedata.category(character) in {"Cc", "Cs"} or character in _BIDIRECTIONAL:
            yield " " if character in "\r\n\t" else ""
        else:
            yield character
