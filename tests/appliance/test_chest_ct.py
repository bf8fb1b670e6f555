"""A chest CT from the inbox to masks, findings, report, SEG and SR, by a model that somebody imports and promotes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import served_models
from harness import QUICK, Daemon, rows, wait_until
from rendering import assert_valid_dicom, pdf_text, sr_texts

from clinic_ai.control.promotion_client import PromotionClient
from clinic_ai.control.promotion_views import PromoteOrder
from clinic_ai.home import Home
from clinic_ai_ct.phantoms import make
from clinic_ai_ct.phantoms.dicom import Spoilt, write_dicom

LONGEST_S = 180.0
SHAPE = (48, 64, 64)
SAID = "There is consolidation in both lungs"


def test_a_chest_waits_for_a_model_and_comes_back_with_masks_findings_report_and_objects(
    home: Home, tmp_path: Path, start: Callable[[], Daemon]
) -> None:
    """The model has numbers set by hand: it draws consolidation everywhere, so what comes back is known."""
    home.clinic_toml.write_text(f'{QUICK}\n[review]\nreviewers = ["Dr. Ada"]\n')
    phantom = make(7, shape=SHAPE, spacing=(6.0, 5.6, 5.6), lesions=(), conditions=(), contrast="venous")
    sent = write_dicom(phantom, tmp_path / "series", Spoilt(shuffled=True))
    uids = [str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in sent]
    served_models.model(tmp_path / "tiny")
    daemon = start()
    (tmp_path / "series").rename(home.inbox / "series")
    wait_until(lambda: wait_of(home).get("code") == "no_model", "the study waits for a model")
    assert "clinic-ai model" in wait_of(home)["remedy"]
    with PromotionClient(home) as client:
        client.import_model(str(tmp_path / "tiny"))
        client.promote_model(PromoteOrder(plugin="ct", name="tiny", version="1", reviewer="Dr. Ada"))
    daemon.wait_for("delivery.sent", LONGEST_S)
    [study] = rows(home, "SELECT study_id, state, wait FROM studies")
    assert (study["state"], study["wait"]) == ("DONE", None)
    given = home.outbox / study["study_id"] / "v1"

    result = json.loads((given / "result.json").read_text())
    found = {finding["condition"]: finding for finding in result["findings"]}
    assert (found["consolidation"]["presence"], found["consolidation"]["laterality"]) == ("present", "bilateral")
    assert found["lung_nodule"]["presence"] == "absent"
    [measured] = found["consolidation"]["measures"]
    assert measured["volume_mm3"] > 0.9 * np.prod(SHAPE) * 6.0 * 5.6 * 5.6
    report = [statement["text"] for statement in result["statements"] if statement["kind"] == "report"]
    assert any(sentence.startswith(SAID) for sentence in report), report
    printed = pdf_text(given)
    assert SAID in printed
    assert "Not for clinical use" in printed

    masks = hd.seg.segread(given / "segmentation.seg.dcm")
    [label] = [masks.get_segment_description(n).segment_label for n in masks.segment_numbers]
    assert label == "Lung consolidation"
    drawn = masks.get_pixels_by_source_instance(uids, ignore_spatial_locations=True)[..., 0]
    assert drawn.shape == SHAPE
    assert drawn.mean() > 0.9
    written = pydicom.dcmread(given / "report.sr.dcm")
    assert any(text.startswith(SAID) for text in sr_texts(written))
    for name in ("segmentation.seg.dcm", "report.sr.dcm"):
        assert_valid_dicom(given / name)
    assert daemon.stop() == 0


def wait_of(home: Home) -> dict[str, str]:
    found = rows(home, "SELECT wait FROM studies")
    wait: dict[str, str] = json.loads(found[0]["wait"]) if found and found[0]["wait"] else {}
    return wait
