"""Nothing that tells of a patient is anywhere in a copy: searched for in its raw bytes, not in what was parsed."""

from __future__ import annotations

import datetime
import io
import struct
import zlib
from pathlib import Path

import marked
import numpy as np
import pydicom
import pytest
from dicomanonymizer.simpledicomanonymizer import initialize_actions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom._dicom_dict import DicomDictionary
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
)

from clinic_ai import deidentification
from clinic_ai.tasks import DeidentifiedFile

TABLE = sorted(tag for tag in initialize_actions("dicomfields_2026c") if len(tag) == 2 and tag[0] > 2)
KEPT_TEXTS = {
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
}
"""What docs/de-identification.md says is kept as it stands."""
OF_THE_IMAGE = {
    "SOPClassUID", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "PixelData", "NumberOfFrames", "FloatPixelData", "DoubleFloatPixelData",
}  # fmt: skip
PUBLIC = sorted(
    tag
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items()
    if tag >> 16 > 2
    and vr != "NONE"
    and keyword not in KEPT_TEXTS | OF_THE_IMAGE | {"LUTData", "SpecificCharacterSet"}
    and not keyword.startswith("ExtendedOffsetTable")
    and "PaletteColor" not in keyword
)

ODD = [0x00091001, 0x00110010, 0x7FDF1234, 0x00084242, 0x50000005, 0x60000022, 0x60004000, 0x601E3000]
"""Private, unknown, curves and overlays."""
TAGS = [*PUBLIC, *ODD * 50]
LEVEL = st.lists(st.tuples(st.integers(0, len(TAGS) - 1), st.integers(0, 3 * len(marked.VRS))), max_size=12)


def copied(dataset: FileDataset, folder: Path, **options: str) -> tuple[DeidentifiedFile, Path]:
    return marked.copy_of(marked.write(dataset, folder / "original.dcm"), folder / "out", **options)


def made(dataset: FileDataset, folder: Path, **options: str) -> FileDataset:
    said, copy = copied(dataset, folder, **options)
    assert said.problem is None, said.problem
    assert marked.traces(copy.read_bytes()) == []
    deidentification._check(said)
    assert marked.traces(said.model_dump_json(include={"groups"}).encode()) == []
    return pydicom.dcmread(copy)


class TestNothingLeaks:
    def test_every_element_of_the_table_and_in_a_sequence_that_is_kept(self, tmp_path: Path) -> None:
        original, item = marked.image(), Dataset()
        for number, (group, element) in enumerate(TABLE):
            tag = group << 16 | element
            known = DicomDictionary.get(tag)
            if known is not None and known[4] in OF_THE_IMAGE:
                continue
            vr = known[0].split(" or ")[0] if known else "LO"
            inner = Dataset()
            inner.PatientName = marked.MARK
            for dataset in (original, item):
                marked.put(dataset, tag, vr, number, items=(inner,))
        marked.put(original, 0x00082218, "SQ", 0, items=(item,))  # anatomic region: not in the table
        assert len(TABLE) > 600
        copy = made(original, tmp_path)
        assert "PatientWeight" not in copy
        assert copy.PatientBirthDate == ""

    @settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(levels=st.lists(LEVEL, min_size=1, max_size=4))
    def test_any_elements_anywhere_of_any_vr(self, tmp_path: Path, levels: list[list[tuple[int, int]]]) -> None:
        """Each level of elements lies in a sequence of the one before, one that is kept."""
        number = iter(range(10_000))
        inner: Dataset | None = None
        for depth, level in reversed(list(enumerate(levels))):
            dataset: Dataset = Dataset() if depth else marked.image()
            for place, choice in level:
                tag = TAGS[place]
                right = DicomDictionary[tag][0].split(" or ")[0] if tag in DicomDictionary else "LO"
                inside = marked.image()
                del inside.PixelData
                marked.put(
                    dataset,
                    tag,
                    marked.VRS[choice] if choice < len(marked.VRS) else right,
                    next(number),
                    items=(inside,),
                )
            if inner is not None:
                dataset.add_new("AnatomicRegionSequence", "SQ", Sequence([inner]))  # whatever VR it has by now
            inner = dataset
        assert isinstance(inner, FileDataset)
        made(inner, tmp_path)

    @pytest.mark.parametrize(
        ("charset", "name"),
        [
            ("ISO_IR 100", "Ödön^Ärzt"),
            ("ISO_IR 192", "Ödön^Ärzt"),
            ("ISO_IR 144", "Люкceмбypг"),
            ("GB18030", "王^小东"),
        ],
    )
    def test_names_in_other_character_sets(self, tmp_path: Path, charset: str, name: str) -> None:
        original = marked.image(SpecificCharacterSet=charset, PatientName=name, Manufacturer=f"Fabrik {name}")
        copy = made(original, tmp_path)
        raw = (tmp_path / "out").iterdir().__next__().read_bytes()
        for encoding in ("utf-8", "latin-1", "iso8859-5", "gb18030", "utf-16-le"):
            for part in name.split("^"):
                try:
                    encoded = part.encode(encoding)
                except UnicodeEncodeError:
                    continue
                assert encoded not in raw
        assert copy.SpecificCharacterSet == "ISO_IR 192"
        assert "Manufacturer" not in copy  # it repeated the name

    def test_what_lies_beside_the_pixels(self, tmp_path: Path) -> None:
        original = marked.image()
        original.PixelData += marked.MARK.encode() * 2
        original.DataSetTrailingPadding = marked.MARK.encode() * 2
        path = marked.write(original, tmp_path / "a")
        path.write_bytes(path.read_bytes() + marked.MARK.encode())
        said, copy = marked.copy_of(path, tmp_path / "out")
        assert said.problem is None
        assert marked.traces(copy.read_bytes()) == []
        assert pydicom.dcmread(copy).PixelData == bytes(range(48))

    def test_an_overlay_in_unused_bits_of_the_pixels(self, tmp_path: Path) -> None:
        levels = np.arange(24, dtype="<u2") * 100
        original = marked.image(PixelData=(levels | 0xF000).astype("<u2").tobytes())
        original.add_new(0x60000100, "US", 16)
        original.add_new(0x60000102, "US", 15)
        copy = made(original, tmp_path)
        assert copy.PixelData == levels.tobytes()
        assert not [element for element in copy if element.tag.group == 0x6000]

    def test_comments_in_jpeg_frames(self, tmp_path: Path) -> None:
        stream = io.BytesIO()
        picture = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6))
        exif = Image.Exif()
        exif[0x010E] = marked.MARK
        picture.save(stream, "JPEG", comment=f"{marked.MARK} in a comment", exif=exif)
        frame = stream.getvalue() + marked.MARK.encode()
        original = compressed([frame, frame], JPEGBaseline8Bit)
        copy = made(original, tmp_path)
        assert copy.PixelData != original.PixelData
        assert len(copy.PixelData) == len(original.PixelData)
        assert np.array_equal(copy.pixel_array, original.pixel_array)

    def test_comments_in_jpeg_2000_frames(self, tmp_path: Path) -> None:
        plain = pydicom.dcmread(get_testdata_file("MR_small_jp2klossless.dcm"))
        frame = next(pydicom.encaps.generate_frames(plain.PixelData, number_of_frames=1))
        size = int.from_bytes(frame[4:6], "big")
        text = f"{marked.MARK} was here".encode()
        comment = b"\xff\x64" + struct.pack(">HH", len(text) + 4, 1) + text
        plain.PixelData = encapsulate([frame[: 4 + size] + comment + frame[4 + size :]])
        assert marked.traces(plain.PixelData)
        copy = made(plain, tmp_path)
        assert np.array_equal(copy.pixel_array, plain.pixel_array)

    def test_a_code_that_repeats_the_name_and_a_code_of_the_clinics_own(self, tmp_path: Path) -> None:
        public, own = Dataset(), Dataset()
        public.CodeValue, public.CodingSchemeDesignator, public.CodeMeaning = (
            "51185008",
            "SCT",
            f"{marked.MARK}'s thorax",
        )
        own.CodeValue, own.CodingSchemeDesignator, own.CodeMeaning = "QX7LEAK", "99HOUSE", "Thorax"
        copy = made(
            marked.image(
                CodeValue="QX7LEAK",
                CodingSchemeDesignator="SCT",
                BodyPartExamined="QX7LEAK",
                FilterType="OF-QX7LEAKS",
                RescaleType="QX7LEAK",
                VOILUTFunction="QX7LEAK",
                LossyImageCompressionMethod=["ISO_10918_1", "QX7LEAK"],
                Modality="QX7LEAK",
                ScanOptions=["HELIX", "QX7LEAK_2"],
                AnatomicRegionSequence=Sequence([public, own]),
            ),
            tmp_path,
        )
        assert "BodyPartExamined" not in copy
        assert "ScanOptions" not in copy
        assert "RescaleType" not in copy
        assert "VOILUTFunction" not in copy
        assert "LossyImageCompressionMethod" not in copy
        assert "Modality" not in copy
        assert [item.CodeValue for item in copy.AnatomicRegionSequence] == ["51185008"]


def compressed(frames: list[bytes], syntax: UID) -> FileDataset:
    original = marked.image(BitsAllocated=8, BitsStored=8, HighBit=7, NumberOfFrames=len(frames))
    original.file_meta.TransferSyntaxUID = syntax
    original.PixelData = encapsulate(frames)
    original["PixelData"].VR = "OB"
    original["PixelData"].is_undefined_length = True
    return original


class TestWhatIsKept:
    def test_pixels_geometry_and_what_made_them(self, tmp_path: Path) -> None:
        kept = {
            "ImagePositionPatient": [1.5, -2, 3],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [0.5, 0.25],
            "SliceThickness": 2.5,
            "RescaleSlope": 1,
            "RescaleIntercept": -1024,
            "RescaleType": "HU",
            "InstanceNumber": 7,
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "BodyPartExamined": "CHEST",
            "Manufacturer": "ACME",
            "ConvolutionKernel": "B30f",
            "PixelPaddingValue": 0,
        }
        copy = made(marked.image(**kept), tmp_path)
        for keyword, value in kept.items():
            assert copy[keyword].value == value, keyword
        assert copy.PixelData == bytes(range(48))

    def test_what_the_standard_says_although_the_patient_is_called_so(self, tmp_path: Path) -> None:
        said = {
            "Modality": "OPT",
            "PhotometricInterpretation": "MONOCHROME2",
            "VOILUTFunction": "SIGMOID",
            "LossyImageCompressionMethod": ["ISO_10918_1", "ISO_15444_1"],
        }
        copy = made(marked.image(PatientName="OPT^SIGMOID^MONOCHROME2", PatientID="10918", **said), tmp_path)
        for keyword, value in said.items():
            assert copy[keyword].value == value, keyword

    def test_it_says_what_was_done(self, tmp_path: Path) -> None:
        copy = made(marked.image(), tmp_path)
        assert copy.PatientIdentityRemoved == "YES"
        assert copy.LongitudinalTemporalInformationModified == "MODIFIED"
        assert [item.CodeValue for item in copy.DeidentificationMethodCodeSequence] == ["113100", "113107"]
        assert copy.preamble == bytes(128)
        assert copy.file_meta.MediaStorageSOPInstanceUID == copy.SOPInstanceUID
        assert "SourceApplicationEntityTitle" not in copy.file_meta

    @pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
    def test_other_transfer_syntaxes(self, tmp_path: Path, syntax: UID) -> None:
        original = marked.image(PixelPaddingValue=3)
        original.file_meta.TransferSyntaxUID = syntax
        copy = made(original, tmp_path)
        assert copy.PixelData == bytes(range(48))
        assert copy.PixelPaddingValue == 3

    @pytest.mark.parametrize(
        "name",
        [
            "MR_small_bigendian.dcm",
            "SC_rgb_small_odd_big_endian.dcm",
            "MR_small_RLE.dcm",
            "JPEGLSNearLossless_16.dcm",
            "examples_overlay.dcm",
            "SC_rgb_rle_2frame.dcm",
            "SC_ybr_full_422_uncompressed.dcm",
        ],
    )
    def test_pixels_of_real_files(self, tmp_path: Path, name: str) -> None:
        path = Path(str(get_testdata_file(name)))
        said, copy = marked.copy_of(path, tmp_path / "out")
        assert said.problem is None
        assert np.array_equal(pydicom.dcmread(copy).pixel_array, pydicom.dcmread(path).pixel_array)
        assert said.header is not None
        assert said.header.identity.patient_name.startswith("D-")


class TestPseudonyms:
    def test_the_same_original_gives_the_same_bytes_and_another_site_others(self, tmp_path: Path) -> None:
        path = marked.write(marked.image(), tmp_path / "a")
        first, _ = marked.copy_of(path, tmp_path / "1")
        again, _ = marked.copy_of(path, tmp_path / "2")
        other, _ = marked.copy_of(path, tmp_path / "3", key="7b" * 32)
        assert first == again
        assert first.sha256 != other.sha256
        assert first.header is not None
        assert other.header is not None
        assert not {first.header.sop_instance_uid, first.header.identity.patient_id} & {
            other.header.sop_instance_uid,
            other.header.identity.patient_id,
        }

    @pytest.mark.parametrize(
        ("said", "groups"),
        [
            (
                {"PatientSex": "f", "PatientAge": "006M", "ViewPosition": "PA"},
                {"sex": "F", "age": "0-17", "view": "PA"},
            ),
            ({"PatientAge": "", "StudyDate": f"{int(marked.DAY[:4]) + 40}{marked.DAY[4:]}04"}, {"age": "18-39"}),
            ({"PatientAge": "old", "StudyDate": f"{int(marked.DAY[:4]) + 40}{marked.DAY[4:]}05"}, {"age": "40-64"}),
            ({"PatientBirthDate": "18000101"}, {}),
            ({"PatientBirthDate": "", "PatientSex": marked.MARK}, {}),
            ({"ManufacturerModelName": marked.MARK, "ViewPosition": marked.MARK}, {"age": "0-17"}),
        ],
    )
    def test_groups_are_coarse_and_name_nobody(
        self, tmp_path: Path, said: dict[str, str], groups: dict[str, str]
    ) -> None:
        assert copied(marked.image(**said), tmp_path)[0].groups == groups

    def test_references_between_files_hold(self, tmp_path: Path) -> None:
        image = made(marked.image(), tmp_path)
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = (
            UID("1.2.840.10008.5.1.4.1.1.2"),
            f"{marked.ROOT}.1",
        )
        second = marked.image(SOPInstanceUID=f"{marked.ROOT}.9", SourceImageSequence=Sequence([reference]))
        (tmp_path / "second").mkdir()
        copy = made(second, tmp_path / "second")
        assert copy.StudyInstanceUID == image.StudyInstanceUID
        assert copy.SourceImageSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID
        assert copy.SourceImageSequence[0].ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
        assert copy.SOPInstanceUID != image.SOPInstanceUID
        assert all(len(uid) <= 64 and UID(uid).is_valid for uid in (copy.StudyInstanceUID, copy.SOPInstanceUID))

    def test_intervals_of_a_patient_stay_and_patients_differ(self, tmp_path: Path) -> None:
        def dates(folder: str, **more: object) -> tuple[datetime.date, str]:
            (tmp_path / folder).mkdir()
            copy = made(marked.image(**more), tmp_path / folder)
            return datetime.datetime.strptime(copy.StudyDate, "%Y%m%d").date(), copy.AcquisitionDateTime

        first, moment = dates("a", StudyDate="20170306", AcquisitionDateTime="20170307101112.5+0100")
        second, _ = dates(
            "b", StudyDate="20170320", AcquisitionDateTime="20170320", StudyInstanceUID=f"{marked.ROOT}.8"
        )
        other, _ = dates("c", StudyDate="20170306", AcquisitionDateTime="2017", PatientID="somebody else")
        assert second - first == datetime.timedelta(days=14)
        assert datetime.date(2017, 3, 6) - first >= datetime.timedelta(days=366)
        assert moment == f"{first + datetime.timedelta(days=1):%Y%m%d}101112.5+0100"
        assert other != first


class TestRefused:
    @pytest.mark.parametrize(
        "name", ["test-SR.dcm", "reportsi.dcm", "rtplan.dcm", "waveform_ecg.dcm", "liver_1frame.dcm", "rtdose.dcm"]
    )
    def test_what_is_no_image(self, tmp_path: Path, name: str) -> None:
        said, copy = marked.copy_of(Path(str(get_testdata_file(name))), tmp_path / "out")
        assert said.problem is not None
        assert said.problem.code == "not_an_image"
        assert not copy.exists()

    @pytest.mark.parametrize(
        "sop_class",
        [
            "1.2.840.10008.5.1.4.1.1.104.1",
            "1.2.840.10008.5.1.4.1.1.11.1",
            "1.2.840.10008.5.1.4.1.1.77.1.1.1",
            "1.3.6.1.4.1.9590.1",
            "",
        ],
    )
    def test_documents_videos_and_private_classes_although_they_have_pixels(
        self, tmp_path: Path, sop_class: str
    ) -> None:
        original = marked.image(SOPClassUID=sop_class)
        original.file_meta.MediaStorageSOPClassUID = sop_class or "1.2.3"
        said, copy = copied(original, tmp_path)
        assert said.problem is not None
        assert said.problem.code == "not_an_image"
        assert not copy.exists()

    def test_nesting_without_end(self, tmp_path: Path) -> None:
        dataset = Dataset()
        for _ in range(40):
            outer = Dataset()
            outer.AnatomicRegionModifierSequence = Sequence([dataset])
            dataset = outer
        said, copy = copied(marked.image(AnatomicRegionSequence=Sequence([dataset])), tmp_path)
        assert said.problem is not None
        assert said.problem.code == "nesting"
        assert not copy.exists()

    def test_a_bomb(self, tmp_path: Path) -> None:
        original = marked.image()
        original.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        path = marked.write(original, tmp_path / "a")
        content = path.read_bytes()
        plain = zlib.decompressobj(-zlib.MAX_WBITS)
        start = next(i for i in range(132, len(content)) if inflates(content[i:]))
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        bomb = packer.compress(plain.decompress(content[start:]) + bytes(1 << 22)) + packer.flush()
        path.write_bytes(content[:start] + bomb)
        said, copy = marked.copy_of(path, tmp_path / "out", max_file_bytes=1 << 20)
        assert said.problem is not None
        assert said.problem.code == "deflate_bomb"
        assert not copy.exists()

    def test_a_broken_stream_and_an_overlay_in_compressed_pixels(self, tmp_path: Path) -> None:
        said, _ = copied(compressed([b"\xff\xd8\xff\xfe\x00\x40" + b"cut"], JPEGBaseline8Bit), tmp_path)
        assert said.problem is not None
        assert said.problem.code == "compressed_pixels"
        boxed = b"\0\0\0\x0cjP  \r\n\x87\n" + marked.MARK.encode()
        said, _ = copied(compressed([boxed], JPEG2000Lossless), tmp_path)
        assert said.problem is not None
        assert said.problem.code == "compressed_pixels"

    def test_a_file_that_is_not_what_was_hashed(self, tmp_path: Path) -> None:
        path = marked.write(marked.image(), tmp_path / "a")
        said, copy = marked.copy_of(path, tmp_path / "out")
        assert said.sha256 is not None
        path.write_bytes(b"\0" * 128 + b"DICM")
        again, _ = marked.copy_of(path, tmp_path / "out")
        assert again.problem is not None
        assert copy.exists()

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_damage_anywhere_gives_a_clean_copy_or_none(self, tmp_path: Path, data: st.DataObject) -> None:
        content = bytearray(
            marked.write(marked.image(StudyDescription=f"{marked.MARK} thorax"), tmp_path / "a").read_bytes()
        )
        for _ in range(data.draw(st.integers(0, 4))):
            content[data.draw(st.integers(132, len(content) - 1))] = data.draw(st.integers(0, 255))
        path = tmp_path / "b"
        path.write_bytes(content[: data.draw(st.integers(200, len(content)))])
        said, copy = marked.copy_of(path, tmp_path / "out")
        assert (said.problem is None) == copy.exists()
        if said.problem is None:
            assert marked.MARK.lower().encode() not in copy.read_bytes().lower()
            copy.unlink()


def inflates(content: bytes) -> bool:
    try:
        return b"CT" in zlib.decompressobj(-zlib.MAX_WBITS).decompress(content)
    except zlib.error:
        return False


@pytest.mark.parametrize(
    ("more", "codes"),
    [
        ({}, []),
        ({"BurnedInAnnotation": "YES"}, ["burned_in"]),
        ({"Modality": "US"}, ["burned_in_possible"]),
        ({"Modality": "US", "BurnedInAnnotation": "NO"}, ["burned_in_possible"]),
        ({"Modality": "XA"}, ["burned_in_possible"]),
        ({"Modality": "RF"}, ["burned_in_possible"]),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, ["burned_in_possible"]),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, ["burned_in_possible"]),
        ({"SequenceOfUltrasoundRegions": Sequence([Dataset()])}, ["burned_in_possible"]),
        ({"RecognizableVisualFeatures": "YES"}, ["recognisable"]),
        ({"BodyPartExamined": "HEAD"}, ["face_possible"]),
        ({"BurnedInAnnotation": "yes ", "BodyPartExamined": "BRAIN"}, ["burned_in", "face_possible"]),
    ],
)
def test_flags(tmp_path: Path, more: dict[str, object], codes: list[str]) -> None:
    said, _ = copied(marked.image(**more), tmp_path)
    assert said.problem is None
    assert [flag.code for flag in said.flags] == codes
    assert all(flag.sentence.endswith(".") for flag in said.flags)
