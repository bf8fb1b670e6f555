"""Candidates in the shadow: a real engine and guard beside stored studies; nothing of it goes anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tiny_learner
from control_room import Room, control_room
from copies import open_deidentifier
from sqlalchemy import func, select
from tiny_learner import write_model

from clinic_ai.analyses import Tasks
from clinic_ai.domain import Analysis, Finding, JobKind, ModelState, Presence
from clinic_ai.errors import Conflict, NotFound
from clinic_ai.processes import Crew
from clinic_ai.promoting import CanaryResult
from clinic_ai.settings import QuestionSettings
from clinic_ai.showing import Showing
from clinic_ai.store import jobs, shadows, studies, tables
from clinic_ai.store.objects import ObjectStore
from clinic_ai.training import canary as module
from clinic_ai.training.canary import Canary
from clinic_ai.training.records import record_of
from clinic_ai.training.registry import Registry


@dataclass
class Ward:
    """A home with studies of today, a model in use, and what runs candidates in the shadow."""

    room: Room
    registry: Registry
    crew: Crew
    canary: Canary
    waits: list[bool] = field(default_factory=list)
    """Whether a study waits, each time somebody asks; then none does."""

    def candidate(self, directory: Path, weight: float, name: str) -> None:
        """Enter a candidate of this weight."""
        write_model(directory / name, weight, name=name)
        self.registry.import_candidate(directory / name, "run R")

    def run(self, name: str, most: int = 10) -> CanaryResult:
        """Run a candidate in the shadow."""
        return self.canary.run("tiny", name, "1", hours=1.0, most=most)

    def rows(self) -> dict[str, int]:
        """Return how many rows each table has."""
        with self.room.database.read() as connection:
            return {
                table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
                for table in tables.metadata.sorted_tables
            }


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    manifest = tiny_learner.manifest()
    with control_room(tmp_path / "home", manifest) as room:
        crew = Crew()
        registry = Registry(room.home, room.database, room.catalogue.manifests, crew)
        write_model(tmp_path / "in use", 0.9, name="before")
        ref = registry.import_directory(tmp_path / "in use", "ada")
        registry.promote("tiny", "before", "1", "ada")
        for _ in range(2):
            study_id = room.add_study(state="DONE", stored=True)
            with room.database.write() as c:
                [image] = studies.instances_of(c, study_id, 1)
                found = Finding(
                    condition="pneumonia",
                    label="Pneumonia",
                    probability=0.9,
                    threshold=0.5,
                    presence=Presence.PRESENT,
                    instance_sha256=image.sha256,
                )
                job_id = jobs.add_job(c, kind=JobKind.ANALYSE, study_id=study_id, version=1, plugin="tiny")
                job = jobs.lease(c, jobs.get_job(c, job_id), "test", (ref,), "")
                analysis = Analysis(plugin="tiny", plugin_version="1.0", models=(ref,), findings=(found,))
                jobs.save_analysis(c, job, analysis, ())
                jobs.succeed(c, job_id)
        room.guard.load()
        showing = Showing(ObjectStore(room.home.objects), open_deidentifier(room.home, room.database, crew))
        ward = Ward(room, registry, crew, None)  # type: ignore[arg-type]
        ward.canary = Canary(
            directories=room.home.jobs,
            database=room.database,
            registry=registry,
            manifests=lambda: room.catalogue.manifests,
            tasks=Tasks(room.database, showing, tuple, QuestionSettings),
            crew=crew,
            guard=room.guard,
            settings=lambda: room.shared.settings,
            waiting=lambda: ward.waits.pop(0) if ward.waits else False,
        )
        yield ward
        crew.close()
        assert not crew.living()


def test_differences_are_stored_and_nothing_else(ward: Ward, tmp_path: Path) -> None:
    ward.candidate(tmp_path, 0.8, "alike")
    ward.candidate(tmp_path, 0.2, "other")
    before = ward.rows()
    alike, other = ward.run("alike"), ward.run("other")
    after = ward.rows()
    assert {name for name in after if after[name] != before[name]} == {"shadows"}
    assert list(ward.room.home.jobs.iterdir()) == []
    assert not [child for child in ward.crew.living() if child.spec.kind == "engine"]

    assert (len(alike.shadows), alike.differing, alike.sentence, alike.why_not) == (2, (), "", {})
    assert len(other.differing) == 2
    (finding,) = other.shadows[0].document.findings
    assert (finding.before, finding.after) == (Presence.PRESENT, Presence.ABSENT)
    assert other.shadows[0].document.largest_change == pytest.approx(0.7)
    with ward.room.database.read() as connection:
        stored = shadows.shadows_of(connection, other.shadows[0].digest)
    assert {shadow.shadow_id for shadow in stored} == {shadow.shadow_id for shadow in other.shadows}
    record = record_of(ward.room.database, "tiny", "other", "1")
    assert record.canary is not None
    assert (record.canary.studies, record.canary.differing, record.state) == (2, 2, ModelState.CANDIDATE)
    assert {model.state for model in ward.registry.list_models() if model.name == "before"} == {ModelState.ACTIVE}


def test_again_takes_the_place_of_what_was_said_before(ward: Ward, tmp_path: Path) -> None:
    ward.candidate(tmp_path, 0.2, "other")
    first, second = ward.run("other", most=1), ward.run("other")
    assert (len(first.shadows), len(second.shadows)) == (1, 2)
    assert ward.rows()["shadows"] == 2


def test_it_yields_to_studies_and_goes_on(ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.001)
    ward.candidate(tmp_path, 0.2, "other")
    ward.waits += [True, False, True, True, True]  # before the first study, and in the middle of it
    found = ward.run("other")
    assert (len(found.shadows), found.sentence) == (2, "")
    assert not ward.waits


def test_it_ends_with_what_it_has_if_studies_wait_all_the_time(
    ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    ward.candidate(tmp_path, 0.2, "other")
    ward.waits += [False, True] * 50
    monkeypatch.setattr(module, "LOOK_EVERY_S", 60.0)
    found = ward.run("other")
    assert (len(found.shadows), found.sentence) == (1, "Studies waited all the time; 1 of 2 were left.")


def test_what_cannot_be_run_is_said(ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound):
        ward.run("nobody")
    with pytest.raises(Conflict, match="only what is not in use yet"):
        ward.run("before")
    ward.candidate(tmp_path, 0.2, "other")
    tight = ward.room.shared.settings.training
    budget = tight.budget.model_copy(update={"free_memory_mb": 1 << 30})
    roomy = ward.room.shared.settings
    ward.room.shared.settings = roomy.model_copy(update={"training": tight.model_copy(update={"budget": budget})})
    with pytest.raises(Conflict, match="A second engine of tiny needs 256 MiB"):
        ward.run("other")
