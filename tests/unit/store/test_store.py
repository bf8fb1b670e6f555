"""The store: schema, audit chain, objects, alerts and leases, on real files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, StatementError

from clinic_ai.errors import HomeError, NotFound
from clinic_ai.store import alerts, audit, meta, migrations
from clinic_ai.store.database import Database, integrity_problems
from clinic_ai.store.objects import ObjectStore
from clinic_ai.store.tables import metadata


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database(tmp_path / "clinic.db")
    database.open()
    return database


class TestSchema:
    def test_the_migrations_lead_to_the_tables(self, database: Database) -> None:
        with database.read() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []

    def test_head_is_the_newest_revision(self) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        assert ScriptDirectory.from_config(config).get_current_head() == migrations.HEAD

    def test_a_database_of_a_newer_version_is_refused_in_one_sentence(self, database: Database) -> None:
        with database.write() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(HomeError, match="newer version"):
            database.open()

    def test_a_file_that_is_no_database_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "x.db").write_bytes(b"not a database" * 1000)
        with pytest.raises(HomeError, match="cannot be used"):
            Database(tmp_path / "x.db").open()

    def test_durability_is_on(self, database: Database) -> None:
        with database.read() as connection:
            assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
            assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
        assert integrity_problems(database) == []

    def test_a_failed_block_leaves_nothing(self, database: Database) -> None:
        with pytest.raises(NotFound), database.write() as connection:
            alerts.raise_alert(connection, "c", "s", "sentence", "remedy")
            raise NotFound("no")
        with database.read() as connection:
            assert alerts.open_alerts(connection) == []

    def test_an_error_does_not_quote_values(self, database: Database) -> None:
        with database.write() as connection:
            connection.execute(text("INSERT INTO meta VALUES (:k, :v)"), {"k": "a", "v": "DOE^JANE"})
        with pytest.raises((IntegrityError, StatementError)) as caught, database.write() as connection:
            connection.execute(text("INSERT INTO meta VALUES (:k, :v)"), {"k": "a", "v": "DOE^JANE"})
        assert "DOE" not in str(caught.value)


class TestAudit:
    def write(self, database: Database, count: int = 6) -> None:
        with database.write() as connection:
            for n in range(count):
                audit.record(connection, actor="a", action="did", subject=f"S-{n}", details={"n": n})

    def test_an_untouched_chain_holds(self, database: Database) -> None:
        self.write(database)
        with database.read() as connection:
            assert audit.first_break(connection) is None

    @pytest.mark.parametrize(
        "harm",
        [
            "UPDATE audit SET details = '{\"n\": 99}' WHERE seq = 3",
            "UPDATE audit SET at = at + 1 WHERE seq = 3",
            "UPDATE audit SET actor = 'b' WHERE seq = 3",
            "UPDATE audit SET hash = replace(hash, substr(hash, 1, 1), 'z') WHERE seq = 3",
            "DELETE FROM audit WHERE seq = 3",
        ],
    )
    def test_an_edited_row_is_found(self, database: Database, harm: str) -> None:
        self.write(database)
        with database.write() as connection:
            connection.execute(text(harm))
        with database.read() as connection:
            assert audit.first_break(connection) in {3, 4}


class TestObjects:
    @given(content=st.binary(max_size=3000))
    def test_what_is_stored_comes_back(self, tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
        store = ObjectStore(tmp_path_factory.mktemp("objects"))
        sha256, size = store.write_bytes(content)
        assert sha256 == hashlib.sha256(content).hexdigest()
        assert size == len(content)
        assert store.path(sha256).read_bytes() == content
        assert store.verify(sha256)
        assert store.write_bytes(content) == (sha256, size)

    def test_a_descriptor_is_copied_from_its_start(self, tmp_path: Path) -> None:
        store = ObjectStore(tmp_path / "objects")
        (tmp_path / "file").write_bytes(b"content")
        with (tmp_path / "file").open("rb") as file:
            file.read(3)
            sha256, size = store.write_descriptor(file.fileno())
        assert (store.path(sha256).read_bytes(), size) == (b"content", 7)

    def test_an_adopted_file_stays_where_it_was_until_it_is_removed(self, tmp_path: Path) -> None:
        store = ObjectStore(tmp_path / "objects")
        source = tmp_path / "file"
        source.write_bytes(b"content")
        sha256 = hashlib.sha256(b"content").hexdigest()
        store.adopt_file(source, sha256)
        store.adopt_file(source, sha256)
        assert source.exists()
        source.unlink()
        assert store.path(sha256).read_bytes() == b"content"

    def test_a_changed_object_is_noticed_and_an_absent_one_named(self, tmp_path: Path) -> None:
        store = ObjectStore(tmp_path / "objects")
        sha256, _ = store.write_bytes(b"content")
        store.path(sha256).chmod(0o600)
        store.path(sha256).write_bytes(b"Content")
        assert not store.verify(sha256)
        with pytest.raises(NotFound, match="missing"):
            store.path("0" * 64)

    def test_what_a_crash_left_is_swept(self, tmp_path: Path) -> None:
        store = ObjectStore(tmp_path / "objects")
        sha256, _ = store.write_bytes(b"content")
        (store.root / ".tmp-abc").write_bytes(b"half")
        assert store.sweep() == 1
        assert store.has(sha256)
        assert not list(store.root.glob(".tmp-*"))

    def test_stored_objects_are_read_only(self, tmp_path: Path) -> None:
        store = ObjectStore(tmp_path / "objects")
        sha256, _ = store.write_bytes(b"content")
        assert os.stat(store.path(sha256)).st_mode & 0o222 == 0


class TestAlerts:
    def test_the_same_alert_is_counted_and_closed_by_a_name(self, database: Database) -> None:
        with database.write() as connection:
            alerts.raise_alert(connection, "disk", "home", "The disk is full.", "Free space.")
            alerts.raise_alert(connection, "disk", "home", "The disk is full.", "Free space.")
        with database.write() as connection:
            [alert] = alerts.open_alerts(connection)
            assert alert.count == 2
            alerts.acknowledge(connection, alert.alert_id, "Dr. Adams")
            assert alerts.open_alerts(connection) == []
            with pytest.raises(NotFound):
                alerts.acknowledge(connection, alert.alert_id, "Dr. Adams")
            alerts.raise_alert(connection, "disk", "home", "The disk is full.", "Free space.")
            assert len(alerts.open_alerts(connection)) == 1


def test_the_site_key_is_made_once_and_pseudonyms_follow_it(database: Database) -> None:
    with database.write() as connection:
        key = meta.site_key(connection)
    with database.write() as connection:
        assert meta.site_key(connection) == key
    patient = meta.patient_key(key, "12345")
    assert patient == meta.patient_key(key, "12345")
    assert patient != meta.patient_key(b"x" * 32, "12345")
    assert patient != meta.patient_key(key, "12346")
    assert meta.pseudonym(patient).startswith("P-")
