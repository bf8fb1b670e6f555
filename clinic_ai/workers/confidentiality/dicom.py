"""A DICOM image without its patient: the basic profile of PS3.15 Annex E with dates shifted by whole days."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pydicom
from dicomanonymizer import simpledicomanonymizer as library
from pydicom._dicom_dict import DicomDictionary
from pydicom._uid_dict import UID_dictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from clinic_ai.errors import InputError
from clinic_ai.ml.dicom_errors import UNREADABLE
from clinic_ai.tasks import DEIDENTIFICATION_PROFILE, Flag
from clinic_ai.workers.confidentiality.burned_in import flags_of
from clinic_ai.workers.confidentiality.codestreams import blank_frames
from clinic_ai.workers.confidentiality.groups import kept_groups, lost_groups
from clinic_ai.workers.confidentiality.keys import Keys, checked_time, shift_date, shift_date_time
from clinic_ai.workers.confidentiality.profile import EDITION, Action, action_for, most_values, vr_fits

MAX_DEPTH = 32
"""Deepest nesting of sequences; real images need about eight."""
MAX_ELEMENTS = 1_000_000
CHARACTER_SET = "ISO_IR 192"

_DEFLATED = "1.2.840.10008.1.2.1.99"
_NATIVE = frozenset({ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian})
_COMPRESSED = frozenset(
    {
        "1.2.840.10008.1.2.5",  # RLE
        *(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70)),  # JPEG
        *(f"1.2.840.10008.1.2.4.{n}" for n in (80, 81)),  # JPEG-LS
        *(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 92, 93)),  # JPEG 2000
        *(f"1.2.840.10008.1.2.4.{n}" for n in (201, 202, 203)),  # High-Throughput JPEG 2000
    }
)
"""Not video: a stream may hold sound."""
_FORMS = {"CS": re.compile(r"[A-Z0-9_ ]{0,16}", re.ASCII), "AS": re.compile(r"(\d{3}[DWMY])?", re.ASCII)}
_DEFINED_TERMS = {
    keyword: frozenset(terms.split("|"))
    for keyword, terms in {
        # Of PS3.3 C.7.3.1.1.1 those of images; those of two letters no name is looked for in.
        "Modality": "BDUS|BMD|DMS|IVOCT|IVUS|OCT|OPM|OPT|OPTBSV|OPTENF|OSS|RTDOSE|RTIMAGE|SEG",
        "PhotometricInterpretation": "MONOCHROME1|MONOCHROME2|PALETTE COLOR|RGB|HSV|ARGB|CMYK|XYB|YBR_FULL|"
        "YBR_FULL_422|YBR_PARTIAL_422|YBR_PARTIAL_420|YBR_ICT|YBR_RCT",
        "LossyImageCompressionMethod": "ISO_10918_1|ISO_14495_1|ISO_15444_1|ISO_15444_2|ISO_15444_15|ISO_18181_1",
        "PixelIntensityRelationship": "LIN|LOG|DISP",
        "VOILUTFunction": "LINEAR|LINEAR_EXACT|SIGMOID",
        "BurnedInAnnotation": "YES|NO",
        "RecognizableVisualFeatures": "YES|NO",
    }.items()
}
"""What the standard lets these say; a name of a patient that is one of them is no reason to leave it out."""
_CODE_VALUE = re.compile(r"[A-Z0-9.\-]{1,16}", re.ASCII)
_SCHEMES = frozenset({"SCT", "SRT", "SNM3", "DCM", "UCUM", "LN", "RADLEX", "FMA", "UMLS", "NCIt", "MSH", "NEU", "UNS"})
"""Public coding schemes (PS3.16 section 8); in a scheme of the clinic's own a value may mean a person."""
_OVERLAYS = range(0x6000, 0x6020, 2)
_CODED = ("CodeValue", "LongCodeValue", "URNCodeValue", "CodingSchemeDesignator", "CodeMeaning")
_NAMES = ("PatientName", "OtherPatientNames", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName")
_NUMBERS = ("PatientID", "OtherPatientIDs", "AccessionNumber")
_WORD = re.compile(r"[^\W_]+")


class _Bounded(io.BufferedReader):
    """A file that never allocates the four gigabytes a hostile length asks for."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Return at most what is there."""
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def deidentify_dicom(
    source: Path, target: Path, sha256: str, keys: Keys, max_bytes: int
) -> tuple[tuple[Flag, ...], dict[str, str]]:
    """Write the de-identified copy of a DICOM image; return what a person should look at, and the groups it is of.

    ``sha256`` is of the original. Raise InputError if it is no image, or nothing that can be vouched for.
    """
    try:
        with _Bounded(source) as file:
            dataset = _read(file, max_bytes)
            name = _check_kind(dataset)
            flags = flags_of(dataset, name)
            groups = lost_groups(dataset, keys)
            _Copy(dataset, sha256, keys).make()
            groups |= kept_groups(dataset)
            pydicom.dcmwrite(target, dataset, enforce_file_format=True)
    except UNREADABLE as error:
        raise _damaged("It begins like DICOM, but it cannot be read or written again as a whole.") from error
    except OSError as error:
        if error.errno is not None:
            raise  # of the disk; pydicom raises it without a number for a value it cannot write
        raise _damaged("It begins like DICOM, but it cannot be written again as a whole.") from error
    return flags, groups


def _read(file: _Bounded, max_bytes: int) -> FileDataset:
    head = file.read(1024)
    file.seek(0)
    if _DEFLATED.encode() not in head:
        return pydicom.dcmread(file, force=True)
    file.seek(132)
    meta = FileMetaDataset(
        read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, *_: tag >> 16 != 2)
    )
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = io.BytesIO(unpacker.decompress(file.read(), max_bytes))
    except zlib.error as error:
        raise _damaged("Its compressed part cannot be unpacked.") from error
    if unpacker.unconsumed_tail:
        raise InputError("deflate_bomb", f"It is compressed and unpacks to more than {max_bytes >> 20} MiB.")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = read_dataset(inflated, is_implicit_VR=False, is_little_endian=True)
    return FileDataset(inflated, dataset, file_meta=meta, is_implicit_VR=False, is_little_endian=True)


def _check_kind(dataset: FileDataset) -> str:
    """Return the name of the SOP class. Raise InputError unless it is an image that this profile is made for."""
    meta = dataset.file_meta
    sop_class = UID(str(dataset.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or ""))
    name = UID_dictionary.get(sop_class, ("",))[0]
    images = "Image Storage" in name and not name.startswith(("Video", "Hardcopy"))
    if not images or not any(k in dataset for k in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise InputError(
            "not_an_image",
            f"It holds no image that can be de-identified ({name or 'of a kind nobody knows'}); of reports, documents, "
            "waveforms and videos no copy is made.",
            remedy="Nothing is needed; it is left out.",
        )
    syntax = meta.get("TransferSyntaxUID")
    if syntax is None:
        implicit, little = dataset.original_encoding
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        meta.TransferSyntaxUID = syntax
    if syntax not in _NATIVE and syntax not in _COMPRESSED:
        raise InputError(
            "transfer_syntax",
            f"Its transfer syntax ({UID_dictionary.get(syntax, ('unknown',))[0]}) is not one that can be vouched for.",
            remedy="Let the sender export it as Explicit VR Little Endian.",
        )
    dataset.SOPClassUID = sop_class
    return name


class _Copy:
    """Turns one data set, in place, into its de-identified copy."""

    def __init__(self, dataset: FileDataset, sha256: str, keys: Keys) -> None:
        self._dataset = dataset
        self._sha256 = sha256
        self._keys = keys
        self._patient = _patient_of(dataset)
        self._days = keys.days(self._patient)
        self._words = _identity_words(dataset)
        self._elements = 0

    def make(self) -> None:
        dataset, keys = self._dataset, self._keys
        syntax = UID(str(dataset.file_meta.TransferSyntaxUID))
        instance = str(dataset.get("SOPInstanceUID") or "").strip() or f"instance {self._sha256}"
        _clean_pixels(dataset, syntax)
        for keyword in _CODED:
            if keyword in dataset:  # codes have their place in sequences, where they are checked together
                del dataset[keyword]
        self._clean(dataset, 0)
        dataset.SOPInstanceUID = keys.uid(instance)
        dataset.SpecificCharacterSet = CHARACTER_SET
        dataset.PatientID = dataset.PatientName = keys.pseudonym(self._patient)
        _say_how(dataset)
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        meta.TransferSyntaxUID = syntax
        dataset.file_meta = meta
        dataset.preamble = bytes(128)

    def _clean(self, dataset: Dataset, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise InputError(
                "nesting", f"Its sequences are nested more than {MAX_DEPTH} deep; it is damaged or hostile."
            )
        for tag in list(dataset.keys()):
            self._elements += 1
            if self._elements > MAX_ELEMENTS:
                raise InputError("too_many_elements", f"It has more than {MAX_ELEMENTS} elements.")
            action = action_for(tag)
            if action is Action.REMOVE or not self._keep(dataset, tag, action, depth):
                del dataset[tag]

    def _keep(self, dataset: Dataset, tag: int, action: Action, depth: int) -> bool:
        """Make an element harmless where it stands; return False if it has to go."""
        try:
            element = dataset[tag]
            if not vr_fits(tag, element.VR):
                return False
            return self._rewrite(element, action, depth)
        except InputError:
            raise
        except UNREADABLE:
            return False

    def _rewrite(self, element: DataElement, action: Action, depth: int) -> bool:
        match action:
            case Action.EMPTY if element.VR == "SQ":
                element.value = Sequence()
            case Action.EMPTY:
                element.clear()
            case Action.DUMMY:
                library.replace_element(element)
            case Action.DATE:
                element.value = _each(element, self._shift)
            case Action.UID | Action.DESCEND if element.VR == "SQ":
                return self._descend(element, depth)
            case Action.UID:
                element.value = _each(element, lambda text, _: self._uid(text))
            case Action.CODE | Action.TEXT:
                return self._harmless(element)
            case Action.NUMBER:
                return _only_numbers(element)
        return True

    def _descend(self, element: DataElement, depth: int) -> bool:
        items = [item for item in element.value if _public_code(item)]
        for item in items:
            self._clean(item, depth + 1)
            if "SpecificCharacterSet" in item:
                del item.SpecificCharacterSet
        kept = [item for item in items if len(item)]
        emptied = len(element.value) > len(kept)
        if emptied:
            element.value = Sequence(kept)
        return bool(kept) or not emptied

    def _shift(self, text: str, vr: str) -> str:
        if vr == "TM":
            return checked_time(text)
        return shift_date(text, self._days) if vr == "DA" else shift_date_time(text, self._days)

    def _uid(self, text: str) -> str:
        # Those of the standard itself name kinds of things; all others are somebody's.
        return text if not text.strip() or text in UID_dictionary else self._keys.uid(text.strip())

    def _harmless(self, element: DataElement) -> bool:
        """Return whether codes have the form of codes, and nothing in them repeats a name or a number."""
        texts = [str(value) for value in _values(element) if value is not None]
        form = _FORMS.get(element.VR)
        if form is not None and not all(form.fullmatch(text) for text in texts):
            return False
        if _DEFINED_TERMS.get(element.keyword, frozenset()).issuperset(texts):
            return len(texts) < 16  # without these it is another image, whatever the patient's name is
        return len(texts) <= 64 and all(map(str.isascii, texts)) and not self._names_somebody(texts)

    def _names_somebody(self, texts: list[str]) -> bool:
        """Return whether a word of a name or number stands in one of the texts; long words also inside others."""
        together = " ".join(texts).upper()
        return not self._words.isdisjoint(_words(texts)) or any(len(w) > 4 and w in together for w in self._words)


def _only_numbers(element: DataElement) -> bool:
    """Return whether an element holds numbers, and not a text that was declared as an array of them."""
    values = [value for value in _values(element) if value is not None]
    if element.VR == "AT":
        return all(value in DicomDictionary for value in values)
    if element.VR not in {"DS", "IS"} and len(values) > most_values(element.tag):
        return False
    return all(isinstance(value, (int, float)) for value in values)


def _each(element: DataElement, change: Callable[[str, str], str]) -> str | list[str]:
    if isinstance(element.value, (str, type(None))):
        return change(element.value or "", element.VR)
    return [change(str(value), element.VR) for value in element.value]


def _values(element: DataElement) -> list[object]:
    value = element.value
    return list(value) if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue" else [value]


# ---------------------------------------------------------------- who it is


def _text(dataset: Dataset, keyword: str) -> str:
    try:
        return str(dataset.get(keyword) or "").strip()
    except UNREADABLE:
        return ""


def _patient_of(dataset: Dataset) -> str:
    """Return what stands for the patient: the ID; without one name and birth date, or else the study."""
    number = _text(dataset, "PatientID")
    if number:
        return f"id\0{number}"
    name, born = _text(dataset, "PatientName"), _text(dataset, "PatientBirthDate")
    return f"name\0{name}\0{born}" if name else f"study\0{_text(dataset, 'StudyInstanceUID')}"


def _words(texts: Iterable[str]) -> set[str]:
    return {word.upper() for text in texts for word in _WORD.findall(text)}


def _identity_words(dataset: Dataset) -> set[str]:
    """Return words that must not stand in any text that is kept: of names three letters and more, of numbers four."""
    names = _words(_text(dataset, keyword) for keyword in _NAMES)
    numbers = _words(_text(dataset, keyword) for keyword in _NUMBERS)
    return {word for word in names if len(word) > 2} | {word for word in numbers if len(word) > 3}


# ---------------------------------------------------------------- what is kept with care


def _public_code(item: Dataset) -> bool:
    """Return whether an item is of no code, or of one that everybody can look up; its meaning is then left to them."""
    if not any(keyword in item for keyword in _CODED):
        return True
    scheme, value = _text(item, "CodingSchemeDesignator"), _text(item, "CodeValue")
    if scheme not in _SCHEMES or not _CODE_VALUE.fullmatch(value):
        return False
    item.CodeMeaning = value  # required, and free text
    return True


def _clean_pixels(dataset: Dataset, syntax: UID) -> None:
    """Remove what is stored beside the picture: behind its last pixel, in unused bits, in comments of its stream."""
    if "PixelData" not in dataset:
        return
    element = dataset["PixelData"]
    embedded = any(
        dataset.get((group, 0x0102), None) is not None and dataset[group, 0x0102].value not in {0, None}
        for group in _OVERLAYS
    )
    if syntax in _NATIVE:
        size = _native_size(dataset)
        if len(element.value) < size:
            raise _damaged("It ends inside the image.")
        pixels = element.value[: size + (size & 1)]  # big-endian words of 8-bit pixels: the last two stand swapped
        if embedded:
            pixels = _without_unused_bits(dataset, pixels, big=syntax == ExplicitVRBigEndian)
        element.value = pixels + bytes(len(pixels) & 1)
        return
    if embedded:
        raise InputError(
            "embedded_overlay",
            "An overlay is stored in bits of its compressed pixels, and it may hold text.",
            remedy="Let the sender export it without compression.",
        )
    element.value = blank_frames(element.value)
    element.is_undefined_length = True


def _native_size(dataset: Dataset) -> int:
    samples, bits = int(dataset.get("SamplesPerPixel", 1) or 1), int(dataset.BitsAllocated)
    values = int(dataset.Rows) * int(dataset.Columns) * samples * int(dataset.get("NumberOfFrames", 1) or 1)
    if str(dataset.get("PhotometricInterpretation", "")) == "YBR_FULL_422":
        values = values * 2 // 3
    return (values * bits + 7) // 8


def _without_unused_bits(dataset: Dataset, pixels: bytes, *, big: bool) -> bytes:
    """Return pixels whose bits above the high bit repeat the sign, or are 0 (PS3.5 section 8.1.1, before 2004)."""
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    if allocated not in {8, 16} or not 0 < stored <= allocated or int(dataset.HighBit) != stored - 1:
        raise InputError("embedded_overlay", "An overlay is stored in bits of its pixels, and it may hold text.")
    kind = np.dtype(f"{'>' if big else '<'}{'i' if dataset.PixelRepresentation else 'u'}{allocated // 8}")
    spare = allocated - stored
    return bytes(((np.frombuffer(pixels, kind) << spare) >> spare).astype(kind).tobytes())


def _say_how(dataset: Dataset) -> None:
    """Record that and how it was de-identified (PS3.15 E.1.1, PS3.3 C.7.1.1 and C.12.1)."""
    dataset.PatientIdentityRemoved = "YES"
    dataset.LongitudinalTemporalInformationModified = "MODIFIED"
    dataset.DeidentificationMethod = [
        f"PS3.15 Annex E basic profile, table of {EDITION}",
        "dates shifted by whole days; pixels not looked at",
        f"clinic-ai profile {DEIDENTIFICATION_PROFILE}",
    ]
    methods = []
    for value, meaning in (
        ("113100", "Basic Application Confidentiality Profile"),
        ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ):
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
        methods.append(item)
    dataset.DeidentificationMethodCodeSequence = Sequence(methods)


def _damaged(sentence: str) -> InputError:
    return InputError("damaged", sentence, remedy="Send it again from where it came.")
