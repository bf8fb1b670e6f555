"""Files of training sets: read for what they are, refused in words, and never a pickle."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clinic_ai.errors import DatasetError
from clinic_ai_ct.collection import load, report_text, samples_of
from clinic_ai_ct.formats import (
    Npz,
    Sheet,
    read_mask,
    read_nifti,
    read_npz,
    read_reasoning,
    read_report,
    read_sheet,
    volume_name,
    write_labels,
    write_nifti,
    write_npz,
)
from clinic_ai_ct.volume import Grid

SOUND = {
    "imgs": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "gts": np.ones((2, 3, 4), dtype=np.uint8),
    "spacing": np.array([2.0, 0.7, 0.7], dtype=np.float32),
}
GRID = Grid((4, 5, 6), (2.5, 0.75, 0.5), (-10.0, 4.0, 33.0))
HU = np.random.default_rng(0).integers(-1024, 3000, GRID.shape).astype(np.int16)


# ---------------------------------------------------------------- NPZ


def test_npz_comes_back(tmp_path):
    write_npz(tmp_path / "a.npz", Npz(SOUND["imgs"], SOUND["gts"], (2.0, 0.5, 0.75)))
    back = read_npz(tmp_path / "a.npz")
    assert np.array_equal(back.images, SOUND["imgs"])
    assert np.array_equal(back.regions, SOUND["gts"])
    assert back.spacing == (2.0, 0.5, 0.75)


def test_regions_may_be_missing_and_of_another_type(tmp_path):
    np.savez(tmp_path / "a.npz", imgs=SOUND["imgs"], spacing=SOUND["spacing"])
    assert not read_npz(tmp_path / "a.npz").regions.any()
    np.savez(tmp_path / "b.npz", **SOUND | {"gts": SOUND["gts"].astype(np.int64) * 20})
    assert (read_npz(tmp_path / "b.npz").regions == 20).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"imgs": SOUND["imgs"].astype(np.float32)}, "no array imgs of 8-bit"),
        ({"imgs": SOUND["imgs"][0]}, "no array imgs of 8-bit"),
        ({"gts": SOUND["gts"][:1]}, "does not hold a label for each voxel"),
        ({"gts": SOUND["gts"].astype(np.float32)}, "does not hold a label for each voxel"),
        ({"gts": SOUND["gts"].astype(np.int32) * 300}, "does not hold a label for each voxel"),
        ({"gts": SOUND["gts"].astype(np.int32) * -1}, "does not hold a label for each voxel"),
        ({"spacing": np.array([2.0, 0.7])}, "spacing is no"),
        ({"spacing": np.array([2.0, 0.7, 0.0])}, "spacing is no"),
        ({"spacing": np.array([2.0, np.nan, 0.7])}, "spacing is no"),
        ({"spacing": np.array(["a", "b", "c"])}, "spacing is no"),
        ({"imgs": np.array([{"a": 1}, None], dtype=object)}, "no NPZ file of plain arrays"),
    ],
)
def test_other_arrays_are_refused(tmp_path, changes, words):
    np.savez(tmp_path / "a.npz", **SOUND | changes)
    with pytest.raises(DatasetError, match=words) as refused:
        read_npz(tmp_path / "a.npz")
    assert refused.value.message.startswith(("a.npz", "The array gts of a.npz"))


def test_a_volume_that_would_not_fit_is_refused_by_its_header(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", **SOUND | {"imgs": np.zeros((30, 40, 50), dtype=np.uint8)})
    monkeypatch.setattr("clinic_ai_ct.formats.MAX_VOXELS", 59_999)
    with pytest.raises(DatasetError, match="larger than the 59999 voxels"):
        read_npz(tmp_path / "a.npz")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 700), byte=st.integers(0, 255), cut=st.integers(0, 800))
def test_damaged_npz_is_refused_or_read(tmp_path, at, byte, cut):
    np.savez(tmp_path / "a.npz", **SOUND)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[at % len(content)] = byte
    (tmp_path / "a.npz").write_bytes(content[: len(content) - cut % 600])
    try:
        back = read_npz(tmp_path / "a.npz")
    except DatasetError:
        return
    assert back.images.shape == back.regions.shape


# ---------------------------------------------------------------- NIfTI


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_comes_back(tmp_path, name):
    write_nifti(tmp_path / name, HU, GRID)
    back = read_nifti(tmp_path / name)
    assert np.array_equal(back.hu, HU)
    assert np.allclose(back.grid.affine(), GRID.affine(), atol=1e-5)
    seen = nibabel.load(tmp_path / name)
    assert seen.shape == (6, 5, 4)
    assert nibabel.aff2axcodes(seen.affine) == ("L", "P", "S")
    left, back_, up = GRID.affine() @ (1, 2, 3, 1) @ np.eye(4)[:, :3]
    assert np.allclose(seen.affine @ (3, 2, 1, 1), (-left, -back_, up, 1)), "NIfTI counts to the right and the front"


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "SPL", "ASR", "IRP"])
def test_any_orientation_is_turned_to_lps(tmp_path, codes):
    write_nifti(tmp_path / "a.nii", HU, GRID)
    image = nibabel.load(tmp_path / "a.nii")
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(tuple(codes))
    )
    nibabel.save(image.as_reoriented(turn), tmp_path / "b.nii")
    assert nibabel.aff2axcodes(nibabel.load(tmp_path / "b.nii").affine) == tuple(codes)
    back = read_nifti(tmp_path / "b.nii")
    assert np.array_equal(back.hu, HU)
    assert np.allclose(back.grid.affine(), GRID.affine(), atol=1e-4)
    assert np.array_equal(read_mask(tmp_path / "b.nii", GRID), HU > 0)


def test_scaled_values_and_values_that_are_none(tmp_path):
    image = nibabel.Nifti1Image(np.array([[[-1.4, 70000.0, 2.6]]], dtype=np.float32), np.eye(4))
    nibabel.save(image, tmp_path / "a.nii")
    assert read_nifti(tmp_path / "a.nii").hu.ravel().tolist() == [-1, 32767, 3]
    nibabel.save(nibabel.Nifti1Image(np.full((2, 2, 2), np.nan, dtype=np.float32), np.eye(4)), tmp_path / "b.nii")
    with pytest.raises(DatasetError, match=r"b\.nii holds values that are no numbers"):
        read_nifti(tmp_path / "b.nii")


def test_a_mask_stored_as_slices_rows_columns(tmp_path):
    """As some public masks are, under an affine that only names the spacings."""
    mask = HU > 500
    affine = np.diag((*GRID.spacing, 1.0))
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), affine), tmp_path / "a.nii.gz")
    assert np.array_equal(read_mask(tmp_path / "a.nii.gz", GRID), mask)
    with pytest.raises(DatasetError, match=r"has 6 × 5 × 4 voxels and its volume 4 × 5 × 7"):
        read_mask(tmp_path / "a.nii.gz", Grid((4, 5, 7), GRID.spacing))


def test_what_is_no_volume(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2, 2), dtype=np.int16), np.eye(4)), tmp_path / "four.nii")
    with pytest.raises(DatasetError, match="no volume of three dimensions"):
        read_nifti(tmp_path / "four.nii")
    (tmp_path / "text.nii").write_text("this is no image")
    with pytest.raises(DatasetError, match="cannot be read as NIfTI"):
        read_nifti(tmp_path / "text.nii")
    write_nifti(tmp_path / "cut.nii", HU, GRID)
    (tmp_path / "cut.nii").write_bytes((tmp_path / "cut.nii").read_bytes()[:-20])
    with pytest.raises(DatasetError, match="cut short or damaged"):
        read_nifti(tmp_path / "cut.nii")


@pytest.mark.parametrize("kind", ["colours", "colours and alpha", "complex"])
def test_what_holds_no_number_for_each_voxel(tmp_path, kind):
    names = "RGBA" if "alpha" in kind else "RGB"
    dtype = np.complex64 if kind == "complex" else np.dtype([(name, np.uint8) for name in names])
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 3, 2), dtype=dtype), np.eye(4), dtype=dtype), tmp_path / "a.nii")
    with pytest.raises(DatasetError, match="colours or complex values"):
        read_nifti(tmp_path / "a.nii")
    with pytest.raises(DatasetError, match="colours or complex values"):
        read_mask(tmp_path / "a.nii", Grid((2, 3, 4), (1.0, 1.0, 1.0)))


def test_one_moment_of_time_is_a_volume(tmp_path):
    write_nifti(tmp_path / "three.nii", HU, GRID)
    three = nibabel.load(tmp_path / "three.nii")
    four = nibabel.Nifti1Image(np.asarray(three.dataobj)[..., np.newaxis], three.affine)
    nibabel.save(four, tmp_path / "four.nii")
    assert np.array_equal(read_nifti(tmp_path / "four.nii").hu, read_nifti(tmp_path / "three.nii").hu)
    assert read_mask(tmp_path / "four.nii", GRID).shape == GRID.shape
    (tmp_path / "four.nii").write_bytes((tmp_path / "four.nii").read_bytes()[:-20])
    with pytest.raises(DatasetError, match="cut short or damaged"):
        read_nifti(tmp_path / "four.nii")


# ---------------------------------------------------------------- labels


def test_labels_come_back(tmp_path):
    labels = {"train_1_a_1": {"Lung nodule": 1, "Mass": 0}, "valid_2_b_1": {"Lung nodule": 0}}
    write_labels(tmp_path / "l.csv", labels)
    assert read_sheet(tmp_path / "l.csv").labels == labels
    assert (tmp_path / "l.csv").read_text().splitlines()[0] == "VolumeName,Lung nodule,Mass"


def test_a_public_sheet(tmp_path):
    (tmp_path / "l.csv").write_text("﻿VolumeName,Emphysema,Mass\ntrain_1_a_1.nii.gz,1.0,-1\n\nx/y.npz,0,\n", "utf-8")
    assert read_sheet(tmp_path / "l.csv").labels == {"train_1_a_1": {"Emphysema": 1}, "y": {"Emphysema": 0}}
    assert volume_name(r"C:\scans\a.b.nii.gz") == "a.b"


def test_a_patient_is_no_label(tmp_path):
    (tmp_path / "l.csv").write_text("V,patient_id,Mass\na,7 b,1\nb.npz,,0\n")
    assert read_sheet(tmp_path / "l.csv") == Sheet({"a": {"Mass": 1}, "b": {"Mass": 0}}, {"a": "7 b"})
    (tmp_path / "l.csv").write_text("V,patient_id,Mass\na,7,1\na,8,1\n")
    with pytest.raises(DatasetError) as refused:
        read_sheet(tmp_path / "l.csv")
    assert refused.value.problems == ("line 3: a second line of its volume, which says something else",)


def test_lines_that_cannot_be_used_are_all_told(tmp_path):
    (tmp_path / "l.csv").write_text("V,Mass\na,yes\nb,1\nb.npz,0\nb,1\nc\n,1\n")
    with pytest.raises(DatasetError, match="4 lines that cannot be used") as refused:
        read_sheet(tmp_path / "l.csv")
    assert [problem.split(":")[0] for problem in refused.value.problems] == ["line 2", "line 4", "line 6", "line 7"]
    (tmp_path / "l.csv").write_text("V,Mass,Mass\na,1,1\n")
    with pytest.raises(DatasetError, match="each once"):
        read_sheet(tmp_path / "l.csv")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | st.text(alphabet='a,01-."\n\r ', max_size=80).map(str.encode))
def test_any_sheet_is_read_or_refused(tmp_path, content):
    (tmp_path / "l.csv").write_bytes(content)
    try:
        found = read_sheet(tmp_path / "l.csv").labels
    except DatasetError:
        return
    assert all(value in (0, 1) for labels in found.values() for value in labels.values())


# ---------------------------------------------------------------- JSON

REPORT = {
    "report_id": "report_001",
    "volume_id": "train_1000_a_1",
    "report_text": "FINDINGS:\n- Right pleural effusion...",
    "findings_list": ["Right pleural effusion present", "Small lung nodule in left upper lobe"],
    "diseases_mentioned": ["pleural_effusion", "lung_nodule"],
    "report_length": 156,
    "sections": {"findings": "f", "impression": "i", "recommendations": "r"},
    "metadata": {"generated_date": "2025-11-29", "reviewer": "template", "quality": "synthetic"},
}
REASONING = {
    "image_id": "case_00001",
    "image_path": "images/case_00001.jpg",
    "findings": [
        {"disease": "lung_nodule", "present": True, "confidence": 0.92, "location": "right upper lobe"},
        {"disease": "pleural_effusion", "present": True, "confidence": 0.87, "location": "bilateral"},
    ],
    "reasoning": "Step 1: Observed round opacity in right upper lobe. Step 2: It is 9 mm. Step 3: No others",
    "summary": "Multiple findings including nodule and effusion",
    "generated_by": "llama-3.1-70b",
    "timestamp": "2025-11-29T10:30:00Z",
}


def test_a_report(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps(REPORT))
    report = read_report(tmp_path / "r.json")
    assert (report.volume_id, report.diseases_mentioned) == ("train_1000_a_1", ("pleural_effusion", "lung_nodule"))
    assert (report.sections.impression, report.metadata["quality"]) == ("i", "synthetic")


def test_a_stepwise_description(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps(REASONING))
    record = read_reasoning(tmp_path / "r.json")
    assert record.steps == ("Observed round opacity in right upper lobe.", "It is 9 mm.", "No others")
    assert [(one.disease, one.confidence, one.location) for one in record.findings][1] == (
        "pleural_effusion",
        0.87,
        "bilateral",
    )
    assert record.model_copy(update={"reasoning": "It is round."}).steps == ("It is round.",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (json.dumps(REPORT | {"volume_id": ""}), "r.json cannot be used: volume_id: "),
        (json.dumps({}), "volume_id: Field required"),
        (json.dumps(REPORT | {"sections": ["Anna Muster"]}), "sections: "),
        ("[1, 2", "cannot be read as JSON"),
        ("[" * 5000, "cannot be read as JSON"),
        ("[]", "the whole: "),
    ],
)
def test_other_json_is_refused_without_its_content(tmp_path, content, words):
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(DatasetError) as refused:
        read_report(tmp_path / "r.json")
    assert words in refused.value.message
    assert "Anna" not in refused.value.message


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*REASONING, "disease", "x"]), inner, max_size=4)
        ),
        max_leaves=8,
    )
)
def test_any_json_is_read_or_refused(tmp_path, value):
    (tmp_path / "r.json").write_text(json.dumps(value))
    try:
        record = read_reasoning(tmp_path / "r.json")
    except DatasetError:
        return
    assert record.image_id


# ---------------------------------------------------------------- a whole folder


@pytest.fixture
def collection(tmp_path):
    """A folder as public sets have it: two volumes, one of them with masks, and sheets."""
    (tmp_path / "medsam").mkdir()
    np.savez(tmp_path / "medsam/train_7_a_1.npz", **SOUND)
    np.savez(tmp_path / "medsam/train_7_b_1.npz", **SOUND)
    (tmp_path / "lesion_masks/lung_nodule").mkdir(parents=True)
    grid = Grid((2, 3, 4), (2.0, 0.7, 0.7))
    write_nifti(tmp_path / "lesion_masks/lung_nodule/train_7_a_1.nii.gz", SOUND["imgs"] > 20, grid)
    write_nifti(tmp_path / "lesion_masks/train_7_a_1_consolidation_mask.nii.gz", SOUND["imgs"] > 22, grid)
    (tmp_path / "train_predicted_labels.csv").write_text(
        "VolumeName,Lung nodule,Ground-glass opacity,Pleural effusion,Hiatal hernia\n"
        "train_7_a_1.nii.gz,1,0,1,0\ntrain_7_b_1,0,,0,1\n"
    )
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/train_7_a_1.txt").write_text("FINDINGS:\n- A nodule.\n")
    (tmp_path / "reports/train_7_b_1.json").write_text(json.dumps(REPORT | {"report_text": "None."}))
    return tmp_path


def test_a_folder_becomes_samples(collection):
    one, other = samples_of(collection)
    assert (one.name, other.name) == ("train_7_a_1", "train_7_b_1")
    assert one.patient == other.patient == "train_7"
    assert one.labels == {
        "lung_nodule": 1,
        "ground_glass_opacity": 0,
        "pleural_effusion": 1,
        "hiatal_hernia": 0,
    }
    assert (report_text(one), report_text(other)) == ("FINDINGS:\n- A nodule.", "None.")


def test_masks_are_there_where_it_is_known_where_lesions_lie(collection):
    one, other = (load(sample) for sample in samples_of(collection))
    assert np.array_equal(one.masks["lung_nodule"], SOUND["imgs"] > 20)
    assert np.array_equal(one.masks["consolidation"], SOUND["imgs"] > 22)
    assert not one.masks["ground_glass_opacity"].any(), "its label says that there is none"
    assert "pleural_effusion" not in one.masks, "there is some, and nobody says where"
    assert set(other.masks) == {"lung_nodule", "pleural_effusion"}
    assert (one.regions == 1).all()
    assert one.volume.grid.spacing == pytest.approx((2.0, 0.7, 0.7))
    assert one.volume.hu[0, 0, 0] == -160
    assert one.volume.remarks


def test_nifti_is_preferred_for_it_holds_hounsfield_units(collection):
    hu = SOUND["imgs"].astype(np.int16) * 50 - 1000
    write_nifti(collection / "train_7_a_1.nii.gz", hu, Grid((2, 3, 4), (2.0, 0.7, 0.7)))
    loaded = load(samples_of(collection)[0])
    assert np.array_equal(loaded.volume.hu, hu)
    assert (loaded.regions == 1).all()
    write_nifti(collection / "train_7_a_1.nii.gz", hu[:1], Grid((1, 3, 4), (2.0, 0.7, 0.7)))
    with pytest.raises(DatasetError, match="different sizes"):
        load(samples_of(collection)[0])


def test_sheets_that_contradict_each_other(collection):
    (collection / "z.csv").write_text("VolumeName,Lung nodule\ntrain_7_a_1,0\n")
    with pytest.raises(DatasetError, match=r"z\.csv has another label of Lung nodule for train_7_a_1"):
        samples_of(collection)
    (collection / "empty").mkdir()
    with pytest.raises(DatasetError, match="The folder empty holds no volume"):
        samples_of(collection / "empty")
