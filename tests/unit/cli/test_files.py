"""``clinic-ai file`` against a served control room."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from control_room import Room, control_room

from clinic_ai.cli import files, main
from clinic_ai.cli.output import Exit
from clinic_ai.ingest.assemble import OTHER_PATIENT, SAME_UID

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process; return exit code, standard output and standard error, unwrapped."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clinic-ai", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert max(map(len, out.splitlines()), default=0) <= 80 or "{" in out or "/" in out
        return int(ended.value.code or 0), re.sub(r"\s+", " ", out), re.sub(r"\s+", " ", err)

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(files, "WAIT_S", 0.0)  # nobody files anything here
    return call


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    with control_room(tmp_path / "h") as served:
        monkeypatch.setenv("CLINIC_AI_HOME", str(served.home.path))
        yield served


def test_list_shows_numbers_and_only_what_was_asked_for(room: Room, run: Run) -> None:
    room.add_study(source="mr room")
    number = room.quarantine_file(b"odd", name="odd.dcm")
    code, out, _ = run("file", "list", "--quarantined")
    assert (code, out.count("QUARANTINED"), f"{number} odd.dcm" in out) == (Exit.DONE, 1, True)
    assert "STORED" in run("file", "list", "--source", "mr room")[1]
    code, out, _ = run("file", "list", "--limit", "1")
    assert f"--before {number} shows the next" in out
    _, out, _ = run("file", "list", "--fate", "stored", "--json")
    assert [row["fate"] for row in json.loads(out)["files"]] == ["STORED"]


def test_show_says_where_a_file_lies_and_what_to_do(room: Room, run: Run) -> None:
    number = room.quarantine_file(b"odd")
    code, out, _ = run("file", "show", str(number))
    assert code == Exit.FAILED
    for words in ("It is damaged. (damaged)", "Send it again.", "quarantine/", f"file accept {number}", "file discard"):
        assert words in out
    assert run("file", "show", "99")[0] == Exit.NOT_FOUND


def test_show_of_a_conflict_that_cannot_be_read_still_shows_the_file(room: Room, run: Run) -> None:
    study_id = room.add_study()
    number = room.quarantine_file(b"odd", study_id=study_id, code=SAME_UID)
    code, out, _ = run("file", "show", str(number))
    assert code == Exit.FAILED
    assert "--replace" in out
    assert "--both" in out
    assert "It cannot be compared" in out
    _, out, _ = run("file", "show", str(number), "--json")
    assert json.loads(out)["comparison"] is None


def test_accept_says_what_follows_and_what_became_of_it(room: Room, run: Run) -> None:
    number = room.quarantine_file(b"odd")
    code, out, _ = run("file", "accept", str(number))
    assert code == Exit.DONE
    assert "is accepted: it is judged again" in out
    assert "CLAIMED" in out
    assert run("file", "accept", str(number))[0] == Exit.CONFLICT


def test_all_files_of_a_study_are_accepted_by_its_name(room: Room, run: Run) -> None:
    study_id = room.add_study()
    numbers = [room.quarantine_file(b"odd %d" % n, study_id=study_id, code=OTHER_PATIENT) for n in range(3)]
    code, out, _ = run("file", "accept", "--all-of", study_id, "--own-study", "--json")
    assert (code, json.loads(out)["files"]) == (Exit.DONE, numbers)
    assert run("file", "accept", "--all-of", study_id, "--own-study")[0] == Exit.NOT_FOUND


@pytest.mark.parametrize("words", [(), ("1", "--replace", "--both"), ("x",)])
def test_wrong_use_of_accept(room: Room, run: Run, words: tuple[str, ...]) -> None:
    assert run("file", "accept", *words)[0] == Exit.USAGE


def test_discard_needs_a_reason_and_a_yes(room: Room, run: Run) -> None:
    number = str(room.quarantine_file(b"odd"))
    assert run("file", "discard", number)[0] == Exit.USAGE
    code, _, err = run("file", "discard", number, "--reason", "no scan")
    assert code == Exit.USAGE
    assert "--yes" in err
    code, out, _ = run("file", "discard", number, "--reason", "no scan", "--yes")
    assert (code, f"File {number} is discarded" in out) == (Exit.DONE, True)
    assert "Discarded: no scan" in run("file", "show", number)[1]


def test_status_says_how_many_wait(room: Room, run: Run) -> None:
    assert "in quarantine for a decision" not in run("status")[1]
    room.quarantine_file(b"odd")
    assert "1 file waits in quarantine for a decision" in run("status")[1]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--told", ("alert", "ack", "1", "--told")),
        ("--as", ("alert", "ack", "1", "--as")),
        ("--reason", ("file", "discard", "1", "--yes", "--reason")),
        ("--all-of", ("file", "accept", "--all-of")),
    ],
)
@pytest.mark.parametrize("typed", ["a\x1b[31mb", "a\u202eb", "x" * 201])
def test_what_no_line_may_hold_is_refused_in_words(run: Run, option: str, words: tuple[str, ...], typed: str) -> None:
    code, _, err = run(*words, typed)
    why = "at most 200 characters" if len(typed) > 200 else "one line without control characters"
    assert (code, f"Invalid value for {option}: " in err, why in err) == (Exit.USAGE, True, True), err
    assert "nothing was decided" in err
