"""The ledger of files, on a real database."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text

from clinic_ai.domain import Fate
from clinic_ai.errors import Conflict, NotFound
from clinic_ai.states import FILE
from clinic_ai.store import ledger
from clinic_ai.store.database import Database
from clinic_ai.store.ledger import Outcome, Sighting


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "clinic.db")
    database.open()
    yield database
    database.close()


def sighting(name: bytes = b"a.dcm") -> Sighting:
    return Sighting("inbox", name.decode("utf-8", "backslashreplace"), name, 10, 1)


def test_claims_are_numbered_in_order_and_pending_until_decided(database: Database) -> None:
    with database.write() as c:
        assert ledger.begin_claims(c, [sighting(), sighting(b"\xff\n")]) == [1, 2]
        assert ledger.begin_claims(c, [sighting(b"c")]) == [3]
        assert ledger.begin_claims(c, []) == []
        ledger.confirm_claims(c, [(1, "a" * 64, 99), (3, "c" * 64, 10)])
        ledger.decide(c, [Outcome(3, Fate.STORED, study_id="S-1")])
    with database.read() as c:
        pending = ledger.pending(c)
        assert [(row.file_id, row.fate, row.size_bytes) for row in pending] == [
            (1, Fate.CLAIMED, 99),
            (2, Fate.CLAIMING, 10),
        ]
        assert pending[1].raw_name == b"\xff\n"
        assert "raw_name" not in pending[1].model_dump()
        assert ledger.counts(c) == {f: {Fate.CLAIMED: 1, Fate.CLAIMING: 1, Fate.STORED: 1}.get(f, 0) for f in Fate}


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("insert"), st.sampled_from(Fate)),
            st.tuples(st.just("update"), st.sampled_from(Fate)),
            st.tuples(st.just("delete"), st.sampled_from(Fate)),
        ),
        max_size=30,
    )
)
@settings(max_examples=30, deadline=None)
def test_the_counts_follow_whatever_happens_to_the_rows(changes: list[tuple[str, Fate]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder) / "clinic.db")
        database.open()
        with database.write() as c:
            ledger.begin_claims(c, [sighting(b"first")])
            for change, fate in changes:
                if change == "insert":
                    ledger.begin_claims(c, [sighting(), sighting()])
                    c.execute(text("UPDATE files SET fate = :f WHERE file_id % 2"), {"f": fate.value})
                elif change == "update":
                    c.execute(text("UPDATE files SET fate = :f WHERE file_id % 3 = 0"), {"f": fate.value})
                else:
                    c.execute(text("DELETE FROM files WHERE fate = :f"), {"f": fate.value})
            found = {row[0]: row[1] for row in c.execute(text("SELECT fate, count(*) FROM files GROUP BY fate"))}
            assert ledger.counts(c) == {fate: found.get(fate.value, 0) for fate in Fate}
        database.close()


def test_only_claims_that_were_not_confirmed_can_be_taken_back(database: Database) -> None:
    with database.write() as c:
        ledger.begin_claims(c, [sighting(), sighting(b"b")])
        ledger.confirm_claims(c, [(1, "a" * 64, 1)])
        ledger.abandon(c, [1, 2])
        assert [row.file_id for row in ledger.pending(c)] == [1]


@pytest.mark.parametrize("start", Fate)
@pytest.mark.parametrize("fate", [fate for fate in Fate if not fate.pending and fate is not Fate.DISCARDED])
def test_a_fate_is_decided_only_where_the_table_permits_it(database: Database, start: Fate, fate: Fate) -> None:
    permitted = start.pending and any(old is start and new is fate for (old, _), new in FILE.items())
    with database.write() as c:
        (number,) = ledger.begin_claims(c, [sighting()])
        c.execute(text("UPDATE files SET fate = :fate"), {"fate": start.value})
        if permitted:
            ledger.decide(c, [Outcome(number, fate)])
        else:
            with pytest.raises(Conflict, match="not all on their way"):
                ledger.decide(c, [Outcome(number, fate)])
    with database.read() as c:
        assert ledger.get_file(c, number).fate is (fate if permitted else start)


def test_what_is_ignored_is_known_again(database: Database) -> None:
    with database.write() as c:
        assert not ledger.ignored_before(c, sighting())
        ledger.ignore(c, sighting(), "link", "It is a link.", "Put the file there.")
        assert ledger.ignored_before(c, sighting())
        assert not ledger.ignored_before(c, sighting(b"other"))


def test_what_waits_for_people_is_counted_without_a_look_at_the_rows(database: Database) -> None:
    sightings = [Sighting(source, "", str(n).encode(), 10, 0) for n, source in enumerate("aab")]
    asked: list[str] = []
    with database.write() as c:
        numbers = ledger.begin_claims(c, sightings)
        ledger.confirm_claims(c, [(number, "0" * 64, 10) for number in numbers])
        ledger.decide(c, [Outcome(number, Fate.QUARANTINED, "empty") for number in numbers[1:]])
        event.listen(c, "before_cursor_execute", lambda *said: asked.append(said[2]))
        assert ledger.undecided_counts(c) == [("a", None, "empty", 1), ("b", None, "empty", 1)]
        assert ledger.quarantined_bytes(c) == {"a": 10, "b": 10}
        for statement in tuple(asked):
            plan = c.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}").all()
            assert [row.detail for row in plan] == ["SEARCH files USING COVERING INDEX quarantined_files (fate=?)"]


def test_lists_newest_first_by_fate_study_and_page(database: Database) -> None:
    with database.write() as c:
        ledger.begin_claims(c, [sighting(b"%d" % n) for n in range(5)])
        ledger.confirm_claims(c, [(n, "a" * 64, 10) for n in (2, 4)])
        ledger.decide(c, [Outcome(n, Fate.STORED, study_id="S-1") for n in (2, 4)])
        ledger.decide(c, [Outcome(3, Fate.QUARANTINED, "empty", "It is empty.", "Send it again.")])
    with database.read() as c:
        assert [row.file_id for row in ledger.list_files(c, limit=2)] == [5, 4]
        assert [row.file_id for row in ledger.list_files(c, before=4, limit=2)] == [3, 2]
        assert [row.file_id for row in ledger.list_files(c, study_id="S-1")] == [4, 2]
        assert [row.reason for row in ledger.list_files(c, fates=[Fate.QUARANTINED])] == ["It is empty."]
        with pytest.raises(NotFound):
            ledger.get_file(c, 99)
