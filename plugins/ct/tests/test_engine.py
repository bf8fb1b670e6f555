"""The engine: what it judges of a study, where its masks lie, and that its report says what they show."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from ct_studies import task_of
from served_models import JUDGED, LABELS, all_of, model, network_config, operating, swapped, with_sign

from clinic_ai.analyses import check_analysis
from clinic_ai.confinement import Confinement
from clinic_ai.contract import Device, EngineLoad, Ready
from clinic_ai.domain import Analysis, Presence
from clinic_ai.errors import InputError, ModelError
from clinic_ai.processes import Child, ChildSpec
from clinic_ai_ct import engine as module
from clinic_ai_ct import sliding
from clinic_ai_ct.encoder import Features
from clinic_ai_ct.engine import CANNOT_TELL, CTEngine
from clinic_ai_ct.lesions import LESIONS
from clinic_ai_ct.network import made
from clinic_ai_ct.phantoms import make
from clinic_ai_ct.phantoms.dicom import Spoilt, write_dicom
from clinic_ai_ct.phantoms.lesions import Consolidation, Nodule, PleuralEffusion
from clinic_ai_ct.plugin import describe_plugin
from clinic_ai_ct.reading import read_stack, to_source

DRAWN = (PleuralEffusion("right", 400.0), Consolidation("left_upper_lobe", 150.0), Nodule("left_lower_lobe", 28.0))
SHOWN = {"pleural_effusion": "right", "consolidation": "left", "lung_nodule": "left"}


@pytest.fixture(scope="module")
def phantom():
    """Fluid on the right, a consolidation and a nodule on the left, and a large heart."""
    return make(7, shape=(48, 64, 64), spacing=(6.0, 5.6, 5.6), lesions=DRAWN, conditions=["cardiomegaly"])


@pytest.fixture(scope="module")
def files(phantom, tmp_path_factory):
    """The phantom as a series in no order."""
    return write_dicom(phantom, tmp_path_factory.mktemp("series"), Spoilt(shuffled=True))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A model that draws consolidation everywhere."""
    return model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def engine(loaded):
    """An engine with that model."""
    made = CTEngine()
    made.load(loaded, Device(threads=1))
    return made


@pytest.fixture
def task(files, loaded, tmp_path):
    """The task of judging the series; ``words`` change it."""

    def of(**words):
        return task_of(files, tmp_path).model_copy(update={"models": (loaded.ref,), **words})

    return of


@pytest.fixture
def by_truth(monkeypatch, phantom):
    """The engine's network as one that knows the phantom: ``masks`` and ``labels`` of it, unless told otherwise."""

    def know(masks=None, labels=None):
        labels = labels or phantom.labels

        def read(network, image, regions=None):
            grid = _grid_of(image, phantom)
            shown = np.stack([(masks or phantom.masks)[name] for name in LESIONS])
            there = torch.from_numpy(to_source(shown, phantom.volume.grid, grid)).float()
            logits = torch.tensor([[8.0 if labels.get(name) else -8.0 for name in LABELS]])
            features = Features(torch.zeros(1, 16), torch.zeros(1, 4, 16), (1, 2, 2))
            return sliding.Reading(features, logits, (20 * there - 10)[None], 1)

        monkeypatch.setattr(module.sliding, "read", read)

    return know


def _grid_of(image, phantom):
    """The network's grid lies about the middle of the volume where nothing was cut off."""
    shape, spacing = tuple(image.shape[2:]), (6.0, 6.0, 6.0)
    origin = tuple(-(n - 1) / 2 * s for n, s in zip(shape, spacing, strict=True))[::-1]
    return replace(phantom.volume.grid, shape=shape, spacing=spacing, origin=origin)


def unpack(task, analysis):
    """The masks of an analysis by name, (slice, row, column)."""
    (segmentation,) = analysis.segmentations
    with np.load(f"{task.output_directory}/{segmentation.file}", allow_pickle=False) as archive:
        bits = np.unpackbits(archive["masks"], axis=-1, count=segmentation.columns).astype(bool)
    assert bits.shape[:3] == (len(segmentation.segments), len(segmentation.slices), segmentation.rows)
    return {segment.name: mask for segment, mask in zip(segmentation.segments, bits, strict=True)}


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


class TestWhatItSays:
    def test_masks_lie_on_the_slices_as_they_arrived(self, engine, task, by_truth, phantom):
        by_truth()
        asked = task()
        analysis = engine.analyse(asked)
        check_analysis(analysis, describe_plugin(), asked, [])
        masks = unpack(asked, analysis)
        assert set(masks) == set(SHOWN)
        (info,) = asked.volumes
        assert analysis.segmentations[0].slices == info.slices
        stack = read_stack(asked, info)
        for name, mask in masks.items():
            truth = to_source(phantom.masks[name][None], phantom.volume.grid, stack.grid)[0]
            assert dice(mask, truth) > (0.7 if name == "lung_nodule" else 0.8), name

    def test_findings_agree_with_masks_and_report(self, engine, task, by_truth, phantom):
        by_truth()
        analysis = engine.analyse(task())
        found = {finding.condition: finding for finding in analysis.findings}
        assert set(found) == {*LESIONS, "cardiomegaly", "fibrotic_sequela"}
        present = {name for name, finding in found.items() if finding.presence is Presence.PRESENT}
        assert present == {*SHOWN, "cardiomegaly"}
        assert {name: found[name].laterality for name in SHOWN} == SHOWN
        assert {mask.name for mask in analysis.masks if mask.count} == set(SHOWN)
        nodule = next(mask for mask in analysis.masks if mask.name == "lung_nodule")
        assert 0.75 * 28 < nodule.size_mm < 1.25 * 28
        text = " ".join(s.text for s in analysis.report if s.section == "findings")
        assert re.search(r"right pleural effusion|pleural effusion on the right", text, re.I)
        assert re.search(r"no .*pericardial effusion", text, re.I)
        for sentence in analysis.report:
            for place in sentence.masks:
                assert analysis.masks[place].name in sentence.conditions
            for place in sentence.findings:
                assert analysis.findings[place].condition in sentence.conditions

    def test_a_finding_is_of_the_slice_that_shows_most_of_it(self, engine, task, by_truth, phantom):
        by_truth()
        asked = task()
        analysis = engine.analyse(asked)
        masks = unpack(asked, analysis)
        order = [one.sha256 for one in asked.volumes[0].slices]
        for name in ("consolidation", "lung_nodule"):
            finding = next(f for f in analysis.findings if f.condition == name)
            areas = masks[name].sum(axis=(1, 2))
            assert areas[order.index(finding.instance_sha256)] >= 0.9 * areas.max()

    def test_what_is_drawn_and_rated_absent_is_left_out_everywhere(self, engine, task, by_truth, phantom):
        by_truth(labels={"pleural_effusion": 1})
        asked = task()
        analysis = engine.analyse(asked)
        # 150 ml weigh ln(301) against a logit of -8: absent; no outline of it may stay.
        absent = {f.condition for f in analysis.findings if f.presence is Presence.ABSENT}
        assert {"consolidation", "lung_nodule"} <= absent
        assert set(unpack(asked, analysis)) == {"pleural_effusion"}
        assert {m.name for m in analysis.masks if m.count} == {"pleural_effusion"}
        assert any(remark.startswith("2 outlined places were left out") for remark in analysis.remarks)
        assert not any("nodule" in s.text for s in analysis.report if not s.normal)

    def test_a_mask_that_the_classifier_doubts_decides_by_its_size(self, engine, task, by_truth):
        by_truth(labels={"cardiomegaly": 1}, masks=None)
        sizes = {f.condition: f.probability for f in engine.analyse(task()).findings}
        assert sizes["pleural_effusion"] > sizes["pericardial_effusion"]

    @pytest.mark.parametrize("drawn", [True, False])
    def test_what_is_drawn_of_a_sign_speaks_for_it_and_does_not_go_out(self, files, tmp_path, drawn):
        network = made(with_sign("atelectasis"), seed=5)
        bias = torch.full_like(network.localiser.unet.bias, -6.0)
        bias[-1] = 6.0 if drawn else -6.0
        with torch.no_grad():
            network.localiser.unet.kernel.weight.zero_()
            network.localiser.unet.kernel.bias.zero_()
            network.localiser.unet.bias.copy_(bias)
        signs = len(LESIONS) + 1
        judged = swapped("atelectasis", JUDGED)
        slopes = tuple(1.0 if label in {*LESIONS, "atelectasis"} else 0.0 for label in judged)
        changes = {
            "mask_thresholds": (0.5,) * signs,
            "mask_peaks": (0.6,) * signs,
            "mask_least_mm3": (2000.0,) * signs,
            "mask_extents_mm3": (2000.0,) * signs,
            "mask_slopes": slopes,
            "judged": " ".join(judged),
        }
        loaded = model(
            tmp_path / "model", network, **changes, slopes=(0.0,) * len(JUDGED), intercepts=(-3.0,) * len(JUDGED)
        )
        engine = CTEngine()
        engine.load(loaded, Device(threads=1))
        analysis = engine.analyse(task_of(files, tmp_path).model_copy(update={"models": (loaded.ref,)}))
        (found,) = [finding for finding in analysis.findings if finding.condition == "atelectasis"]
        assert found.presence is (Presence.PRESENT if drawn else Presence.ABSENT)
        assert analysis.segmentations == ()
        assert {mask.name for mask in analysis.masks} == set(LESIONS)

    def test_without_any_mask_there_is_no_file(self, engine, task, by_truth, phantom):
        by_truth(masks={name: np.zeros_like(mask) for name, mask in phantom.masks.items()}, labels={"none": 1})
        analysis = engine.analyse(task())
        assert not analysis.files
        assert not analysis.segmentations
        assert [mask.count for mask in analysis.masks] == [0] * 5
        assert all(sentence.normal for sentence in analysis.report)

    def test_only_what_the_clinic_wants_is_judged_and_in_its_words(self, engine, task, by_truth):
        by_truth()
        (effusion,) = (c for c in describe_plugin().conditions if c.code == "pleural_effusion")
        wanted = (effusion.model_copy(update={"label": "Fluid of the pleura"}),)
        asked = task(conditions=wanted)
        analysis = engine.analyse(asked)
        assert [f.label for f in analysis.findings] == ["Fluid of the pleura"]
        assert set(unpack(asked, analysis)) == {"pleural_effusion"}


class TestWhatItDoesNotJudge:
    def test_another_body_part_and_too_few_slices_are_refused_in_words(self, engine, phantom, loaded, tmp_path):
        def spoil(dataset):
            dataset.BodyPartExamined = dataset.SeriesDescription = dataset.StudyDescription = "KNEE"
            dataset.ProtocolName = ""

        for name, spoilt, code in (
            ("knee", Spoilt(edit=spoil), "wrong_body_part"),
            ("few", Spoilt(missing=range(9, 48)), "too_few_slices"),
            ("gap", Spoilt(gap_mm=9.0), "irregular_volume"),
        ):
            asked = task_of(write_dicom(phantom, tmp_path / name, spoilt), tmp_path)
            analysis = engine.analyse(asked.model_copy(update={"models": (loaded.ref,)}))
            assert code in {refusal.code for refusal in analysis.refusals}, name
            said = (analysis.findings, analysis.masks, analysis.report, analysis.files)
            assert said == ((), (), (), ())

    def test_limits_are_said(self, engine, task):
        remarks = engine.analyse(task()).remarks
        assert CANNOT_TELL in remarks
        assert any(remark.startswith("Attention to anatomical regions was off") for remark in remarks)
        assert any("resampled" in remark for remark in remarks)
        assert any("mm apart" in remark for remark in remarks), "slices of 6 mm"

    def test_how_far_a_volume_lies_from_training_is_told_the_guard(self, task, tmp_path, by_truth):
        by_truth()
        for far in (True, False):
            loaded = model(tmp_path / str(far), far=far)
            engine = CTEngine()
            engine.load(loaded, Device())
            analysis = engine.analyse(task(models=(loaded.ref,)))
            (distance,) = analysis.distances
            assert (distance.value > distance.limit) is far
            assert CANNOT_TELL not in analysis.remarks

    def test_questions_are_not_answered(self, engine):
        with pytest.raises(InputError, match="answers no questions"):
            engine.ask(None)


class TestModels:
    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"judged": ""}, "lacks the parameter judged"),
            ({"judged": " ".join((*JUDGED[:6], "gout"))}, "no label gout"),
            ({"judged": " ".join(("pneumonia", *JUDGED[1:]))}, "outlines pericardial_effusion and does not judge"),
            ({"slopes": (1.0,) * 6}, "slopes of its manifest is not 7 numbers"),
            ({"slopes": (-1.0,) * 7}, "would lower its probability"),
            ({"thresholds": (0.7,) * 7}, "operating point of pericardial_effusion"),
            ({"mask_peaks": (0.2,) * 5}, "thresholds of its masks"),
            ({"mask_least_mm3": (1.0,) * 5}, "smaller than what is noise"),
            ({"mask_extents_mm3": (0.0,) * 5}, "an extent of its masks"),
            ({"feature_limit": 1.0}, "feature_stats.safetensors"),
        ],
    )
    def test_parameters_that_mean_nothing_are_refused(self, tmp_path, changes, why):
        with pytest.raises(ModelError, match=re.escape(why)):
            CTEngine().load(model(tmp_path / "wrong", **changes), Device())

    def test_a_model_of_another_plugin_none_and_an_adapter_are_refused(self, engine, loaded):
        other = loaded.model_copy(update={"manifest": loaded.manifest.model_copy(update={"plugin": "xray"})})
        for wrong in (None, other):
            with pytest.raises(ModelError):
                CTEngine().load(wrong, Device())
        with pytest.raises(ModelError, match="no adapter"):
            engine.use(loaded)

    def test_only_the_model_that_a_job_pins_judges(self, engine, task, loaded):
        stranger = loaded.ref.model_copy(update={"digest": "0" * 64})
        with pytest.raises(ModelError, match="which is not loaded"):
            engine.analyse(task(models=(stranger,)))
        with pytest.raises(ModelError, match="pins no network"):
            engine.analyse(task(models=()))


def test_a_child_judges_a_study_within_its_limits(task, loaded):
    """What the appliance does: a confined process, and an answer that is checked."""
    limits = Confinement(data=(2 * describe_plugin().memory_mb + 512) << 20, file_size=1 << 26)
    child = Child(ChildSpec(kind="engine", name="ct engine", confinement=limits))
    asked = task()
    try:
        params = EngineLoad(engine=describe_plugin().engine, models=(loaded,), device=Device())
        child.call("load", params, Ready, timeout_s=120)
        analysis = child.call("analyse", asked, Analysis, timeout_s=120)
    finally:
        child.kill()
    check_analysis(analysis, describe_plugin(), asked, [loaded])
    # The network draws consolidation everywhere.
    (mask,) = unpack(asked, analysis).values()
    assert mask.mean() > 0.95
    (shown,) = (m for m in analysis.masks if m.count)
    assert shown.name == "consolidation"
    assert shown.side == "bilateral"
    assert analysis.report


def test_the_network_of_the_tests_is_what_its_comment_says():
    network = all_of("lung_nodule")
    image = torch.rand(1, 3, 48, 64, 64)
    reading = sliding.read(network, image)
    drawn = (reading.masks[0] > 0).float().mean(dim=(1, 2, 3))
    assert drawn.tolist() == [1.0 if name == "lung_nodule" else 0.0 for name in LESIONS]
    assert network.config == network_config()
    assert len(operating()["slopes"]) == len(JUDGED)
