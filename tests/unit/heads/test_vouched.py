"""What other tables say, against somebody who may write the database: decisions, states, files and alerts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from control_room import Room, control_room
from decided import ACTOR, REVIEWER, add_reported, decide, sign
from signing_here import signing_here
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from tampering import by_hand, said, sentences

from clinic_ai.domain.reviews import ReviewDecision
from clinic_ai.heads.keys import make_key
from clinic_ai.store import alerts, artefacts, critical, reviews
from clinic_ai.store.critical import Hit


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """A home with a signed report, a rejected one, one that waits, and alerts in each state."""
    with control_room(tmp_path / "h") as served:
        with signing_here():
            make_key(served.home)
        studies = [served.add_study(state="DONE") for _ in range(3)]
        with served.database.write() as c:
            signed, rejected, _ = (add_reported(c, study_id) for study_id in studies)
            sign(c, decide(c, signed))
            reviews.set_consent(c, decide(c, rejected, ReviewDecision.REJECT).review_id, True, ACTOR)
            artefacts.add_delivery(c, signed, "outbox")
            due = artefacts.next_delivery(c, 4e9)
            assert due is not None
            artefacts.mark_sent(c, due[0], studies[0], "outbox/1")
            for code in ("open", "acknowledged", "withdrawn"):
                alerts.raise_alert(c, code, "appliance", "Something is wrong.", "Repair it.")
            alerts.withdraw(c, "withdrawn", "appliance")
            alerts.acknowledge(c, 2, REVIEWER, told_to="")
            job = artefacts.get_artefact(c, signed).job_id
            hits = [Hit(f"term:{word}", 1, (60.0,), 2, ()) for word in ("one", "two")]
            critical.raise_alerts(c, job, studies[0], 1, hits, 1000.0)
            alerts.acknowledge(c, 5, REVIEWER, told_to="Dr. Weber")
        assert not sentences(served.home, served.database)
        yield served


DECISION = "is not what was decided"
CHANGES = {
    "words": ("UPDATE reviews SET document = replace(document, 'diff', 'fidd')", DECISION),
    "reviewer": ("UPDATE reviews SET reviewer = 'Dr. Evil'", DECISION),
    "actor": ("UPDATE reviews SET actor = 'evil'", DECISION),
    "reason": ("UPDATE reviews SET reason = 'x'", DECISION),
    "time": ("UPDATE reviews SET decided_at = decided_at + 0.000001", DECISION),
    "rejected becomes accepted": ("UPDATE reviews SET decision = 'accept' WHERE decision = 'reject'", DECISION),
    "of another study": ("UPDATE reviews SET study_id = 'S-0'", DECISION),
    "of another job": ("UPDATE reviews SET job_id = NULL", DECISION),
    "a rejection is removed": ("DELETE FROM reviews WHERE decision = 'reject'", "is gone"),
    "consent": ("UPDATE reviews SET consent = 1 - consent", "may be learned"),
    "a label": ("UPDATE review_labels SET presence = 'ABSENT'", DECISION),
    "a label is removed": ("DELETE FROM review_labels", DECISION),
    "who signed": ("UPDATE artefacts SET signed_by = 'Dr. Evil' WHERE state = 'FINAL'", "no sign-off"),
    "by which decision": (
        "UPDATE artefacts SET review_id = (SELECT review_id FROM reviews WHERE decision = 'reject') "
        "WHERE state = 'FINAL'",
        "no sign-off",
    ),
    "signed is hidden": ("UPDATE artefacts SET state = 'SUPERSEDED' WHERE state = 'FINAL'", "says FINAL"),
    "rejected goes out": ("UPDATE artefacts SET state = 'PRELIMINARY' WHERE state = 'REJECTED'", "says REJECTED"),
    "signed by nobody": ("UPDATE artefacts SET state = 'FINAL' WHERE state = 'PRELIMINARY'", "no sign-off"),
    "of which version": ("UPDATE artefacts SET version = 2", "row of artefact"),
    "verdict": ("UPDATE artefacts SET verdict = replace(verdict, 'allow', 'block')", DECISION),
    "verdict is no text": ("UPDATE artefacts SET verdict = CAST(verdict AS BLOB)", DECISION),
    "verdict is no UTF-8": ("UPDATE artefacts SET verdict = CAST(X'FB7D' AS TEXT)", DECISION),
    "state is no UTF-8": ("UPDATE artefacts SET state = CAST(X'FB' AS TEXT)", "The state of artefact"),
    "an artefact is removed": ("DELETE FROM artefacts WHERE state = 'REJECTED'", "is gone"),
    "files": ("UPDATE job_files SET sha256 = '3' || substr(sha256, 2)", "list of files"),
    "a file is removed": ("DELETE FROM job_files", "list of files"),
    "sent again": ("UPDATE deliveries SET state = 'PENDING', not_before = 0", "it was delivery.sent"),
    "delivery is removed": ("DELETE FROM deliveries", "is gone"),
    "alert is closed": (
        "UPDATE alerts SET acknowledged_by = 'x', acknowledged_at = 1 WHERE code = 'open'",
        "closed by x",
    ),
    "alert is withdrawn": (
        "UPDATE alerts SET acknowledged_by = 'clinic-ai: the cause is gone', acknowledged_at = 1 WHERE code = 'open'",
        "no row of the audit says so",
    ),
    "alert is closed by nobody": ("UPDATE alerts SET acknowledged_at = 1 WHERE code = 'open'", "no row of the audit"),
    "who closed": ("UPDATE alerts SET acknowledged_by = 'x' WHERE code = 'acknowledged'", "not what stands there"),
    "when closed": ("UPDATE alerts SET acknowledged_at = 1 WHERE code = 'withdrawn'", "not what stands there"),
    "opened again": ("UPDATE alerts SET acknowledged_at = NULL, acknowledged_by = NULL", "not what stands there"),
    "alert is removed": ("DELETE FROM alerts WHERE code = 'open'", "is gone"),
    "critical is closed": (
        "UPDATE alerts SET acknowledged_by = 'x', acknowledged_at = 1 WHERE acknowledged_at IS NULL AND "
        "code = 'critical_finding'",
        "closed by x",
    ),
    "critical is no more": ("DELETE FROM critical_alerts", "not what was raised"),
    "critical waits": ("UPDATE critical_alerts SET waits_s = '[9999999]'", "not what was raised"),
    "told to": ("UPDATE critical_alerts SET told_to = 'nobody' WHERE told_to != ''", "told is not what was said"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_behind_everybody_s_back_is_found(room: Room, change: str) -> None:
    statement, words = CHANGES[change]
    by_hand(room.home, statement)
    assert said(sentences(room.home, room.database), words), sentences(room.home, room.database)


def test_what_was_added_behind_everybody_s_back_is_found(room: Room) -> None:
    for table, key in (("artefacts", "artefact_id"), ("reviews", "review_id")):
        connection = sqlite3.connect(room.home.database)
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        connection.close()
        kept = ", ".join("''" if column == "review_id" and table == "artefacts" else column for column in columns[1:])
        by_hand(room.home, f"INSERT INTO {table} SELECT 'new', {kept} FROM {table} LIMIT 1")
        assert columns[0] == key
    found = sentences(room.home, room.database)
    assert said(found, "Artefact new")
    assert said(found, "Decision new")


def test_rows_of_earlier_versions_name_less_and_still_fit(room: Room) -> None:
    from tampering import FORGET, chain_anew

    digests = "'$.row_sha256', '$.files_sha256', '$.at'"
    by_hand(
        room.home,
        f"UPDATE audit SET details = json_remove(details, {digests})",
        "UPDATE audit SET details = json_remove(details, '$.alert') WHERE action = 'alert.raised'",
        # Alerts were withdrawn without a row: as the newest row it leaves no gap.
        "DELETE FROM audit WHERE action = 'alert.withdrawn'",
        "UPDATE audit SET seq = (SELECT count(*) FROM audit AS a WHERE a.seq <= audit.seq)",
        *FORGET,
    )
    chain_anew(room.home)
    assert not sentences(room.home, room.database)
    by_hand(room.home, "UPDATE artefacts SET state = 'SUPERSEDED' WHERE state = 'FINAL'")
    assert said(sentences(room.home, room.database), "says FINAL")
    by_hand(room.home, "UPDATE alerts SET acknowledged_by = 'x', acknowledged_at = 1 WHERE code = 'open'")
    assert said(sentences(room.home, room.database), "closed by x")


def test_the_database_takes_no_decision_about_another_study_than_its_artefact_s(room: Room) -> None:
    insert = (
        "INSERT INTO reviews SELECT 'new', artefact_id, {study}, {version}, decision, reviewer, actor, reason, digest, "
        "document, consent, job_id, decided_at FROM reviews LIMIT 1"
    )
    for study, version in (("'S-0'", "version"), ("study_id", "version + 1")):
        with pytest.raises(IntegrityError, match="of its artefact"), room.database.write() as c:
            c.execute(text(insert.format(study=study, version=version)))
