"""``clinic-ai disk`` against a served control room."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from control_room import Room, control_room

from clinic_ai.cli import main
from clinic_ai.cli.output import Exit
from clinic_ai.settings.model import DiskSettings, RetentionSettings
from clinic_ai.store.objects import ObjectStore

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process; return exit code, standard output and standard error."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clinic-ai", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    monkeypatch.setenv("COLUMNS", "80")
    return call


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    with control_room(tmp_path / "h") as served:
        monkeypatch.setenv("CLINIC_AI_HOME", str(served.home.path))
        settings = served.shared.settings
        served.shared.settings = settings.model_copy(update={"disk": DiskSettings(reserve_mb=1)})
        yield served


def test_it_shows_what_takes_room_and_that_counting_goes_on(room: Room, run: Run) -> None:
    code, out, _ = run("disk")
    assert code == Exit.DONE
    assert "The reserve is 1.05 MB" in out
    assert all(name in out for name in ("originals", "quarantine", "outbox", "database"))
    assert "It is being counted" in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_disk_below_the_reserve_gives_exit_code_1_and_says_so(room: Room, run: Run) -> None:
    settings = room.shared.settings
    room.shared.settings = settings.model_copy(update={"disk": DiskSettings(reserve_mb=10**9)})
    code, out, _ = run("disk")
    assert code == Exit.FAILED
    assert "less than the reserve" in " ".join(out.split())
    assert "Nothing is lost." in " ".join(out.split())
    code, out, _ = run("disk", "--json")
    assert code == Exit.FAILED
    assert json.loads(out)["waiting"].startswith("The disk of")


def test_the_plan_names_each_study_and_removes_nothing(room: Room, run: Run) -> None:
    code, out, _ = run("disk", "--plan")
    assert code == Exit.DONE
    assert "Retention would remove nothing now." in out
    settings = room.shared.settings
    room.shared.settings = settings.model_copy(update={"retention": RetentionSettings(originals_days=1)})
    study_id = room.add_study(state="DONE")
    room.add_result(study_id)
    with room.database.write() as connection:
        connection.exec_driver_sql("UPDATE jobs SET state = 'DONE'")
        connection.exec_driver_sql("UPDATE deliveries SET state = 'SENT', done_at = 1000000.0")
    code, out, _ = run("disk", "--plan", "--json")
    (row,) = json.loads(out)["plan"]
    assert (row["study_id"], row["objects"], row["frees_bytes"], row["why"]) == (study_id, 1, 10, "age")
    code, out, _ = run("disk", "--plan")
    assert study_id in out
    assert "That would free 10 B." in out
    with room.database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(originals_removed_at) FROM studies").scalar() == 0


def test_verify_finds_what_is_missing_and_says_what_to_do(room: Room, run: Run) -> None:
    code, out, _ = run("disk", "verify", "--share", "1")
    assert code == Exit.DONE
    assert out == "0 objects, 0 B: all are as they were stored.\n"
    study_id = room.add_study(state="DONE")  # nobody stored its bytes
    code, out, _ = run("disk", "verify")
    assert code == Exit.FAILED
    assert study_id in out
    assert "is missing" in out
    assert "Send the study again" in " ".join(out.split())
    ObjectStore(room.home.objects).write_bytes(b"somebody else's")
    code, out, _ = run("disk", "verify", "--json")
    assert [fault["fault"] for fault in json.loads(out[out.index("{\n") :])["faults"]] == ["missing"]
