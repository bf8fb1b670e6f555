"""Reads coded concepts from a DICOM header that a stranger wrote: which view an image is, and which part it shows."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import islice

from pydantic import ValidationError
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from clinic_ai.domain import Code
from clinic_ai.ml.dicom_errors import UNREADABLE
from clinic_ai.workers.values import text_of

VIEW = ("ViewCodeSequence",)
ANATOMY = ("AnatomicRegionSequence", "PrimaryAnatomicStructureSequence")
KEYWORDS = (*VIEW, *ANATOMY)
"""What has to be read of a header for ``codes_of``."""
MAX_CODES = 8
"""Codes of one sequence that are read; the standard allows one view, and few structures."""


def codes_of(dataset: Dataset, keywords: Iterable[str], remarks: list[str]) -> tuple[Code, ...]:
    """Return the codes of these sequences, each once; what is none is left out, what cannot be read is remarked.

    A sequence longer than ``values.MAX_VALUE_BYTES`` was not read, and says nothing.
    """
    found: list[Code] = []
    for keyword in keywords:
        try:
            found += _codes(dataset, Tag(keyword))
        except (*UNREADABLE, OSError):  # the latter is pydicom's at the end of a sequence, and no trouble of a disk
            remarks.append(f"Its {keyword} could not be read.")
    return tuple(dict.fromkeys(found))


def _codes(dataset: Dataset, tag: BaseTag) -> tuple[Code, ...]:
    if tag not in dataset:
        return ()
    element = dataset.get_item(tag, keep_deferred=True)  # without this, it reads what was left out
    if isinstance(element, RawDataElement):
        return _codes_of_raw(element._replace(value_tell=0)) if element.value else ()
    return _codes_of_items(element)


@lru_cache(maxsize=256)  # the images of a study repeat them, and to parse one costs as much as a tenth of a header
def _codes_of_raw(element: RawDataElement) -> tuple[Code, ...]:
    return _codes_of_items(convert_raw_data_element(element))


def _codes_of_items(element: DataElement) -> tuple[Code, ...]:
    items = element.value if element.VR == "SQ" else ()
    return tuple(filter(None, map(_code, islice(items or (), MAX_CODES))))


def _code(item: Dataset) -> Code | None:
    """Return the code of an item, None if it has none that can be compared."""
    try:
        return Code(
            scheme=text_of(item, "CodingSchemeDesignator", 64).upper(),
            value=text_of(item, "CodeValue", 65),
            meaning=text_of(item, "CodeMeaning", 64),
        )
    except ValidationError:
        return None
