"""The queue in the store: what stands on top, in each order, what words find, and where a study stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from control_room import Room, control_room
from sqlalchemy import create_engine, text

from clinic_ai import waiting
from clinic_ai.domain import GuardAction, JobKind, QueueSort, StudyFacts, StudyState, Urgency, WaitReason
from clinic_ai.store import critical, jobs, migrations, queue, studies

CRITICAL = critical.Hit("term:x", 1, (60.0,), 0, ())


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    with control_room(tmp_path_factory.mktemp("queue") / "h") as served:
        yield served


@pytest.fixture(scope="module")
def ids(room: Room) -> dict[str, str]:
    """Store a study of each kind, one after the other; return their identifiers by kind."""
    found = {
        "done": room.add_study(state="DONE", modality="MR", source="mri"),
        "held": room.add_study(state="DONE", wait=waiting.held("test.rule", "Because."), source="zoo"),
        "unrouted": room.add_study(state="UNROUTED", modality="US", wait=waiting.no_rule()),
        "receiving": room.add_study(state="RECEIVING", modality="DX", source="x-ray", wait=waiting.receiving(5)),
        "routed": room.add_study(state="ROUTED", wait=waiting.no_model("echo")),
        "urgent": room.add_study(state="ROUTED"),
        "urgent, done": room.add_study(state="DONE"),
        "critical": room.add_study(state="DONE"),
    }
    room.add_result(found["held"], GuardAction.HOLD)
    room.add_result(found["done"], GuardAction.ANNOTATE)
    with room.database.write() as c:
        for kind, priority in (("urgent", 10), ("urgent, done", 50), ("routed", -5)):
            studies.set_urgency(c, found[kind], 1, Urgency(ordered=priority), priority)
        job_id = jobs.add_job(c, kind=JobKind.REPORT, study_id=found["critical"], version=1)
        critical.raise_alerts(c, job_id, found["critical"], 1, [CRITICAL], 1.0)
        working = jobs.add_job(c, kind=JobKind.ANALYSE, study_id=found["urgent"], version=1, plugin="echo")
        jobs.lease(c, jobs.get_job(c, working), "test", (), "")
        jobs.add_job(c, kind=JobKind.ANALYSE, study_id=found["urgent"], version=1, plugin="xray")
    return found


def look(room: Room, **asked: object) -> queue.Page:
    with room.database.read() as c:
        return queue.look(c, **asked)


def order(room: Room, ids: dict[str, str], **asked: object) -> list[str]:
    """Return the kinds of the studies in the order in which they stand."""
    kinds = {study_id: kind for kind, study_id in ids.items()}
    return [kinds[row.study.study_id] for row in look(room, **asked).rows]


@pytest.mark.parametrize(
    ("sort", "rest"),
    [
        (QueueSort.ARRIVAL, ["urgent, done", "routed", "receiving", "unrouted", "held", "done"]),
        (QueueSort.WAIT, ["held", "unrouted", "receiving", "routed", "done", "urgent, done"]),
        (QueueSort.PATIENT, ["done", "held", "unrouted", "receiving", "routed", "urgent, done"]),
        (QueueSort.MODALITY, ["urgent, done", "routed", "held", "receiving", "done", "unrouted"]),
        (QueueSort.SOURCE, ["urgent, done", "routed", "unrouted", "done", "receiving", "held"]),
        (QueueSort.STATE, ["unrouted", "held", "receiving", "routed", "urgent, done", "done"]),
        (QueueSort.PRIORITY, ["urgent, done", "receiving", "unrouted", "held", "done", "routed"]),
    ],
)
def test_each_order_has_what_is_critical_and_urgent_on_top(
    room: Room, ids: dict[str, str], sort: QueueSort, rest: list[str]
) -> None:
    assert order(room, ids, sort=sort) == ["critical", "urgent", *rest]


def test_the_other_way_round_urgent_ones_stay_on_top_and_the_finished_below(room: Room, ids: dict[str, str]) -> None:
    assert order(room, ids, reverse=True) == [
        "critical", "urgent", "done", "held", "unrouted", "receiving", "routed", "urgent, done",
    ]  # fmt: skip
    waits = ["critical", "urgent", "routed", "receiving", "unrouted", "held", "urgent, done", "done"]
    assert order(room, ids, sort=QueueSort.WAIT, reverse=True) == waits


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("mri",), {"done"}),  # no word here fits into an identifier: those have no I, L, O or U
        (("no", "RULE", "us"), {"unrouted"}),
        (("no", "model"), {"routed"}),
        (("held",), {"held"}),
        (("urgent",), {"urgent", "critical"}),
        (("critical",), {"critical"}),
        (("x-ray", "recei"), {"receiving"}),
        (("chest", "zoo"), {"held"}),
        (("chest", "lemur"), set()),
        (("%",), set()),
        (("_",), set()),
        (("/",), set()),
    ],
)
def test_all_words_have_to_be_found(room: Room, ids: dict[str, str], words: Sequence[str], found: set[str]) -> None:
    assert set(order(room, ids, words=words)) == found
    assert look(room, words=words).total == len(found)


def test_an_identifier_and_a_pseudonym_find_their_study(room: Room, ids: dict[str, str]) -> None:
    study_id = ids["held"]
    [row] = look(room, words=[study_id.lower()]).rows
    assert [found.study for found in look(room, words=[row.study.pseudonym.lower()]).rows] == [row.study]


def test_any_part_is_cut_out_and_a_place_is_told(room: Room, ids: dict[str, str]) -> None:
    all_of_it = look(room)
    assert all_of_it.total == len(ids)
    for place, row in enumerate(all_of_it.rows):
        page = look(room, offset=place, limit=2, study_id=row.study.study_id)
        assert page.rows == all_of_it.rows[place : place + 2]
        assert (page.place, page.total, page.offset) == (place, len(ids), place)
    beyond = look(room, offset=1000, study_id="S-none")
    assert (beyond.rows, beyond.place, beyond.total) == ((), None, len(ids))
    assert look(room, words=["mri"], study_id=ids["held"]).place is None


def test_a_version_is_found_and_one_that_is_gone_by_its_successor(room: Room, ids: dict[str, str]) -> None:
    with room.database.write() as c:
        assert studies.open_next_version(c, ids["done"]) == 2
        page = queue.look(c)
        kinds = [(row.study.study_id, row.study.version) for row in page.rows]
        for version in (1, 2):
            here = queue.look(c, study_id=ids["done"], version=version)
            assert here.place == kinds.index((ids["done"], version))
        assert queue.look(c, study_id=ids["done"]).place == kinds.index((ids["done"], 2))
        studies.move_study(c, ids["done"], 1, "supersede", actor="test")
        gone = queue.look(c, study_id=ids["done"], version=1)
        assert gone.rows[gone.place or 0].study.version == 2
        c.rollback()


def test_each_row_says_what_the_guard_decided_and_who_is_at_work(room: Room, ids: dict[str, str]) -> None:
    rows = {row.study.study_id: row for row in look(room).rows}
    assert rows[ids["held"]].verdict == queue.Verdict(GuardAction.HOLD, rejected=False)
    assert rows[ids["done"]].verdict == queue.Verdict(GuardAction.ANNOTATE, rejected=False)
    assert rows[ids["routed"]].verdict is None
    assert rows[ids["urgent"]].work == queue.Work(("echo",), turns=1)
    assert [kind for kind, study_id in ids.items() if rows[study_id].critical] == ["critical"]
    assert [kind for kind, study_id in ids.items() if rows[study_id].urgent] == ["urgent"]
    with room.database.write() as c:
        c.execute(text("UPDATE artefacts SET state = 'REJECTED' WHERE state = 'HELD'"))
        c.execute(text("UPDATE artefacts SET state = 'SUPERSEDED' WHERE state = 'PRELIMINARY'"))
        rows = {row.study.study_id: row for row in queue.look(c).rows}
        c.rollback()
    assert rows[ids["held"]].verdict == queue.Verdict(GuardAction.HOLD, rejected=True)
    assert rows[ids["done"]].verdict is None


def test_sorting_and_searching_read_one_index(room: Room, ids: dict[str, str]) -> None:
    asked: list[tuple[str, object]] = []
    with room.database.read() as c:
        execute = c.execute

        def note(statement: object, *rest: object) -> object:
            asked.append((str(statement.compile(c.engine, compile_kwargs={"literal_binds": True})), None))
            return execute(statement, *rest)

        c.execute = note
        for sort in QueueSort:
            queue.look(c, sort=sort, words=["ct"])
        plans = [
            " ".join(str(row) for row in execute(text(f"EXPLAIN QUERY PLAN {statement}".replace(":", "\\:"))))
            for statement, _ in asked
            if statement.startswith("SELECT studies.rowid \n")
        ]
    assert len(plans) == len(QueueSort)
    assert all("USING COVERING INDEX studies_in_queue" in plan for plan in plans)


def test_a_home_of_before_has_its_studies_in_the_queue(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'old.db'}")
    facts = StudyFacts(modalities=("CT", "SR"), body_parts=("CHEST",))
    wait = WaitReason(code="no_rule", sentence="No rule takes it.", remedy="Add one.")
    rows = {
        "S-1": (facts.model_dump_json(), wait.model_dump_json()),
        "S-2": (StudyFacts().model_dump_json(), None),
    }
    with engine.connect() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, "0007")
        for study_id, (document, waits) in rows.items():
            connection.execute(
                text(
                    "INSERT INTO studies (study_id, version, state, study_instance_uid, grouping_key, pseudonym,"
                    " patient_key, source, facts, identity, opened_at, last_instance_at, wait)"
                    " VALUES (:id, 1, :state, '1', :id, 'P-1', 'k', 'inbox', :facts, '{}', 1.0, 1.0, :wait)"
                ),
                {"id": study_id, "state": StudyState.UNROUTED.value, "facts": document, "wait": waits},
            )
        connection.commit()
        command.upgrade(config, "head")
        found = connection.execute(
            text("SELECT modality, body_parts, wait_code, wait_sentence FROM studies ORDER BY study_id")
        ).all()
    engine.dispose()
    assert [tuple(row) for row in found] == [("CT SR", "CHEST", "no_rule", "No rule takes it."), ("", "", "", "")]
