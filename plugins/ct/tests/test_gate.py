"""What is not judged, and what has to be said of what is: each with its code and a sentence."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from ct_studies import header, survey_of, task_of
from pydicom.uid import JPEGExtended12Bit, MRImageStorage

from clinic_ai.contract import VolumeInfo
from clinic_ai.domain import FileKind, PlaneGeometry, StudyFacts
from clinic_ai_ct.admission import admit
from clinic_ai_ct.gate import Candidate, _best_first, limits_by_values, refuse_by_header, refuse_by_values
from clinic_ai_ct.phantoms import Nodule, make
from clinic_ai_ct.phantoms.dicom import Spoilt, write_dicom
from clinic_ai_ct.reading import Acquisition
from clinic_ai_ct.survey import survey
from clinic_ai_ct.volume import Grid, Volume

SMALL = {"shape": (24, 40, 40), "spacing": (12.0, 9.0, 9.0)}
USUAL = {"coarse_pixels", "thick_slices", "contrast_phase_unknown"}


@pytest.fixture(scope="module")
def phantom():
    return make(3, lesions=(Nodule("right_lower_lobe", 25.0),), conditions=(), contrast="venous", **SMALL)


@pytest.fixture
def admission(phantom, tmp_path):
    """A function: what is made of the phantom, its headers changed."""

    def make_one(number=0, files=None, made=phantom, **spoilt):
        if "set" in spoilt:
            changed = spoilt.pop("set")

            def edit(dataset):
                for keyword, value in changed.items():
                    setattr(dataset, keyword, value)

            spoilt["edit"] = edit
        written = write_dicom(made, tmp_path / str(number), Spoilt(**spoilt))
        return admit(task_of(files(written) if files else written))

    return make_one


def codes(admission):
    return {refusal.code for refusal in admission.refusals}


def test_a_chest_is_admitted_with_its_limits(phantom, admission):
    found = admission(shuffled=True)
    assert found.refusals == ()
    assert np.array_equal(found.admitted.volume.hu, phantom.volume.hu)
    assert found.admitted.source == found.admitted.volume.grid
    assert {limit.code for limit in found.admitted.limits} == USUAL
    assert found.admitted.volume.remarks == tuple(limit.sentence for limit in found.admitted.limits)
    assert 2000 < found.admitted.survey.lungs_ml < 6000


@pytest.mark.parametrize(
    ("spoilt", "code", "words"),
    [
        ({"set": {"Modality": "MR", "SOPClassUID": MRImageStorage}}, "not_a_ct", "its modality is MR"),
        (
            {"set": {"BodyPartExamined": "BRAIN", "SeriesDescription": "", "StudyDescription": ""}},
            "wrong_body_part",
            "brain",
        ),
        ({"tilt": 12.0}, "irregular_volume", "tilted by 12.0 degrees"),
        ({"gap_mm": 20.0}, "irregular_volume", "gap of 32.0 mm"),
        ({"missing": {9}}, "irregular_volume", "gap of 24.0 mm"),
        ({"missing": set(range(8)) | set(range(16, 24))}, "too_few_slices", "has 8 slices"),
        ({"set": {"RescaleSlope": "0.5"}}, "not_hounsfield", "of the body have values of fat"),
        ({"set": {"RescaleSlope": "0.9"}}, "not_hounsfield", "flesh is most often at"),
        ({"set": {"RescaleSlope": "1.1"}}, "not_hounsfield", "flesh is most often at"),
        ({"set": {"RescaleIntercept": "0"}}, "not_hounsfield", "no air"),
        ({"set": {"RescaleIntercept": "-1090"}}, "not_hounsfield", "air is most often at"),
        ({"set": {"RescaleType": "US"}}, "not_hounsfield", "the header calls them US"),
        ({"set": {"RescaleSlope": "8"}}, "saturated", "upper end of what can be stored"),
        ({"set": {"ImageType": ["DERIVED", "SECONDARY", "MIP"]}}, "projection", "projections"),
    ],
)
def test_what_is_refused(admission, spoilt, code, words):
    found = admission(**spoilt)
    assert found.admitted is None
    (refusal,) = found.refusals
    assert refusal.code == code
    assert words in refusal.sentence
    assert refusal.sentence.startswith("Series 2 ")


def test_a_scout_alone_and_a_single_slice(admission):
    one = admission(files=lambda files: files[:1])
    assert [refusal.code for refusal in one.refusals] == ["no_volume"]
    scout = admission(number=1, files=lambda files: files[:1], set={"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]})
    assert [refusal.code for refusal in scout.refusals] == ["scout_only"]
    assert "Send the slices as well." in scout.refusals[0].sentence


def test_too_many_slices_are_refused_before_any_is_read(phantom, tmp_path):
    task = task_of(write_dicom(phantom, tmp_path))
    large = [
        image.model_copy(update={"header": image.header.model_copy(update={"rows": 512, "columns": 512})})
        for image in task.images
    ]
    info = task.volumes[0].model_copy(update={"slices": task.volumes[0].slices * 126})
    found = admit(task.model_copy(update={"images": tuple(large), "volumes": (info,)}))
    assert found.admitted is None
    assert codes(found) == {"too_many_slices"}
    assert "3024 slices of 512 × 512 pixels" in found.refusals[0].sentence


def test_a_file_that_is_damaged_since_is_refused(phantom, tmp_path):
    files = write_dicom(phantom, tmp_path)
    task = task_of(files)
    files[5].write_bytes(files[5].read_bytes()[:-1000])
    found = admit(task)
    assert found.admitted is None
    assert codes(found) == {"cannot_decode"}
    assert found.refusals[0].sentence.startswith("Series 2 was not judged. The pixels cannot be decoded")


def test_the_best_of_several_series_is_judged(phantom, tmp_path):
    def coronal(dataset):
        """Say of the axial slices that they are coronal ones of another series."""
        z = float(dataset.ImagePositionPatient[2])
        dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 0, -1], [-100, z, 100]
        dataset.SeriesInstanceUID, dataset.SeriesNumber = "1.2.3", 9
        dataset.SOPInstanceUID += ".9"

    axial = write_dicom(phantom, tmp_path / "axial")
    task = task_of([*write_dicom(phantom, tmp_path / "coronal", Spoilt(edit=coronal)), *axial])
    found = admit(task)
    assert found.admitted.source == admit(task_of(axial)).admitted.source
    assert [(one.code, "Series 9 (24 slices)" in one.sentence) for one in found.refusals] == [("other_series", True)]
    turned = admit(task_of(sorted((tmp_path / "coronal").iterdir())))
    assert "not_axial" in {limit.code for limit in turned.admitted.limits}
    assert turned.admitted.source.shape == (24, 40, 40)
    assert turned.admitted.volume.grid.shape == (40, 24, 40)


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"LossyImageCompression": "01", "LossyImageCompressionRatio": "8"}, "lossy", "to 1/8 of their size"),
        ({"LossyImageCompression": "01", "LossyImageCompressionRatio": "30"}, "lossy", "not judged reliably"),
        ({"LossyImageCompression": "01"}, "lossy", "compressed with loss: small"),
        ({"ContrastBolusAgent": ""}, "contrast_unknown", "not known whether a contrast agent"),
        ({"ContrastBolusAgent": "n/a"}, "contrast_unknown", "not known whether a contrast agent"),
        ({"ContrastBolusAgent": "NON CONTRAST"}, "no_contrast", "No contrast agent"),
        ({"ContrastBolusAgent": "No contrast"}, "no_contrast", "No contrast agent"),
        ({"ContrastBolusAgent": "ohne KM"}, "no_contrast", "No contrast agent"),
        ({"ContrastBolusAgent": "Non-ionic, 80 ml"}, "contrast_phase_unknown", "not in which phase"),
        ({"SeriesDescription": "Chest native", "ContrastBolusAgent": ""}, "no_contrast", "No contrast agent"),
        (
            {"SeriesDescription": "Thorax with and without contrast", "ContrastBolusAgent": ""},
            "contrast_unknown",
            "not known whether",
        ),
        ({"SeriesDescription": "Chest, alternative", "ContrastBolusAgent": ""}, "contrast_unknown", "not known"),
        (
            {"BodyPartExamined": "", "SeriesDescription": "", "StudyDescription": "", "ProtocolName": ""},
            "unknown_body_part",
            "judged as a chest",
        ),
    ],
)
def test_what_is_said_of_a_volume_that_is_judged(admission, changes, code, words):
    found = admission(set=changes)
    (limit,) = [limit for limit in found.admitted.limits if limit.code == code]
    assert words in limit.sentence


@pytest.mark.parametrize("words", ["Arms down 1.25", "Hands up", "Headrest low"])
def test_how_a_patient_lies_is_no_body_part(admission, words):
    found = admission(set={"BodyPartExamined": "", "SeriesDescription": words, "StudyDescription": "CT CHEST"})
    assert found.refusals == ()
    assert "unknown_body_part" not in {limit.code for limit in found.admitted.limits}


@pytest.mark.parametrize(
    ("ends", "aside", "words"),
    [
        ((), True, "at the edges of the slices; nothing"),
        (("cut_above",), False, "at their upper end; nothing"),
        (("cut_above", "cut_below"), True, "at their upper and lower end and at the edges of the slices; nothing"),
    ],
)
def test_what_of_the_lungs_is_not_in_view_is_said(ends, aside, words):
    found = survey_of(**dict.fromkeys(ends, True), cut_aside=aside)
    limits = limits_by_values(found, Acquisition(contrast=True), header(), Grid((40, 9, 9), (5.0, 9.0, 9.0)))
    (limit,) = [limit for limit in limits if limit.code == "lungs_cut"]
    assert words in limit.sentence


def test_lungs_at_the_edges_of_the_slices_are_seen(phantom):
    whole = survey(phantom.volume)
    assert not whole.cut_aside
    columns = np.flatnonzero((phantom.volume.hu[12] < -600)[10:30].any(axis=0))
    half = slice(0, int(np.median(columns)) - 4)  # through the middle of one lung
    hu = np.ascontiguousarray(phantom.volume.hu[..., half])
    grid = replace(phantom.volume.grid, shape=hu.shape)
    assert survey(Volume(hu, grid)).cut_aside


class TestWhichStack:
    @staticmethod
    def candidate(uid, slices, spacing, side=512):
        info = VolumeInfo.model_construct(
            series_instance_uid=uid,
            spacing=spacing,
            directions=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
            slices=(None,) * slices,
        )
        return Candidate(info, SimpleNamespace(header=header(rows=side, columns=side)))

    def best(self, *candidates):
        return _best_first(candidates)[0].info.series_instance_uid

    def test_the_whole_chest_goes_before_one_lung_and_before_a_slab(self):
        whole = self.candidate("9", 300, (1.0, 0.75, 0.75))
        assert self.best(self.candidate("1", 300, (1.0, 0.35, 0.35)), whole) == "9"
        thick = self.candidate("9", 64, (5.0, 0.75, 0.75))
        assert self.best(self.candidate("1", 120, (1.0, 0.75, 0.75)), thick) == "9"

    def test_a_thin_chest_goes_before_a_thick_one_of_chest_and_abdomen(self):
        chest = self.candidate("9", 320, (1.0, 0.7, 0.7))
        assert self.best(self.candidate("1", 130, (5.0, 0.9, 0.9)), chest) == "9"


def test_a_named_phase_is_no_limit(admission):
    found = admission(set={"SeriesDescription": "Chest venous phase"})
    assert {limit.code for limit in found.admitted.limits} == USUAL - {"contrast_phase_unknown"}


def test_metal_is_said_with_its_volume(phantom, admission):
    hu = phantom.volume.hu.copy()
    hu[10:12, 24:26, 20:22] = 3071
    found = admission(made=replace(phantom, volume=Volume(hu, phantom.volume.grid)))
    (limit,) = [limit for limit in found.admitted.limits if limit.code == "metal"]
    assert "7.8 ml of metal" in limit.sentence


@pytest.mark.parametrize(("rows", "words"), [(slice(8, None), "lower end"), (slice(0, 14), "upper end")])
def test_lungs_that_are_cut_off_are_said(phantom, rows, words):
    found = survey(Volume(phantom.volume.hu[rows], Grid(phantom.volume.hu[rows].shape, phantom.volume.grid.spacing)))
    limits = limits_by_values(found, Acquisition(), header(), phantom.volume.grid)
    (limit,) = [limit for limit in limits if limit.code == "lungs_cut"]
    assert words in limit.sentence


def test_lungs_are_found_that_open_into_the_air_around_the_patient(phantom):
    whole = survey(phantom.volume)
    hu = phantom.volume.hu.copy()
    hu[-3:] = -1000  # beyond the mouth of a windpipe
    found = survey(Volume(hu, phantom.volume.grid))
    assert found.lungs_ml == pytest.approx(whole.lungs_ml, rel=0.1)
    gas = np.where((phantom.organs > 0) & (phantom.organs <= 5), -995, phantom.volume.hu).astype(np.int16)
    assert survey(Volume(gas, phantom.volume.grid)).lungs_ml < 200, "gas is no lung"


def test_little_air_is_said():
    found = limits_by_values(survey_of(lungs_ml=400.0), Acquisition(), header(), Grid((9, 9, 9), (3.0, 3.0, 3.0)))
    assert "Only 0.4 litres of lung hold air" in {limit.code: limit.sentence for limit in found}["little_air"]


def test_a_lossy_transfer_syntax_says_enough():
    found = limits_by_values(
        survey_of(), Acquisition(), header(transfer_syntax_uid=JPEGExtended12Bit), Grid((9, 9, 9), (3.0, 3.0, 3.0))
    )
    assert "lossy" in {limit.code for limit in found}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ({}, ""),
        ({"uniform": True}, "empty_volume"),
        ({"saturated": 0.05}, "saturated"),
        ({"air_hu": None}, "not_hounsfield"),
        ({"flesh_hu": None}, "not_hounsfield"),
        ({"flesh_hu": -5.0}, "not_hounsfield"),
        ({"soft": 0.3}, "not_hounsfield"),
        ({"lungs_ml": 200.0}, "no_lungs"),
        ({"lungs_ml": 300.0}, ""),
        ({"lungs_ml": 30_000.0}, "no_lungs"),
    ],
)
def test_values_that_cannot_be_of_a_chest(words, code):
    reason = refuse_by_values(survey_of(**words), Acquisition())
    assert (reason.code if reason else "") == code


def test_the_survey_of_a_head_finds_no_lungs(phantom):
    hu = np.full((40, 60, 60), -1000, dtype=np.int16)
    hu[5:35, 10:50, 15:45] = 40
    hu[10:14, 20:24, 28:32] = -990
    found = survey(Volume(hu, Grid(hu.shape, (4.0, 4.0, 4.0))))
    assert found.lungs_ml == 0
    assert found.centre is None
    assert refuse_by_values(found, Acquisition()).code == "no_lungs"
    lungs = survey(phantom.volume)
    middle = np.argwhere((phantom.organs > 0) & (phantom.organs <= 5)).mean(axis=0)
    assert np.allclose(lungs.centre, (phantom.volume.grid.affine() @ (*middle, 1))[:3], atol=25)


@pytest.mark.parametrize(
    ("words", "facts", "code"),
    [
        ({}, {}, ""),
        ({"kind": FileKind.PNG}, {}, "not_a_ct"),
        ({"modality": ""}, {}, "not_a_ct"),
        ({"modality": "PT"}, {}, "not_a_ct"),
        ({"body_part": "CHEST"}, {}, ""),
        ({"body_part": "CHESTABDPELVIS"}, {}, ""),
        ({"body_part": "ABDOMEN"}, {}, "wrong_body_part"),
        ({"body_part": "ABDOMEN", "series_description": "CHEST/ABDOMEN 1.0"}, {}, ""),
        ({"body_part": "TSPINE"}, {}, "wrong_body_part"),
        ({"body_part": "SPINE", "series_description": "thoracic spine"}, {}, "wrong_body_part"),
        ({"series_description": "Head native"}, {}, "wrong_body_part"),
        ({}, {"body_parts": ("KNEE",)}, "wrong_body_part"),
        ({"series_description": "Lung 1.0 B70"}, {"body_parts": ("ABDOMEN",)}, ""),
    ],
)
def test_the_header_says_what_is_no_chest(words, facts, code):
    reason = refuse_by_header(header(**words), StudyFacts(**facts))
    assert (reason.code if reason else "") == code


def test_copies_without_descriptions_are_asked_for_no_part_of_the_body(admission, phantom, tmp_path):
    """A series of chest and abdomen was judged by its description, which no copy without its patient has."""
    copied = {"BodyPartExamined": "ABDOMEN", "SeriesDescription": "", "StudyDescription": ""}

    def edit(dataset):
        for keyword, value in copied.items():
            setattr(dataset, keyword, value)

    task = task_of(write_dicom(phantom, tmp_path / "copies", Spoilt(edit=edit)))
    assert codes(admit(task)) == {"wrong_body_part"}
    assert admit(task, any_part=True).admitted is not None


def test_projections_are_told_by_the_image_type():
    types = PlaneGeometry(image_type=("DERIVED", "SECONDARY", "AXIAL", "MINIP"))
    assert refuse_by_header(header(geometry=types), StudyFacts()).code == "projection"
