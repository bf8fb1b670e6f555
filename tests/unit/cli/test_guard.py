"""``clinic-ai guard check``: without a daemon, and about a study of one."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from control_room import Room, control_room

from clinic_ai.cli import main
from clinic_ai.cli.guard import Kind, Reader
from clinic_ai.cli.output import Exit
from clinic_ai.control import door
from clinic_ai.control.views import Role
from clinic_ai.domain import Audience
from clinic_ai.guard.templates import KINDS
from clinic_ai.home import init_home
from clinic_ai.store.alerts import open_alerts

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``guard check`` in this process; return exit code and all output with single blanks."""

    def call(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["clinic-ai", "guard", "check", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), re.sub(r"\s+", " ", out + err)

    return call


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    with control_room(tmp_path / "h") as served:
        monkeypatch.setenv("CLINIC_AI_HOME", str(served.home.path))
        yield served


def test_a_draft_is_tried_without_a_daemon(tmp_path: Path, run: Run) -> None:
    home = str(init_home(tmp_path / "h").path)
    code, out = run("--audience", "patient", "--text", "There is no cancer.", "--home", home)
    assert code == Exit.FAILED
    assert "Text: hold." in out
    assert "alarming-diagnosis" in out
    assert "What patients read" not in out
    code, out = run("--audience", "patient", "--text", "The heart is seen.", "--language", "de", "--home", home)
    assert code == Exit.DONE
    assert "What patients read: Ein Computer hat Ihre Frage gelesen." in out
    assert "Made of: template:de/patient/answer" in out


def test_a_question_is_tried_without_a_daemon(tmp_path: Path, run: Run) -> None:
    home = str(init_home(tmp_path / "h").path)
    code, out = run("--audience", "patient", "--question", "How big is the spot?", "--home", home)
    assert code == Exit.DONE
    assert "Question: replace (size)." in out
    assert "The answer: This picture does not tell how big things are." in out
    code, out = run("--audience", "patient", "--question", "Is my heart normal?", "--home", home, "--json")
    assert code == Exit.DONE
    assert json.loads(out)["question"]["question"] == "Is my heart normal?"


def test_about_a_study_the_daemon_is_asked(room: Room, run: Run) -> None:
    study_id = room.add_study()  # a CT of the chest
    code, out = run("--audience", "patient", "--question", "Does my knee look normal?", "--study", study_id)
    assert code == Exit.DONE
    assert "Question: replace (body-part)." in out
    code, out = run("--audience", "patient", "--text", "I see John Doe.", "--study", study_id, "--json")
    assert code == Exit.DONE
    rules = {decision["rule"] for decision in json.loads(out)["text"]["decisions"]}
    assert "guard.allow_list" in rules
    assert run("--audience", "patient", "--text", "x", "--study", "S-20260101-AAAAAAAA")[0] == Exit.NOT_FOUND


def test_an_example_that_cannot_be_shown_raises_an_alert(room: Room, run: Run) -> None:
    folder = room.home.path / "examples"
    folder.mkdir()
    (folder / "chest-pa.toml").write_text("modality = 1")
    run("--audience", "patient", "--question", "What is normal?", "--study", room.add_study())
    with room.database.read() as connection:
        (alert,) = [a for a in open_alerts(connection) if a.code == "example_unusable"]
    assert "chest-pa.toml is not shown" in alert.sentence


def test_a_technician_may_not_try_words_about_a_study(room: Room, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    study_id = room.add_study()
    monkeypatch.setattr(door, "role_of", lambda *_: Role.TECHNICIAN)
    assert run("--audience", "patient", "--text", "x", "--study", study_id)[0] == Exit.NOT_ALLOWED


def test_every_audience_can_be_tried() -> None:
    assert {reader.value for reader in Reader} == {audience.value for audience in Audience}
    assert tuple(kind.value for kind in Kind) == KINDS


def test_a_draft_is_tried_as_what_it_would_be(tmp_path: Path, run: Run, room: Room) -> None:
    home = str(init_home(tmp_path / "alone").path)
    words = ("--audience", "patient", "--text", "The heart is seen.", "--kind", "remark")
    assert "Made of: template:en/patient/remark" in run(*words, "--home", home)[1]
    assert "Made of: template:en/patient/remark" in run(*words, "--study", room.add_study())[1]
    assert run(*words[:-1], "opinion", "--home", home)[0] == Exit.USAGE


def test_a_pack_is_found_by_its_name_from_any_folder(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    home = str(init_home(tmp_path / "h").path)
    monkeypatch.chdir(tmp_path)
    words = ("--audience", "clinician", "--text", "The patient must be admitted.", "--home", home)
    code, out = run(*words, "--pack", "strict")
    assert (code, "urgent-words" in out) == (Exit.FAILED, True)
    code, out = run(*words, "--pack", "policies/strict")
    assert code == Exit.FAILED
    assert "There is no policy pack policies/strict" in out
    assert "The packs of this home are: default, strict." in out


def test_nothing_to_try_is_wrong_use(tmp_path: Path, run: Run) -> None:
    assert run("--audience", "patient")[0] == Exit.USAGE
    assert run("--audience", "patient", "--text", "x", "--study", "S", "--pack", str(tmp_path))[0] == Exit.USAGE
