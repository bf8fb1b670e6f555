"""Whoever has only the help finds out why a study waits, what is done for it, or where it went."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

from made_queue import S, busy_status, made_artefact, made_file, made_job, made_row, made_version, queue_exhibit
from screens import NOW, play, screen, shows, until
from textual.pilot import Pilot
from textual.widgets import Static

import clinic_ai
from clinic_ai import waiting
from clinic_ai.control.queue_views import QueueRow
from clinic_ai.control.views import DeliveryRow, FilePage, StudyView
from clinic_ai.domain import JobKind, JobState, StudyState, WaitReason
from clinic_ai.tui.app import ClinicApp
from clinic_ai.tui.queue import StudyTable
from clinic_ai.tui.queue_words import reason_of
from clinic_ai.tui.study_details import NOTHING_TO_DO, details_text
from clinic_ai.tui.words import short_reason

PACKAGE = Path(clinic_ai.__file__).parent
PASS_BY_THEMSELVES = {"receiving", "memory_in_use"}
"""Codes of the reasons of which the remedy is to wait."""
REFUSING = ("workers/parser.py", "ingest/filing.py", "ingest/assemble.py", "ingest/headers.py", "ingest/decisions.py")
"""Where files are refused, with a problem or an outcome in words."""
MADE_OF = {str: "some words.", int: 3, float: 30.0}


def every_reason() -> dict[str, WaitReason]:
    """Return each reason to wait that ``waiting`` can make, by the name of what makes it."""
    made = {}
    for name, make in inspect.getmembers(waiting, inspect.isfunction):
        hints = get_type_hints(make)
        if hints.pop("return") is WaitReason and name != "addressed":
            made[name] = make(**{parameter: MADE_OF[kind] for parameter, kind in hints.items()})
    return made


REASONS = every_reason()


def states_of(reason: WaitReason) -> StudyState:
    """Return a state in which a study waits for this."""
    code = reason.code
    if code.startswith("receiving"):
        return S.RECEIVING
    if code in {"no_rule", "originals_removed"}:
        return S.UNROUTED
    if code in {"held", "not_signed", "undelivered"}:
        return S.DONE
    return S.FAILED if code == "failed" else S.ROUTED


def facts(app: ClinicApp) -> str:
    return " ".join(str(app.query_one("#facts", Static).render()).split())


def test_every_reason_has_a_sentence_a_remedy_and_a_code_of_its_own() -> None:
    assert len(REASONS) >= 16
    assert len({reason.code for reason in REASONS.values()}) == len(REASONS)
    for name, reason in REASONS.items():
        assert reason.sentence.endswith("."), name
        assert reason.remedy.endswith(".") or reason.code in PASS_BY_THEMSELVES, name


def test_no_reason_is_made_anywhere_else() -> None:
    made = {path.name for path in PACKAGE.rglob("*.py") if re.search(r"(?<!class )WaitReason\(", path.read_text())}
    assert made == {"waiting.py"}


def test_every_reason_stands_in_full_in_the_details_with_what_to_do() -> None:
    rows = [made_row(n, states_of(reason), wait=reason) for n, reason in enumerate(REASONS.values())]
    exhibit = queue_exhibit(rows)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        queue = app.query_one(StudyTable)
        await until(pilot, lambda: queue.total == len(rows), "all studies should be shown")
        for place, row in enumerate(rows):
            assert row.wait is not None
            queue.move(place)
            await until(pilot, lambda r=row: r.study_id in facts(app), "its details should be shown")
            assert row.wait.sentence in facts(app), row.wait.code
            assert f"What to do: {row.wait.remedy or NOTHING_TO_DO}" in facts(app), row.wait.code
            assert "STUDY" not in facts(app)
            assert reason_of(row, 15) in screen(app), f"{row.wait.code} should stand in its line"

    play(exhibit, script)


def test_every_reason_fits_its_column_in_a_word_or_two() -> None:
    for reason in REASONS.values():
        words = reason_of(made_row(1, wait=reason), 15)
        assert 0 < len(words) <= 15
        assert reason_of(made_row(1, wait=reason), 60) == waiting.addressed(reason, "S-20261121-00000001").sentence


def test_the_help_says_where_the_reason_stands_and_names_all_there_are() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.query_one(StudyTable).total == 1, "the queue should be there")
        await pilot.press("question_mark")
        told = " ".join(str(app.screen.query_one("#help Static", Static).render()).split())
        assert "its reason stands there in full, and below it what to do" in told
        assert "Files that are in no study, and why" in told
        for reason in REASONS.values():
            assert f" {short_reason(reason.code)} " in told, reason.code

    play(queue_exhibit([made_row(1)]), script)


# ---------------------------------------------------------------- without a reason to wait


def told(row: QueueRow, **version: object) -> str:
    """Return the details of a study in full, on one line."""
    made = made_version(row, **version)
    study = StudyView(study_id=row.study_id, content=False, versions=(made,), files=())
    return " ".join(str(details_text(row, study, busy_status([row]), NOW)).split())


def test_a_study_that_arrives_says_until_when() -> None:
    row = made_row(1, S.RECEIVING, source="ct room", last_instance_at=NOW - 10, wait=waiting.receiving(30))
    words = told(row)
    assert "Its last file came at 11:59:50, 10 s ago. It is complete at 12:00:20 if nothing more comes." in words
    more = made_row(1, S.RECEIVING, last_instance_at=NOW - 10, wait=waiting.receiving_more("slice 3", 600))
    assert "Its last file came at 11:59:50, 10 s ago." in told(more)
    assert "It is complete at" not in told(more)


def test_a_study_in_work_says_by_whom_and_since_when() -> None:
    row = made_row(3, S.ROUTED, at_work=("ct",))
    assert "The engine of ct (process 4711) works on it since 11:59:35 (25 s)." in told(row)
    report = made_job(row, JobState.LEASED, JobKind.REPORT)
    assert "The guard and the renderer work on its report since 11:59:35" in told(row, jobs=(report,))
    signing = made_job(row, JobState.LEASED, JobKind.SIGN)
    assert "work on its signed report since" in told(row, jobs=(signing,))


def test_a_study_that_waits_its_turn_says_so() -> None:
    row = made_row(3, S.ROUTED, turns=1)
    assert "Its job for xray waits for its turn since 11:59:30: what is more urgent or older goes first." in told(row)


def test_a_study_that_is_done_says_where_its_results_went() -> None:
    row = made_row(3, verdict="allow")
    assert "The result for the clinician was delivered to outbox at 11:59:30 (/var/lib/clinic-ai/outbox/" in told(row)
    base = {"attempt": 1, "place": "", "done_at": None}
    pacs = DeliveryRow(target="pacs", state="FAILED", error="It was refused.", **base)
    share = DeliveryRow(target="share", state="PENDING", error="", **base)
    words = told(row, artefacts=(made_artefact(row, deliveries=(pacs, share)),))
    assert "could not be delivered to pacs: It was refused." in words
    assert "is on its way to share." in words
    assert "was rejected by a person; nothing of it goes out." in told(made_row(3, verdict="hold", rejected=True))
    assert "It is finished, and there is no result." in told(row, artefacts=())
    nowhere = told(row, artefacts=(made_artefact(row, deliveries=()),))
    assert "is ready; nothing says where to deliver it." in nowhere


def test_every_state_says_something_without_a_reason() -> None:
    for state in StudyState:
        assert f"{state.value}: " in told(made_row(1, state))


# ---------------------------------------------------------------- files that hold a study back


def _said(node: ast.expr, names: dict[str, ast.expr]) -> str:
    """Return the words of an expression of the source, with ``7`` for what is filled in."""
    match node:
        case ast.Constant(value=str(words)):
            return words
        case ast.JoinedStr(values=parts):
            return "".join(_said(part, names) for part in parts)
        case ast.Name(id=name) if name in names:
            return _said(names[name], names)
    return "7"


def every_refusal() -> Iterator[tuple[str, str, str]]:
    """Yield code, sentence and remedy of everything that keeps a file out of a study, out of the source."""
    for place in REFUSING:
        tree = ast.parse((PACKAGE / place).read_text())
        names = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            if node.func.id == "InputError":
                yield _said(node.args[0], names), _said(node.args[1], names), _said(given["remedy"], names)
            elif node.func.id == "Problem" and "sentence" in given:
                yield tuple(_said(given[name], names) for name in ("code", "sentence", "remedy"))


REFUSALS = tuple(every_refusal())


def test_every_refusal_of_a_file_has_a_sentence_and_a_remedy() -> None:
    assert len(REFUSALS) >= 12
    for code, sentence, remedy in REFUSALS:
        assert code, sentence
        assert sentence, code
        assert remedy, code


def test_files_that_hold_a_study_back_stand_in_full_in_its_details() -> None:
    row = made_row(1)
    for code, sentence, remedy in REFUSALS:
        file = made_file(9, study_id=row.study_id, reason_code=code, reason=sentence, remedy=remedy)
        study = StudyView(study_id=row.study_id, content=False, versions=(made_version(row),), files=(file,))
        words = str(details_text(row, study, None, NOW))
        assert "File 9 is not in it: odd/9.dcm (QUARANTINED)" in words
        assert f"{sentence}\nWhat to do: {remedy}" in words
    stored = made_file(8, fate="STORED", reason="", remedy="")
    study = StudyView(study_id=row.study_id, content=False, versions=(made_version(row),), files=(stored,))
    assert "odd/8" not in str(details_text(row, study, None, NOW))


def test_f_tells_of_files_that_are_in_no_study() -> None:
    files = [
        made_file(number, reason_code=code, reason=sentence, remedy=remedy)
        for number, (code, sentence, remedy) in enumerate(REFUSALS, 1)
    ]
    page = FilePage(files=tuple(files), next_before=None)
    status = busy_status([], files={"QUARANTINED": len(files)})
    exhibit = queue_exhibit(status=status, files=page)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, f"{len(files)} files wait in quarantine: f")
        await pilot.press("f")
        await shows(pilot, "Files that are in no study")
        words = str(app.screen.query_one("#reading Static", Static).render())
        assert "Nothing is mounted at /mnt/ward3.\nWhat to do: Mount the share" in words
        for file in files:
            assert f"{file.reason}\nWhat to do: {file.remedy}" in words
        assert exhibit.sent("files") == [((), {"fates": ("QUARANTINED", "IGNORED"), "limit": 200})]
        await pilot.press("j", "escape")
        assert app.screen is app.screen_stack[0]

    play(exhibit, script)


def test_f_says_so_if_every_file_is_in_a_study() -> None:
    exhibit = queue_exhibit(status=busy_status([], inboxes=()), files=FilePage(files=(), next_before=None))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "There is no inbox")
        await pilot.press("f")
        await shows(pilot, "Every file that arrived is in a study; none waits.")

    play(exhibit, script)
