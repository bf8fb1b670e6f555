"""Series, released findings and history of a study over the control socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from control_room import Room
from pictured import add_heat, add_pictures, write_bar
from pydicom.data import get_testdata_file

from clinic_ai.control.study_client import StudyClient
from clinic_ai.control.views import Role
from clinic_ai.domain import GuardAction, JobKind, Presence
from clinic_ai.domain.reviews import Correction, ReviewDecision, ReviewDocument, SignOff
from clinic_ai.errors import NotAllowed, NotFound
from clinic_ai.store import artefacts, audit, changes, jobs, reviews


@pytest.fixture
def client(room: Room) -> Iterator[StudyClient]:
    with StudyClient(room.home) as made:
        yield made


def bars(room: Room, folder: Path, count: int = 3) -> str:
    return add_pictures(room, [write_bar(folder / f"{n}.dcm", n) for n in range(1, count + 1)])


# ---------------------------------------------------------------- series


def test_series_name_stacks_and_images_as_their_pictures_are_numbered(
    room: Room, client: StudyClient, tmp_path: Path
) -> None:
    paths = [write_bar(tmp_path / f"{n}.dcm", n) for n in (1, 2, 3)]
    study = add_pictures(room, [*paths, Path(get_testdata_file("examples_ybr_color.dcm"))])
    found = client.series(study)
    assert found.version == 1
    numbered = {row.modality: row for row in found.series}
    [stack] = numbered["CT"].stacks
    assert (numbered["CT"].number, numbered["CT"].description) == (1, "Bars")
    assert (stack.images, stack.regular, stack.line) == (3, True, "CT, 3 slices, axial, 5.0 mm apart, regular")
    assert [(file.first, file.frames, file.position_mm, file.rows) for file in stack.files] == [
        (1, 1, 5.0, 64),
        (2, 1, 10.0, 64),
        (3, 1, 15.0, 64),
    ]
    [cine] = numbered["US"].stacks
    assert [(file.first, file.frames) for file in cine.files] == [(1, 30)]
    assert sorted((stack.number, cine.number)) == [1, 2]


def test_a_study_that_is_not_there_is_not_found(client: StudyClient) -> None:
    for ask in (client.series, client.findings, client.history):
        with pytest.raises(NotFound):
            ask("S-20260101-AAAAAAAA")


def test_technicians_see_series_and_history_but_no_findings(
    room: Room, client: StudyClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = bars(room, tmp_path)
    add_heat(room, study)
    with StudyClient(room.home, monitor=True) as monitor, pytest.raises(NotAllowed):
        monitor.findings(study)
    monkeypatch.setattr("clinic_ai.control.door.role_of", lambda *_: Role.TECHNICIAN)
    assert client.series(study).series
    assert "Said" not in client.history(study).model_dump_json()
    with pytest.raises(NotAllowed):
        client.findings(study)


# ---------------------------------------------------------------- findings


def test_only_released_findings_are_told_and_the_others_are_counted(
    room: Room, client: StudyClient, tmp_path: Path
) -> None:
    study = bars(room, tmp_path)
    assert client.findings(study).note == "Nothing has judged this study for a condition."
    add_heat(room, study)
    found = client.findings(study)
    [row] = found.findings
    assert (row.label, row.laterality, row.probability, row.threshold) == ("Pneumonia", "left", 0.98, 0.47)
    assert (row.words, row.heatmap, row.stack, row.image) == ("Said f_1.", True, 1, 1)
    assert (found.state, found.withheld) == ("PRELIMINARY", 1)
    assert found.note == "The guard keeps back 1 of 2 findings."


def test_findings_of_a_held_report_are_for_the_review_alone(room: Room, client: StudyClient, tmp_path: Path) -> None:
    study = bars(room, tmp_path)
    add_heat(room, study, action=GuardAction.HOLD)
    found = client.findings(study)
    assert (found.findings, found.withheld, found.artefact_id) == ((), 2, "")
    assert "review" in found.note


def test_what_the_signer_says_instead_stands_beside_it(room: Room, client: StudyClient, tmp_path: Path) -> None:
    study = bars(room, tmp_path)
    add_heat(room, study)
    with room.database.write() as c:
        [artefact] = artefacts.artefacts_of(c, study)
        job = jobs.get_job(c, jobs.add_job(c, kind=JobKind.SIGN, study_id=study, version=1))
        document = ReviewDocument(corrections=(Correction(condition="pneumonia", presence=Presence.ABSENT),))
        review = reviews.new_review(
            artefact,
            ReviewDecision.AMEND,
            reviewer="Dr. Ada Example",
            actor="ada",
            reason="",
            digest="d" * 64,
            document=document,
            consent=False,
            job_id=job.job_id,
        )
        reviews.add_review(c, review, ())
        sign = SignOff(review_id=review.review_id, name="Dr. Ada Example", at=1.0, revision=1)
        artefacts.add_signed(c, job, artefact.verdict, review, sign)
    [row] = client.findings(study).findings
    assert (row.presence, row.signed) == (Presence.PRESENT, Presence.ABSENT)


# ---------------------------------------------------------------- history


def test_history_names_who_did_what_to_the_study_and_its_jobs(room: Room, client: StudyClient, tmp_path: Path) -> None:
    other, study = bars(room, tmp_path), room.add_study(state="DONE")
    add_heat(room, study)
    client.prioritise(study, 50)
    told = client.history(study)
    me = client.status().person
    assert (told.rows[0].action, told.rows[0].actor) == ("study.priority", me)
    assert told.rows[-1].action == "study.open"
    assert any(row.action.startswith("job.") and row.subject.startswith("J-") for row in told.rows)
    assert [row.seq for row in told.rows] == sorted((row.seq for row in told.rows), reverse=True)
    assert not any(row.subject == other for row in told.rows)
    assert not told.more
    short = client.history(study, limit=2)
    assert (short.rows, short.more) == (told.rows[:2], True)


def test_what_is_older_than_the_study_is_not_looked_through(room: Room) -> None:
    with room.database.write() as c:
        for number in range(20):
            audit.record(c, actor="x", action=f"deed.{number}", subject="same")
        rows = [row for row in audit.rows(c, after=0, limit=1000) if row.subject == "same"]
    with room.database.read() as c:
        since = rows[12].at
        found = changes.about(c, ("same",), since=since, limit=100)
        assert [row.action for row in found] == [row.action for row in reversed(rows) if row.at >= since]
        assert changes.about(c, ("same",), since=rows[-1].at + 10, limit=100) == []
        assert len(changes.about(c, ("same",), since=0.0, limit=5)) == 5
