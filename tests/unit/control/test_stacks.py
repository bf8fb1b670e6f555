"""How the slices of a study lie, as the API and the command line say it."""

from __future__ import annotations

import sys

import pytest
from control_room import NAME, Room
from slices import image, row

from clinic_ai.cli import main
from clinic_ai.cli.studies import MAX_STACKS
from clinic_ai.domain import Instance
from clinic_ai.store import ledger, studies


def study_of(room: Room, instances: list[Instance]) -> str:
    """Store a study that also has these instances; return its id."""
    study_id = room.add_study(state="RECEIVING")
    with room.database.write() as c:
        sightings = [
            ledger.Sighting(source="ct room", name=f"{n}", raw_name=b"%d" % n, size_bytes=1, mtime_ns=1)
            for n in range(len(instances))
        ]
        new = [
            studies.NewInstance(file_id=file_id, sha256=one.sha256, size_bytes=1, header=one.header)
            for file_id, one in zip(ledger.begin_claims(c, sightings), instances, strict=True)
        ]
        studies.add_instances(c, study_id, 1, new)
    return study_id


def test_the_api_says_how_the_slices_lie(room: Room) -> None:
    study_id = study_of(room, row([0.0, 5.0, 10.0, 20.0]))
    with room.client() as client:
        (found,) = [stack for stack in client.study(study_id).versions[0].stacks if stack.images > 1]
    assert (found.series_number, found.images, found.regular, found.spacing_mm) == (1, 4, False, 5.0)
    assert found.remarks == ("Gap of 10.0 mm after slice 3 (between images 3 and 4).",)


def test_only_the_newest_version_says_it(room: Room) -> None:
    study_id = room.add_study(state="DONE")
    with room.client() as client:
        client.retry(study_id)
        newest, oldest = client.study(study_id).versions
    assert [stack.line for stack in newest.stacks] == ["CT, 1 image, it is not known where each image lies"]
    assert oldest.stacks == ()


def test_study_show_says_it_in_a_line(
    room: Room, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    many = [image(n, (0.0, 0.0, 0.0), series=f"1.9.{n}", series_number=n) for n in range(2, 30)]
    study_id = study_of(room, [*row([5.0 * n for n in range(28)]), *many])
    monkeypatch.setenv("CLINIC_AI_HOME", str(room.home.path))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["clinic-ai", "study", "show", study_id])
    with pytest.raises(SystemExit):
        main()
    lines = capsys.readouterr().out.splitlines()
    shown = [line for line in lines if line.startswith("series")]
    assert shown[0].split(maxsplit=2)[2] == "CT, 28 slices, axial, 5.0 mm apart, regular"
    assert len(shown) == MAX_STACKS
    assert any("more lines; `--json` shows all" in line for line in lines)
    assert NAME not in "".join(lines)
