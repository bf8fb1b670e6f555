"""Masks as DICOM Segmentation objects, and files of masks that are not what they should be."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from outlined import (
    CT_MODEL,
    all_released,
    ball,
    ct_object,
    ct_slices,
    found,
    outlines,
    segmentation,
    thorax,
)
from pydicom.dataset import Dataset
from rendering import assert_valid_dicom, names, read_strictly, verdict

from clinic_ai.domain import Mask, Presence
from clinic_ai.domain.reviews import Correction, SignOff
from clinic_ai.ml.segmentations import write_masks
from clinic_ai.tasks import RenderImage, RenderResult, StoredSegmentation

SHAPE = (6, 24, 30)
NODULE = ball(SHAPE, (0.5, 0.5, 0.3), 6)
EFFUSION = ball(SHAPE, (0.2, 0.7, 0.72), 9)
LUNG = ball(SHAPE, (0.5, 0.5, 0.3), 14)
MASKS = {"lung_nodule": NODULE, "pleural_effusion": EFFUSION, "right_lung": LUNG}
Render = Callable[..., RenderResult]


@pytest.fixture
def images(tmp_path: Path) -> tuple[RenderImage, ...]:
    return ct_slices(tmp_path, thorax(*SHAPE))


@pytest.fixture
def stored(tmp_path: Path, images: tuple[RenderImage, ...]) -> StoredSegmentation:
    return segmentation(tmp_path, images, MASKS, anatomy=["right_lung"])


def rendered(render: Render, images: tuple[RenderImage, ...], stored: StoredSegmentation, **changes: object):
    findings = (found(images[3], "lung_nodule"), found(images[1], "pleural_effusion"))
    values = {"verdict": all_released(findings), "models": (CT_MODEL,), "outlines": outlines(2, stored)}
    return render(*images, **({"findings": findings} | values | changes))


def by_label(directory: Path, name: str = "segmentation.seg.dcm") -> dict[str, np.ndarray]:
    """Return each segment of an object by its label, bool (slice, row, column), as highdicom reads it."""
    made = hd.seg.segread(directory / name)
    sources = [str(uid) for _, _, uid in made.get_source_image_uids()]
    in_order = sorted(sources, key=lambda uid: int(uid.rsplit(".", 1)[1]))
    pixels = made.get_pixels_by_source_instance(in_order, ignore_spatial_locations=True)
    result = {}
    for number in made.segment_numbers:
        whole = np.zeros(SHAPE, bool)
        for at, uid in enumerate(in_order):
            whole[int(uid.rsplit(".", 1)[1]) - 1] = pixels[at, :, :, number - 1]
        result[made.get_segment_description(number).segment_label] = whole
    return result


def where(groups: Dataset) -> tuple[int, int]:
    """Return the number of the segment, from 1, and the slice, from 0, that a frame says it is of."""
    z = float(groups.PlanePositionSequence[0].ImagePositionPatient[2])
    return groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber, round((z + 100) / 2.5)


def test_masks_come_back_voxel_for_voxel(
    render: Render, directory: Path, images: tuple[RenderImage, ...], stored: StoredSegmentation
) -> None:
    result = rendered(render, images, stored)

    assert "segmentation.seg.dcm" in names(result)
    read = by_label(directory)
    assert list(read) == ["Lung nodule", "Pleural effusion", "Right lung"]
    for mask, label in zip(MASKS.values(), read, strict=True):
        assert np.array_equal(read[label], mask), label
    made = pydicom.dcmread(directory / "segmentation.seg.dcm")
    frames = made.pixel_array  # pydicom, frame by frame, with where each lies as the object says it
    for frame, groups in zip(frames, made.PerFrameFunctionalGroupsSequence, strict=True):
        number, place = where(groups)
        assert np.array_equal(frame, list(MASKS.values())[number - 1][place])
    read_strictly(directory / "segmentation.seg.dcm")
    assert_valid_dicom(directory / "segmentation.seg.dcm")


def test_dcmtk_reads_the_same_voxels(
    render: Render, directory: Path, images: tuple[RenderImage, ...], stored: StoredSegmentation
) -> None:
    if shutil.which("dcmdump") is None:
        pytest.skip("dcmdump is not installed (Debian: dcmtk)")
    rendered(render, images, stored)

    path = directory / "segmentation.seg.dcm"
    subprocess.run(["dcmdump", "+W", str(directory), str(path)], capture_output=True, check=True)
    (raw,) = directory.glob("*.raw")
    size = SHAPE[1] * SHAPE[2]
    bits = np.unpackbits(np.frombuffer(raw.read_bytes(), np.uint8), bitorder="little")
    made = pydicom.dcmread(path, stop_before_pixels=True)
    expected = [
        list(MASKS.values())[number - 1][place] for number, place in map(where, made.PerFrameFunctionalGroupsSequence)
    ]
    assert len(expected) == sum(mask.any(axis=(1, 2)).sum() for mask in MASKS.values())
    assert np.array_equal(bits[: len(expected) * size].reshape(-1, *SHAPE[1:]), np.array(expected))


def test_it_says_what_it_is(
    render: Render, directory: Path, images: tuple[RenderImage, ...], stored: StoredSegmentation
) -> None:
    rendered(render, images, stored)

    made = pydicom.dcmread(directory / "segmentation.seg.dcm")
    assert made.PatientID == "P-1"
    assert made.SeriesDescription == "AI segmentation, not for diagnosis"
    assert "not for diagnosis" in made.ContentDescription
    assert "Preliminary" in made.ImageComments
    nodule, effusion, lung = made.SegmentSequence
    assert nodule.SegmentedPropertyTypeCodeSequence[0].CodeValue == "786838002"
    assert effusion.SegmentAlgorithmType == "AUTOMATIC"
    assert "ct/reference/1.0" in effusion.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName
    kind = lung.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning) == ("39607008", "Right")
    assert "UNGUARDED" not in str(made)
    references = made.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert {r.ReferencedSOPInstanceUID for r in references} <= {i.header.sop_instance_uid for i in images}


def test_made_again_it_is_the_same(
    render: Render, directory: Path, images: tuple[RenderImage, ...], stored: StoredSegmentation
) -> None:
    rendered(render, images, stored)
    first = (directory / "segmentation.seg.dcm").read_bytes()
    rendered(render, images, stored)
    assert (directory / "segmentation.seg.dcm").read_bytes() == first


def test_a_stack_in_one_object(render: Render, directory: Path, tmp_path: Path) -> None:
    image = ct_object(tmp_path, thorax(*SHAPE))
    some = segmentation(tmp_path, [image], {"lung_nodule": NODULE})
    # The masks need not cover all frames.
    inner = some.segmentation.model_copy(update={"slices": some.segmentation.slices[2:5]})
    write_masks(Path(some.path), NODULE[np.newaxis, 2:5])
    findings = (found(image, "lung_nodule"),)
    render(
        image,
        findings=findings,
        verdict=all_released(findings),
        outlines=outlines(1, some.model_copy(update={"segmentation": inner})),
    )

    made = hd.seg.segread(directory / "segmentation.seg.dcm")
    read = made.get_pixels_by_source_frame(image.header.sop_instance_uid, [3, 4, 5], ignore_spatial_locations=True)
    assert np.array_equal(read[..., 0], NODULE[2:5])
    assert_valid_dicom(directory / "segmentation.seg.dcm")


# ---------------------------------------------------------------- what may be seen


def test_only_released_findings_are_outlined(
    render: Render, directory: Path, images: tuple[RenderImage, ...], stored: StoredSegmentation
) -> None:
    rendered(render, images, stored, verdict=verdict(("f_2", "An effusion.")))
    assert list(by_label(directory)) == ["Pleural effusion", "Right lung"]


def test_a_mask_of_what_is_called_absent_is_told_of(
    render: Render, directory: Path, images: tuple[RenderImage, ...], stored: StoredSegmentation
) -> None:
    findings = (found(images[3], "lung_nodule", Presence.ABSENT), found(images[1], "pleural_effusion"))
    masks = (Mask(name="lung_nodule"), Mask(name="pleural_effusion"))
    result = rendered(render, images, stored, findings=findings, outlines=outlines(2, stored, masks))
    assert list(by_label(directory)) == ["Pleural effusion", "Right lung"]
    assert result.omissions == ("The mask of lung nodule is not delivered: the finding is called absent.",)


def test_anatomy_alone_is_not_delivered(
    render: Render, images: tuple[RenderImage, ...], stored: StoredSegmentation
) -> None:
    result = rendered(render, images, stored, verdict=verdict(("m_1", "A remark.")))
    assert not any(name.endswith(".seg.dcm") for name in names(result))
    assert result.omissions == ()


def test_nobody_but_clinicians_gets_outlines(
    render: Render, images: tuple[RenderImage, ...], stored: StoredSegmentation
) -> None:
    words = (("f_1", "A computer has looked."), ("f_2", "A computer has looked."))
    result = rendered(render, images, stored, verdict=verdict(*words, audience="patient"))
    assert not any(name.endswith(".seg.dcm") for name in names(result))


def test_what_the_signer_calls_absent_is_not_outlined(
    render: Render, directory: Path, images: tuple[RenderImage, ...], stored: StoredSegmentation
) -> None:
    sign = SignOff(
        review_id="V-1",
        name="Dr Example",
        at=1_700_000_100.0,
        revision=1,
        amended=True,
        corrections=(Correction(condition="lung_nodule", presence=Presence.ABSENT),),
    )
    rendered(render, images, stored, sign_off=sign)
    assert list(by_label(directory)) == ["Pleural effusion", "Right lung"]
    made = pydicom.dcmread(directory / "segmentation.seg.dcm")
    assert (made.SeriesNumber, made.ImageComments.splitlines()[0][:5]) == (9904, "Final")


# ---------------------------------------------------------------- files that are not what they should be


def _bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("masks.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": (3, 6, 24, 4)})
        for _ in range(64):
            member.write(bytes(1 << 20))


def _many_members(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(5000):
            archive.writestr(f"{number}.npy", b"")


def _pickle(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, masks=np.array([{"a": 1}], dtype=object))


def _shape(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, masks=np.zeros((3, 6, 25, 4), np.uint8))


def _order(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, masks=np.asfortranarray(np.zeros((3, 6, 24, 4), np.uint8)))


def _other_array(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, other=np.zeros((3, 6, 24, 4), np.uint8))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def _damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[90:110] = bytes(20)
    path.write_bytes(data)


def _lying_directory(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-22:] = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 0x7FFFFFFF, 0, 0)
    path.write_bytes(data)


def _lzma(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("masks.npy", b"\x93NUMPY\x01\x00")


def _gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    "spoil",
    [
        _bomb, _many_members, _pickle, _shape, _order, _other_array, _cut, _damaged, _lying_directory, _lzma, _gone,
    ],
)  # fmt: skip
def test_a_bad_file_of_masks_costs_only_the_masks(
    spoil: Callable[[Path], None],
    render: Render,
    images: tuple[RenderImage, ...],
    stored: StoredSegmentation,
) -> None:
    spoil(Path(stored.path))

    result = rendered(render, images, stored)

    assert {"report.pdf", "report.sr.dcm"} <= set(names(result))
    assert not any(name.endswith(".seg.dcm") for name in names(result))
    (omission,) = result.omissions
    assert re.match(r"Masks of ct are not delivered: The (file|array) of masks", omission)


def test_masks_of_another_size_than_the_images(render: Render, images: tuple[RenderImage, ...], tmp_path: Path) -> None:
    small = segmentation(tmp_path, images, {"lung_nodule": NODULE[:, :20]})
    result = rendered(render, images, small)
    assert "report.pdf" in names(result)
    assert any("another size" in omission for omission in result.omissions)


def test_after_a_death_no_masks_are_read_again(
    render: Render, images: tuple[RenderImage, ...], stored: StoredSegmentation
) -> None:
    result = rendered(render, images, stored, decode=False)
    assert "report.pdf" in names(result)
    assert any("Masks are not delivered" in omission for omission in result.omissions)
