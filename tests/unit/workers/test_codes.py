"""Codes of headers that strangers wrote."""

from __future__ import annotations

import io

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from clinic_ai.domain import Code
from clinic_ai.workers.codes import ANATOMY, MAX_CODES, VIEW, codes_of


def coded(value: object, scheme: str, meaning: str = "") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def read_back(dataset: Dataset, *, implicit: bool = False) -> Dataset:
    """Return the data set as the parser reads it: values raw, and long ones left out."""
    file = io.BytesIO()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    dataset.save_as(file, implicit_vr=implicit, little_endian=True)
    file.seek(0)
    return pydicom.dcmread(file, force=True, defer_size=4096)


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("undefined_length", [False, True])
def test_reads_codes_however_their_sequence_is_written(implicit: bool, undefined_length: bool) -> None:
    dataset = Dataset()
    dataset.AnatomicRegionSequence = Sequence([coded("71341001", "SCT", "Femur")])
    dataset.PrimaryAnatomicStructureSequence = Sequence([coded("T-12710", "srt"), coded("71341001", "SCT", "Femur")])
    for keyword in ANATOMY:
        dataset[keyword].is_undefined_length = undefined_length
    remarks: list[str] = []
    found = codes_of(read_back(dataset, implicit=implicit), ANATOMY, remarks)
    assert found == (Code(scheme="SCT", value="71341001", meaning="Femur"), Code(scheme="SRT", value="T-12710"))
    assert remarks == []


def test_what_is_no_code_is_left_out_and_of_many_only_the_first_are_read() -> None:
    dataset = Dataset()
    odd = [Dataset(), coded("", "SCT"), coded("1\n2", "SCT"), coded("a b", "SCT"), coded("1" * 65, "SCT")]
    dataset.ViewCodeSequence = Sequence([*odd, *(coded(str(number), "SCT") for number in range(100))])
    dataset["ViewCodeSequence"].is_undefined_length = True  # else it would be too long to be read
    found = codes_of(read_back(dataset), VIEW, [])
    assert [code.value for code in found] == [str(number) for number in range(MAX_CODES - len(odd))]


@given(st.binary(max_size=300), st.sampled_from((b"SQ", b"UN", b"OB", b"LO")))
def test_a_sequence_of_any_bytes_is_survived(content: bytes, vr: bytes) -> None:
    length = len(content) + len(content) % 2
    head = b"\x54\x00\x20\x02" + vr + (b"" if vr == b"LO" else b"\0\0")
    body = head + length.to_bytes(2 if vr == b"LO" else 4, "little") + content.ljust(length, b"\0")
    dataset = pydicom.filereader.read_dataset(io.BytesIO(body), is_implicit_VR=False, is_little_endian=True)
    assert all(isinstance(code, Code) for code in codes_of(dataset, VIEW, []))


def test_sequences_nested_without_end_are_survived() -> None:
    item, depth = b"\xfe\xff\x00\xe0\xff\xff\xff\xff", 150
    nested = b"\x54\x00\x20\x02SQ\0\0\xff\xff\xff\xff" + item
    content = item + nested * depth
    body = b"\x54\x00\x20\x02SQ\0\0" + len(content).to_bytes(4, "little") + content
    dataset = pydicom.filereader.read_dataset(io.BytesIO(body), is_implicit_VR=False, is_little_endian=True)
    assert codes_of(dataset, VIEW, []) == ()
