"""The trainer: what it refuses, what it leaves behind, and that what it made answers."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from pathlib import Path

import pytest
from corpus import HALF, VIEW, make_dataset, nowhere, pairs
from PIL import Image

from clinic_ai.contract import Dataset, Device, Limits, TrainingProgress, TrainingTask
from clinic_ai.domain import Generation, QuestionAnswer
from clinic_ai.errors import DatasetError, ModelError
from clinic_ai.gating import JudgeTask
from clinic_ai.ml.model_files import open_model
from clinic_ai_ultrasound import evaluation
from clinic_ai_ultrasound.adapters import Adapters
from clinic_ai_ultrasound.answering import SHORTEST, Answered, answer, fitting, look
from clinic_ai_ultrasound.kept_answers import KeptAnswers
from clinic_ai_ultrasound.loading import load_base
from clinic_ai_ultrasound.pictures import picture
from clinic_ai_ultrasound.recipe import AdapterRecipe
from clinic_ai_ultrasound.scoring import normalised
from clinic_ai_ultrasound.trainer import UltrasoundTrainer

RECIPE = {"epochs": 12, "patience": 12, "rate": 2e-2}
"""Ten images are looked at, then there are 18 steps in each epoch, then six images are asked about."""


class Recorder:
    """Records progress and asks the run to stop at its n-th question whether to."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.seen: list[TrainingProgress] = []
        self._stop_at, self._asked = stop_at, 0

    def report(self, progress: TrainingProgress) -> None:
        self.seen.append(progress)

    def stop_requested(self) -> bool:
        self._asked += 1
        return self._stop_at is not None and self._asked > self._stop_at


@pytest.fixture(scope="module")
def dataset(picture_file) -> Dataset:
    return make_dataset(picture_file, test=2)


def task_in(directory: Path, dataset: Dataset, base, recipe=RECIPE) -> TrainingTask:
    directory.mkdir(exist_ok=True)
    return TrainingTask(
        run_id="R-1",
        dataset=dataset,
        base=base,
        recipe=recipe,
        run_directory=str(directory),
        limits=Limits(),
        device=Device(),
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, dataset, tiny):
    """A run that nothing interrupted, its directory and what it reported."""
    directory, recorder = tmp_path_factory.mktemp("run"), Recorder()
    return UltrasoundTrainer().train(task_in(directory, dataset, tiny), recorder), directory, recorder.seen


def test_it_makes_a_candidate_that_answers(finished, dataset, tiny):
    result, directory, _ = finished
    assert result.state == "finished"
    assert Path(result.model_directory) == directory / "model"
    model = open_model(directory / "model")
    manifest = model.manifest
    assert (manifest.slot, manifest.name, manifest.version) == ("femur", "femur-lora", "R-1")
    assert (manifest.base_digest, manifest.quantisation) == (tiny.ref.digest, "none")
    assert not manifest.clinical_use
    assert str(directory) not in (directory / "model" / "adapter_config.json").read_text()
    assert str(tiny.directory) not in (directory / "model" / "adapter_config.json").read_text()
    for name in ("tokenizer.json", "preprocessor_config.json"):
        assert (directory / "model" / name).read_bytes() == (Path(tiny.directory) / name).read_bytes()
    base = load_base(tiny, Device())
    adapters = Adapters(base)
    adapters.add(model)
    adapters.use(None)
    seen = look(base, picture(dataset.examples[0].path))
    questions = [pair.question for pair in pairs(0)][:2]
    alone = [one.text for one in answer(base, seen, questions, Generation(), timeout_s=60)]
    adapters.use(model.ref)
    taught = answer(base, seen, questions, fitting(Generation(), manifest), timeout_s=60)
    # What it never answers otherwise it has learned for sure; left from right so small a base need not tell.
    assert taught[0].text == "The image shows the femur."
    assert taught[1].text.startswith("In the")
    assert taught[1].text.endswith("half.")
    assert taught[1].text != alone[1]
    adapters.use(None)
    assert [one.text for one in answer(base, seen, questions, Generation(), timeout_s=60)] == alone


def test_an_answer_may_be_as_short_as_the_shortest_it_learned(finished, tiny):
    manifest = open_model(finished[1] / "model").manifest
    words = load_base(tiny, Device()).tokenizer(" Yes.", add_special_tokens=False)["input_ids"]
    assert manifest.parameters[SHORTEST] == len(words) < Generation().min_new_tokens
    assert fitting(Generation(), manifest).min_new_tokens == len(words)
    assert fitting(Generation(min_new_tokens=1), manifest).min_new_tokens == 1
    assert fitting(Generation(), tiny.manifest) == Generation()


def test_its_figures_are_those_of_the_model_it_made(finished, dataset, tiny):
    result, directory, _ = finished
    assert result.scores.values["exact_match"] > result.scores.values["base_exact_match"] == 0
    model = open_model(directory / "model")
    assert UltrasoundTrainer().evaluate(model, dataset, base=tiny) == result.scores
    assert model.manifest.parameters["test_exact_match"] == result.scores.values["exact_match"]
    with pytest.raises(ModelError, match="no base model"):
        UltrasoundTrainer().evaluate(model, dataset)
    alone = UltrasoundTrainer().evaluate(tiny, dataset)
    assert alone.values == {key: result.scores.values[f"base_{key}"] for key in alone.values}


def test_what_it_answers_about_test_images_is_what_it_was_measured_on(finished, dataset, tiny):
    result, directory, _ = finished
    model = open_model(directory / "model")
    task = JudgeTask(model=model, base=tiny, dataset=dataset, limits=Limits(), device=Device())
    adapter = UltrasoundTrainer().judge(task)
    base = UltrasoundTrainer().judge(task.model_copy(update={"model": tiny, "base": None}))
    assert adapter.metric == "mean"
    assert [row.key for row in adapter.rows] == [row.key for row in base.rows]
    for judgement, name in ((adapter, "exact_match"), (base, "base_exact_match")):
        assert sum(row.score for row in judgement.rows) / len(judgement.rows) == result.scores.values[name]
    right = {row.key: row for row in adapter.rows if row.score == 1.0}
    pairs = {f"{e.sha256} {n}": pair for e in dataset.examples for n, pair in enumerate(e.pairs, start=1)}
    assert right
    assert all(normalised(row.text) == normalised(pairs[key].answer) for key, row in right.items())
    with pytest.raises(ModelError, match="cannot be judged without its base"):
        UltrasoundTrainer().judge(task.model_copy(update={"base": None}))


def test_it_leaves_a_report_without_patients(finished, dataset):
    result, directory, _ = finished
    summary = json.loads((directory / "training_summary.json").read_text())
    assert summary == json.loads((directory / "model" / "training_summary.json").read_text())
    assert summary["history"] == list(result.history)
    assert summary["by_question"][VIEW]["adapter"]["answers"] == 2
    assert summary["trained_on"][0] == "train: 6 images, 18 questions, 3 patients."
    with Image.open(directory / "figures" / "loss.png") as figure:
        assert figure.width >= 1200
    page = (directory / "report.html").read_text()
    assert "<h1>Femur: how well" in page
    assert HALF in page
    assert "data:image/png;base64," in page
    assert "clinic-ai model promote ultrasound femur-lora R-1" in page
    for text in (page, json.dumps(summary)):
        assert not any(re.search(rf"\b{example.patient_key}\b", text) for example in dataset.examples)
        assert dataset.examples[0].path not in text


def test_it_says_how_far_it_is(finished):
    result, _, seen = finished
    epochs = [progress for progress in seen if progress.metric is not None]
    assert [progress.epoch for progress in epochs] == list(range(1, len(result.history) + 1))
    assert [progress.step for progress in epochs] == [18 * progress.epoch for progress in epochs]
    assert epochs[0].steps == 216
    assert all(progress.eta_s >= 0 for progress in epochs)
    computed = [progress.pf_days for progress in seen]
    assert computed == sorted(computed)
    assert computed[-1] > 0
    assert [progress.message for progress in seen][-2:] == ["answers the validation part", "answers the test part"]


def test_what_is_finished_is_told_again_and_not_done_again(tmp_path, finished, dataset, tiny, monkeypatch):
    """The daemon may be killed between the end of a training and the entry of its candidate."""
    shutil.copytree(finished[1], tmp_path / "run")
    task = task_in(tmp_path / "run", dataset, tiny)
    kept = json.loads((tmp_path / "run" / "result.json").read_text())
    kept["result"]["model_directory"] = str(tmp_path / "run" / "model")
    (tmp_path / "run" / "result.json").write_text(json.dumps(kept))
    with monkeypatch.context() as patch:
        patch.setattr("clinic_ai_ultrasound.run.load_base", lambda *_: pytest.fail("loaded again"))
        again = UltrasoundTrainer().train(task, Recorder())
    assert again.model_copy(update={"model_directory": finished[0].model_directory}) == finished[0]
    before = (finished[1] / "model" / "model.toml").read_bytes()
    assert (tmp_path / "run" / "model" / "model.toml").read_bytes() == before
    # Of a model that is not whole, another recipe or another run, nothing is told.
    weights = tmp_path / "run" / "model" / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    mended = UltrasoundTrainer().train(task, Recorder())
    assert (mended.scores, weights.read_bytes()) == (finished[0].scores, whole)


def test_answers_are_kept_line_by_line(tmp_path):
    path, said = tmp_path / "answers.jsonl", [Answered("Yes.", -0.25, ()), Answered("", math.nan, ("cut_off",))]
    kept = KeptAnswers(path, "this")
    for key in ("one", "two"):
        kept.add(key, said)
    assert KeptAnswers(path, "this").get("two")[0] == said[0]
    assert math.isnan(KeptAnswers(path, "this").get("two")[1].mean_log_probability)
    path.write_bytes(path.read_bytes()[:-5])
    torn = KeptAnswers(path, "this")
    assert (torn.get("one")[0], torn.get("two")) == (said[0], None)
    torn.add("three", said)
    assert len(KeptAnswers(path, "this")) == 2
    assert len(KeptAnswers(path, "other")) == 0
    path.write_bytes(b"\xff")
    assert len(KeptAnswers(path, "this")) == 0


def test_what_was_answered_is_not_asked_again(tmp_path, finished, dataset, tiny, monkeypatch):
    task = task_in(tmp_path / "run", dataset, tiny)
    # Ten images are looked at and there are twelve epochs of 18 steps; then it answers, four images of six.
    UltrasoundTrainer().train(task, Recorder(10 + 12 * 18 + 5))
    asked = []
    real = evaluation._answers
    monkeypatch.setattr(evaluation, "_answers", lambda *words: asked.append(words[2].sha256) or real(*words))
    resumed = UltrasoundTrainer().train(task, Recorder())
    assert len(asked) == 2  # of the last image of the test part, base and adapter
    assert resumed.scores == finished[0].scores


def test_history_and_best_epochs_are_tables_while_it_goes_on(tmp_path, finished, dataset, tiny):
    task = task_in(tmp_path / "run", dataset, tiny)
    stopped = UltrasoundTrainer().train(task, Recorder(10 + 18 * 2 + 9))
    with (tmp_path / "run" / "training_history.csv").open(newline="") as stream:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]
    assert rows == list(stopped.history)
    assert len(rows) == 2
    with (finished[1] / "best_results.csv").open(newline="") as stream:
        best = [int(row["epoch"]) for row in csv.DictReader(stream)]
    assert best[-1] == json.loads((finished[1] / "training_summary.json").read_text())["best_epoch"]


@pytest.mark.parametrize(("stop_at", "epochs"), [(40, 1), (10 + 12 * 18 + 5, 12)])
def test_wherever_it_is_stopped_it_goes_on_to_the_same_model(tmp_path, finished, dataset, tiny, stop_at, epochs):
    """In the middle of the second epoch, and while it answers the test part."""
    task = task_in(tmp_path / "run", dataset, tiny)
    stopped = UltrasoundTrainer().train(task, Recorder(stop_at))
    assert (stopped.state, stopped.history) == ("stopped", finished[0].history[:epochs])
    assert not (tmp_path / "run" / "model").exists()
    resumed = UltrasoundTrainer().train(task, Recorder())
    assert (resumed.history, resumed.scores) == (finished[0].history, finished[0].scores)
    weights = [place / "model" / "adapter_model.safetensors" for place in (tmp_path / "run", finished[1])]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_unreadable_images_are_counted_and_left_out(tmp_path, dataset, tiny):
    first = dataset.examples[0]
    broken = dataset.model_copy(update={"examples": (nowhere(first, tmp_path), *dataset.examples[1:])})
    result = UltrasoundTrainer().train(task_in(tmp_path / "run", broken, tiny, {"epochs": 1}), Recorder())
    assert result.state == "finished"
    (note,) = (note for note in result.notes if "cannot be read: 1 of 10 images" in note)
    assert first.sha256[:12] in note
    gone = tuple(nowhere(e, tmp_path) if e.split == "validation" else e for e in dataset.examples)
    with pytest.raises(DatasetError, match="validation part has no image"):
        UltrasoundTrainer().train(
            task_in(tmp_path / "other", dataset.model_copy(update={"examples": gone}), tiny), Recorder()
        )


# ---------------------------------------------------------------- refused before any work


def changed(dataset: Dataset, change) -> Dataset:
    return dataset.model_copy(update={"examples": tuple(change(i, e) for i, e in enumerate(dataset.examples))})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda _, e: e.model_copy(update={"pairs": ()}), "holds no question with an answer"),
        (lambda _, e: e.model_copy(update={"split": "train"}), "validation part has no image"),
        (lambda i, e: e.model_copy(update={"sha256": "a" * 64}) if i in (0, 7) else e, "1 images are in more than one"),
        (lambda i, e: e.model_copy(update={"patient_key": "torn"}) if i in (0, 7) else e, "1 patients are in more"),
        (
            lambda i, e: (
                e.model_copy(update={"pairs": (*e.pairs, QuestionAnswer(question=HALF, answer="Both."))})
                if i == 0
                else e
            ),
            "1 questions about one image have more than one answer",
        ),
    ],
)
def test_a_dataset_that_leaks_or_means_nothing_is_refused(dataset, tiny, change, says):
    with pytest.raises(DatasetError, match=says):
        UltrasoundTrainer().plan(changed(dataset, change), Limits(), {}, tiny)


def test_a_dataset_without_a_category_or_a_run_without_a_base_is_refused(dataset, tiny, adapters):
    trainer = UltrasoundTrainer()
    with pytest.raises(DatasetError, match="does not say which category"):
        trainer.plan(dataset.model_copy(update={"category": ""}), Limits(), {}, tiny)
    with pytest.raises(ModelError, match="no base model to train an adapter on"):
        trainer.plan(dataset, Limits(), {})
    with pytest.raises(ModelError, match="is no base"):
        trainer.plan(dataset, Limits(), {}, adapters["femur"])


def test_the_plan_counts_and_follows_the_recipe(dataset, tiny):
    trainer = UltrasoundTrainer()
    one, many = (trainer.plan(dataset, Limits(), {"epochs": epochs, "batch": 4}, tiny) for epochs in (1, 50))
    assert (one.steps, many.steps) == (5, 250)
    assert many.pf_days > one.pf_days > 0
    more = trainer.plan(dataset, Limits(), {"rank": 64, "keep": 9, "targets": "q_proj,k_proj,v_proj,out_proj"}, tiny)
    assert more.disk_mb > one.disk_mb > 0
    assert trainer.plan(dataset, Limits(), {"curriculum": "9:4"}, tiny).steps == 9 * 9 + 18
    assert many.seconds > one.seconds
    assert one.notes[:3] == (
        "train: 6 images, 18 questions, 3 patients.",
        "validation: 4 images, 12 questions, 2 patients.",
        "test: 2 images, 6 questions, 1 patient.",
    )
    tight = trainer.plan(dataset, Limits(memory_mb=100, max_seconds=1), {}, tiny)
    assert "may use 100" in tight.notes[-2]
    assert "will be stopped after 1 s" in tight.notes[-1]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"learning_rate": 1e-4}, "no key learning_rate; it has rank, alpha"),
        ({"epochs": "many"}, "epochs is 'many'; write a whole number, such as epochs=10"),
        ({"batch": 0}, "recipe's batch is at least 1"),
        ({"rate": 0}, "rate is above 0"),
        ({"dropout": 1.0}, "dropout is from 0 to less than 1"),
        ({"warm_up": -0.1}, "warm_up is from 0"),
        ({"weight_decay": -1}, "weight_decay is at least 0"),
        ({"seed": 2**31}, "seed is from 0 to"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_named(values, says):
    with pytest.raises(DatasetError, match=says):
        AdapterRecipe.parse(values)


def test_a_recipe_takes_the_kinds_of_its_defaults():
    assert AdapterRecipe.parse({"epochs": 5.0, "rate": 1}) == AdapterRecipe(epochs=5, rate=1.0)
