"""Which studies may lose their originals: the query against the same rules in plain words, for any mix of states."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shelf import DELIVERED, Shelf, shelf
from sqlalchemy import text

from clinic_ai.domain import ArtefactState, DeliveryState, JobState, StudyState
from clinic_ai.errors import Conflict
from clinic_ai.store import audit, originals, references
from clinic_ai.store.originals import Delivered
from clinic_ai.store.references import Kind

ARTEFACTS = st.lists(
    st.tuples(st.sampled_from(ArtefactState), st.lists(st.sampled_from(DeliveryState), max_size=2)), max_size=2
)
STUDIES = st.fixed_dictionaries(
    {
        "state": st.sampled_from(StudyState),
        "job": st.sampled_from([*JobState, JobState.DONE, JobState.DONE]),
        "artefacts": st.one_of(st.just(list(DELIVERED)), ARTEFACTS),
        "quarantined": st.booleans(),
        "next": st.one_of(st.none(), st.tuples(st.sampled_from(StudyState), st.one_of(st.just([]), ARTEFACTS))),
        "at": st.integers(1, 5),
    }
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Shelf]:
    found = shelf(tmp_path / "h")
    yield found
    found.close()


def may_go(study: Any) -> bool:
    """The rules of docs/disk.md, of versions from the oldest to the newest."""
    versions = [(study["state"], study["artefacts"])] + ([study["next"]] if study["next"] else [])
    state, newest = versions[-1]
    in_force = [artefact for artefact in newest if artefact[0] != "SUPERSEDED"]  # a signed one took its place
    made = [artefact for _, artefacts in versions for artefact in artefacts]
    return (
        state == StudyState.DONE
        and bool(in_force)
        and all(s in {"PRELIMINARY", "FINAL"} and sent and set(sent) <= {"SENT", "RECEIPTED"} for s, sent in in_force)
        and not any(s in {"DRAFT", "HELD", "BLOCKED"} or "PENDING" in sent for s, sent in made)
        and study["job"] not in {JobState.QUEUED, JobState.LEASED}
        and not study["quarantined"]
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """One store for all examples; making a home for each would take most of the time."""
    found = shelf(tmp_path_factory.mktemp("shelf") / "h")
    yield found
    found.close()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STUDIES, min_size=1, max_size=4))
def test_only_studies_whose_results_have_all_arrived_may_lose_their_originals(kept: Shelf, wanted: list[Any]) -> None:
    kept.empty()
    expected = set()
    for study in wanted:
        study_id = kept.add_study(
            state=study["state"].value,
            job=study["job"].value,
            artefacts=study["artefacts"],
            delivered_at=float(study["at"]),
        )
        if study["quarantined"]:
            kept.add_quarantined(study_id)
        if study["next"]:
            kept.add_version(study_id, *study["next"])
        if may_go(study):
            expected.add(study_id)
    with kept.database.read() as connection:
        found = originals.delivered_studies(connection, before=float("inf"), limit=100)
        seen = (found[0].delivered_at, found[0].study_id) if found else (0.0, "")
        rest = originals.delivered_studies(connection, before=float("inf"), limit=100, after=seen)
    assert {study.study_id for study in found} == expected
    assert found == sorted(found, key=lambda study: (study.delivered_at, study.study_id))
    assert rest == found[1:]


def test_the_time_is_that_of_the_last_delivery_and_before_excludes(store: Shelf) -> None:
    old = store.add_study(delivered_at=10.0)
    store.add_study(delivered_at=30.0)
    with store.database.read() as connection:
        (found,) = originals.delivered_studies(connection, before=30.0, limit=100)
    assert found == Delivered(old, 1, 10.0)


def test_a_removal_is_recorded_and_its_objects_are_needed_no_more(store: Shelf) -> None:
    study_id = store.add_study([b"one", b"two"], results=[b"map"])
    other = store.add_study([b"two", b"three"])
    with store.database.write() as connection:
        (study, _) = originals.delivered_studies(connection, before=float("inf"), limit=9)
        own = originals.exclusive(connection, study_id)
        assert [original.size_bytes for original in own] == [3]
        originals.note_removed(connection, study, own, why="age")
    one, two, three, result = store.keep(b"one", b"two", b"three", b"map")
    with store.database.read() as connection:
        assert originals.removed_at(connection, study_id) is not None
        assert originals.removed_at(connection, other) is None
        kinds = references.needed(connection, [one, two, three, result])
        assert kinds == {two: Kind.ORIGINAL, three: Kind.ORIGINAL, result: Kind.RESULT}
        assert originals.removed_count(connection) == 1
        details = connection.execute(text("SELECT details FROM audit ORDER BY seq DESC")).scalar()
        assert details == '{"bytes": 3, "objects": 1, "why": "age"}'
        assert audit.first_break(connection) is None
        remaining = originals.delivered_studies(connection, before=float("inf"), limit=9)
    assert [found.study_id for found in remaining] == [other]
    with store.database.write() as connection, pytest.raises(Conflict, match="needed again"):
        originals.note_removed(connection, study, own, why="age")


def test_a_size_is_told_of_what_a_version_has_and_of_nothing_else(store: Shelf) -> None:
    study_id = store.add_study([b"one", b"three"])
    store.add_study([b"elsewhere"])
    one, three, elsewhere = store.keep(b"one", b"three", b"elsewhere")
    with store.database.write() as connection:
        statement = text("UPDATE instances SET first_version = 2 WHERE sha256 = :three")
        connection.execute(statement, {"three": three})
        sizes = {
            (digest, version): originals.size_of(connection, study_id, version, digest)
            for digest in (one, three, elsewhere)
            for version in (1, 2)
        }
    assert {key: size for key, size in sizes.items() if size is not None} == {(one, 1): 3, (one, 2): 3, (three, 2): 5}


def test_a_later_version_needs_what_it_has_and_says_what_it_lacks(store: Shelf) -> None:
    study_id = store.add_study([b"one", b"two"])
    with store.database.write() as connection:
        (study,) = originals.delivered_studies(connection, before=float("inf"), limit=9)
        originals.note_removed(connection, study, originals.exclusive(connection, study_id), why="age")
    store.add_version(study_id, "CLOSED")
    one, _ = store.keep(b"one", b"two")
    with store.database.write() as connection:
        assert references.needed(connection, [one]) == {one: Kind.ORIGINAL}
        lost = originals.removed_of(connection, study_id)
        assert (lost.removed, lost.images) == (2, 2)
        originals.note_restored(connection, study_id)
        assert originals.removed_at(connection, study_id) is None
    assert store.audited("study.originals_restored") == [study_id]


def test_every_column_that_names_an_object_is_looked_at() -> None:
    from clinic_ai.store import tables

    listed = {column for _, column, _ in references.REFERENCES}
    not_objects = {
        tables.files.c.sha256,  # the ledger
        tables.deidentified.c.original_sha256,  # what a copy was made of
        tables.review_labels.c.instance_sha256,  # what a person said of an original; retention may remove it
    }
    named = {column for table in tables.metadata.tables.values() for column in table.c if "sha256" in column.name}
    assert named == listed | not_objects
