"""Every line of the table of codes, pinned: a change of a code has to be made twice, by intent."""

from __future__ import annotations

import pytest
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from clinic_ai.errors import PluginError
from clinic_ai.results.codes import finding_code, table

PINNED = {
    "cardiomegaly": ("SCT", "8186001", "exact"),
    "pericardial_effusion": ("SCT", "373945007", "exact"),
    "pleural_effusion": ("SCT", "60046008", "exact"),
    "atelectasis": ("SCT", "46621007", "exact"),
    "consolidation": ("SCT", "95436008", "exact"),
    "lung_nodule": ("SCT", "786838002", "exact"),
    "lung_mass": ("SCT", "309529002", "exact"),
    "ground_glass_opacity": ("DCM", "112120", "exact"),
    "lung_opacity": ("DCM", "112001", "near"),
    "emphysema": ("SCT", "87433001", "exact"),
    "pulmonary_edema": ("SCT", "19242006", "exact"),
    "pneumonia": ("SCT", "233604007", "exact"),
    "pneumothorax": ("SCT", "36118008", "exact"),
    "lymphadenopathy": ("SCT", "30746006", "exact"),
    "mediastinal_lymphadenopathy": ("SCT", "52324001", "exact"),
    "fibrotic_sequela": ("SCT", "51615001", "near"),
    "calcification": ("DCM", "112063", "exact"),
    "mediastinal_widening": ("SCT", "260376009", "near"),
    "pleural_thickening": ("DCM", "112033", "near"),
    "coronary_calcification": ("SCT", "445512009", "exact"),
    "arterial_wall_calcification": ("SCT", "237897009", "near"),
    "hiatal_hernia": ("SCT", "84089009", "exact"),
    "bronchiectasis": ("SCT", "12295008", "exact"),
    "mosaic_attenuation": ("DCM", "112130", "exact"),
    "interlobular_septal_thickening": ("DCM", "112114", "near"),
    "bone_fracture": ("SCT", "125605004", "exact"),
    "osteoporosis": ("SCT", "64859006", "exact"),
    "arthritis": ("SCT", "3723001", "exact"),
}
RADLEX = {
    "pleural_effusion": "RID34539",
    "atelectasis": "RID28493",
    "consolidation": "RID43255",
    "lung_nodule": "RID50149",
    "emphysema": "RID4799",
    "pulmonary_edema": "RID4866",
    "pneumonia": "RID5350",
    "pneumothorax": "RID5352",
}


def test_the_table_is_the_one_that_was_reviewed() -> None:
    assert {key: (e.scheme, e.code, e.match) for key, e in table().items()} == PINNED
    assert {key: other.code for key, e in table().items() for other in e.also} == RADLEX


def test_no_two_conditions_share_a_code_or_a_label() -> None:
    entries = table().values()
    assert len({(e.scheme, e.code) for e in entries}) == len({e.label for e in entries}) == len(table())


def test_a_near_match_says_in_its_source_how_far_it_is() -> None:
    assert all("; the code" in e.source for e in table().values() if e.match == "near")


def test_dicom_codes_mean_in_the_standard_what_the_table_says() -> None:
    standard = {
        Code(code.value, "DCM", code.meaning)
        for code in (
            codes.DCM.AbnormalCalcifications,
            codes.DCM.AbnormalOpacity,
            codes.DCM.GroundGlassOpacity,
            codes.DCM.Opacity,
            codes.DCM.MosaicPattern,
            codes.DCM.SeptalLines,
        )
    }
    ours = {Code(e.code, "DCM", e.meaning) for e in table().values() if e.scheme == "DCM"}
    assert {(c.value, c.meaning) for c in ours} == {(c.value, c.meaning) for c in standard}


def test_the_wrong_code_of_a_widespread_dictionary_is_not_used() -> None:
    assert finding_code("cardiomegaly").code != codes.SCT.Cardiomegaly.value


def test_an_unknown_condition_is_refused_with_what_to_do() -> None:
    with pytest.raises(PluginError, match="'dragon_pox'") as caught:
        finding_code("dragon_pox")
    assert "codes.toml" in caught.value.remedy
