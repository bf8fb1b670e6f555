"""The engine in a real child process: what it judges, what it refuses, which models it takes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info, set_model_props
from onnx.numpy_helper import from_array
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from clinic_ai.confinement import Confinement
from clinic_ai.contract import Device, EngineLoad, LoadedModel, Ready
from clinic_ai.domain import Analysis, FileKind, InstanceHeader, Presence, StudyFacts
from clinic_ai.errors import ChildRefused, ModelError
from clinic_ai.ml.images import GreyImage
from clinic_ai.ml.model_files import open_model
from clinic_ai.plugins import find_plugins
from clinic_ai.processes import Child, ChildSpec
from clinic_ai.results.codes import table
from clinic_ai_xray.data import read_input
from clinic_ai_xray.gate import Shown, refuse_by_conditions, refuse_by_header, refuse_by_pixels
from clinic_ai_xray.phantom import draw_chest
from clinic_ai_xray.plugin import describe_plugin
from clinic_ai_xray.served import ServedModel

ENGINE = describe_plugin().engine
DESCRIBED = ("labels", "input_side", "temperature", "preprocessing_version")
CONDITIONS = {condition.code: condition for condition in describe_plugin().conditions}


def load(child: Child, model: LoadedModel) -> Ready:
    return child.call("load", EngineLoad(engine=ENGINE, models=(model,), device=Device()), Ready, timeout_s=60)


@pytest.fixture(scope="module")
def child(reference):
    engine = Child(ChildSpec(kind="engine", name="xray engine", confinement=Confinement(data=2 << 30)))
    try:
        load(engine, reference)
        yield engine
    finally:
        engine.kill()


@pytest.fixture(autouse=True)
def _the_reference_model_is_loaded(child, reference):
    yield
    child.call("load", EngineLoad(engine=ENGINE, models=(reference,), device=Device()), Ready, timeout_s=60)


def analyse(child, task) -> Analysis:
    return child.call("analyse", task, Analysis, timeout_s=60)


def test_the_plugin_is_found_by_its_entry_point():
    assert find_plugins().manifests["xray"] == describe_plugin()


def test_a_frontal_film_gets_a_finding_with_a_heat_map(child, film, task_of, reference):
    image = film()
    task = task_of(image)
    analysis = analyse(child, task)
    (finding,) = analysis.findings
    assert finding.condition == "pneumonia"
    assert finding.instance_sha256 == image.sha256
    assert finding.validation == reference.manifest.validation["pneumonia"]
    low, high = (reference.manifest.parameters[key] for key in ("abstain_low", "abstain_high"))
    certain = Presence.PRESENT if finding.probability >= high else Presence.ABSENT
    assert finding.presence == (Presence.UNCERTAIN if low <= finding.probability < high else certain)
    assert analysis.refusals == ()
    produced, numbers = analysis.files
    assert (produced.name, produced.role, produced.instance_sha256) == (finding.heatmap, "heatmap", image.sha256)
    with Image.open(Path(task.output_directory) / produced.name) as picture:
        assert picture.mode == "L"
        assert picture.size == (128, 128)
        drawn = np.asarray(picture, dtype=np.float32)
    assert (numbers.role, numbers.name) == ("data", Path(produced.name).with_suffix(".json").name)
    told = json.loads((Path(task.output_directory) / numbers.name).read_text())
    rows = np.array(told["rows"])
    assert rows.shape == (4, 4)
    assert np.abs(rows - rows[:, ::-1]).max() > 1e-3  # what it shows is of this film, not of any
    strongest = np.unravel_index(np.argmax(rows), rows.shape)
    assert drawn.reshape(4, 32, 4, 32).mean(axis=(1, 3))[strongest] == pytest.approx(
        drawn.reshape(4, 32, 4, 32).mean(axis=(1, 3)).max(), abs=8
    )


def test_polarity_and_depth_change_nothing(child, film, task_of):
    plain = film("a.dcm", bits=12)
    inverse = film("b.dcm", bits=12, monochrome1=True)
    deep = film("c.dcm", bits=16)
    probabilities = [finding.probability for finding in analyse(child, task_of(plain, inverse, deep)).findings]
    assert probabilities == pytest.approx([probabilities[0]] * 3, abs=2e-3)


def test_a_png_of_the_same_film_is_judged_alike(child, film, task_of, image_of, tmp_path):
    pixels = draw_chest(320, 288, seed=5)
    Image.fromarray(np.rint(pixels * 255).astype(np.uint8)).save(tmp_path / "film.png")
    png = image_of(tmp_path / "film.png", modality="", body_part="", view_position="")
    analysis = analyse(child, task_of(film(pixels=pixels), png, modalities=("DX",), body_parts=("CHEST",)))
    dicom, picture = analysis.findings
    assert picture.probability == pytest.approx(dicom.probability, abs=0.02)
    assert any("view" in remark for remark in analysis.remarks)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({"view_position": "LL"}, "lateral_view"),
        ({"view_position": "", "series_description": "Thorax lat"}, "lateral_view"),
        ({"view_position": "LLO"}, "unknown_view"),
        ({"body_part": "HAND"}, "wrong_body_part"),
        ({"body_part": "", "study_description": "KNEE 2 VIEWS"}, "wrong_body_part"),
        ({"body_part": "", "study_description": "CHEST AND HAND", "series_description": "HAND"}, "wrong_body_part"),
        ({"body_part": "THORACIC SPINE"}, "wrong_body_part"),
        ({"body_part": "THORACOLUMBAR_SPINE"}, "wrong_body_part"),
        ({"body_part": "", "study_description": "XR thoracic spine"}, "wrong_body_part"),
        ({"modality": "MG"}, "mammogram"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.1.2"}, "mammogram"),
        ({"modality": "CT"}, "not_an_xray"),
        ({"modality": ""}, "not_an_xray"),
    ],
)
def test_what_the_header_rules_out_gets_no_number(header, code):
    words = {"modality": "DX", "body_part": "CHEST", "view_position": "PA", **header}
    said = InstanceHeader(kind=FileKind.DICOM, **words)
    pneumonia = [CONDITIONS["pneumonia"]]
    reason = refuse_by_header(said, StudyFacts()) or refuse_by_conditions(Shown.of(said, StudyFacts()), pneumonia)
    assert reason is not None
    assert reason.code == code
    assert reason.sentence.endswith(".")


@pytest.mark.parametrize(
    ("part", "view", "modelled", "code"),
    [
        ("HAND", "PA", ["pneumonia", "arthritis"], None),
        ("CHEST", "PA", ["pneumonia", "arthritis"], None),
        ("CHEST", "PA", ["arthritis"], "wrong_body_part"),
        ("HAND", "LATERAL", ["arthritis"], None),
        ("", "PA", ["pneumonia", "cardiomegaly"], None),
        ("", "PA", ["pneumonia", "arthritis"], "unknown_body_part"),
        ("SKULL", "PA", ["pneumonia", "arthritis", "osteoporosis", "bone_fracture"], "wrong_body_part"),
    ],
)
def test_a_hand_never_meets_a_chest_model(part, view, modelled, code):
    reason = refuse_by_conditions(Shown(part, view), [CONDITIONS[key] for key in modelled])
    assert (reason.code if reason else None) == code


def test_the_five_conditions_are_there_and_have_codes():
    assert list(CONDITIONS) == ["pneumonia", "cardiomegaly", "arthritis", "osteoporosis", "bone_fracture"]
    assert set(CONDITIONS) <= set(table())


def test_a_condition_that_the_clinic_narrows_is_judged_on_less(child, film, task_of):
    image = film()
    narrowed = CONDITIONS["pneumonia"].model_copy(update={"views": ("AP",)})
    analysis = analyse(child, task_of(image).model_copy(update={"conditions": (narrowed,)}))
    assert analysis.findings == ()
    assert [(refusal.code, refusal.instance_sha256) for refusal in analysis.refusals] == [
        ("unknown_view", image.sha256)
    ]


def test_a_finding_is_worded_as_the_clinic_words_its_condition(child, film, task_of):
    reworded = CONDITIONS["pneumonia"].model_copy(update={"label": "Inflamed lung"})
    strange = film("strange.dcm", pixels=1 - draw_chest(320, 288, seed=1), seed=2)
    analysis = analyse(child, task_of(film(), strange).model_copy(update={"conditions": (reworded,)}))
    assert [finding.label for finding in analysis.findings] == ["Inflamed lung"]
    assert "for inflamed lung;" in analysis.files[0].caption
    assert "the model for inflamed lung was trained on" in analysis.refusals[0].sentence


@pytest.mark.parametrize(
    ("tier", "fast_calls", "judge"),
    [
        ("", "absent", "main"),
        ("", "present", "confirm"),
        ("both", "present", "confirm"),
        ("fast", "present", "main"),
        ("intensive", "absent", "confirm"),
    ],
)
def test_the_fast_tier_screens_and_the_intensive_one_confirms(child, film, task_of, copied, tier, fast_calls, judge):
    low = {"absent": 0.9997, "present": 0.0002}[fast_calls]
    fast = edited_manifest(copied, abstain_low=low, threshold=low, abstain_high=low)
    slow = edited_manifest(copied, tier="intensive")
    slow = slow.model_copy(update={"ref": slow.ref.model_copy(update={"slot": "confirm"})})
    condition = CONDITIONS["pneumonia"].model_copy(update={"tier": tier})
    task = task_of(film()).model_copy(update={"models": (fast.ref, slow.ref), "conditions": (condition,)})
    order = EngineLoad(engine=ENGINE, models=(fast, slow), device=Device())
    child.call("load", order, Ready, timeout_s=60)
    (finding,) = analyse(child, task).findings
    assert finding.model == judge


def test_the_intensive_model_that_ships_stands_beside_the_fast_one(child, film, task_of, reference):
    intensive = open_model(Path(reference.directory).with_name("pneumonia-intensive"))
    order = EngineLoad(engine=ENGINE, models=(reference, intensive), device=Device())
    child.call("load", order, Ready, timeout_s=60)
    task = task_of(film()).model_copy(update={"models": (reference.ref, intensive.ref)})
    analysis = analyse(child, task)
    (finding,) = analysis.findings
    assert finding.model == "intensive"
    assert finding.validation == intensive.manifest.validation["pneumonia"]
    told = json.loads((Path(task.output_directory) / analysis.files[1].name).read_text())
    assert np.array(told["rows"]).shape == (7, 7)


def test_what_the_pixels_rule_out_gets_no_number(child, film, task_of, image_of, tmp_path, constant):
    generator = np.random.default_rng(1)
    colourful = generator.integers(0, 255, (200, 200, 3)).astype(np.uint8)
    Image.fromarray(colourful).save(tmp_path / "photo.jpg")
    (tmp_path / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"rubbish" * 50)
    images = {
        "empty_image": film("black.dcm", pixels=constant * 0),
        "too_small": film("dot.dcm", pixels=np.ones((1, 1), dtype=np.float32)),
        "unusual_shape": film("strip.dcm", rows=1000, columns=100),
        "colour_picture": image_of(tmp_path / "photo.jpg"),
        "no_pixels": image_of(tmp_path / "broken.dcm"),
    }
    analysis = analyse(child, task_of(*images.values(), film("good.dcm")))
    assert {refusal.code: refusal.instance_sha256 for refusal in analysis.refusals} == {
        code: image.sha256 for code, image in images.items()
    }
    assert len(analysis.findings) == 1  # the good film beside them is judged


def as_cine(scan):
    scan.NumberOfFrames = 3
    scan.PixelData *= 3


def cut_short(scan):
    scan.PixelData = scan.PixelData[:1000]


def as_rubbish(scan):
    scan.file_meta.TransferSyntaxUID = JPEG2000Lossless
    scan.PixelData = encapsulate([b"\xff\x4f" * 500])


def as_not_numbers(scan):
    del scan.PixelData
    scan.FloatPixelData = np.full((scan.Rows, scan.Columns), np.nan, dtype="<f4").tobytes()
    scan.BitsAllocated = 32


def test_nothing_but_a_single_film_of_the_right_part_and_view_gets_a_number(child, film, task_of, image_of, tmp_path):
    """Every kind of wrong image in one study, through the engine: each is refused, with its reason, and none judged."""
    chest = draw_chest(96, 96, seed=1)
    photograph = np.rint(chest * 255)[..., None] * (0.9, 0.8, 0.6) + (25, 15, 0)  # of a film, in warm light
    landscape = np.linspace((90, 160, 230), (60, 120, 30), 200)[:, None].repeat(300, axis=1)
    for name, colours in (("photograph.jpg", photograph), ("landscape.png", landscape)):
        Image.fromarray(colours.astype(np.uint8)).save(tmp_path / name)
    silent = {"modality": "", "body_part": "", "view_position": ""}
    wrong = [("colour_picture", image_of(tmp_path / name, **silent)) for name in ("photograph.jpg", "landscape.png")]
    for code, pixels, edit, header in (
        ("not_an_xray", chest, None, {"modality": "CT"}),
        ("not_an_xray", chest, None, {"modality": "US"}),
        ("not_an_xray", chest, as_cine, {"modality": "XA", "frames": 3}),
        ("several_frames", chest, as_cine, {"modality": "DX", "frames": 3}),
        ("mammogram", chest, None, {"modality": "MG"}),
        ("wrong_body_part", chest, None, {"body_part": "HAND"}),
        ("lateral_view", chest, None, {"view_position": "LL"}),
        ("empty_image", chest * 0, None, {}),
        ("empty_image", chest * 0 + 1, None, {}),
        ("too_small", chest[:1, :1], None, {}),
        ("too_small", chest[:1], None, {}),
        ("cannot_decode", chest, cut_short, {}),
        ("cannot_decode", chest, as_rubbish, {}),
        ("not_a_number", chest, as_not_numbers, {}),
    ):
        path = tmp_path / f"{len(wrong)}.dcm"
        film(path.name, pixels=pixels, seed=len(wrong))
        if edit is not None:
            scan = pydicom.dcmread(path)
            edit(scan)
            scan.save_as(path)
        wrong.append((code, image_of(path, **header)))

    analysis = analyse(child, task_of(*(image for _, image in wrong)))
    assert [(refusal.code, refusal.instance_sha256) for refusal in analysis.refusals] == [
        (code, image.sha256) for code, image in wrong
    ]
    assert all(refusal.sentence.endswith(".") for refusal in analysis.refusals)
    assert (analysis.findings, analysis.files) == ((), ())


@pytest.mark.parametrize(
    ("bright", "refused"),
    [(0.0, True), (0.01, True), (0.015, True), (0.03, False), (0.5, False)],
)
def test_contrast_is_judged_without_the_extremes(bright, refused):
    """``bright`` is the share of pixels that are white; up to 2 % of them may be a label or a dead pixel."""
    pixels = np.zeros((128, 128), dtype=np.float32)
    pixels.reshape(-1)[: round(bright * pixels.size)] = 1.0
    pixels.reshape(-1)[-1] = 0.7
    reason = refuse_by_pixels(GreyImage(pixels, None, (), (2500, 2048)))
    assert (reason is not None and reason.code == "empty_image") == refused


def test_a_job_pinned_to_another_model_is_not_run(child, film, task_of, reference):
    task = task_of(film())
    other = reference.ref.model_copy(update={"digest": "0" * 64})
    with pytest.raises(ChildRefused, match="is not loaded"):
        analyse(child, task.model_copy(update={"models": (other,)}))


@pytest.fixture
def copied(tmp_path, reference):
    directory = tmp_path / "model"
    shutil.copytree(reference.directory, directory)
    return directory


def edited_manifest(directory: Path, **parameters) -> LoadedModel:
    model = open_model(directory)
    manifest = model.manifest.model_copy(update={"parameters": {**model.manifest.parameters, **parameters}})
    return model.model_copy(update={"manifest": manifest})


def test_a_second_load_replaces_the_model_in_the_same_process(child, film, task_of, reference, copied):
    toml = copied / "model.toml"
    toml.write_text(toml.read_text() + "\n# another digest\n")
    second = open_model(copied)
    pid = child.pid
    load(child, second)
    try:
        task = task_of(film()).model_copy(update={"models": (second.ref,)})
        assert analyse(child, task).models == (second.ref,)
        with pytest.raises(ChildRefused, match="is not loaded"):
            analyse(child, task_of(film()))
    finally:
        load(child, reference)
    assert child.pid == pid


def test_a_corrupt_file_is_refused(child, copied, reference):
    content = bytearray((copied / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copied / "model.onnx").write_bytes(content)
    with pytest.raises(ChildRefused, match="not the one its manifest pins") as caught:
        load(child, open_model(copied))
    assert caught.value.code == "modelerror"
    load(child, reference)


def test_metadata_that_disagree_are_refused(child, copied, reference):
    with pytest.raises(ChildRefused, match="disagree with its manifest"):
        load(child, edited_manifest(copied, temperature=9.0))
    with pytest.raises(ChildRefused, match="image preparation"):
        load(child, edited_manifest(copied, preprocessing_version=99))
    with pytest.raises(ChildRefused, match="out of range"):
        load(child, edited_manifest(copied, abstain_low=0.99))
    load(child, reference)


@pytest.mark.parametrize("key", ["map_scale", "temperature", "input_side"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_parameter_that_is_not_finite_is_refused(copied, key, value):
    with pytest.raises(ModelError, match=f"parameter {key} of its manifest is {value}"):
        ServedModel(edited_manifest(copied, **{key: value}), Device())


def test_rubbish_with_a_right_hash_is_refused(child, copied, reference):
    from clinic_ai.ml.model_files import write_manifest

    (copied / "model.onnx").write_bytes(b"rubbish" * 100)
    write_manifest(copied, open_model(copied).manifest, [copied / "model.onnx"])
    with pytest.raises(ChildRefused, match="damaged"):
        load(child, open_model(copied))
    load(child, reference)


STRANGE = {
    "noise": lambda drawn: np.random.default_rng(0).random(drawn.shape).astype(np.float32),
    "inverted": lambda drawn: 1 - drawn,
    "lying on its side": lambda drawn: np.ascontiguousarray(np.rot90(drawn)),
    "letters on paper": lambda drawn: np.where(np.indices(drawn.shape).sum(axis=0) % 24 < 4, 0.1, 0.9).astype(
        np.float32
    ),
}


@pytest.mark.parametrize("what", STRANGE)
def test_an_image_unlike_those_of_training_gets_no_number(child, film, task_of, what):
    drawn = draw_chest(320, 288, seed=1)
    strange = film("strange.dcm", pixels=STRANGE[what](drawn), seed=2)
    task = task_of(film("good.dcm", seed=1), strange)
    analysis = analyse(child, task)
    assert [refusal.code for refusal in analysis.refusals] == ["out_of_distribution"]
    assert analysis.refusals[0].instance_sha256 == strange.sha256
    assert "unlike those that the model for pneumonia was trained on" in analysis.refusals[0].sentence
    assert len(analysis.findings) == 1


def mirror(directory: Path) -> LoadedModel:
    """Replace the graph of a copied model by one whose map is the image it is given."""
    from clinic_ai.ml.model_files import write_manifest

    image, batch = ["batch", 1, 128, 128], ["batch"]
    nodes = [
        make_node("ReduceMean", ["images", "all"], ["logit"], keepdims=0),
        make_node("Squeeze", ["images", "channel"], ["cam"]),
        make_node("Flatten", ["images"], ["features"]),
    ]
    graph = make_graph(
        nodes,
        "mirror",
        [make_tensor_value_info("images", TensorProto.FLOAT, image)],
        [
            make_tensor_value_info("logit", TensorProto.FLOAT, batch),
            make_tensor_value_info("cam", TensorProto.FLOAT, ["batch", 128, 128]),
            make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 128 * 128]),
        ],
        [from_array(np.array([1, 2, 3]), "all"), from_array(np.array([1]), "channel")],
    )
    built = make_model(graph, opset_imports=[make_opsetid("", 20)], ir_version=10)
    model = open_model(directory)
    set_model_props(built, {key: str(model.manifest.parameters[key]) for key in DESCRIBED})
    (directory / "model.onnx").write_bytes(built.SerializeToString())
    write_manifest(directory, model.manifest, [directory / "model.onnx"])
    return open_model(directory)


def test_the_trainer_sees_the_pixels_that_the_engine_sees(child, film, image_of, task_of, copied, tmp_path):
    model = mirror(copied)
    load(child, model)
    Image.fromarray(np.rint(draw_chest(700, 640, seed=4) * 255).astype(np.uint8)).save(
        tmp_path / "film.jpg", quality=90
    )
    images = [
        film("a.dcm", rows=1100, columns=1000, bits=12, monochrome1=True),
        film("b.dcm", seed=2, bits=8),
        image_of(tmp_path / "film.jpg"),
    ]
    task = task_of(*images).model_copy(update={"models": (model.ref,)})
    analysis = analyse(child, task)
    assert "The model for pneumonia cannot tell images that are unlike those of its training." in analysis.remarks
    seen = [
        np.array(json.loads((Path(task.output_directory) / file.name).read_text())["rows"])
        for file in analysis.files
        if file.role == "data"
    ]
    assert len(seen) == len(images)
    for rows, image in zip(seen, images, strict=True):
        assert rows.std() > 0.1
        np.testing.assert_allclose(rows, read_input(image.path, 128), atol=1e-6)
