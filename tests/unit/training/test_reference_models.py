"""Models that ship with a plugin: in use at once, and never in the place of a choice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny_learner
from school import open_school
from tiny_learner import write_model

from clinic_ai.domain import ModelState
from clinic_ai.home import Home
from clinic_ai.store import alerts


class TestReferenceModels:
    @pytest.fixture
    def shipped(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A package that may not be imported, with a directory for reference models."""
        package = tmp_path / "site" / "heavy_package"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        return package

    def test_they_are_active_at_once_and_never_replace_a_choice(
        self, home: Home, shipped: Path, tmp_path: Path
    ) -> None:
        write_model(shipped / "reference" / "one", 1.0, version="1", reference=True)
        school = open_school(home, tiny_learner.manifest(reference_models=("heavy_package:reference/one",)))
        try:
            (ref,) = school.registry.install_reference_models("clinic-ai")
            assert ref.reference
            assert school.in_use() == ["main:1"]
            assert school.registry.install_reference_models("clinic-ai") == []
            write_model(tmp_path / "own", 3.0, name="own", version="1")
            school.registry._import(tmp_path / "own", "ada", ModelState.IMPORTED, trial=False)
            school.registry.promote("tiny", "own", "1", "ada")
            shutil.rmtree(shipped / "reference" / "one")
            write_model(shipped / "reference" / "one", 2.0, version="2", reference=True)
            (newer,) = school.registry.install_reference_models("clinic-ai")
            assert newer.version == "2"
            assert [ref.name for ref in school.registry.active("tiny")] == ["own"]
        finally:
            school.close()

    def test_a_spare_one_is_there_and_waits_for_a_person(self, home: Home, shipped: Path) -> None:
        write_model(shipped / "one", 1.0, reference=True)
        write_model(shipped / "other", 2.0, name="other", slot="other", reference=True)
        places = {"reference_models": ("heavy_package:one",), "spare_models": ("heavy_package:other",)}
        school = open_school(home, tiny_learner.manifest(**places))
        try:
            assert len(school.registry.install_reference_models("clinic-ai")) == 2
            assert school.in_use() == ["main:1"]
            assert [ref.name for ref in school.registry.spare("tiny")] == ["other"]
            assert school.registry.spare("another") == ()
            school.registry.promote("tiny", "other", "1", "ada")
            assert school.in_use() == ["main:1", "other:1"]
            assert school.registry.spare("tiny") == ()
        finally:
            school.close()

    def test_adapters_follow_their_base_and_wait_where_a_clinic_has_another(
        self, home: Home, shipped: Path, tmp_path: Path
    ) -> None:
        digest = write_model(shipped / "base", 1.0, reference=True)
        write_model(shipped / "one", 2.0, name="one", slot="one", base_digest=digest, reference=True)
        write_model(shipped / "two", 2.0, name="two", slot="two", base_digest=digest, reference=True)
        school = open_school(home, tiny_learner.manifest(reference_models=("heavy_package:base", "heavy_package:one")))
        try:
            school.registry.install_reference_models("clinic-ai")
            assert school.in_use() == ["main:1", "one:1"]
            write_model(tmp_path / "own", 3.0, name="own", version="1")
            school.registry._import(tmp_path / "own", "ada", ModelState.IMPORTED, trial=False)
            school.registry.promote("tiny", "own", "1", "ada")
        finally:
            school.close()
        later = tiny_learner.manifest(reference_models=("heavy_package:base", "heavy_package:two"))
        school = open_school(home, later)
        try:
            (fresh,) = school.registry.install_reference_models("clinic-ai")
            assert fresh.slot == "two"
            assert "two:1" not in school.in_use()
            with school.database.read() as connection:
                assert alerts.open_alerts(connection) == []
        finally:
            school.close()

    def test_a_damaged_one_raises_an_alert_and_hinders_nobody(self, home: Home, shipped: Path) -> None:
        write_model(shipped / "good", 1.0, reference=True)
        write_model(shipped / "bad", 1.0, name="other", slot="other", reference=True)
        (shipped / "bad" / "weights.safetensors").write_bytes(b"x")
        places = ("missing_package:x", "heavy_package:bad", "heavy_package:good")
        school = open_school(home, tiny_learner.manifest(reference_models=places))
        try:
            school.registry.install_reference_models("clinic-ai")
            assert school.in_use() == ["main:1"]
            with school.database.read() as connection:
                found = {alert.subject: alert.sentence for alert in alerts.open_alerts(connection)}
            assert set(found) == set(places[:2])
            assert "there is no package missing_package" in found["missing_package:x"]
        finally:
            school.close()
