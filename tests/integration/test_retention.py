"""Studies whose originals retention removed: asked for again, added to, sent again. Real files, parser and database."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from intake_site import Site
from scans import write_ct_slice
from sqlalchemy import insert

from clinic_ai.contract import Condition, PluginManifest
from clinic_ai.disk.garbage import StoreCount
from clinic_ai.disk.retention import Retention
from clinic_ai.domain import Fate, Study
from clinic_ai.errors import Conflict
from clinic_ai.execution import Execution
from clinic_ai.lanes import Wake
from clinic_ai.settings.model import RetentionSettings
from clinic_ai.store import alerts, jobs, originals, studies, tables

ECHO = PluginManifest(name="echo", version="1", summary="Echo.", engine="a:B", claims=(Condition(modality=("CT",)),))
LONG_AGO = 1_000_000.0


class Ward:
    """A site with routing, whose studies are done as soon as a test says so."""

    def __init__(self, path: Path) -> None:
        self.site = Site(path)
        self.execution = Execution(
            database=self.site.database,
            settings=lambda: self.site.settings,
            manifests=lambda: {"echo": ECHO},
            runners=(),
            owner="test",
            wake=Wake(),
        )
        settings = self.site.settings.model_copy(update={"retention": RetentionSettings(originals_days=1)})
        self.retention = Retention(
            self.site.database, self.site.objects, lambda: settings, lambda: None, unsettled_s=-60.0
        )

    def drop(self, *paths: Path) -> None:
        seen = len(self.site.files())
        for path in paths:
            shutil.copy(path, self.site.home.inbox)
        self.site.settle(seen + len(paths))

    def finish(self) -> Study:
        """Route what is closed, and let its newest version have been released and delivered long ago."""
        self.execution.route_closed()
        study = self.study()
        with self.site.database.write() as connection:
            for job in jobs.jobs_of(connection, study.study_id, study.version):
                jobs.lease(connection, job, "test", (), "")
                jobs.succeed(connection, job.job_id)
                artefact = f"A-{study.version}"
                connection.execute(
                    insert(tables.artefacts).values(
                        artefact_id=artefact,
                        job_id=job.job_id,
                        study_id=study.study_id,
                        version=study.version,
                        audience="clinician",
                        state="PRELIMINARY",
                        verdict="{}",
                        policy_hash="",
                        created_at=LONG_AGO,
                    )
                )
                connection.execute(
                    insert(tables.deliveries).values(
                        delivery_id=f"D-{study.version}",
                        artefact_id=artefact,
                        target="outbox",
                        state="SENT",
                        created_at=LONG_AGO,
                        done_at=LONG_AGO,
                    )
                )
            studies.move_study(connection, study.study_id, study.version, "finish", actor="test")
        return study

    def remove(self) -> None:
        plan = self.retention.plan()
        assert [removal.candidate.study.study_id for removal in plan] == [self.study().study_id]
        assert self.retention.remove(plan) > 0

    def study(self) -> Study:
        (found,) = self.site.studies()
        return found

    def alerts(self) -> set[str]:
        with self.site.database.read() as connection:
            return {alert.code for alert in alerts.open_alerts(connection)}

    def stored(self) -> list[bool]:
        with self.site.database.read() as connection:
            return [*map(self.site.objects.has, originals.hashes_of(connection, self.study().study_id))]


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    found = Ward(tmp_path / "h")
    yield found
    found.site.close()


@pytest.fixture
def scans(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.dcm" for number in range(1, 5)]
    for number, path in enumerate(paths, start=1):
        write_ct_slice(path, seed=1, study="1.2.3", instance=number)
    return paths


def test_a_study_without_its_originals_is_refused_and_can_be_sent_again(ward: Ward, scans: list[Path]) -> None:
    ward.drop(*scans)
    study = ward.finish()
    ward.remove()
    assert ward.stored() == [False] * 4
    assert ward.study().originals_removed_at is not None
    for ask in (ward.execution.retry, ward.execution.reroute):
        with pytest.raises(Conflict, match="removed by retention") as caught:
            ask(study.study_id, "anna")
        assert "Send the study again" in caught.value.remedy

    ward.drop(*scans[:3])
    assert ward.stored().count(True) == 3
    assert ward.study().originals_removed_at is not None  # one is still missing
    collect_garbage(ward.site)
    assert ward.stored().count(True) == 3  # the rest may still come
    ward.drop(scans[3])
    assert ward.study().originals_removed_at is None
    assert ward.site.fates() == {Fate.STORED: 4, Fate.DUPLICATE: 4}
    assert {row.reason_code for row in ward.site.files() if row.fate is Fate.DUPLICATE} == {"restored"}
    assert "version 2" in ward.execution.retry(study.study_id, "anna")
    assert ward.finish().version == 2


def collect_garbage(site: Site) -> None:
    """Collect garbage as the daemon would."""
    for _ in StoreCount(site.database, site.objects).work():
        pass


def test_late_images_wait_for_the_originals_and_go_on_when_they_are_back(ward: Ward, scans: list[Path]) -> None:
    ward.drop(*scans[:3])
    ward.finish()
    ward.remove()
    ward.drop(scans[3])
    ward.execution.route_closed()
    late = ward.study()
    assert (late.version, late.state) == (2, "UNROUTED")
    assert late.wait is not None
    day = time.strftime("%Y-%m-%d")
    assert late.wait.sentence.startswith(f"3 of its 4 images were removed by retention on {day}")
    assert "originals_removed" in ward.alerts()
    assert ward.stored().count(True) == 1
    assert ward.retention.plan() == []
    with pytest.raises(Conflict, match="removed by retention"):
        ward.execution.reroute(late.study_id, "anna")

    ward.drop(*scans[:3])
    assert ward.study().state == "CLOSED"
    assert "originals_removed" not in ward.alerts()
    assert ward.finish().version == 2
    assert ward.stored() == [True] * 4
