"""The night, the way of a run and the shelf of models, told over the sockets to whoever may read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import known_curves
import pytest
import tiny_learner
from control_room import Room, control_room
from training_scenes import refused_report

from clinic_ai.control.night_client import NightClient
from clinic_ai.errors import NotFound
from clinic_ai.home import Home
from clinic_ai.store import gates, models
from clinic_ai.store.database import Database
from clinic_ai.training.histories import MAX_POINTS
from clinic_ai.training.model_files import MANIFEST_NAME, read_manifest


@pytest.fixture
def learning(tmp_path: Path) -> Iterator[Room]:
    with control_room(tmp_path / "h", tiny_learner.manifest()) as served:
        yield served


def monitor(home: Home) -> NightClient:
    return NightClient(home, monitor=True)


def add_model(database: Database, folder: Path, weight: float, version: str, *, active: bool) -> None:
    """Enter a model as if its files lay there; make it active."""
    tiny_learner.write_model(folder / version, weight, version=version, tier="fast", condition="pneumonia")
    digest, manifest = read_manifest(folder / version)
    assert (folder / version / MANIFEST_NAME).exists()
    with database.write() as connection:
        models.add_model(
            connection,
            manifest,
            digest=digest,
            directory=f"tiny/scalar/{version}",
            state=models.ModelState.IMPORTED if active else models.ModelState.CANDIDATE,
            actor="ada",
        )
        if active:
            models.activate(connection, models.get_model(connection, "tiny", "scalar", version), actor="ada")


def examine_and_approve(database: Database, version: str, *, against: str) -> None:
    """Store a report that a model passed, and the approval of a person."""
    with database.write() as connection:
        candidate = models.get_model(connection, "tiny", "scalar", version)
        incumbent = models.get_model(connection, "tiny", "scalar", against)
        told = {"plugin": "tiny", "slot": "main", "name": "scalar", "version": version, "passed": True}
        report = refused_report().model_copy(
            update={**told, "digest": candidate.digest, "incumbent": incumbent.ref, "reasons": ("It is better.",)}
        )
        gates.add_report(connection, report, of=candidate.ref)
        gates.approve(connection, candidate, name="Dr. Ada Stern", actor="ada")


def test_the_outlook_is_told_to_whoever_may_read_and_starts_nothing(learning: Room) -> None:
    with monitor(learning.home) as client:
        found = client.outlook()
        assert not found.configured
        assert found.expected == ()
        run_id = known_curves.add_run(learning.database, known_curves.losses(3), finished=False)
        (told,) = client.outlook().expected
        assert (told.name, told.due) == (run_id, True)
        assert "at work" in told.sentence
        assert client.status().children == ()


def test_the_way_of_a_run_is_told_with_few_points(learning: Room) -> None:
    run_id = known_curves.add_run(learning.database, known_curves.losses(2 * MAX_POINTS))
    with monitor(learning.home) as client:
        found = client.run_history(run_id)
        assert (found.run_id, found.epochs) == (run_id, 2 * MAX_POINTS)
        [loss] = found.series
        assert (len(loss.points), loss.points[0][0], loss.points[-1][0]) == (MAX_POINTS, 1.0, 2.0 * MAX_POINTS)
        with pytest.raises(NotFound, match="R-20261121-7F3K9QXB"):
            client.run_history("R-20261121-7F3K9QXB")


def test_the_shelf_says_what_a_rollback_leads_to(learning: Room, tmp_path: Path) -> None:
    add_model(learning.database, tmp_path, 0.25, "1", active=True)
    with monitor(learning.home) as client:
        [slot] = client.shelf().slots
        assert (slot.plugin, slot.slot, slot.active, slot.before) == ("tiny", "main", "scalar 1", None)
        add_model(learning.database, tmp_path, 0.5, "2", active=True)
        add_model(learning.database, tmp_path, 0.75, "3", active=False)
        examine_and_approve(learning.database, "3", against="2")
        found = client.shelf()
    [slot] = found.slots
    assert (slot.active, slot.before) == ("scalar 2", "scalar 1")
    assert [(m.version, m.state, m.tier, m.examined, m.approved_by) for m in found.models] == [
        ("3", "CANDIDATE", "fast", "passed", "Dr. Ada Stern"),
        ("2", "ACTIVE", "fast", "", ""),
        ("1", "RETIRED", "fast", "", ""),
    ]
    newest = found.models[0]
    assert (newest.licence, newest.clinical_use, newest.commercial_use) == ("Apache-2.0", False, False)
    assert (newest.source, newest.intended_use, newest.size_bytes > 0) == ("made by a test", "tests", True)
    assert newest.conditions == ("pneumonia",)
