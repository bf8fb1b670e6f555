"""Studies, versions and instances, on a real database; every transition of the table."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, select

from clinic_ai import waiting
from clinic_ai.domain import CloseCode, FileKind, InstanceHeader, PatientIdentity, Study, StudyFacts, StudyState
from clinic_ai.errors import Conflict, NotFound
from clinic_ai.states import STUDY
from clinic_ai.store import groups, ledger, studies
from clinic_ai.store.database import Database
from clinic_ai.store.tables import audit
from clinic_ai.store.tables import studies as table


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    database = Database(tmp_path_factory.mktemp("store") / "clinic.db")
    database.open()
    yield database
    database.close()


@pytest.fixture
def c(database: Database) -> Iterator[Connection]:
    """A write transaction that is taken back, so that each test finds the database empty."""
    with database.write() as connection:
        yield connection
        connection.rollback()


def open_study(c: Connection, key: str = "dicom:1.2.3", **more: int) -> str:
    return studies.open_study(
        c,
        grouping_key=key,
        study_instance_uid="1.2.3",
        pseudonym="P-A",
        patient_key="a" * 64,
        source="inbox",
        facts=StudyFacts(source="inbox"),
        identity=PatientIdentity(patient_id="17"),
        **more,
    )


def add(c: Connection, study_id: str, version: int, *numbers: int) -> None:
    ids = ledger.begin_claims(c, [ledger.Sighting("inbox", "x", b"x", 1, 1) for _ in numbers])
    new = [
        studies.NewInstance(
            file_id,
            f"{number:064x}",
            1,
            InstanceHeader(kind=FileKind.DICOM, sop_instance_uid=f"1.{number}", instance_number=number),
        )
        for file_id, number in zip(ids, numbers, strict=True)
    ]
    studies.add_instances(c, study_id, version, new, wait=waiting.receiving(5.0))


def close(c: Connection, study_id: str, version: int) -> None:
    facts = StudyFacts(source="inbox", slices=3)
    studies.close_version(
        c, study_id, version, facts=facts, code=CloseCode.QUIET, reason="nothing new arrived", actor="ingest"
    )


def test_a_study_opens_receives_and_closes_for_a_reason(c: Connection) -> None:
    study_id = open_study(c)
    add(c, study_id, 1, 2, 1, 3)
    assert studies.get_study(c, study_id).wait == waiting.receiving(5.0)
    close(c, study_id, 1)
    study = studies.get_study(c, study_id)
    assert (study.state, study.closed_reason, study.facts.slices) == (StudyState.CLOSED, "nothing new arrived", 3)
    assert study.wait is None
    assert study.closed_at is not None
    numbers = [instance.header.instance_number for instance in studies.instances_of(c, study_id, 1)]
    assert numbers == [1, 2, 3]
    actions = [row.action for row in c.execute(select(audit).where(audit.c.subject == study_id))]
    assert actions == ["study.open", "study.receive", "study.close"]


def test_late_instances_make_a_version_that_holds_all_and_supersedes_when_it_closes(c: Connection) -> None:
    study_id = open_study(c)
    add(c, study_id, 1, 1, 2)
    close(c, study_id, 1)
    assert studies.open_next_version(c, study_id) == 2
    add(c, study_id, 2, 3)
    assert [study.state for study in studies.versions_of(c, study_id)] == [StudyState.CLOSED, StudyState.RECEIVING]
    assert studies.count_instances(c, study_id, 1) == 2
    assert len(studies.instances_of(c, study_id, 2)) == 3
    close(c, study_id, 2)
    assert [study.state for study in studies.versions_of(c, study_id)] == [StudyState.SUPERSEDED, StudyState.CLOSED]
    assert studies.get_study(c, study_id).version == 2
    assert studies.get_study(c, study_id, 1).version == 1


def test_a_group_is_found_with_what_it_has(c: Connection) -> None:
    assert groups.find_group(c, "dicom:1.2.3") is None
    study_id = open_study(c)
    add(c, study_id, 1, 1)
    assert groups.find_group(c, "dicom:1.2.3") == groups.Group(
        study_id, 1, StudyState.RECEIVING, PatientIdentity(patient_id="17")
    )
    assert groups.known_hashes(c, study_id, [f"{1:064x}", f"{2:064x}"]) == {f"{1:064x}"}
    assert groups.known_uids(c, study_id, ["1.1", "1.2"]) == {"1.1"}
    studies.set_identity(c, study_id, 1, PatientIdentity(patient_id="18"), patient_key="b" * 64, pseudonym="P-B")
    assert studies.get_study(c, study_id).pseudonym == "P-B"
    assert studies.patient_key(c, study_id) == "b" * 64


@pytest.mark.parametrize(
    ("state", "event"), [(state, event) for state in StudyState for event in sorted({e for _, e in STUDY})]
)
def test_every_transition_of_the_table_and_no_other(c: Connection, state: StudyState, event: str) -> None:
    study_id = open_study(c)
    c.execute(table.update().values(state=state.value))
    wait = waiting.no_rule()
    if (state, event) in STUDY:
        assert studies.move_study(c, study_id, 1, event, actor="test", wait=wait) is STUDY[state, event]
        moved = studies.get_study(c, study_id)
        assert (moved.state, moved.wait) == (STUDY[state, event], wait)
    else:
        with pytest.raises(Conflict):
            studies.move_study(c, study_id, 1, event, actor="test")
        assert studies.get_study(c, study_id).state is state


def place_of(study: Study) -> studies.Place:
    return study.opened_at, study.study_id, study.version


def test_studies_that_came_in_one_moment_stand_each_on_one_page(c: Connection) -> None:
    ids = {open_study(c, f"k{n}") for n in range(5)}
    c.execute(table.update().values(opened_at=1000.0))
    seen: list[str] = []
    before = None
    while page := studies.list_studies(c, limit=2, before=before):
        seen += [study.study_id for study in page]
        before = place_of(page[-1])
    assert seen == sorted(ids, reverse=True)


def test_lists_by_state_newest_first_and_by_urgency(c: Connection) -> None:
    ids = [open_study(c, f"k{n}", priority=n % 2) for n in range(4)]
    close(c, ids[0], 1)
    assert [study.study_id for study in studies.list_studies(c)] == ids[::-1]
    page = studies.list_studies(c, limit=2)
    rest = studies.list_studies(c, before=place_of(page[-1]))
    assert [study.study_id for study in page + rest] == ids[::-1]
    assert [study.study_id for study in studies.list_studies(c, states=[StudyState.CLOSED])] == [ids[0]]
    assert [study.study_id for study in studies.studies_in(c, StudyState.RECEIVING)] == [ids[1], ids[3], ids[2]]
    assert studies.counts(c)[StudyState.RECEIVING] == 3
    studies.set_wait(c, ids[0], 1, waiting.no_model("xray"))
    assert studies.get_study(c, ids[0]).wait == waiting.no_model("xray")


def test_what_is_not_there_is_said(c: Connection) -> None:
    for ask in (
        lambda: studies.get_study(c, "S-0"),
        lambda: studies.get_study(c, "S-0", 1),
        lambda: studies.move_study(c, "S-0", 1, "close", actor="test"),
        lambda: studies.patient_key(c, "S-0"),
    ):
        with pytest.raises(NotFound):
            ask()
