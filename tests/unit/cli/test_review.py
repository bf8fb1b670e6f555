"""``clinic-ai review`` against a served control room with the real guard; nothing is rendered here."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from control_room import SECRET, Room, control_room

from clinic_ai.cli import main
from clinic_ai.cli.output import Exit
from clinic_ai.control.review_client import ReviewClient
from clinic_ai.domain import GuardAction
from clinic_ai.errors import NotAllowed
from clinic_ai.settings import ReviewSettings

SIGNER = "Dr. Ada Example"
Run = Callable[..., tuple[int, str, str]]


class Terminal(io.StringIO):
    """Standard input of somebody who sits at a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    with control_room(tmp_path / "h") as served:
        monkeypatch.setenv("CLINIC_AI_HOME", str(served.home.path))
        served.shared.settings = served.shared.settings.model_copy(
            update={"review": ReviewSettings(reviewers=(SIGNER,))}
        )
        served.guard.load()
        yield served


@pytest.fixture
def artefact(room: Room) -> str:
    study = room.add_study(modality="DX", state="DONE")
    room.add_finding(study)
    room.add_result(study)
    with room.database.read() as c:
        return str(c.exec_driver_sql("SELECT artefact_id FROM artefacts").scalar())


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process, with ``typed`` at a terminal or ``piped`` without one."""

    def call(*words: str, typed: str | None = None, piped: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clinic-ai", "review", *words])
        monkeypatch.setattr(sys, "stdin", io.StringIO(piped) if typed is None else Terminal(typed))
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, re.sub(r"\s+", " ", err)

    monkeypatch.setenv("COLUMNS", "80")
    return call


def decisions(room: Room) -> int:
    with room.database.read() as c:
        return int(c.exec_driver_sql("SELECT count(*) FROM reviews").scalar() or 0)


def test_orders_that_are_too_long_or_empty_name_the_option(room: Room, run: Run, artefact: str) -> None:
    signed = ("--as", SIGNER, "--yes")
    for reason in ("", "   ", "x" * 201):
        code, _, err = run("reject", artefact, *signed, "--reason", reason)
        assert (code, "--reason" in err, "nothing was decided" in err) == (Exit.USAGE, True, True), err
    code, _, err = run("amend", artefact, *signed, "--text", "-", "--reason", "x" * 1001, piped="[s1] Fine.")
    assert (code, "--reason" in err) == (Exit.USAGE, True), err
    code, _, err = run("amend", artefact, *signed, "--text", "-", piped="[s1] " + "x" * 4001)
    assert (code, "[s1] has 4001 characters; 4000 is the most" in err) == (Exit.FAILED, True), err
    code, _, err = run("amend", artefact, *signed, "--text", "-", piped="[new] a\n" * 201)
    assert (code, "--text" in err) == (Exit.USAGE, True), err
    assert decisions(room) == 0


def test_an_editor_that_cannot_run_is_said_with_the_way_out(
    room: Room, run: Run, artefact: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = run("amend", artefact, "--as", SIGNER, "--yes")
    assert (code, "no terminal" in err, "--text FILE" in err) == (Exit.FAILED, True, True), err
    monkeypatch.setattr("clinic_ai.cli.review_words.sys.stdout.isatty", lambda: True, raising=False)
    for editor in ("false", "/no/such/editor", "vi 'unbalanced"):
        monkeypatch.setenv("VISUAL", editor)
        code, _, err = run("amend", artefact, "--as", SIGNER, "--yes", typed="")
        assert (code, "did not start, or failed" in err, "--text FILE" in err) == (Exit.FAILED, True, True), err
    assert decisions(room) == 0


def test_the_signer_sees_whose_result_it_is_and_how_sure_the_software_was(run: Run, artefact: str) -> None:
    code, out, _ = run("show", artefact)
    assert code == Exit.DONE
    assert "Doe, John, ID 4711" in out
    assert "DX CHEST" in out
    assert re.search(r"Pneumonia +left +present +98 % +47 %", out)
    assert max(map(len, out.splitlines())) <= 80


def test_the_patient_is_for_clinicians_and_never_on_the_monitor_socket(room: Room, run: Run, artefact: str) -> None:
    with ReviewClient(room.home) as client:
        assert client.review(artefact).subject.patient_id == "4711"
        assert "4711" not in str(client.reviews(10))
    with ReviewClient(room.home, monitor=True) as client, pytest.raises(NotAllowed):
        client.review(artefact)


def test_the_name_is_checked_before_anybody_is_asked(room: Room, run: Run, artefact: str) -> None:
    for verb in (("accept",), ("amend", "--finding", "pneumonia=absent"), ("reject", "--reason", "no")):
        code, out, err = run(verb[0], artefact, *verb[1:], "--as", "Dr. Nobody", typed="y\n")
        assert (code, "?" in out, SIGNER in err) == (Exit.NOT_ALLOWED, False, True), (out, err)
        code, out, err = run(verb[0], artefact, *verb[1:], "--as", SIGNER)
        assert (code, SECRET in out, "--yes" in err) == (Exit.USAGE, False, True), (out, err)
    assert decisions(room) == 0


def test_amend_asks_as_accept_does(room: Room, run: Run, artefact: str, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("[s1] There is a shadow.\n\n[new] Compare with last year.\n")
    amend = ("amend", artefact, "--as", SIGNER, "--text", str(words), "--finding", "pneumonia=absent")
    code, out, _ = run(*amend, typed="n\n")
    assert code == Exit.FAILED
    assert f"Sign this as {SIGNER}?" in out
    assert "Doe, John" in out
    assert "[n_1] Compare with last year." in out
    assert "Corrected: pneumonia absent" in out
    assert decisions(room) == 0


def test_the_list_fits_80_columns(room: Room, run: Run, artefact: str) -> None:
    room.add_result(room.add_study(state="DONE"), GuardAction.HOLD)
    code, out, _ = run("list")
    assert code == Exit.DONE
    assert artefact in out
    assert "HELD" in out
    assert max(map(len, out.splitlines())) <= 80


def test_the_conditions_are_listed_without_a_daemon(run: Run) -> None:
    code, out, _ = run("conditions")
    assert code == Exit.DONE
    assert re.search(r"^pneumonia +Pneumonia$", out, re.MULTILINE)
    assert max(map(len, out.splitlines())) <= 80
