"""The engine: who answers, what is refused in words, what an answer says of itself; once in a real child."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pydicom
import pytest
import torch
from pydicom.uid import ExplicitVRLittleEndian
from tiny import make_adapter

from clinic_ai.analyses import check_analysis
from clinic_ai.confinement import Confinement
from clinic_ai.contract import AnalysisTask, Device, EngineLoad, QuestionTask, Ready, TaskImage
from clinic_ai.domain import Analysis, Answer, Audience, CategoryInfo, FileKind, Generation, InstanceHeader, StudyFacts
from clinic_ai.errors import ChildRefused, InputError, ModelError
from clinic_ai.ml.unlike import Unlike
from clinic_ai.processes import Child, ChildSpec
from clinic_ai.questions import check_answer
from clinic_ai_ultrasound import engine as module
from clinic_ai_ultrasound.engine import NOT_LEARNED, UltrasoundEngine
from clinic_ai_ultrasound.pictures import as_picture, read
from clinic_ai_ultrasound.plugin import describe_plugin

SHORT = Generation(max_new_tokens=8)
QUESTIONS = ("Which view does the image show?", "In which half of the image does it lie?")
CATEGORIES = tuple(
    CategoryInfo(key=c.key, label=c.label, questions=QUESTIONS, generation=SHORT) for c in describe_plugin().categories
)
FEMUR = {"confidence_slope": 1.0, "confidence_intercept": 3.0, "questions": "\n".join(QUESTIONS)}


@pytest.fixture(scope="module")
def femur(tiny, tmp_path_factory):
    """An adapter with a calibration."""
    return make_adapter(tmp_path_factory.mktemp("calibrated") / "femur", tiny, "femur", seed=31, **FEMUR)


@pytest.fixture(scope="module")
def engine(tiny, femur, adapters):
    """An engine with the base and the adapters for femur and abdomen."""
    made = UltrasoundEngine()
    made.load(tiny, Device())
    made.use(femur)
    made.use(adapters["abdomen"])
    return made


@pytest.fixture
def task(tiny, femur, adapters):
    """A function that makes an analysis task of images; the models are those of ``engine``."""

    def make(*images, **words):
        models = (tiny.ref, femur.ref, adapters["abdomen"].ref)
        standard = {"job_id": "J", "facts": StudyFacts(), "output_directory": "/tmp", "models": models}
        return AnalysisTask(images=images, categories=CATEGORIES, **standard | words)

    return make


@pytest.fixture
def question(tiny, femur, adapters):
    """A function that makes a question about an image."""

    def make(image, **words):
        models = (tiny.ref, femur.ref, adapters["abdomen"].ref)
        standard = {"job_id": "J", "facts": StudyFacts(), "models": models, "audience": Audience.CLINICIAN}
        return QuestionTask(question=QUESTIONS[0], image=image, categories=CATEGORIES, **standard | words)

    return make


@pytest.fixture
def image(picture_file):
    """A function: a picture of a seed as a task names it."""

    def make(category="femur", seed=0, path=None, **words):
        path = path or picture_file(seed)
        kind = FileKind.DICOM if path.suffix == ".dcm" else FileKind.PNG
        header = InstanceHeader(**{"kind": kind, "modality": "US", "rows": 80, "columns": 100, "frames": 1} | words)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return TaskImage(path=str(path), sha256=digest, header=header, category=category)

    return make


@pytest.fixture(scope="module")
def cine(tmp_path_factory):
    """A DICOM loop of twelve frames: all blurred but the sixth and the tenth, which differ."""
    clouds = np.random.default_rng(4).integers(0, 256, (12, 80, 100))
    frames = np.full((12, 80, 100), 90)
    frames[:, ::9, ::9] = 200
    frames[5, :, :50], frames[9, :, 50:] = clouds[5, :, :50], clouds[9, :, 50:]
    loop = pydicom.Dataset()
    loop.file_meta = pydicom.dataset.FileMetaDataset()
    loop.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    loop.file_meta.MediaStorageSOPClassUID = loop.SOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"
    loop.file_meta.MediaStorageSOPInstanceUID = loop.SOPInstanceUID = "1.2.3.4"
    loop.Modality, loop.PhotometricInterpretation, loop.NumberOfFrames = "US", "MONOCHROME2", 12
    loop.SamplesPerPixel, loop.Rows, loop.Columns = 1, 80, 100
    loop.BitsAllocated = loop.BitsStored = 8
    loop.HighBit, loop.PixelRepresentation, loop.PixelData = 7, 0, frames.astype(np.uint8).tobytes()
    path = tmp_path_factory.mktemp("cine") / "loop.dcm"
    loop.save_as(path, enforce_file_format=True)
    return path


def codes(analysis):
    return [refusal.code for refusal in analysis.refusals]


class TestWhoAnswers:
    def test_each_image_is_answered_by_the_adapter_of_its_category(self, engine, task, image):
        first, second = image("femur"), image("abdomen")
        both = engine.analyse(task(first, second))
        assert [(a.adapter, a.category, a.question) for a in both.answers] == [
            (key, key, q) for key in ("femur", "abdomen") for q in QUESTIONS
        ]
        assert both.answers[0].text != both.answers[2].text, "the same picture, another adapter"
        assert engine.analyse(task(second)).answers == both.answers[2:], "whatever was asked before"
        assert all(a.instance_sha256 == first.sha256 and a.frame is None and a.text for a in both.answers)
        assert set(both.timings_ms) == {"choose", "read", "look", "switch", "answer"}

    def test_the_confidence_is_calibrated_or_not_given(self, engine, task, image):
        given = [answer.confidence for answer in engine.analyse(task(image("femur"), image("abdomen"))).answers]
        assert all(0 < confidence < 1 for confidence in given[:2])
        assert given[2:] == [None, None]

    def test_of_a_question_it_has_not_learned_it_is_not_sure(self, engine, question, image):
        asked = question(image("femur"))
        learned, new = (
            engine.ask(asked.model_copy(update={"question": words}))
            for words in (f" {QUESTIONS[0].upper()}", "Is there a syndrome?")
        )
        assert 0 < learned.confidence < 1
        assert NOT_LEARNED not in learned.notes
        assert new.confidence is None
        assert NOT_LEARNED in new.notes

    @pytest.mark.parametrize("key", ["trans_cerebellum", "trans_thalamic", "trans_ventricular", "cervix"])
    def test_a_category_without_a_model_says_exactly_what_it_needs(self, engine, task, question, image, key):
        label = next(c.label for c in CATEGORIES if c.key == key)
        (refusal,) = engine.analyse(task(image(key))).refusals
        assert refusal.sentence == (
            f"The category {label} has no trained model: it needs a labelled sheet. Put its images and the sheet with "
            f"questions and answers into labels/ultrasound/{key}, then run "
            f"`clinic-ai train run ultrasound labels/ultrasound/{key}`."
        )
        with pytest.raises(InputError, match=f"The category {label} has no trained model"):
            engine.ask(question(image(key)))

    def test_the_base_answers_only_if_the_clinic_lets_it_and_says_so(self, engine, task, image):
        answered = engine.analyse(task(image("thorax"), base_answers=True)).answers
        assert [(a.adapter, a.category, a.confidence) for a in answered] == [("", "thorax", None)] * 2
        assert "Answered by the base model; no model has been trained for Thorax." in answered[0].notes

    def test_an_image_of_no_category_is_not_guessed(self, engine, task, image):
        unsure = image("").model_copy(update={"category_note": "The folder says femur, the header abdomen."})
        (refusal, other) = engine.analyse(task(unsure, image("liver"))).refusals
        assert (refusal.code, other.code) == ("no_category", "unknown_category")
        assert refusal.sentence.startswith("The folder says femur, the header abdomen.")

    def test_a_model_that_is_not_the_pinned_one_does_not_answer(self, engine, task, question, image, tiny, femur):
        other = femur.ref.model_copy(update={"digest": "a" * 64})
        for models in ((tiny.ref, other), (tiny.ref.model_copy(update={"digest": "b" * 64}),), ()):
            with pytest.raises(ModelError, match="job pins"):
                engine.analyse(task(image(), models=models))
            with pytest.raises(ModelError, match="job pins"):
                engine.ask(question(image(), models=models))


class TestWhatIsRefused:
    def test_what_is_wrong_with_one_image_does_not_keep_the_others_from_answers(
        self, engine, task, image, picture_file, tmp_path
    ):
        (tmp_path / "cut.png").write_bytes(picture_file(0).read_bytes()[:200])
        images = (image(modality="CR"), image(path=tmp_path / "cut.png"), image(seed=2))
        analysis = engine.analyse(task(*images))
        assert codes(analysis) == ["not_an_ultrasound", "cannot_decode"]
        assert {answer.instance_sha256 for answer in analysis.answers} == {images[2].sha256}
        assert any("cannot tell images that are unlike" in remark for remark in analysis.remarks)

    def test_an_answer_that_is_late_is_refused_and_not_passed_on(self, engine, task, question, image):
        late = engine.analyse(task(image(), answer_timeout_s=1e-9))
        assert (codes(late), late.answers) == (["answer_timeout"] * 2, ())
        with pytest.raises(InputError) as caught:
            engine.ask(question(image(), answer_timeout_s=1e-9))
        assert caught.value.code == "answer_timeout"

    def test_an_answer_of_numbers_that_overflow_is_refused(self, tiny, task, question, image, tmp_path):
        adapter = make_adapter(tmp_path / "femur", tiny, "femur", seed=31)
        config = tmp_path / "femur" / "adapter_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 1e38}))
        overflowing = UltrasoundEngine()
        overflowing.load(tiny, Device())
        overflowing.use(adapter)
        models = (tiny.ref, adapter.ref)
        assert codes(overflowing.analyse(task(image(), models=models))) == ["not_finite"] * 2
        with pytest.raises(InputError, match="not finite"):
            overflowing.ask(question(image(), models=models))

    def test_an_answer_without_words_is_refused(self, engine, task, question, image, monkeypatch):
        monkeypatch.setattr(module, "answer", lambda *a, **k: [module.Answered("", -1.0, ())] * len(a[2]))
        assert codes(engine.analyse(task(image()))) == ["empty_answer"] * 2
        with pytest.raises(InputError, match="no answer to the question: Which view"):
            engine.ask(question(image()))

    def test_a_study_of_very_many_images_is_answered_in_part_and_says_so(self, engine, task, image, monkeypatch):
        monkeypatch.setattr(module, "IMAGES", 1)
        analysis = engine.analyse(task(image(), image(seed=1)))
        assert (len(analysis.answers), codes(analysis)) == (2, ["not_reached"])
        assert "asked about 1 images of the study only" in analysis.remarks[-1]
        monkeypatch.setattr(module, "SHARE_OF_TIME", 0.0)
        assert codes(engine.analyse(task(image()))) == ["not_reached"]

    def test_an_engine_without_a_base_says_so(self, task, image, femur):
        empty = UltrasoundEngine()
        with pytest.raises(ModelError, match="needs a base model"):
            empty.load(None, Device())
        for call in (lambda: empty.use(femur), lambda: empty.analyse(task(image()))):
            with pytest.raises(ModelError, match="has no base"):
                call()


class TestCine:
    def test_the_answer_says_which_frame(self, engine, task, image, cine):
        analysis = engine.analyse(task(image(path=cine, frames=12)))
        assert {answer.frame for answer in analysis.answers} >= {5, 9}
        assert len(analysis.answers) <= 2 * 3
        for answer in analysis.answers:
            assert answer.notes[-1] == f"Read from frame {answer.frame + 1} of 12."

    def test_a_frame_that_cannot_be_asked_about_does_not_silence_the_others(
        self, engine, task, image, cine, monkeypatch
    ):
        loop = image(path=cine, frames=12)
        base, _ = engine._ready()
        pooled = {frame: module.look(base, as_picture(read(str(cine), frame))).pooled for frame in (5, 9)}
        reach = float((pooled[5] - pooled[9]).norm()) / 2
        monkeypatch.setattr(engine, "_unlike", Unlike(pooled[9], torch.eye(len(pooled[9])), reach))
        analysis = engine.analyse(task(loop))
        assert 9 in {answer.frame for answer in analysis.answers}
        assert 5 not in {answer.frame for answer in analysis.answers}
        assert any(refusal.sentence.startswith("Frame 6 of 12: The image is unlike") for refusal in analysis.refusals)

    def test_a_person_may_name_the_frame(self, engine, question, image, cine):
        loop = image(path=cine, frames=12)
        assert engine.ask(question(loop)).frame in {5, 9}
        named = engine.ask(question(loop, frame=9))
        assert (named.frame, named.notes[-1]) == (9, "Read from frame 10 of 12.")
        with pytest.raises(InputError, match="Frame 13 was asked for; the file has 12"):
            engine.ask(question(loop, frame=12))


def test_the_daemon_finds_nothing_wrong_with_its_answers(engine, task, question, image, cine, tiny, femur, adapters):
    models, manifest, loop = (tiny, femur, adapters["abdomen"]), describe_plugin(), image(path=cine, frames=12)
    asked = (question(image()), question(image("thorax"), base_answers=True), question(loop), question(loop, frame=9))
    for one in asked:
        check_answer(engine.ask(one), manifest, one, models)
    whole = task(image(), image("thorax", seed=1), loop, base_answers=True)
    analysis = engine.analyse(whole)
    check_analysis(analysis, manifest, whole, models)
    assert {answer.adapter for answer in analysis.answers} == {"", "femur"}


def test_another_femur_answers_in_the_same_child_and_the_others_as_before(
    tiny, femur, adapters, tmp_path, task, question, image
):
    """What a promotion does: another load with the same base."""
    fresh = make_adapter(tmp_path / "femur", tiny, "femur", seed=99)
    # Those of a trial load at import, which are the strictest.
    limits = Confinement(data=(2 * describe_plugin().memory_mb + 512) << 20, file_size=1 << 20)
    child = Child(ChildSpec(kind="engine", name="ultrasound engine", confinement=limits))
    try:

        def load(*models):
            params = EngineLoad(engine=describe_plugin().engine, models=models, device=Device())
            child.call("load", params, Ready, timeout_s=120)

        def analyse(*models):
            asked = task(image("femur"), image("abdomen"), models=tuple(model.ref for model in models))
            return child.call("analyse", asked, Analysis, timeout_s=60).answers

        before, after = (tiny, femur, adapters["abdomen"]), (tiny, fresh, adapters["abdomen"])
        load(*before)
        first = analyse(*before)
        load(*after)
        second = analyse(*after)
        assert first[2:] == second[2:]
        assert first[0].text != second[0].text
        asked = question(image("abdomen"), models=tuple(model.ref for model in after))
        assert child.call("ask", asked, Answer, timeout_s=60).adapter == "abdomen"
        with pytest.raises(ChildRefused, match="has no trained model"):
            child.call("ask", question(image("cervix"), models=asked.models), Answer, timeout_s=60)
    finally:
        child.kill()
