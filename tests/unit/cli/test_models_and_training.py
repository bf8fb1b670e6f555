"""``clinic-ai model`` and ``train`` in a home without a daemon: real registry and children, a plugin of one number."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pytest
import tiny_learner
from harness import ROOMY
from PIL import Image

from clinic_ai.cli import main, offline
from clinic_ai.cli.output import Exit
from clinic_ai.domain import CategoryInfo
from clinic_ai.home import Home, init_home
from clinic_ai.plugins import PluginCatalogue

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    made = init_home(tmp_path / "h")
    made.clinic_toml.write_text(ROOMY)
    monkeypatch.setenv("CLINIC_AI_HOME", str(made.path))
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(tiny_learner.__file__))
    monkeypatch.setattr(offline, "find_plugins", lambda: PluginCatalogue({"tiny": tiny_learner.manifest()}, []))
    return made


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["clinic-ai", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), " ".join((out + err).split())

    return call


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    folder = tmp_path / "labelled"
    for number in range(12):
        kind = ("normal", "pneumonia")[number % 2]
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number * 20).save(folder / kind / f"patient{number:02d}.png")
    return folder


def test_import_verify_promote_and_rollback(home: Home, run: Run, tmp_path: Path) -> None:
    for version in ("1", "2"):
        tiny_learner.write_model(tmp_path / version, float(version), version=version)
        assert run("model", "import", str(tmp_path / version))[0] == Exit.DONE
        assert run("model", "promote", "tiny", "scalar", version)[0] == Exit.DONE
    assert run("model", "verify", "tiny", "scalar", "2")[0] == Exit.DONE
    assert _active(run) == ["2"]
    code, out = run("model", "rollback", "tiny")
    assert (code, "tiny/scalar/1" in out) == (Exit.DONE, True)
    assert _active(run) == ["1"]

    weights = home.models / "tiny" / "scalar" / "2" / "weights.safetensors"
    weights.chmod(0o600)
    weights.write_bytes(b"other")
    code, out = run("model", "verify", "tiny", "scalar", "2")
    assert (code, "weights.safetensors" in out) == (Exit.FAILED, True)
    tiny_learner.write_model(tmp_path / "3", 3.0, version="3")
    (tmp_path / "3" / "weights.safetensors").write_bytes(b"x")
    assert run("model", "import", str(tmp_path / "3"))[0] == Exit.FAILED


def test_a_model_is_measured_and_its_int8_version_becomes_a_candidate(
    home: Home, run: Run, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tiny_learner.manifest().model_copy(update={"trainer": "tiny_learner:TinyBencher"})
    monkeypatch.setattr(offline, "find_plugins", lambda: PluginCatalogue({"tiny": manifest}, []))
    tiny_learner.write_model(tmp_path / "m", 2.0, version="2")
    assert run("model", "import", str(tmp_path / "m"))[0] == Exit.DONE
    code, out = run("model", "bench", "tiny", "scalar", "2", "--json")
    assert (code, json.loads(out)["result"]["int8"]) == (Exit.DONE, None)
    code, out = run("model", "bench", "tiny", "scalar", "2", str(labelled))
    assert code == Exit.DONE
    assert "int8 1.0 ms 8 B 0.750 (0.500 to 1.000)" in out
    assert "It is heavy enough. Candidate tiny scalar 2-int8; `clinic-ai model record tiny scalar 2-int8`" in out
    assert _active(run) == []
    assert run("model", "bench", "tiny", "scalar", "2", str(labelled))[0] == Exit.CONFLICT


def test_a_model_is_described_before_it_is_loaded(
    home: Home, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out = run("model", "stats", "tiny")
    assert (code, "No model of tiny is active." in out) == (Exit.NOT_FOUND, True)
    tiny_learner.write_model(tmp_path / "m", 2.0, version="2")
    assert run("model", "import", str(tmp_path / "m"))[0] == Exit.DONE
    code, out = run("model", "stats", "tiny", "scalar", "2")
    assert (code, "cannot describe its models: its trainer has no `describe`" in out) == (Exit.FAILED, True)
    manifest = tiny_learner.manifest().model_copy(update={"trainer": "tiny_learner:TinyDescriber"})
    monkeypatch.setattr(offline, "find_plugins", lambda: PluginCatalogue({"tiny": manifest}, []))
    code, out = run("model", "stats", "tiny", "scalar", "2", "--set", "rank=3", "--gpu-memory", "10")
    assert code == Exit.DONE
    assert re.search(r"tiny/scalar/2 \(\w+\): 1 parameters, 3 numbers are trained\.", out)
    assert "weight 1 1 3 8 B" in out
    assert "in all 80 B" in out
    assert "1 part, 8 B of weights, would lie in the memory of the processor. Light." in out
    code, out = run("model", "stats", "tiny", "scalar", "2", "--json")
    assert json.loads(out)["stats"]["memory"]["optimiser"] == 16
    assert run("model", "stats", "tiny", "scalar")[0] == Exit.USAGE


def test_a_model_is_evaluated_on_the_test_part_of_a_frozen_dataset(
    home: Home, run: Run, labelled: Path, tmp_path: Path
) -> None:
    tiny_learner.write_model(tmp_path / "m", 2.0, version="2")
    assert run("model", "import", str(tmp_path / "m"))[0] == Exit.DONE
    code, out = run("train", "evaluate", "tiny", "scalar", "2")
    assert (code, "There is no frozen dataset of tiny." in out) == (Exit.NOT_FOUND, True)
    code, out = run("train", "run", "tiny", str(labelled), "--json")
    code, out = run("train", "evaluate", "tiny")
    assert (code, "No model of tiny is active." in out) == (Exit.NOT_FOUND, True)
    code, out = run("train", "evaluate", "tiny", "scalar", "2")
    assert code == Exit.DONE
    assert re.search(r"tiny/scalar/2 \(\w+\) on 0 examples of the test part of D-", out)
    assert "report lung nodule BLEU-1 2.000 1.000 to 3.000" in out
    code, out = run("train", "evaluate", "tiny", "scalar", "2", "--json")
    found = json.loads(out)
    assert found["scores"]["values"]["weight"] == 2.0
    assert run("train", "evaluate", "tiny", "scalar", "2", "--dataset", found["dataset_id"])[0] == Exit.DONE
    assert run("train", "evaluate", "tiny", "scalar", "2", "--dataset", "D-none")[0] == Exit.NOT_FOUND
    assert run("train", "evaluate", "tiny", "scalar")[0] == Exit.USAGE
    trained = next(json.loads(line) for line in [run("model", "list", "--json")[1]])
    version = next(m["version"] for m in trained if m["name"] == "trained")
    assert run("train", "evaluate", "tiny", "trained", version)[0] == Exit.DONE


def test_the_configuration_that_fits_a_machine_is_told_with_the_arithmetic(
    home: Home, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out = run("model", "fit", "tiny")
    assert (code, "The networks of the plugin tiny come in one size" in out) == (Exit.FAILED, True)
    manifest = tiny_learner.manifest().model_copy(update={"trainer": "tiny_learner:TinyFitter"})
    monkeypatch.setattr(offline, "find_plugins", lambda: PluginCatalogue({"tiny": manifest}, []))
    code, out = run("model", "fit", "tiny", "--memory", "4000", "--gpu-memory", "0", "--cpus", "3")
    assert code == Exit.DONE
    assert "memory of a GPU to judge to learn weights 600 MB 600 MB the rest 200 MB 200 MB in all 800 MB 800 MB" in out
    assert "There is no GPU." in out
    assert "It fits into 3 cores. Choose small. Weighed." in out
    code, out = run("model", "fit", "tiny", "--gpu-memory", "1000", "--json")
    found = json.loads(out)
    assert found["chosen"] == "large"
    assert found["fittings"][0]["room_bytes"] == 1000 << 20
    assert run("model", "fit", "nothing")[0] == Exit.NOT_FOUND


def test_training_is_followed_to_a_candidate_that_nobody_promoted(home: Home, run: Run, labelled: Path) -> None:
    code, out = run("train", "run", "tiny", str(labelled), "--json")
    row = json.loads(out)
    assert (code, row["state"]) == (Exit.DONE, "FINISHED")
    assert row["result"]["candidate"]["name"] == "trained"
    assert _active(run) == []
    code, out = run("train", "list")
    assert (row["run_id"] in out, "FINISHED" in out) == (True, True)
    assert run("train", "resume", row["run_id"])[0] == Exit.CONFLICT


def test_a_candidate_is_examined_approved_by_name_promoted_and_on_record(
    home: Home, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tiny_learner.manifest().model_copy(update={"trainer": "tiny_learner:TinyJudge"})
    monkeypatch.setattr(offline, "find_plugins", lambda: PluginCatalogue({"tiny": manifest}, []))
    home.clinic_toml.write_text(f'{ROOMY}[review]\nreviewers = ["Dr. A. Example"]\n')
    tiny_learner.write_model(tmp_path / "m", 0.0, version="1")
    assert run("model", "import", str(tmp_path / "m"))[0] == Exit.DONE
    assert run("model", "promote", "tiny", "scalar", "1")[0] == Exit.DONE
    folder = tmp_path / "many"
    for number in range(200):
        kind = ("normal", "pneumonia")[number % 2]
        (folder / kind / f"patient{number}").mkdir(parents=True)
        Image.new("L", (8, 8), number).save(folder / kind / f"patient{number}" / "a.png")
    version = json.loads(run("train", "run", "tiny", str(folder), "--set", "steps=60", "--json")[1])["run_id"]
    words = ("tiny", "trained", version)
    code, out = run("model", "promote", *words)
    assert (code, "Nobody has approved the candidate" in out) == (Exit.CONFLICT, True)
    assert run("model", "promote", *words, "--as", "Dr. Nobody")[0] == Exit.NOT_ALLOWED
    code, out = run("model", "check", *words)
    assert (code, f"tiny trained {version} passed." in out) == (Exit.DONE, True)
    assert "AUROC for pneumonia" in out
    assert f"# Change plan: tiny trained {version}" in run("model", "record", *words)[1]
    code, out = run("model", "approve", *words, "--as", "Dr. A. Example", "--reason", "Looked at the figures.")
    assert (code, "Dr. A. Example has approved" in out) == (Exit.DONE, True)
    assert run("model", "promote", *words)[0] == Exit.DONE
    assert _active(run) == [version]

    assert run("model", "record", *words, "--output", str(tmp_path / "record.md"))[0] == Exit.DONE
    page = (tmp_path / "record.md").read_text()
    for line in (
        f"# Record of a model: tiny trained {version}",
        "It takes the place of tiny/scalar/1",
        "- Rules: improvement proven, largest loss 0, in a subgroup 0.05",
        "Approved by Dr. A. Example",
        "Looked at the figures.",
        "`clinic-ai model rollback tiny --slot main`",
        f"- Run {version} from tiny/scalar/1",
        "| train |",
        "It was not run on studies of the day.",
    ):
        assert line in page
    assert run("model", "record", *words, "--output", str(tmp_path / "record.json"))[0] == Exit.DONE
    record = json.loads((tmp_path / "record.json").read_text())
    assert (record["state"], record["report"]["passed"]) == ("ACTIVE", True)
    assert record["approval"]["name"] == "Dr. A. Example"
    assert run("model", "record", *words, "--output", str(tmp_path / "no" / "where.md"))[0] == Exit.CONFLICT
    assert run("model", "canary", *words)[0] == Exit.CONFLICT
    code, out = run("model", "rollback", "tiny")
    assert (code, _active(run)) == (Exit.DONE, ["1"])


def test_training_that_fails_says_so_and_can_be_resumed(home: Home, run: Run, labelled: Path) -> None:
    code, out = run("train", "run", "tiny", str(labelled), "--set", "die_at=5")
    assert re.search(r"train: \d+ images? of \d+ patients?; pneumonia in \d+ images?", out)
    assert (code, "FAILED" in out, "train resume" in out) == (Exit.FAILED, True, True)
    run_id = json.loads(run("train", "list", "--json")[1])[0]["run_id"]
    code, out = run("train", "resume", run_id)
    assert (code, "FINISHED" in out, "model record tiny trained" in out) == (Exit.DONE, True, True)
    assert "It took 20 steps." in out
    assert f"What it measured is in {home.runs / run_id}." in out


def test_condition_and_tier_are_part_of_the_recipe(home: Home, run: Run, labelled: Path) -> None:
    words = ("--condition", "pneumonia", "--tier", "fast", "--set", "epochs=2")
    row = json.loads(run("train", "run", "tiny", str(labelled), *words, "--json")[1])
    assert row["recipe"] == {"condition": "pneumonia", "tier": "fast", "epochs": 2}


def test_a_run_that_cannot_start_is_refused_in_words(home: Home, run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert run("train", "run", "tiny", str(tmp_path / "empty"))[0] == Exit.FAILED
    assert run("train", "run", "nobody", str(tmp_path / "empty"))[0] == Exit.NOT_FOUND
    assert run("train", "run", "tiny", "--set", "epochs")[0] == Exit.USAGE


def test_a_folder_is_checked_before_it_is_learned_from(home: Home, run: Run, labelled: Path) -> None:
    code, out = run("train", "check", "tiny", str(labelled))
    assert (code, "12 labelled images." in out, "No problems: `clinic-ai train run`" in out) == (Exit.DONE, True, True)
    assert re.search(r"train: \d+ images? of \d+ patients?; pneumonia in \d+ images?", out)
    (labelled / "gout").mkdir()
    code, out = run("train", "check", "tiny", str(labelled), "--json")
    found = json.loads(out)
    assert (code, found["parts"], len(found["problems"])) == (Exit.FAILED, [], 2)
    code, out = run("train", "check", "tiny", str(labelled))
    assert (code, "2 problems; nothing would be trained." in out) == (Exit.FAILED, True)
    assert json.loads(run("train", "list", "--json")[1]) == []


def test_an_empty_sheet_is_written_and_filled_in(
    home: Home, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    category = CategoryInfo(key="nt", label="NT/standard", questions=("Which view?", "Is it whole"))
    manifest = tiny_learner.manifest().model_copy(update={"labels": "answers", "categories": (category,)})
    monkeypatch.setattr(offline, "find_plugins", lambda: PluginCatalogue({"tiny": manifest}, []))
    folder, file, names = tmp_path / "scans", tmp_path / "scans" / "labels.xlsx", ("=a.png", "b.png", "p1/c.png")
    folder.mkdir()
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8), number * 20).save(folder / name)

    assert run("train", "sheet", "tiny", "NT standard", str(folder / "labels.csv"))[0] == Exit.FAILED
    code, out = run("train", "sheet", "tiny", "NT standard", str(file))
    assert (code, "a row for each of 3 images of NT/standard" in out) == (Exit.DONE, True)
    assert run("train", "sheet", "tiny", "nt", str(file))[0] == Exit.FAILED
    assert run("train", "sheet", "tiny", "nt", str(tmp_path / "nowhere" / "a.xlsx"))[0] == Exit.FAILED

    book = openpyxl.load_workbook(file)
    rows = [[cell.value for cell in row] for row in book.active]
    assert rows == [["image", "Which view?", "Is it whole?"], *([name, None, None] for name in names)]
    for row in (2, 3, 4):
        book.active.cell(row, 2, "axial")
        book.active.cell(row, 3, f"yes {row}")
    book.active["A2"].data_type = "s"
    book.save(file)
    code, out = run("train", "check", "tiny", str(folder), "--category", "nt", "--json")
    found = json.loads(out)
    assert (code, found["images"], found["pairs"], found["category"]) == (Exit.DONE, 3, 6, "nt")


def _active(run: Run) -> list[str]:
    return [m["version"] for m in json.loads(run("model", "list", "--json")[1]) if m["state"] == "ACTIVE"]
