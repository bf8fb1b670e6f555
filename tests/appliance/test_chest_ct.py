"""A chest CT from the inbox to masks, findings, report, SEG and SR, by the model that ships with the plugin."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from harness import Daemon, rows
from rendering import assert_valid_dicom, pdf_text

from clinic_ai.home import Home
from clinic_ai.ml.mask_scores import dice
from clinic_ai_ct.phantoms import Consolidation, Phantom, PleuralEffusion, make
from clinic_ai_ct.phantoms.dicom import Spoilt, write_dicom

SIDES = {"pleural_effusion": "right", "consolidation": "left"}
LABELS = {"pleural_effusion": "Pleural effusion", "consolidation": "Lung consolidation"}
LONGEST_S = 150.0


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    """Fluid on the right and a consolidation on the left; nothing was learned or chosen from this seed."""
    lesions = (PleuralEffusion("right", 700.0), Consolidation("left_upper_lobe", 150.0))
    return make(500_001, lesions=lesions, conditions=(), contrast="venous")


def test_a_chest_comes_back_with_masks_findings_report_and_objects(
    home: Home, tmp_path: Path, start: Callable[[], Daemon], phantom: Phantom
) -> None:
    sent = write_dicom(phantom, tmp_path / "series", Spoilt(shuffled=True))
    daemon = start()
    (tmp_path / "series").rename(home.inbox / "series")
    daemon.wait_for("delivery.sent", LONGEST_S)
    [study] = rows(home, "SELECT study_id, state, wait FROM studies")
    assert (study["state"], study["wait"]) == ("DONE", None)
    given = home.outbox / study["study_id"] / "v1"
    result = json.loads((given / "result.json").read_text())

    found = {finding["condition"]: finding for finding in result["findings"]}
    for name, side in SIDES.items():
        assert (found[name]["presence"], found[name]["laterality"]) == ("present", side), name
        [measured] = found[name]["measures"]
        assert measured["volume_mm3"] == pytest.approx(true_volume(phantom, name), rel=0.35)
    assert {model["name"]: model["slot"] for model in result["models"]}["reference"] == "main"

    report = [statement["text"] for statement in result["statements"] if statement["kind"] == "report"]
    printed = pdf_text(given)
    for words in ("right pleural effusion", "consolidation in the left"):
        assert any(words in sentence for sentence in report), report
        assert words in printed
    assert "Not for clinical use" in printed

    masks = read_masks(given / "segmentation.seg.dcm", sent)
    for name, label in LABELS.items():
        assert dice(masks[label], phantom.masks[name]) >= 0.6, name
    written = pydicom.dcmread(given / "report.sr.dcm")
    assert written.StudyInstanceUID == pydicom.dcmread(given / "segmentation.seg.dcm").StudyInstanceUID
    for name in ("segmentation.seg.dcm", "report.sr.dcm"):
        assert_valid_dicom(given / name)
    assert daemon.stop() == 0


def true_volume(phantom: Phantom, name: str) -> float:
    return float(phantom.masks[name].sum() * np.prod(phantom.volume.grid.spacing))


def read_masks(path: Path, sent: list[Path]) -> dict[str, npt.NDArray[np.bool_]]:
    """Return each segment on the slices as they were sent, bool (slice, row, column), from the feet up.

    ``write_dicom`` names the files of a shuffled series in any order, and returns them in the order of the slices.
    """
    segmentation = hd.seg.segread(str(path))
    uids: list[Any] = [segmentation_source(file) for file in [*sent]]
    frames = segmentation.get_pixels_by_source_instance(
        uids, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    labels = [segmentation.get_segment_description(n).segment_label for n in segmentation.segment_numbers]
    return {label: frames[..., place].astype(bool) for place, label in enumerate(labels)}


def segmentation_source(file: Path) -> str:
    return str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID)
