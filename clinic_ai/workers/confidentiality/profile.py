"""What becomes of each element: the table of PS3.15 Annex E as dicom-anonymizer carries it, made stricter.

The library holds table E.1-1 of edition 2026c. Its own walk over a data set is not used: it leaves alone what is
nested in a sequence that is kept, makes random UIDs and writes one date everywhere. Of what the table does not name,
the basic profile keeps everything; here only that is kept which cannot hold free text, or is listed below.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from enum import StrEnum

from dicomanonymizer import simpledicomanonymizer as library
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword

EDITION = "2026c"

_ACTIONS: Mapping[tuple[int, ...], Callable[..., None]] = library.initialize_actions(f"dicomfields_{EDITION}")


class Action(StrEnum):
    """What to do with an element."""

    REMOVE = "remove"
    EMPTY = "empty"
    DUMMY = "dummy"
    UID = "uid"
    """Replace a UID, or descend into a sequence and replace those in it."""
    DATE = "date"
    """Shift it: option 113107 of PS3.15 E.3.6."""
    DESCEND = "descend"
    CODE = "code"
    """Keep it if it has the form of a code string."""
    TEXT = "text"
    """Keep it: one of the few texts below."""
    NUMBER = "number"
    BYTES = "bytes"


_BY_LIBRARY = {
    library.delete: Action.REMOVE,
    library.empty: Action.EMPTY,
    library.delete_or_empty: Action.EMPTY,
    library.replace: Action.DUMMY,
    library.empty_or_replace: Action.DUMMY,
    library.delete_or_replace: Action.DUMMY,
    library.delete_or_empty_or_replace: Action.DUMMY,
    library.replace_UID: Action.UID,
    library.delete_or_empty_or_replace_UID: Action.UID,
}
_WITHOUT_OPTION = frozenset(map(tag_for_keyword, ("PatientBirthDate", "PatientBirthTime", "GPSTimeStamp")))
"""Dates and times for which table E.1-1 does not offer the option to keep them shifted."""
_TEXTS = frozenset(
    map(
        tag_for_keyword,
        (
            "Manufacturer",
            "ManufacturerModelName",
            "SequenceName",
            "ConvolutionKernel",
            "FilterType",
            "ImagedNucleus",
            "RescaleType",
            "ModalityLUTType",
            "Radiopharmaceutical",
            "ReconstructionMethod",
            "AttenuationCorrectionMethod",
            "CodeValue",
            "CodingSchemeDesignator",
            "CodeMeaning",
        ),
    )
)
"""Texts that tell what made the image and how; the last three are checked and rewritten."""
_BYTES = frozenset(
    map(
        tag_for_keyword,
        (
            "PixelData",
            "FloatPixelData",
            "DoubleFloatPixelData",
            "ExtendedOffsetTable",
            "ExtendedOffsetTableLengths",
            "RedPaletteColorLookupTableData",
            "GreenPaletteColorLookupTableData",
            "BluePaletteColorLookupTableData",
            "AlphaPaletteColorLookupTableData",
            "SegmentedRedPaletteColorLookupTableData",
            "SegmentedGreenPaletteColorLookupTableData",
            "SegmentedBluePaletteColorLookupTableData",
            "LUTData",
        ),
    )
)
_DATES = frozenset({"DA", "DT", "TM"})
_NUMBERS = frozenset({"DS", "IS", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV", "AT"})


@functools.cache
def action_for(tag: int) -> Action:
    """Return what to do with the element of this tag, by the table and its VR in the data dictionary (PS3.6)."""
    group = tag >> 16
    if group & 1 or tag not in DicomDictionary or not tag & 0xFFFF:
        return Action.REMOVE  # private, unknown, of a repeating group (curves, overlays), or a length of a group
    kinds = frozenset(dictionary_VR(tag).split(" or "))
    named = _ACTIONS.get((group, tag & 0xFFFF))
    if named is None:
        return _unnamed(tag, kinds)
    if kinds <= _DATES and tag not in _WITHOUT_OPTION:
        return Action.DATE
    action = _BY_LIBRARY[named]
    if kinds == {"UI"} and action is not Action.REMOVE:
        return Action.UID
    if action is Action.DUMMY and not kinds.isdisjoint({"SQ", "OB", "UN"}):
        return Action.REMOVE  # a dummy sequence would say something untrue; none is required in an image
    return action


def _unnamed(tag: int, kinds: frozenset[str]) -> Action:
    if tag in _BYTES:
        return Action.BYTES
    if tag in _TEXTS:
        return Action.TEXT
    if kinds <= _DATES:
        return Action.DATE
    if kinds <= _NUMBERS:
        return Action.NUMBER
    return {"SQ": Action.DESCEND, "UI": Action.UID, "CS": Action.CODE, "AS": Action.CODE}.get(
        next(iter(kinds)), Action.REMOVE
    )


@functools.cache
def most_values(tag: int) -> int:
    """Return the most values that an element of this tag may have (PS3.6), 0 if the data dictionary sets no end."""
    last = dictionary_VM(tag).split("-")[-1]
    return 0 if last.endswith("n") else int(last)


def vr_fits(tag: int, vr: str) -> bool:
    """Return whether an element of this tag may have this VR; a hostile file says that a name is a sequence."""
    known = dictionary_VR(tag)
    return vr == known or vr in known.split(" or ")
