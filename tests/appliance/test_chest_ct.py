"""A chest CT from the inbox to masks, findings, report, SEG and SR, by the models that ship with the plugin."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import pydicom
import pytest
from harness import QUICK, Daemon, clinic_ai, rows
from rendering import assert_valid_dicom, pdf_text, sr_texts

from clinic_ai.home import Home
from clinic_ai.ml.mask_scores import dice
from clinic_ai_ct.anatomy import label_of
from clinic_ai_ct.phantoms import Consolidation, PleuralEffusion, make
from clinic_ai_ct.phantoms.dicom import Spoilt, write_dicom

LONGEST_S = 540.0
SAID = "Right pleural effusion"
SEED = 500_001
"""Of a phantom that nothing was learned from or chosen by."""


@pytest.mark.timeout(600)
def test_a_chest_comes_back_with_masks_findings_report_and_objects(
    home: Home, tmp_path: Path, start: Callable[[], Daemon]
) -> None:
    home.clinic_toml.write_text(QUICK + '\n[review]\nreviewers = ["Dr. Ada"]\n')
    lesions = (PleuralEffusion("right", 700.0), Consolidation("left_upper_lobe", 150.0))
    phantom = make(SEED, lesions=lesions, conditions=(), contrast="venous")
    sent = write_dicom(phantom, tmp_path / "series", Spoilt(shuffled=True))
    uids = [str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in sent]
    daemon = start()
    clinic_ai(home, "model", "promote", "ct", "organs", "1.0.0", "--as", "Dr. Ada")
    (tmp_path / "series").rename(home.inbox / "series")
    daemon.wait_for("delivery.sent", LONGEST_S)
    [study] = rows(home, "SELECT study_id, state, wait FROM studies")
    assert (study["state"], study["wait"]) == ("DONE", None)
    given = home.outbox / study["study_id"] / "v1"

    result = json.loads((given / "result.json").read_text())
    found = {finding["condition"]: finding for finding in result["findings"]}
    assert (found["pleural_effusion"]["presence"], found["pleural_effusion"]["laterality"]) == ("present", "right")
    assert (found["consolidation"]["presence"], found["consolidation"]["laterality"]) == ("present", "left")
    assert found["pericardial_effusion"]["presence"] == "absent"
    [measured] = found["pleural_effusion"]["measures"]
    [drawn] = [one for one in phantom.lesions if one.name == "pleural_effusion"]
    assert abs(measured["volume_mm3"] / 1000 - drawn.ml) < 0.4 * drawn.ml
    report = [statement["text"] for statement in result["statements"] if statement["kind"] == "report"]
    assert any("right" in sentence.lower() and "pleural effusion" in sentence for sentence in report), report
    assert any("consolidation" in sentence and "left upper lobe" in sentence for sentence in report), report
    printed = pdf_text(given)
    assert "Not for clinical use" in printed

    masks = hd.seg.segread(given / "segmentation.seg.dcm")
    numbers = {masks.get_segment_description(n).segment_label: n for n in masks.segment_numbers}
    pixels = masks.get_pixels_by_source_instance(
        uids, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    for label, name in (("Pleural effusion", "pleural_effusion"), ("Lung consolidation", "consolidation")):
        said = pixels[..., numbers[label] - 1] > 0
        assert dice(said, phantom.masks[name]) > 0.6, name
    for label, name in (("Heart", "heart"), ("Liver", "liver"), ("Right upper lobe", "right_upper_lobe")):
        said = pixels[..., numbers[label] - 1] > 0
        assert dice(said, phantom.organs == label_of(name)) > 0.6, name
    written = pydicom.dcmread(given / "report.sr.dcm")
    assert any("pleural effusion" in text for text in sr_texts(written))
    for name in ("segmentation.seg.dcm", "report.sr.dcm"):
        assert_valid_dicom(given / name)
    assert daemon.stop() == 0
