"""Phases of training on small phantoms: they run in order, their metrics move, and what is wrong is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import training_set

from clinic_ai.contract import Limits
from clinic_ai.errors import ClinicError, DatasetError, ModelError
from clinic_ai.ml.model_files import open_model
from clinic_ai.ml.records import Record
from clinic_ai.training.volume_folder import read_volumes
from clinic_ai_ct.configurations import CONFIGURATIONS
from clinic_ai_ct.formats import read_nifti, write_nifti
from clinic_ai_ct.lora import lora_config
from clinic_ai_ct.network import CTNetwork, made
from clinic_ai_ct.plugin import describe_plugin
from clinic_ai_ct.saving import read_network
from clinic_ai_ct.trainer import CTTrainer
from clinic_ai_ct.training import evaluating, rewarding, run
from clinic_ai_ct.training.cases import cases_of, folder_dataset
from clinic_ai_ct.training.fitting import PhaseFit
from clinic_ai_ct.training.loading import speech_of
from clinic_ai_ct.training.objective import Scene
from clinic_ai_ct.training.phases import PHASES
from clinic_ai_ct.training.plan import plan_of
from clinic_ai_ct.training.prepared import Preparing
from clinic_ai_ct.training.recipe import CTRecipe
from clinic_ai_ct.training.reward import Reward, reward
from clinic_ai_ct.training.run import OBJECTIVES, paraphrased
from clinic_ai_ct.training.seeing import Seeing
from clinic_ai_ct.training.tasks import Joint

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    return training_set.write_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return training_set.write_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def language(tmp_path_factory, phantoms):
    return training_set.write_language(tmp_path_factory.mktemp("language"), phantoms)


@pytest.fixture(scope="module")
def cases(phantoms):
    return cases_of(phantoms)


def scene(cases, folder=None, speech=None, **recipe) -> Scene:
    """Return a scene over a new network; what it sees is kept in ``folder``."""
    network = made(training_set.config(), 1)
    prepare = Preparing(network.config, folder, 10, len(cases), 1)
    chosen = CTRecipe.parse(recipe)
    found = Scene(network, None if speech is None else speech.language, prepare, chosen, CPU)
    if folder is not None:
        found.seeing = Seeing(network, folder, 10, len(cases))
    return found


def test_all_phases_learn_in_order(phantoms, base, language, tmp_path, monkeypatch):
    monkeypatch.setattr(Record, "draw", lambda *_: b"")  # another test draws
    recipe = {"phase": ",".join(PHASES), "language": str(language), "epochs": 2, "rate": 5e-3, "longest": 16}
    told = training_set.Told()
    result = CTTrainer().train(training_set.task(tmp_path, phantoms, base, accumulation=1, **recipe), told)
    assert result.state == "finished"
    for number, phase in enumerate(PHASES.values(), start=1):
        first, last = (entry for entry in result.history if entry["phase"] == number)
        # Of four volumes there are few AUROCs and words, and two epochs may draw no voxel yet: there the loss alone
        # has to tell.
        still = {"classification", "localisation", "alignment"}
        assert first[phase.metric] != last[phase.metric] or phase.name in still, phase.name
        learned = "validation_loss" if phase.name == "encoder" else "loss"
        assert last[learned] < first[learned] or phase.name == "grpo", phase.name
    assert {"classification.accuracy", "localisation.dice", "report.rouge_l"} <= result.scores.values.keys()
    assert "phase 3 of 6: localisation" in {report.message for report in told.reports}
    model = open_model(tmp_path / "model")
    assert model.manifest.parameters["phases"] == ", ".join(PHASES)
    assert lora_config(tmp_path / "model").rank == CONFIGURATIONS["D"].language.rank
    assert str(language) not in (tmp_path / "model" / "training_summary.json").read_text()
    assert CTTrainer().evaluate(model, phantoms).values == pytest.approx(result.scores.values)


def test_a_stopped_run_goes_on_and_keeps_three_best_checkpoints(phantoms, base, tmp_path):
    task = training_set.task(tmp_path, phantoms, base, phase="classification", epochs=6, rate=1e-2)
    stopped = CTTrainer().train(task, training_set.Told(stop_at=len(phantoms.examples) + 3))
    assert (stopped.state, stopped.model_directory) == ("stopped", "")
    result = CTTrainer().train(task, training_set.Told())
    assert result.state == "finished"
    assert any(note.startswith("Went on after") for note in result.notes)
    assert (tmp_path / "phase-1-classification" / "figures" / "loss.png").is_file()
    ranked = sorted(result.history, key=lambda e: (e["validation_auroc"], -e["validation_loss"]), reverse=True)
    kept = {path.name for path in (tmp_path / "phase-1-classification" / "checkpoints").iterdir()}
    assert kept == {f"epoch-{int(entry['epoch']):05d}" for entry in [*ranked[:3], result.history[-1]]}


def test_what_is_measured_is_the_model_that_is_written(phantoms, base, tmp_path, monkeypatch):
    """Also where the best epoch is not the last one, and soft prompts learned on after it."""
    monkeypatch.setattr(Record, "draw", lambda *_: b"")
    monkeypatch.setattr(PhaseFit, "_rank", lambda _, entry: (-entry["epoch"], 0.0))
    recipe = {"phase": "classification", "epochs": 4, "rate": 0.3, "accumulation": 1}
    image = torch.rand(1, 3, 8, 32, 32, generator=torch.Generator().manual_seed(1))
    told: list[torch.Tensor] = []

    @torch.inference_mode()
    def tell(network):
        told.append(network.classify(network.encode(image)))

    def measure(network, *others):
        found = evaluating.evaluate(network, *others)
        tell(network)  # now: writing renews what the text encoder says
        return found

    monkeypatch.setattr(run, "evaluate", measure)
    result = CTTrainer().train(training_set.task(tmp_path, phantoms, base, **recipe), training_set.Told())
    tell(read_network(open_model(tmp_path / "model")))
    assert torch.equal(*told)
    assert CTTrainer().evaluate(open_model(tmp_path / "model"), phantoms).values == result.scores.values


def test_kept_features_teach_what_fresh_ones_teach(cases, tmp_path):
    weights = []
    for folder in (tmp_path / "kept", tmp_path / "fresh"):
        found = scene(cases, folder, epochs=1, rate=1e-2)
        found.seeing.kept = folder.name == "kept"
        objective = _objective("classification", found)
        fit = PhaseFit(objective, cases[:4], cases[4:6], found.recipe, folder / "checkpoints", "f")
        fit.run(lambda *_: None, lambda _: None, lambda: False)
        weights.append([w.detach().clone() for w in objective.trained.values()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    assert found.seeing.looks == 6
    assert "MiB on disk" in found.seeing.note


def test_a_limit_on_what_is_kept_is_said(cases, tmp_path):
    config = CONFIGURATIONS["C"].network
    seeing = Seeing(made(training_set.config(), 1), tmp_path, 0, 10**6)
    assert not seeing.kept
    assert "more than the 0 of cache_mb" in seeing.note
    plan = plan_of(cases, CTRecipe.parse({"cache_mb": 1}), CONFIGURATIONS["reference"].network, Limits(memory_mb=1))
    assert any("more than the 1 of cache_mb" in note for note in plan.notes)
    assert any(note.startswith("It needs about") for note in plan.notes)
    assert config.encoder.tokens * config.encoder.width * 4 * 21_907 == pytest.approx(1.1e12, rel=0.01)


def test_steps_stay_of_as_many_cases_where_memory_is_short(cases, tmp_path, monkeypatch):
    classify = CTNetwork.classify

    def short(network, features):
        if len(features.local) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return classify(network, features)

    monkeypatch.setattr(CTNetwork, "classify", short)
    found = scene(cases, tmp_path, epochs=1, batch=4, accumulation=1)
    fit = PhaseFit(_objective("classification", found), cases[:4], cases[4:6], found.recipe, tmp_path / "c", "f")
    assert fit.steps_per_epoch == 1
    fit.run(lambda *_: None, lambda _: None, lambda: False)
    assert fit.notes[-1] == "Memory did not suffice for 2 volumes at once; it went on with 1."
    assert fit.learned == 4


def test_a_case_without_masks_teaches_the_other_tasks(cases):
    found = scene(cases)
    joint = Joint(PHASES["joint"], found)
    bare = replace(cases[0], masks={}, labels={"cardiomegaly": 1})
    joint.training()
    joint.loss([bare], joint.whole([bare]), 1).backward()
    learned = {n.split(".")[0] for n, w in joint.trained.items() if w.grad is not None and w.grad.abs().sum() > 0}
    assert learned == {"encoder", "classifier"}
    joint.loss(cases[:1], joint.whole(cases[:1]), 1).backward()
    assert any(n.startswith("localiser") and w.grad is not None for n, w in joint.trained.items())


def test_adapters_learn_what_is_rewarded(cases, language, base, tmp_path, monkeypatch):
    """Reports without an end get nothing, such as the random language model writes; those that end soon get most."""
    recipe = {"phase": "grpo", "language": str(language), "epochs": 8, "rate": 5e-2, "longest": 10, "samples": 6}
    chosen = CTRecipe.parse(recipe)
    found = scene(cases, tmp_path, speech_of(base, chosen, 24, CPU), **recipe)
    monkeypatch.setattr(
        rewarding, "reward", lambda text, *_: Reward(1 - len(text.split()) / 10, 1 - len(text.split()) / 10, None, 0.0)
    )
    fit = PhaseFit(_objective("grpo", found), cases[:4], cases[:2], found.recipe, tmp_path / "c", "f")
    before = fit._objective.judge(cases[:2])["validation_reward"]
    state = fit.run(lambda *_: None, lambda _: None, lambda: False)
    assert max(entry["validation_reward"] for entry in state.history) > before + 0.2


def test_a_report_is_worth_what_it_says_rightly(cases):
    ready = scene(cases).prepare(cases[1])
    own = reward(ready.report, ready.report, cases[1].labels, ready.findings, ready.lesions)
    made_up = ready.report.replace("IMPRESSION", "There is a fracture of the ninth rib.\n\nIMPRESSION")
    worse = reward(made_up, ready.report, cases[1].labels, ready.findings, ready.lesions)
    nothing = reward("", ready.report, cases[1].labels, ready.findings, ready.lesions)
    assert own.words == pytest.approx(1.0)
    assert own.total > worse.total > nothing.total
    assert worse.objected > own.objected


def test_a_fifth_of_the_reports_is_paraphrased(cases, language, base):
    """A language model rewrites them without an image; what the evidence does not carry is not learned."""
    speech = speech_of(base, CTRecipe.parse({"language": str(language)}), 24, CPU)
    assert isinstance(paraphrased(speech.language)("FINDINGS: no effusion"), str)
    asked: list[str] = []

    def rewrite(prompt: str) -> str:
        asked.append(prompt)
        return "FINDINGS: There is a fracture of the ninth rib. No pleural effusion is seen."

    prepare = Preparing(training_set.config(), None, 0, 0, 1, rewrite)
    reports = [prepare(case).report for case in cases]
    assert 0 < len(asked) < len(cases) / 2
    assert not any("ninth rib" in report for report in reports)


def test_a_plan_counts_steps_and_says_what_each_phase_takes(phantoms, base):
    recipe = {"phase": "encoder,localisation", "epochs": 3, "accumulation": 4}
    plan = CTTrainer().plan(phantoms, Limits(), recipe, base)
    assert (plan.steps, plan.epochs) == (2 * 3 * 2, 6)
    assert plan.disk_mb > 0
    assert 900 < plan.memory_mb < 1200
    assert 0 < plan.pf_days < 1e-6
    assert any(note.startswith("Phase localisation: 3 epochs, 6 steps, rates tasks 3e-05") for note in plan.notes)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"phase": "encoder,dreaming"}, "names dreaming"),
        ({"phase": "grpo"}, "needs a language model"),
        ({"samples": 1}, "samples is at least 2"),
        ({"configuration": "E"}, "configuration is one of"),
        ({"speed": 1}, "no key speed"),
        ({"rate": -1.0}, "rate is at least 0"),
    ],
)
def test_a_bad_recipe_is_named(phantoms, base, tmp_path, recipe, said):
    with pytest.raises(DatasetError, match=said):
        CTTrainer().plan(phantoms, Limits(), recipe, base)
    with pytest.raises(DatasetError, match=said):
        CTTrainer().train(training_set.task(tmp_path, phantoms, base, **recipe), training_set.Told())


def test_a_bad_dataset_is_named(phantoms, base, tmp_path):
    def plan(dataset, phase="classification") -> str:
        with pytest.raises(ClinicError) as caught:
            CTTrainer().plan(dataset, Limits(), {"phase": phase}, base)
        return caught.value.message

    torn = [e.model_copy(update={"patient_key": "one"}) for e in phantoms.examples]
    assert "patients are in more than one part" in plan(phantoms.model_copy(update={"examples": tuple(torn)}))
    bare = [e.model_copy(update={"labels": {}}) for e in phantoms.examples]
    assert "none with the labels" in plan(phantoms.model_copy(update={"examples": tuple(bare)}))
    gone = [e.model_copy(update={"path": str(tmp_path / "gone.npz")}) for e in phantoms.examples]
    assert "gone.npz" in plan(phantoms.model_copy(update={"examples": tuple(gone)}))
    with pytest.raises(DatasetError, match="no volumes"):
        folder_dataset(tmp_path)
    (tmp_path / "volumes").mkdir()
    for number in range(3):
        (tmp_path / "volumes" / f"p{number}_a_1.npz").write_bytes(b"no volume")
    (tmp_path / "labels.csv").write_text("name,Weather\np0_a_1,1\n")
    with pytest.raises(DatasetError, match="names none of our conditions"):
        folder_dataset(tmp_path)


def test_volumes_in_hounsfield_units_are_taken_before_grey_levels(phantoms):
    assert {Path(example.path).name.partition(".")[2] for example in phantoms.examples} == {"nii.gz"}
    assert all(case.regions is not None and case.regions.suffix == ".npz" for case in cases_of(phantoms))


def without_masks(dataset, split="train"):
    """Return a dataset of which the volumes of a part have labels alone."""
    bare = [
        e.model_copy(update={"beside": tuple(b for b in e.beside if b.role != "mask")}) if e.split == split else e
        for e in dataset.examples
    ]
    return dataset.model_copy(update={"examples": tuple(bare)})


@pytest.mark.parametrize("split", ["train", "validation"])
def test_nobody_learns_to_draw_nothing_from_labels_alone(phantoms, base, split):
    """A label of 0 says that there is nothing to draw; without any mask that is all that could be learned."""
    bare = without_masks(phantoms, split)
    with pytest.raises(DatasetError, match=f"The {split} part has .* none with the masks"):
        CTTrainer().plan(bare, Limits(), {"phase": "localisation"}, base)
    CTTrainer().plan(bare, Limits(), {"phase": "classification"}, base)


def test_of_lesions_that_no_mask_shows_and_of_signs_nothing_is_learned(phantoms):
    drawn = {lesion for case in cases_of(phantoms) if case.split == "train" for lesion in case.masks}
    assert drawn == {"lung_nodule", "pleural_effusion"}
    for case in cases_of(phantoms):
        absent = {name for name, value in case.labels.items() if value == 0}
        assert {"consolidation", "emphysema"} <= absent
        assert {name for name in absent if case.knows(name)} <= drawn
        assert all(case.knows(name) for name in drawn), "there with its mask, or absent"


def test_masks_that_are_not_learned_from_are_said(phantoms, base):
    first = phantoms.examples[0]
    (mask,) = (b for b in first.beside if b.role == "mask" and b.condition == "lung_nodule")
    more = first.model_copy(update={"beside": (*first.beside, mask.model_copy(update={"condition": "lung_mass"}))})
    dataset = phantoms.model_copy(update={"examples": (more, *phantoms.examples[1:])})
    notes = CTTrainer().plan(dataset, Limits(), {"phase": "localisation"}, base).notes
    assert any(note.startswith("Masks of lung mass are not learned from; what is drawn is") for note in notes)


def test_labels_that_the_network_does_not_have_teach_it_nothing(phantoms, base):
    foreign = [e.model_copy(update={"labels": {"mosaic_attenuation": n % 2}}) for n, e in enumerate(phantoms.examples)]
    with pytest.raises(DatasetError, match="none with the labels"):
        CTTrainer().plan(
            phantoms.model_copy(update={"examples": tuple(foreign)}), Limits(), {"phase": "classification"}, base
        )


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_volume_that_cannot_be_read_is_left_out_before_anything_is_learned(phantoms, base, tmp_path, split):
    chosen = [e for e in phantoms.examples if e.split == split][-1]
    other = tmp_path / "no-numbers.nii.gz"
    grid = read_nifti(Path(chosen.path)).grid
    write_nifti(other, np.full(grid.shape, np.nan, dtype=np.float32), grid)
    changed = [e.model_copy(update={"path": str(other)}) if e is chosen else e for e in phantoms.examples]
    dataset = phantoms.model_copy(update={"examples": tuple(changed)})
    task = training_set.task(tmp_path / "run", dataset, base, phase="classification", epochs=1)
    (tmp_path / "run").mkdir(exist_ok=True)
    stopped = CTTrainer().train(task, training_set.Told(stop_at=1))
    assert stopped.state == "stopped"
    result = CTTrainer().train(task, training_set.Told())
    assert result.state == "finished"
    assert "Left out: no-numbers.nii.gz holds values that are no numbers." in result.notes
    assert result.scores.examples == sum(e.split == "test" for e in phantoms.examples) - (split == "test")


def test_a_candidate_does_not_inherit_what_was_measured_of_its_base(phantoms, base, tmp_path):
    figures = {"test_report_crg": 0.9, "validation_volumes": 7, "phases": "grpo", "memory_mb": 900}
    known = base.manifest.model_copy(update={"parameters": {**base.manifest.parameters, **figures}})
    older = base.model_copy(update={"manifest": known})
    bare = [e.model_copy(update={"beside": ()}) for e in phantoms.examples]
    task = training_set.task(
        tmp_path, phantoms.model_copy(update={"examples": tuple(bare)}), older, phase="classification", epochs=1
    )
    assert CTTrainer().train(task, training_set.Told()).state == "finished"
    parameters = open_model(tmp_path / "model").manifest.parameters
    assert parameters["memory_mb"] == 900
    assert parameters["phases"] == "classification"
    assert "validation_volumes" not in parameters
    assert parameters.get("test_report_crg") != 0.9


def test_patients_of_the_sheet_are_those_of_the_core_and_stay_whole(tmp_path):
    (tmp_path / "volumes").mkdir()
    lines = ["volume,patient_id,Lung nodule,pleural_effusion"]
    for number in range(24):
        name = f"train_{number}_a_1"
        (tmp_path / "volumes" / f"{name}.nii.gz").write_bytes(f"volume {number}".encode())
        lines.append(f"{name}.nii.gz,{f'Q {number % 8}' if number < 16 else ''},{number % 2},")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    dataset = folder_dataset(tmp_path)
    found = {Path(example.path).name: example.patient_key for example in dataset.examples}
    core = read_volumes(tmp_path, describe_plugin().conditions)
    assert not core.problems
    assert found == {image.path.name: image.patient_id for image in core.images}
    assert len(set(found.values())) == 8 + 8
    assert len(cases_of(dataset)) == 24, "no patient is in two parts"
    assert {tuple(example.labels) for example in dataset.examples} == {("lung_nodule",)}
    lines[1] = lines[1].replace("Q 0", "Q 1")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    assert folder_dataset(tmp_path).digest != dataset.digest


def test_a_language_model_of_another_width_is_refused(language, base):
    recipe = CTRecipe.parse({"phase": "alignment", "language": str(language)})
    with pytest.raises(ModelError, match="have 24 numbers"):
        speech_of(base, recipe, 25, CPU)
    with pytest.raises(ModelError, match="holds no language model"):
        speech_of(base, replace(recipe, language=str(language / "nowhere")), 24, CPU)


def test_defaults_are_those_of_the_description():
    recipe = CTRecipe.parse({"phase": ",".join(PHASES), "language": "somewhere"})
    assert {p.name: (recipe.epochs_of(p), *recipe.rates_of(p).values()) for p in recipe.phases} == {
        "encoder": (50, 5e-5),
        "classification": (10, 5e-5),
        "localisation": (15, 3e-5),
        "alignment": (5, 1e-4, 1e-5),
        "joint": (40, 1e-5, 3e-5, 5e-5, 1e-5),
        "grpo": (10, 5e-6),
    }
    assert (recipe.samples, recipe.keep) == (2, 3)


def _objective(name: str, found: Scene):
    return OBJECTIVES[name](PHASES[name], found)
