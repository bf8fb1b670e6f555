"""Folders of volumes: what is read of them, what is wrong with them, and the copies that a dataset holds."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.contract import ConditionInfo
from clinic_ai.errors import DatasetError, InputError
from clinic_ai.training.volume_folder import read_volumes
from clinic_ai.workers.confidentiality.volumes import deidentify_nifti, deidentify_npz, deidentify_report

CONDITIONS = (
    ConditionInfo(code="pleural_effusion", label="Pleural effusion"),
    ConditionInfo(code="lung_mass", label="Lung mass", also=("Mass",)),
)
LIMIT = 1 << 20


def nifti(voxels: bytes = bytes(range(8)), *, order: str = "<", extension: bytes = b"") -> bytes:
    """A NIfTI-1 file of 2 x 2 x 2 voxels of 8 bits that names a patient wherever it can."""
    header = bytearray(348)
    struct.pack_into(f"{order}i", header, 0, 348)
    header[14:32] = b"Erika Mustermann\0\0"
    struct.pack_into(f"{order}8h", header, 40, 3, 2, 2, 2, 1, 1, 1, 1)
    struct.pack_into(f"{order}2h", header, 70, 2, 8)
    struct.pack_into(f"{order}f", header, 108, 352.0 + len(extension))
    header[148:164] = b"Mustermann Erika"
    header[344:348] = b"n+1\0"
    return bytes(header) + (b"\1\0\0\0" if extension else bytes(4)) + extension + voxels


def folder(directory: Path, sheet: str = "volume,Pleural effusion,mass\nA_1.nii.gz,1,0\nB.npz,0,\n") -> Path:
    for name in ("volumes", "lesion_masks/pleural_effusion", "reports"):
        (directory / name).mkdir(parents=True)
    (directory / "volumes/A_1.nii.gz").write_bytes(gzip.compress(nifti()))
    (directory / "volumes/A_1.npz").write_bytes(b"PK")
    (directory / "volumes/B.npz").write_bytes(b"PK")
    (directory / "volumes/train_7_a_2.nii").write_bytes(nifti())
    (directory / "lesion_masks/pleural_effusion/A_1_pleural_effusion_mask.nii.gz").write_bytes(b"")
    (directory / "reports/B.json").write_text("{}")
    (directory / "labels.csv").write_text(sheet)
    return directory


class TestFolder:
    def test_volumes_come_with_labels_masks_regions_and_reports(self, tmp_path: Path) -> None:
        reading = read_volumes(folder(tmp_path), CONDITIONS)
        assert not reading.problems
        found = {image.name: image for image in reading.images}
        first, second, third = (found[f"volumes/{name}"] for name in ("A_1.nii.gz", "B.npz", "train_7_a_2.nii"))
        assert first.labels == {"pleural_effusion": 1, "lung_mass": 0}
        assert [(b.role, b.condition, b.kind) for b in first.beside] == [
            ("regions", "", "npz"),
            ("mask", "pleural_effusion", "nifti"),
        ]
        assert (second.kind, second.labels, [b.role for b in second.beside]) == (
            "npz",
            {"pleural_effusion": 0},
            ["report"],
        )
        assert (third.kind, third.patient_id, third.labels) == ("nifti", "train_7", {})
        assert reading.notes == ["1 volume has neither labels nor anything else beside it."]

    def test_the_sheet_may_name_the_patients(self, tmp_path: Path) -> None:
        sheet = "volume,patient_id,pleural_effusion\nA_1,P-7,1\nB,P-7,0\n"
        reading = read_volumes(folder(tmp_path, sheet), CONDITIONS)
        assert [image.patient_id for image in reading.images] == ["P-7", "P-7", "train_7"]

    @pytest.mark.parametrize(
        ("sheet", "said"),
        [
            ("volume,Weather\nA_1,1\n", "labels.csv has no column of a condition"),
            ("volume,Mass,lung_mass\nA_1,1,1\n", "labels.csv has two columns of lung_mass."),
            ("volume,Mass\nA_1,maybe\n", "Line 2 of labels.csv (A_1) has 'maybe' for lung_mass"),
            ("volume,Mass\nA_1,1,1\n", "Line 2 of labels.csv has not as many cells"),
            ("volume,Mass\nA_1,1\nA_1.nii.gz,0\n", "Line 3 of labels.csv is a second line of A_1"),
            ("", "labels.csv has no column of a condition"),
        ],
    )
    def test_what_is_wrong_with_the_sheet_is_said(self, tmp_path: Path, sheet: str, said: str) -> None:
        reading = read_volumes(folder(tmp_path, sheet), CONDITIONS)
        assert any(problem.startswith(said) for problem in reading.problems), reading.problems

    def test_what_belongs_to_no_volume_is_noted(self, tmp_path: Path) -> None:
        directory = folder(tmp_path, "volume,Mass,Weather\nA_1,1,1\nZ,0,0\n")
        (directory / "reports/Y.json").write_text("{}")
        (directory / "lesion_masks/weather").mkdir()
        reading = read_volumes(directory, CONDITIONS)
        assert reading.problems == ["The folder lesion_masks/weather is no condition of this plugin."]
        assert "1 line names a volume that is not there: Z." in reading.notes
        assert "1 mask or report is of a volume that is not there: Y." in reading.notes
        assert "Columns of no condition of this plugin are passed over: Weather." in reading.notes

    def test_a_folder_without_volumes_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="holds no folder volumes"):
            read_volumes(tmp_path, CONDITIONS)


class TestCopies:
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("packed", [True, False])
    def test_of_nifti_numbers_and_voxels_are_left(self, tmp_path: Path, order: str, packed: bool) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        extension = struct.pack(f"{order}2i", 32, 2) + b"Mustermann^Erika".ljust(24)
        content = nifti(order=order, extension=extension) + b"Mustermann"
        source.write_bytes(gzip.compress(content) if packed else content)
        deidentify_nifti(source, target, LIMIT)
        copy = gzip.decompress(target.read_bytes())
        assert b"Muster" not in copy
        assert copy[-8:] == bytes(range(8))
        assert len(copy) == 352 + 8
        assert struct.unpack_from(f"{order}f", copy, 108) == (352.0,)
        assert struct.unpack_from(f"{order}4h", copy, 40) == (3, 2, 2, 2)

    @given(cut=st.integers(0, 359), noise=st.binary(max_size=8), at=st.integers(0, 351))
    def test_damaged_nifti_is_refused_or_copied_whole(self, tmp_path_factory, cut: int, noise: bytes, at: int) -> None:
        place = tmp_path_factory.mktemp("damaged")
        content = bytearray(nifti())
        content[at : at + len(noise)] = noise
        (place / "source").write_bytes(bytes(content[:cut]))
        try:
            deidentify_nifti(place / "source", place / "target", LIMIT)
        except InputError:
            return
        assert len(gzip.decompress((place / "target").read_bytes())) <= cut

    def test_a_bomb_is_not_unpacked(self, tmp_path: Path) -> None:
        content = bytearray(nifti())
        struct.pack_into("<8h", content, 40, 3, 2000, 2000, 2000, 1, 1, 1, 1)
        (tmp_path / "source").write_bytes(gzip.compress(bytes(content) + bytes(LIMIT)))
        with pytest.raises(InputError, match="larger than"):
            deidentify_nifti(tmp_path / "source", tmp_path / "target", LIMIT)
        assert not (tmp_path / "target").exists()

    def test_of_npz_the_arrays_are_left(self, tmp_path: Path) -> None:
        source, target = tmp_path / "source.npz", tmp_path / "target"
        images = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
        np.savez_compressed(source, imgs=images, spacing=np.ones(3), patient=np.array("Erika Mustermann"))
        deidentify_npz(source, target, LIMIT)
        assert b"Erika" not in target.read_bytes()
        with np.load(target) as kept:
            assert sorted(kept) == ["imgs", "spacing"]
            assert (kept["imgs"] == images).all()
        first = target.read_bytes()
        deidentify_npz(source, target, LIMIT)
        assert target.read_bytes() == first

    def test_an_npz_of_objects_or_of_too_much_is_refused(self, tmp_path: Path) -> None:
        source = tmp_path / "source.npz"
        np.savez(source, imgs=np.array([{}]), spacing=np.ones(3))
        with pytest.raises(InputError, match="NPZ"):
            deidentify_npz(source, tmp_path / "target", LIMIT)
        np.savez_compressed(source, imgs=np.zeros(LIMIT + 1, dtype=np.uint8), spacing=np.ones(3))
        with pytest.raises(InputError, match="larger"):
            deidentify_npz(source, tmp_path / "target", LIMIT)

    def test_of_a_report_its_words_are_left(self, tmp_path: Path) -> None:
        source, target = tmp_path / "source.json", tmp_path / "target"
        document = {"volume_id": "mustermann_1", "report_text": "No effusion.", "metadata": {"physician": "Dr. Ada"}}
        source.write_text(json.dumps(document))
        deidentify_report(source, target)
        assert json.loads(target.read_text()) == {"volume_id": "volume", "report_text": "No effusion."}
        source.write_text("[")
        with pytest.raises(InputError, match="JSON"):
            deidentify_report(source, target)
