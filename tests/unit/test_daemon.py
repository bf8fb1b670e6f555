"""The composition root, in this process: what a reload changes, what a refused start leaves alone."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from clinic_ai.appliance import Appliance
from clinic_ai.errors import HomeError
from clinic_ai.home import Home, init_home
from clinic_ai.plugins import PluginCatalogue
from clinic_ai.settings import load_settings
from clinic_ai.store import alerts, changes
from clinic_ai.store.database import Database


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return init_home(tmp_path / "home")


def compose(home: Home) -> Appliance:
    return Appliance(home, load_settings(home.clinic_toml), PluginCatalogue({}, []))


def test_a_reload_reaches_every_room(home: Home) -> None:
    appliance = compose(home)
    try:
        appliance.open()
        appliance.start(watch=False)
        home.clinic_toml.write_text(
            "[execution]\nmax_parallel_jobs = 3\nmemory_mb = 777\n"
            "[guard]\ntimeout_s = 3.5\n"
            "[training]\nmax_seconds = 77\n"
        )
        assert appliance.reload() == ()
        assert appliance.engines.budget_mb == 777
        assert appliance.guard.timeout_s == 3.5
        assert appliance.runs.settings.max_seconds == 77
        lanes = {thread.name for thread in threading.enumerate()}
        assert {"analyse 1", "analyse 2", "analyse 3"} <= lanes
        home.clinic_toml.write_text("[execution]\nmemory_mb = -1\n")
        assert len(appliance.reload()) == 1
        assert appliance.engines.budget_mb == 777
    finally:
        appliance.stop(grace_s=5.0)


@pytest.mark.parametrize("kind", ["conditions", "categories"])
def test_a_file_of_the_clinic_that_cannot_be_used_is_an_alert(home: Home, kind: str) -> None:
    folder = home.path / kind / "ultrasond"
    folder.mkdir(parents=True)
    (folder / "added.toml").write_text('key = "x"\ncode = "x"\nlabel = "X"')
    appliance = compose(home)
    appliance.guard.load = lambda: None  # type: ignore[method-assign]  # no child is needed for this
    try:
        appliance.open()
        with appliance.database.read() as connection:
            (found,) = [one for one in alerts.open_alerts(connection) if one.code == "plugin_unusable"]
        assert "no plugin is named ultrasond" in found.sentence
    finally:
        appliance.stop(grace_s=5.0)


def test_a_database_of_a_newer_version_is_refused_and_left_alone(home: Home) -> None:
    database = Database(home.database)
    database.open()
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'f9999'"))
    database.close()
    before = home.database.read_bytes()
    appliance = compose(home)
    with pytest.raises(HomeError, match="newer version"):
        appliance.open()
    appliance.stop()
    assert home.database.read_bytes() == before


def test_what_an_interrupted_attempt_left_is_swept(home: Home) -> None:
    leftover = home.jobs / "J-1"
    leftover.mkdir(parents=True)
    (leftover / "heatmap.png").write_bytes(b"of a patient")
    appliance = compose(home)
    try:
        appliance.open()
        assert not leftover.exists()
    finally:
        appliance.stop()


def test_every_child_ends_and_the_stop_is_recorded_even_if_a_room_cannot_stop(home: Home) -> None:
    appliance = compose(home)
    appliance.open()
    assert appliance.crew.living()  # the guard

    def refuse() -> None:
        raise OSError("a room that cannot stop")

    appliance.engines.close = refuse  # type: ignore[method-assign]
    with pytest.raises(OSError, match="cannot stop"):
        appliance.stop()
    assert not appliance.crew.living()
    with appliance.database.read() as connection:
        assert "daemon.stopped" in {change.action for change in changes.after(connection, 0, limit=1000)}
    appliance.database.close()


def test_an_alert_that_cannot_be_stored_stops_nobody(home: Home) -> None:
    appliance = compose(home)
    try:
        appliance.open()
        with appliance.database.write() as connection:
            connection.execute(text("ALTER TABLE alerts RENAME TO away"))
        assert appliance.guard.on_alert is not None
        appliance.guard.on_alert("guard_unavailable", "It is a test.", "")
        with appliance.database.write() as connection:
            connection.execute(text("ALTER TABLE away RENAME TO alerts"))
            assert alerts.open_alerts(connection) == []
    finally:
        appliance.stop()
