"""A sonographer's sheet teaches the running appliance a category, and nothing else changes by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import QUICK, Daemon, clinic_ai, rows, wait_until
from PIL import Image

from clinic_ai.home import Home, init_home
from clinic_ai_ultrasound.reference.phantoms import draw_phantoms, write_phantoms

VIEW = "Which view does the image show?"
SIDE = "In which half of the image does the {} lie?"
UNTRAINED = "The category {} has no trained model: it needs a labelled sheet"
THE_FOUR = {
    "trans_cerebellum": "Trans-cerebellum",
    "trans_thalamic": "Trans-thalamic",
    "trans_ventricular": "Trans-ventricular",
    "cervix": "Cervix",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with a daemon at work on it: its engine takes seconds to start, so it is one for all tests."""
    home = init_home(tmp_path_factory.mktemp("ultrasound") / "h")
    home.clinic_toml.write_text(QUICK + '\n[review]\nreviewers = ["Dr. Ada"]\n')
    daemon = Daemon(home)
    daemon.wait_for("daemon.ready")
    yield home
    assert daemon.stop() == 0


def drop(home: Home, folder: str, category: str, seed: int) -> str:
    """Put a phantom into the inbox; return the name of its file there."""
    name = f"{category}-{seed}.png"
    aside = home.path / name
    Image.fromarray(draw_phantoms(category, 1, seed)[0].pixels).save(aside)
    target = home.inbox / "US" / folder
    target.mkdir(parents=True, exist_ok=True)
    aside.rename(target / name)
    return f"US/{folder}/{name}"


def study_of(home: Home, name: str) -> str:
    [row] = rows(home, "SELECT study_id FROM files WHERE name = ?", name)
    return str(row["study_id"])


def ask(home: Home, study_id: str, question: str, *options: str, status: int = 0) -> Any:
    return clinic_ai(home, "study", "ask", study_id, question, *options, status=status)


def said(answer: Any) -> tuple[Any, ...]:
    """Return all that a model said: words, and how sure it was to the last bit."""
    return tuple(answer[key] for key in ("outcome", "text", "confidence", "category", "adapter", "models"))


def wait_for_results(home: Home, *names: str) -> list[str]:
    """Wait until what was dropped is in the outbox; return the ids of the studies."""

    def arrived() -> bool:
        stored = {row["name"]: row["study_id"] for row in rows(home, "SELECT * FROM files WHERE fate = 'STORED'")}
        sent = {path.parent.parent.name for path in home.outbox.glob("*/v1/result.json")}
        return all(stored.get(name) in sent for name in names)

    wait_until(arrived, "a result for each image")
    return [study_of(home, name) for name in names]


def test_the_four_without_a_sheet_say_exactly_why(home: Home) -> None:
    listed = {row["category"]: row for row in clinic_ai(home, "plugin", "categories")}
    for key, label in THE_FOUR.items():
        assert not listed[key]["answered_by"]
        assert UNTRAINED.format(label) in f"The {listed[key]['note']}"
    names = [drop(home, key, "fetal_head", number) for number, key in enumerate(THE_FOUR)]
    for label, study_id in zip(THE_FOUR.values(), wait_for_results(home, *names), strict=True):
        assert UNTRAINED.format(label) in (home.outbox / study_id / "v1" / "result.json").read_text()


def test_what_no_model_is_asked_and_what_is_no_ultrasound(home: Home, tmp_path: Path) -> None:
    photograph = tmp_path / "photo.png"
    colours = [*range(256), *([0] * 256), *reversed(range(256))]
    Image.linear_gradient("L").resize((200, 160)).convert("RGB").point(colours).save(photograph)
    (home.inbox / "US" / "femur").mkdir(parents=True, exist_ok=True)
    photograph.rename(home.inbox / "US" / "femur" / photograph.name)
    [study_id] = wait_for_results(home, "US/femur/photo.png")
    for question, audience in (
        ("Is it a boy or a girl?", "clinician"),
        ("How long is the femur?", "clinician"),
        ("What is the weather like?", "patient"),
    ):
        answer = ask(home, study_id, question, "--audience", audience)
        assert (answer["outcome"], answer["models"]) == ("template", []), question
    refused = ask(home, study_id, VIEW, status=1)
    assert refused["outcome"] == "refused"
    assert "colour picture" in refused["reason"]


@pytest.mark.torture  # the engine child alone does as much in plugins/ultrasound/tests/test_engine.py
@pytest.mark.timeout(600)  # a training and eleven commands; beside other tests they take minutes
def test_a_sheet_for_femur_teaches_that_category_and_no_other(home: Home) -> None:
    # As a clinic has it that has not labelled a femur yet.
    clinic_ai(home, "model", "rollback", "ultrasound", "--slot", "femur")
    dropped = [drop(home, "Femur", "femur", 41), drop(home, "Abodomen", "abdomen", 42)]
    femur, abdomen = wait_for_results(home, *dropped)
    assert UNTRAINED.format("Femur") in (home.outbox / femur / "v1" / "result.json").read_text()
    refused = ask(home, femur, VIEW, status=1)
    assert refused["outcome"] == "refused"
    assert UNTRAINED.format("Femur") in refused["reason"]
    questions = (VIEW, SIDE.format("abdomen"))
    before = [said(ask(home, abdomen, question)) for question in questions]
    assert {(answer[0], *answer[3:5]) for answer in before} == {("answered", "abdomen", "abdomen")}

    folder = home.labels / "ultrasound" / "Femur"
    write_phantoms(folder, "femur", 66, seed=7)  # ten patients in the test part, which the gate asks for
    checked = clinic_ai(home, "train", "check", "ultrasound", str(folder))
    assert checked["category"] == "femur"
    assert not checked["problems"]
    run = clinic_ai(home, "train", "run", "ultrasound", str(folder), "--set", "epochs=2", "--set", "batch=8")
    assert run["state"] == "FINISHED"
    assert ask(home, femur, VIEW, status=1)["outcome"] == "refused"  # a candidate answers nobody

    candidate = run["result"]["candidate"]
    clinic_ai(home, "model", "promote", "ultrasound", candidate["name"], candidate["version"], "--as", "Dr. Ada")
    answered = ask(home, femur, VIEW)
    assert (answered["outcome"], answered["category"], answered["adapter"]) == ("answered", "femur", "femur")
    assert any(candidate["version"] in label for label in answered["models"])
    assert answered["text"].startswith(VIEW)
    assert [said(ask(home, abdomen, question)) for question in questions] == before
    assert len(rows(home, "SELECT 1 FROM audit WHERE action = 'daemon.started'")) == 1
