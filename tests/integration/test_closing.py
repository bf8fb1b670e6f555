"""When a study is held to be complete, for which reason, and what that says: on a real disk and SQLite."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from header_site import HeaderSite
from sqlalchemy import event

from clinic_ai.domain import CloseCode, StudyState
from clinic_ai.errors import Conflict, NotFound
from clinic_ai.ingest.closing import Closing
from clinic_ai.ingest.pace import Pace
from clinic_ai.store import arrivals, audit, studies
from clinic_ai.store.pace import load_paces

LONG = 3600.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[HeaderSite]:
    """A site that closes nothing by itself but what is whole."""
    made = HeaderSite(tmp_path / "h", quiet_period_s=LONG, max_quiet_s=LONG)
    yield made
    made.close()


# ------------------------------------------------------------ the reasons


def test_a_study_with_all_it_announces_is_closed_at_once(site: HeaderSite) -> None:
    site.put(1, 2, number_of_study_related_instances=3)
    site.take(2)
    assert site.newest().state is StudyState.RECEIVING
    site.put(3, number_of_study_related_instances=3)
    study = site.until_closed()
    assert study.close_code is CloseCode.EXPECTED
    assert study.closed_reason == "all 3 instances that its headers announce are there"


def test_a_study_with_all_its_series_is_closed_at_once(site: HeaderSite) -> None:
    said = {"number_of_study_related_series": 2, "number_of_series_related_instances": 2}
    site.put(1, 2, series_instance_uid="1.2.3.1", **said)
    site.put(3, 4, series_instance_uid="1.2.3.2", **said)
    assert site.until_closed().close_code is CloseCode.EXPECTED


def test_a_study_with_a_visible_hole_waits_longer_says_so_and_names_it(site: HeaderSite) -> None:
    site.put(1, 2, 4)
    site.reload(quiet_period_s=0.1, gap_wait_s=LONG)
    site.take(3)
    site.cycle_until(lambda: (wait := site.newest().wait) is not None and wait.code == "receiving_more")
    wait = site.newest().wait
    assert wait is not None
    assert wait.sentence.startswith("Something of it is missing: instance number 3 of series 1 is missing.")
    assert "study close" in wait.remedy
    site.put(3)
    assert site.until_closed().closed_reason == "nothing new arrived for 0.1 s, 4 instances, numbered without gaps"


def test_no_hole_keeps_a_study_open_for_ever(site: HeaderSite) -> None:
    site.put(1, 2, 5, number_of_study_related_instances=9)
    site.reload(quiet_period_s=0.1, gap_wait_s=0.4)
    study = site.until_closed()
    assert study.close_code is CloseCode.QUIET
    assert study.closed_reason == (
        "nothing new arrived for 0.4 s, 3 instances; its headers announce 9 instances; "
        "instance numbers 3–4 of series 1 are missing"
    )


def test_the_deadline_ends_the_longest_wait(site: HeaderSite) -> None:
    site.put(1, 2, 4)
    site.reload(quiet_period_s=0.1, gap_wait_s=LONG, deadline_s=1.0)
    study = site.until_closed()
    assert study.close_code is CloseCode.DEADLINE
    assert study.closed_reason.startswith("it was still arriving after 1 s, 3 instances; instance number 3")


def test_a_person_closes_it_by_name_and_what_comes_then_makes_a_new_version_that_says_so(site: HeaderSite) -> None:
    site.put(1, 2, 3)
    site.take(3)
    study_id = site.newest().study_id
    said = site.intake.closing.close(study_id, "anna")
    assert said == f"Study {study_id} version 1 is closed: anna closed it, 3 instances, numbered without gaps."
    with pytest.raises(Conflict, match="CLOSED"):
        site.intake.closing.close(study_id, "anna")
    with pytest.raises(NotFound):
        site.intake.closing.close("S-none", "anna")
    site.put(4, 5)
    site.take(5)
    site.reload(quiet_period_s=0.1)
    study = site.until_closed()
    assert (study.version, study.facts.slices) == (2, 5)
    assert study.closed_reason == (
        "2 instances came after version 1 was closed, which this version replaces; "
        "nothing new arrived for 0.1 s, 5 instances, numbered without gaps"
    )
    with site.database.read() as connection:
        first = studies.versions_of(connection, study_id)[0]
        assert (first.state, first.close_code) == (StudyState.SUPERSEDED, CloseCode.FORCED)
        assert audit.first_break(connection) is None


def test_a_wrong_announcement_closes_a_study_early_once_and_a_source_twice(site: HeaderSite) -> None:
    for number in (1, 2, 3):
        study = f"1.2.{number}"
        site.put(1, study=study, number_of_study_related_instances=1)
        expected = number <= 2  # after two it is not believed any more
        site.take(3 * number - 2)
        if expected:
            site.cycle_until(lambda: not site.receiving())
        site.put(2, 3, study=study, number_of_study_related_instances=1)
        site.take(3 * number)
        assert site.receiving() == 1
        site.reload(quiet_period_s=0.1)
        site.cycle_until(lambda: not site.receiving())
        site.reload(quiet_period_s=LONG)
        found = site.studies()[0]
        assert (found.version, found.facts.slices) == (2 if expected else 1, 3)


# ------------------------------------------------------------ learning


def test_a_source_whose_studies_go_on_after_they_were_closed_gets_a_longer_quiet_period(site: HeaderSite) -> None:
    site.reload(quiet_period_s=0.1, max_quiet_s=60.0)
    site.put(1)
    site.until_closed()
    site.put(2)
    site.take(2)
    site.until_closed()
    learned = site.intake.closing.quiet_s("inbox")
    assert 0.1 < learned <= 60.0
    (view,) = site.intake.closing.paces(["inbox"])
    assert (view.quiet_s, view.studies, view.late) == (learned, 2, 1)

    again = Closing(database=site.database, settings=lambda: site.settings.ingest, on_closed=lambda: None)
    again.recover()
    assert again.quiet_s("inbox") == learned, "it survives a restart"
    assert again.quiet_s("another source") == 0.1
    site.reload(adaptive_quiet=False)
    assert site.intake.closing.quiet_s("inbox") == 0.1
    site.reload(adaptive_quiet=True, quiet_period_s=LONG)
    assert site.intake.closing.quiet_s("inbox") == LONG, "never less than what the clinic asks for"

    site.reload(quiet_period_s=0.1)
    site.put(1, study="1.2.4")
    site.take(3)
    wait = next(study for study in site.studies() if study.state is StudyState.RECEIVING).wait
    assert wait is not None
    assert f"nothing new came for {learned:g} s" in wait.sentence


def test_what_cannot_be_understood_of_an_older_pace_is_learned_anew(site: HeaderSite) -> None:
    with site.database.write() as connection:
        connection.exec_driver_sql("INSERT INTO source_pace VALUES ('inbox', '{\"other\": 1}', 0)")
    site.intake.closing.recover()
    assert site.intake.closing.paces([])[0].studies == 0


def test_nothing_is_learned_of_studies_that_people_close(site: HeaderSite) -> None:
    site.put(1)
    site.take(1)
    site.intake.closing.close(site.newest().study_id, "anna")
    site.put(2)
    site.take(2)
    site.intake.flush()
    assert site.newest().close_code is CloseCode.PROCESS
    with site.database.read() as connection:
        assert load_paces(connection) == {}


def test_setting_the_clock_closes_nothing(site: HeaderSite, monkeypatch: pytest.MonkeyPatch) -> None:
    site.put(1)
    site.take(1)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 10 * 86400)
    assert not site.intake.cycle()
    assert site.newest().state is StudyState.RECEIVING


# ------------------------------------------------------------ urgency


def test_a_later_urgent_instance_raises_what_is_open_and_the_next_version_of_what_is_closed(
    site: HeaderSite,
) -> None:
    site.put(1)
    site.take(1)
    assert site.newest().priority == 0
    site.put(2, requested_procedure_priority="STAT")
    site.take(2)
    assert site.newest().priority == 50
    site.put(3, requested_procedure_priority="LOW")
    site.take(3)
    assert site.newest().priority == 50
    site.intake.flush()
    site.put(4, study_priority_id="HIGH")
    site.take(4)
    assert (site.newest().version, site.newest().priority, site.newest().urgency.term) == (2, 50, "STAT")


def test_the_urgent_are_closed_first(site: HeaderSite) -> None:
    terms = ["LOW", "ROUTINE", "HIGH", "STAT"] * 4
    for number, term in enumerate(terms):
        site.put(1, study=f"1.2.{number + 1}", requested_procedure_priority=term)
    site.take(len(terms))
    assert site.intake.closing.close_due(time.monotonic() + 2 * LONG, lambda _: float("inf"))
    by_id = {study.study_id: study.priority for study in site.studies()}
    with site.database.read() as connection:
        rows = connection.exec_driver_sql("SELECT subject FROM audit WHERE action = 'study.close' ORDER BY seq")
        order = [by_id[subject] for (subject,) in rows]
    assert order == [50] * 4 + [30] * 4 + [0] * 4 + [-20] * 4


def test_a_sender_and_an_inbox_lend_their_priority(site: HeaderSite) -> None:
    (inbox,) = site.settings.inbox
    peer = {"name": "emergency ct", "ae_title": "ER", "priority": 40}
    network = site.settings.network.model_validate({"peer": [peer]})
    site.settings = site.settings.model_copy(
        update={"inbox": (inbox.model_copy(update={"priority": -10}),), "network": network}
    )
    folder = site.home.incoming / "emergency ct"
    folder.mkdir()
    site.put(1, study="1.2.1", requested_procedure_priority="HIGH")
    site.put(1, study="1.2.2", requested_procedure_priority="HIGH")
    (site.home.inbox / "1.2.2-1.dcm").rename(folder / "1")
    site.take(2)
    assert {study.study_instance_uid: study.priority for study in site.studies()} == {"1.2.1": 20, "1.2.2": 70}


# ------------------------------------------------------------ beside others, and after a restart


def test_counts_after_a_restart_are_those_of_the_headers(site: HeaderSite) -> None:
    said = {"number_of_study_related_series": 2, "images_in_acquisition": 2}
    site.put(1, 2, acquisition_number=1, series_instance_uid="1.2.3.1", **said)
    site.put(3, acquisition_number=1, series_instance_uid="1.2.3.2", **said)
    site.put(1, study="1.2.4")
    site.take(4)
    site.intake.close()
    restarted = HeaderSite(site.home.path, quiet_period_s=LONG)
    restarted.put(4, acquisition_number=1, series_instance_uid="1.2.3.2", **said)
    restarted.cycle_until(lambda: restarted.receiving() == 1)
    found = {study.study_instance_uid: study.close_code for study in restarted.studies()}
    assert found == {"1.2.3": CloseCode.EXPECTED, "1.2.4": None}
    restarted.close()


def test_what_is_added_while_a_study_is_read_is_not_left_out(site: HeaderSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person closes at the very moment that more is filed: it is in this version, or in one that is open."""
    site.put(1, 2)
    site.take(2)
    study_id = site.newest().study_id
    read, looks = arrivals.stamp, []

    def slow(*arguments: Any) -> arrivals.Stamp:
        found = read(*arguments)
        if not looks:
            looks.append(1)
            filing = threading.Thread(target=lambda: (site.put(3), site.take(3)))
            filing.start()
            filing.join()
        return found

    monkeypatch.setattr(arrivals, "stamp", slow)
    said = site.intake.closing.close(study_id, "anna")
    assert "3 instances" in said
    study = site.newest()
    assert (study.state, study.facts.slices) == (StudyState.CLOSED, 3)


def test_what_is_filed_just_after_a_person_closed_a_study_is_not_forgotten(
    site: HeaderSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing is committed, and the next version is open before the closing is noted in memory."""
    site.put(1, 2)
    site.take(2)
    study_id = site.newest().study_id
    closing = site.intake.closing
    lock, looks = closing._lock, []

    class Late:
        def __enter__(self) -> None:
            if not looks:
                looks.append(1)
                filing = threading.Thread(target=lambda: (site.put(3), site.take(3)))
                filing.start()
                filing.join()
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    monkeypatch.setattr(closing, "_lock", Late())
    closing.close(study_id, "anna")
    assert (site.newest().version, site.newest().state) == (2, StudyState.RECEIVING)
    site.reload(quiet_period_s=0.1)
    assert site.until_closed().version == 2


def test_a_pass_over_many_open_studies_asks_the_database_nothing_of_them(site: HeaderSite) -> None:
    for study in range(20):
        site.put(1, 2, study=f"1.2.{study + 1}")
    site.take(40)
    statements: list[str] = []
    engine = site.database._engine
    event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    assert not site.intake.closing.close_due(time.monotonic(), lambda _: float("inf"))
    assert site.intake.closing.next_look() > time.monotonic() + LONG / 2
    assert statements == []


def test_a_study_that_waits_for_a_file_to_come_to_rest_is_not_looked_at_again_and_again(site: HeaderSite) -> None:
    site.put(1, number_of_study_related_instances=1)
    site.take(1)
    closing = site.intake.closing
    if site.newest().state is StudyState.RECEIVING:
        looked_at = time.monotonic()
        assert not closing.close_due(looked_at, lambda _: looked_at - 60)
        assert closing.next_look() == float("inf")
        assert closing.close_due(time.monotonic(), lambda _: float("inf"))
    assert site.newest().close_code is CloseCode.EXPECTED


def test_the_pace_of_a_source_stays_small(site: HeaderSite) -> None:
    pace = Pace.model_validate({"studies": [{"pause_s": 12.3, "late": True, "broken": True}] * 200})
    assert len(pace.model_dump_json(exclude_defaults=True)) < 12_000
    assert json.loads(pace.model_dump_json(exclude_defaults=True))["studies"][0]["pause_s"] == 12.3
    assert site.intake.closing.paces([]) == []
