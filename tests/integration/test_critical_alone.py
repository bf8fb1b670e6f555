"""A critical finding does not depend on what becomes of the report, and never stands without its result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clinic_by_hand import Clinic, prepare
from whole import Drops

from clinic_ai.domain import ArtefactState
from clinic_ai.store import artefacts, critical, jobs

LIST = '\n[[critical]]\nterm = "please"\ncategory = 2\n'


@pytest.fixture
def clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clinic]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "support"))
    home = prepare(tmp_path / "h")
    with home.clinic_toml.open("a") as file:
        file.write(LIST)
    clinic = Clinic(home, Drops(tmp_path / "drops"), 1)
    clinic.open()
    yield clinic
    clinic.appliance.stop(0.0)


def told(clinic: Clinic) -> list[str]:
    with clinic.appliance.database.read() as connection:
        return [alert.study_id for alert in critical.open_critical(connection)]


@pytest.mark.parametrize(("wish", "state"), [("hold", ArtefactState.HELD), ("block", ArtefactState.BLOCKED)])
def test_it_is_told_although_the_guard_lets_nothing_out(clinic: Clinic, wish: str, state: ArtefactState) -> None:
    seed = clinic.study(1, wish=wish)
    clinic.take_in()
    clinic.route()
    clinic.analyse()
    study = clinic.newest(seed)
    assert told(clinic) == [study.study_id]  # before there is a report at all
    clinic.report()
    with clinic.appliance.database.read() as connection:
        (artefact,) = artefacts.artefacts_of(connection, study.study_id)
    assert artefact.state is state
    assert told(clinic) == [study.study_id]


def test_result_and_alert_are_stored_together_or_not_at_all(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = clinic.study(1, wish="look at")
    clinic.take_in()
    clinic.route()
    appliance = clinic.appliance

    def refuse(*_: object, **__: object) -> None:
        raise OSError("the disk went away")

    with monkeypatch.context() as broken:
        broken.setattr(critical, "_new_alert", refuse)
        appliance.execution.step(jobs.JobKind.ANALYSE)
    study = clinic.newest(seed)
    with appliance.database.read() as connection:
        assert jobs.analyses_of(connection, study.study_id, study.version) == []
    assert told(clinic) == []

    clinic.analyse()
    with appliance.database.read() as connection:
        assert len(jobs.analyses_of(connection, study.study_id, study.version)) == 1
    assert told(clinic) == [study.study_id]
