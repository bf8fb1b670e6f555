"""The two label sets, and what a network may learn of each."""

from __future__ import annotations

import numpy as np
import pytest

from clinic_ai.errors import DatasetError
from clinic_ai_ct.label_sets import Targets, all_labels, class_weights, label_sets, label_texts, targets
from clinic_ai_ct.lesions import LESIONS


def test_both_sets_have_eighteen_labels_and_share_eight():
    document, ct_rate = label_sets()["vlm3d"], label_sets()["ct_rate"]
    assert len(document.labels) == len(ct_rate.labels) == 18
    assert set(document.keys) & set(ct_rate.keys) == {
        "lung_nodule",
        "pleural_effusion",
        "consolidation",
        "pericardial_effusion",
        "atelectasis",
        "emphysema",
        "cardiomegaly",
        "lymphadenopathy",
    }
    assert len(all_labels()) == 28
    assert set(all_labels()) == set(label_texts())
    assert set(LESIONS) <= set(all_labels())


def test_a_row_of_ct_rate_masks_what_it_does_not_label():
    row = {"VolumeName": "train_1_a_1.nii.gz", "Lung nodule": 1, "Cardiomegaly": 0, "Medical material": None}
    labels = label_sets()["ct_rate"].by_key(row)
    assert labels == {"lung_nodule": 1, "cardiomegaly": 0}
    found = targets(("pneumothorax", "cardiomegaly", "lung_nodule"), labels)
    assert found.values.tolist() == [0, 0, 1]
    assert found.known.tolist() == [0, 1, 1]


def test_a_label_that_is_neither_yes_nor_no_is_refused():
    with pytest.raises(DatasetError, match="'Lung nodule' of the set ct_rate is 2"):
        label_sets()["ct_rate"].by_key({"Lung nodule": 2})


def test_rare_labels_weigh_more():
    names = ("lung_nodule", "cardiomegaly", "pneumothorax")
    rows = [{"lung_nodule": 1, "cardiomegaly": int(n == 0)} for n in range(8)]
    found = class_weights(targets(names, row) for row in rows)
    assert found.tolist() == [1.0, 7.0, 1.0]
    many = [Targets(np.array([float(n == 0)], np.float32), np.ones(1, np.float32)) for n in range(100)]
    assert class_weights(many).tolist() == [20.0]
    with pytest.raises(DatasetError, match="no examples"):
        class_weights([])
