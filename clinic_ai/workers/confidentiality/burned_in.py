"""What may be written, or recognisable, in the pixels themselves: told from the header, never looked for in pixels.

No heuristic on pixels stands here: one that misses a name now and then would be trusted all the same.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

from clinic_ai.tasks import Flag

_WRITERS = {
    "US": "ultrasound machines write name and date above the image",
    "IVUS": "ultrasound machines write name and date above the image",
    "XA": "stations for angiography and fluoroscopy write into stored screens",
    "RF": "stations for angiography and fluoroscopy write into stored screens",
    "XC": "photographs may show a face or a label",
    "ES": "endoscopes write name and date beside the image",
    "GM": "photographs may show a face or a label",
    "SM": "slides carry a label",
    "OP": "cameras for the eye write beside the image",
    "OT": "nobody says what made it",
}
_CAPTURED = ("Secondary Capture",)
_SCREENS = frozenset({"SCREEN SAVE", "SCREENSAVE", "SCREEN", "SCREENSHOT", "SECONDARY", "DOSE_INFO", "DOSE REPORT"})
_HEADS = frozenset({"HEAD", "SKULL", "BRAIN", "FACE", "ORBIT", "ORBITS", "HEADNECK", "NECK", "JAW", "MAXILLA", "NOSE"})


def flags_of(dataset: Dataset, sop_class_name: str) -> tuple[Flag, ...]:
    """Return what a person should look at before such an image leaves the house; ``dataset`` is the original."""
    flags = []
    modality = _code(dataset, "Modality")
    stated = _code(dataset, "BurnedInAnnotation")
    if stated == "YES":
        flags.append(Flag(code="burned_in", sentence="Its header says that text identifying the patient is burnt in."))
    else:
        flags += _possible(dataset, modality, sop_class_name, denied=stated == "NO")
    if _code(dataset, "RecognizableVisualFeatures") == "YES":
        flags.append(Flag(code="recognisable", sentence="Its header says that the patient can be recognised in it."))
    elif modality in {"CT", "MR", "PT"} and _code(dataset, "BodyPartExamined") in _HEADS:
        flags.append(Flag(code="face_possible", sentence="A face could be reconstructed from images of the head."))
    return tuple(flags)


def _possible(dataset: Dataset, modality: str, sop_class_name: str, *, denied: bool) -> list[Flag]:
    reasons = []
    if any(word in sop_class_name for word in _CAPTURED):
        reasons.append("it is a secondary capture, such as a screen or a scanned paper")
    if modality in _WRITERS:
        reasons.append(_WRITERS[modality])
    image_type = {str(code).strip().upper() for code in _values(dataset, "ImageType")}
    if not image_type.isdisjoint(_SCREENS):
        reasons.append("its type is secondary or that of a stored screen")
    if "SequenceOfUltrasoundRegions" in dataset:
        reasons.append("there may be text outside its ultrasound regions")
    if not reasons:
        return []
    said = " Its header says that there is none." if denied else ""
    return [Flag(code="burned_in_possible", sentence=f"Text may be burnt in: {'; '.join(reasons)}.{said}")]


def picture_flags(kind: str) -> tuple[Flag, ...]:
    """Return the flag of every PNG or JPEG, which says nothing about what is written in it."""
    return (Flag(code="burned_in_possible", sentence=f"Text may be burnt in: a {kind} does not say whether it is."),)


def _values(dataset: Dataset, keyword: str) -> list[object]:
    try:
        value = dataset.get(keyword)
    except (ValueError, TypeError, AttributeError, LookupError, NotImplementedError):
        return []
    return list(value) if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue" else [value]


def _code(dataset: Dataset, keyword: str) -> str:
    values = _values(dataset, keyword)
    return str(values[0]).strip().upper() if values and values[0] is not None else ""
