"""The audit against somebody who may write the database: flips, edits, cuts, a log written anew, a lost key."""

from __future__ import annotations

import base64
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from control_room import NAME, Room, control_room
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from signing_here import signing_here

from clinic_ai.cli import main
from clinic_ai.cli.output import Exit
from clinic_ai.errors import HomeError, NotAllowed
from clinic_ai.heads.exporting import examine_lines, json_lines
from clinic_ai.heads.head import BROKEN, HEAD_S, UNSIGNED, HeadKeeper, canonical, head_file
from clinic_ai.heads.keys import is_signed_aside, key_file, load_signer, make_key, public_file, public_key
from clinic_ai.heads.verifying import examine
from clinic_ai.store import alerts, audit
from clinic_ai.store.database import Database

STAFF = "weber"
COLUMNS = ("at", "actor", "action", "subject", "details", "previous_hash", "hash")


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with control_room(tmp_path / "h") as served:
        with signing_here():
            make_key(served.home)
        yield served


def write_rows(database: Database, count: int = 3) -> None:
    with database.write() as connection:
        for number in range(count):
            details = {"number": number, "told_to": "Dr. Weber", "reason": f"{NAME} is ill", "rules": ["a.b"]}
            audit.record(connection, actor=STAFF, action="review.accept", subject=f"S-{number}", details=details)


def by_hand(room: Room, *statements: str) -> None:
    """Change the database as somebody would who may write the file."""
    connection = sqlite3.connect(room.home.database)
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def sentences(room: Room) -> list[str]:
    return [finding.sentence for finding in examine(room.home, room.database).findings]


def newest(room: Room) -> int:
    with room.database.read() as connection:
        entry = audit.newest(connection)
    assert entry is not None
    return entry.seq


# ------------------------------------------------------------ keys and heads


def test_the_key_is_made_once_and_is_for_the_daemon_alone(room: Room) -> None:
    place = key_file(room.home)
    assert place.stat().st_mode & 0o777 == 0o600
    before = place.read_bytes()
    make_key(room.home)
    assert place.read_bytes() == before
    assert load_signer(room.home).public == public_key(room.home)


def test_a_lost_key_is_said_and_not_replaced_in_silence(room: Room) -> None:
    key_file(room.home).unlink()
    with pytest.raises(HomeError, match="is gone"):
        make_key(room.home)
    assert not key_file(room.home).exists()


def test_a_head_is_signed_when_the_log_has_grown_and_it_is_time(room: Room) -> None:
    write_rows(room.database)
    now = time.time()
    keeper = HeadKeeper(room.home, room.database, lambda: now)
    keeper.open()
    assert examine(room.home, room.database).signed == newest(room)
    write_rows(room.database)
    keeper.step()
    assert examine(room.home, room.database).signed < newest(room)
    now += HEAD_S
    keeper.step()
    assert examine(room.home, room.database).signed == newest(room)
    before = head_file(room.home).stat().st_mtime_ns
    now += HEAD_S
    keeper.step()
    assert head_file(room.home).stat().st_mtime_ns == before  # nothing was written meanwhile
    assert head_file(room.home).stat().st_mode & 0o777 == 0o600


def test_a_key_that_went_away_meanwhile_is_an_alert_and_stops_nothing(room: Room) -> None:
    now = 1_800_000_000.0
    keeper = HeadKeeper(room.home, room.database, lambda: now)
    keeper.open()
    write_rows(room.database)
    key_file(room.home).write_text("rubbish")
    now += HEAD_S
    assert keeper.step() is False
    keeper.close()
    with room.database.read() as connection:
        (alert,) = [alert for alert in alerts.open_alerts(connection) if alert.code == UNSIGNED]
    assert "key.pem" in alert.sentence


def test_a_forged_head_is_kept_as_evidence_and_not_replaced_by_a_good_one(room: Room) -> None:
    write_rows(room.database)
    HeadKeeper(room.home, room.database).open()
    forged = json.loads(head_file(room.home).read_bytes())
    forged["signature"] = "0" * 128
    head_file(room.home).write_bytes(canonical(forged))
    write_rows(room.database)
    HeadKeeper(room.home, room.database).open()
    assert head_file(room.home).read_bytes() == canonical(forged)
    assert any("was changed" in said for said in sentences(room))


def test_a_log_that_was_cut_off_is_found_also_after_it_has_grown_again(room: Room) -> None:
    write_rows(room.database, 5)
    HeadKeeper(room.home, room.database).open()
    last = newest(room)
    by_hand(room, f"DELETE FROM audit WHERE seq > {last - 2}")
    assert any("cut off" in said and str(last) in said for said in sentences(room))
    HeadKeeper(room.home, room.database).open()  # the next start of the daemon
    with room.database.read() as connection:
        assert BROKEN in {alert.code for alert in alerts.open_alerts(connection)}
    write_rows(room.database, 9)
    HeadKeeper(room.home, room.database).open()
    assert any("written anew" in said for said in sentences(room))


def test_a_log_that_was_written_anew_with_a_chain_that_holds_is_found(room: Room) -> None:
    write_rows(room.database, 4)
    HeadKeeper(room.home, room.database).open()
    with room.database.read() as connection:
        rows = audit.rows(connection, after=0, limit=10_000)
    by_hand(room, "DELETE FROM audit", "DELETE FROM sqlite_sequence WHERE name = 'audit'")
    with room.database.write() as connection:
        for row in rows:
            actor = "nobody" if row is rows[-1] else row.actor
            audit.record(
                connection, actor=actor, action=row.action, subject=row.subject, details=json.loads(row.details)
            )
    with room.database.read() as connection:
        assert audit.chain_break(connection) is None
    assert any("written anew" in said for said in sentences(room))


@pytest.mark.parametrize("place", [head_file, public_file])
def test_a_flipped_bit_in_head_or_public_key_is_found(room: Room, place: object) -> None:
    assert callable(place)
    write_rows(room.database)
    HeadKeeper(room.home, room.database).open()
    file = place(room.home)
    content = file.read_bytes()
    # Each byte in turn would take a minute: every third, and another bit of it each time.
    for position in range(0, len(content.rstrip()), 3):
        broken = bytearray(content)
        broken[position] ^= 1 << position % 8
        file.write_bytes(broken)
        assert sentences(room), position
    file.write_bytes(content)
    assert not sentences(room)


# ------------------------------------------------------------ flips and edits in the database


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_flipped_bit_of_any_row_is_found_and_the_row_is_named(room: Room, data: st.DataObject) -> None:
    if newest_or_none(room) < 5:
        write_rows(room.database, 5)
    seq = data.draw(st.integers(1, newest(room)))
    column = data.draw(st.sampled_from(COLUMNS))
    connection = sqlite3.connect(room.home.database)
    (value,) = connection.execute(f"SELECT {column} FROM audit WHERE seq = ?", (seq,)).fetchone()
    if isinstance(value, float):
        changed: object = value + 0.001
    else:
        content = bytearray(value.encode())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 6))
        changed = content.decode("latin-1")
    connection.execute(f"UPDATE audit SET {column} = ? WHERE seq = ?", (changed, seq))
    connection.commit()
    try:
        found = examine(room.home, room.database).findings
        assert found[0].seq in {seq, seq + 1}
        assert str(found[0].seq) in found[0].sentence
        assert found[0].remedy
    finally:
        connection.execute(f"UPDATE audit SET {column} = ? WHERE seq = ?", (value, seq))
        connection.commit()
        connection.close()
    assert not sentences(room)


def newest_or_none(room: Room) -> int:
    with room.database.read() as connection:
        entry = audit.newest(connection)
    return 0 if entry is None else entry.seq


def test_a_bit_that_the_disk_flipped_in_the_file_is_found(room: Room) -> None:
    write_rows(room.database, 20)
    connection = sqlite3.connect(room.home.database)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    content = bytearray(room.home.database.read_bytes())
    place = content.index(b'"number": 7')
    content[place + len('"number": ')] ^= 1
    room.database.close()  # no page of it is in anybody's cache any more
    room.home.database.write_bytes(content)
    assert any("is not what was written" in said for said in sentences(room))


def test_an_edited_decision_is_found(room: Room) -> None:
    study_id = room.add_study(state="DONE")
    room.add_result(study_id)
    assert not sentences(room)
    assert examine(room.home, room.database).documents == 1
    by_hand(room, "UPDATE artefacts SET verdict = replace(verdict, 'allow', 'block')")
    (said,) = sentences(room)
    assert study_id in said
    by_hand(room, "UPDATE artefacts SET verdict = replace(verdict, 'block', 'allow')")
    assert not sentences(room)


def test_a_result_made_final_behind_everybody_s_back_is_found(room: Room) -> None:
    room.add_result(room.add_study(state="DONE"))
    by_hand(room, "UPDATE artefacts SET state = 'FINAL', signed_by = 'weber'")
    (said,) = sentences(room)
    assert "no sign-off" in said


# ------------------------------------------------------------ exports


@pytest.mark.parametrize("names", [True, False])
def test_one_flipped_bit_anywhere_in_an_export_is_found(room: Room, names: bool) -> None:
    write_rows(room.database)
    content = b"".join(json_lines(room.database, load_signer(room.home), 1.0, names=names))
    public = public_key(room.home)
    assert examine_lines(content.splitlines(keepends=True), public) == (newest(room), [])
    for position in range(0, len(content)):
        broken = bytearray(content)
        broken[position] ^= 1 << (position % 8)
        _, found = examine_lines(bytes(broken).splitlines(keepends=True), public)
        assert found, position


def test_an_export_that_was_cut_or_added_to_is_found(room: Room) -> None:
    write_rows(room.database)
    lines = list(json_lines(room.database, load_signer(room.home), 1.0, names=True))
    public = public_key(room.home)
    for kept in (lines[:-1], lines[:-2] + lines[-1:], lines[1:], [*lines, lines[-1]], [lines[1], lines[0], *lines[2:]]):
        _, found = examine_lines(kept, public)
        assert found


def test_an_export_signed_with_another_key_is_found(room: Room, tmp_path: Path) -> None:
    from clinic_ai.home import Home

    other = Home(tmp_path / "other")
    (other.path / "state").mkdir(parents=True)
    make_key(other)
    write_rows(room.database)
    lines = list(json_lines(room.database, load_signer(other), 1.0, names=True))
    assert examine_lines(lines, None)[1] == []
    assert "another key" in examine_lines(lines, public_key(room.home))[1][0].sentence


def test_what_lies_in_the_current_folder_never_gets_the_key(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    strange = room.home.path / "stick" / "clinic_ai"
    strange.mkdir(parents=True)
    (strange / "__init__.py").write_text("raise SystemExit('run')")
    monkeypatch.chdir(strange.parent)
    assert is_signed_aside(b"x", load_signer(room.home).sign(b"x"), public_key(room.home) or "")


def test_an_export_names_nobody_unless_asked(room: Room) -> None:
    room.add_study()
    write_rows(room.database)
    with room.client() as client:
        hidden = b"".join(client.audit_export("jsonl", names=False)).decode()
        shown = b"".join(client.audit_export("jsonl", names=True)).decode()
        xml = b"".join(client.audit_export("dicom", names=False)).decode()
    for personal in (STAFF, "Weber", NAME, "is ill", "4711"):
        alone = rf"(?<![0-9a-f]){re.escape(personal)}(?![0-9a-f])"  # any four digits may stand in a hash
        assert not re.search(alone, hidden)
        assert not re.search(alone, xml)
    assert STAFF in shown
    pseudonyms = {json.loads(line)["actor"] for line in hidden.splitlines()[:-1] if "review.accept" in line}
    assert len(pseudonyms) == 1
    with room.database.read() as connection:
        forms = [
            json.loads(r.details) for r in audit.rows(connection, after=0, limit=1000) if r.action == "audit.exported"
        ]
    assert forms == [
        {"form": "jsonl", "names": False},
        {"form": "jsonl", "names": True},
        {"form": "dicom", "names": False},
    ]


def test_who_may_export_what(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    from clinic_ai.control import door
    from clinic_ai.control.views import Role

    role = Role.CLINICIAN
    monkeypatch.setattr(door, "role_of", lambda *_: role)
    with room.client() as client:
        assert b"".join(client.audit_export("jsonl", names=False))
        with pytest.raises(NotAllowed):
            b"".join(client.audit_export("jsonl", names=True))
        role = Role.TECHNICIAN
        with pytest.raises(NotAllowed):
            b"".join(client.audit_export("jsonl", names=False))
        with pytest.raises(NotAllowed):
            client.verify_audit()


# ------------------------------------------------------------ DICOM audit messages

CODED = {"csd-code", "codeSystemName", "originalText"}
EVENTS = {"110100", "110101", "110103", "110104", "110105", "110106", "110113"}


def check_message(message: ET.Element) -> str:
    """Check a message against the schema of PS3.15 A.5.1; return its event."""
    assert message.tag == "AuditMessage"
    tags = [child.tag for child in message]
    order = ["EventIdentification", "ActiveParticipant", "AuditSourceIdentification", "ParticipantObjectIdentification"]
    assert tags == sorted(tags, key=order.index)
    assert (tags.count(order[0]), tags.count(order[2])) == (1, 1)
    assert order[1] in tags
    event = message[0]
    assert set(event.attrib) == {"EventActionCode", "EventDateTime", "EventOutcomeIndicator"}
    assert event.get("EventActionCode") in set("CRUDE")
    assert event.get("EventOutcomeIndicator") in {"0", "4", "8", "12"}
    assert datetime.fromisoformat(str(event.get("EventDateTime"))).tzinfo is not None
    assert [child.tag for child in event] == ["EventID", *["EventTypeCode"] * (len(event) - 1)]
    for participant in message.iter("ActiveParticipant"):
        assert participant.get("UserID")
        assert participant.get("UserIsRequestor") in {"true", "false"}
        assert {child.tag for child in participant} <= {"RoleIDCode"}
    source = message.find("AuditSourceIdentification")
    assert source is not None
    assert source.get("AuditSourceID")
    assert set(source.attrib) <= {"AuditSourceID", "AuditEnterpriseSiteID"}
    for item in message.iter("ParticipantObjectIdentification"):
        assert item.get("ParticipantObjectID")
        assert item.get("ParticipantObjectTypeCode") in set("1234")
        assert 1 <= int(str(item.get("ParticipantObjectTypeCodeRole"))) <= 26
        inner = [child.tag for child in item]
        assert inner[:2] == ["ParticipantObjectIDTypeCode", "ParticipantObjectName"]
        assert set(inner[2:]) <= {"ParticipantObjectDetail"}
        for detail in item.iter("ParticipantObjectDetail"):
            assert set(detail.attrib) == {"type", "value"}
            base64.b64decode(str(detail.get("value")), validate=True)
    for tag in ("EventID", "EventTypeCode", "RoleIDCode", "ParticipantObjectIDTypeCode"):
        for coded in message.iter(tag):
            assert set(coded.attrib) == CODED
            assert all(re.fullmatch(r"\S(.*\S)?", value) for value in coded.attrib.values())
    found = str(event[0].get("csd-code"))
    assert found in EVENTS
    return found


def test_dicom_messages_keep_to_the_schema_and_tell_every_kind_of_event(room: Room) -> None:
    study_id = room.add_study(state="DONE")
    room.add_result(study_id)
    with room.database.write() as connection:
        for action, subject in (
            ("daemon.started", "1.0"),
            ("daemon.stopped", "1.0"),
            ("delivery.sent", study_id),
            ("study.originals_removed", study_id),
            ("access.refused", "/v1/<b>&\x01"),
            ("model.promoted", "xray/chest/1"),
            ("job.lease", "J-1"),
        ):
            audit.record(connection, actor="uid 7 & <co>", action=action, subject=subject, details={"a b": "<x>"})
        alerts.raise_alert(connection, "x", "y", "z", "w")
    with room.client() as client:
        for names in (False, True):
            lines = b"".join(client.audit_export("dicom", names=names)).splitlines()
            messages = [ET.fromstring(line) for line in lines]
            assert {check_message(message) for message in messages} == EVENTS
    by_event = {str(m[0][0].get("csd-code")): m for m in messages}
    transferred = by_event["110104"]
    numbers = [item.get("ParticipantObjectID") for item in transferred.iter("ParticipantObjectIdentification")]
    assert numbers[1] == "4711"
    assert str(numbers[0]).startswith("1.2.")


# ------------------------------------------------------------ the command line


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clinic_ai", "audit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "200"})


def run_here(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["clinic-ai", "audit", *arguments])
        main()
    return int(ended.value.code or 0)


def test_the_command_line_with_and_without_a_daemon(tmp_path: Path) -> None:
    with control_room(tmp_path / "h") as room:
        make_key(room.home)
        write_rows(room.database)
        HeadKeeper(room.home, room.database).open()
        home = ("--home", str(room.home.path))
        file = tmp_path / "audit.jsonl"
        # In this process: the daemon runs in it too, and answers no child of its own.
        assert run_here("export", str(file), *home) == Exit.DONE
        assert file.stat().st_mode & 0o777 == 0o600
        assert run_here("export", str(file), *home) == Exit.CONFLICT
        assert run_here("verify", *home) == Exit.DONE
        assert run_here("verify", "--file", str(file), *home) == Exit.DONE
    found = run("verify", "--json", *home)
    assert (found.returncode, json.loads(found.stdout)["findings"]) == (Exit.DONE, [])
    by_hand(room, "UPDATE audit SET actor = 'nobody' WHERE seq = 2")
    found = run("verify", *home)
    assert found.returncode == Exit.FAILED
    assert "Row 2 of the audit is not what was written" in found.stdout
    file.write_bytes(file.read_bytes().replace(b'"number":1', b'"number":9'))
    found = run("verify", "--file", str(file), *home)
    assert found.returncode == Exit.FAILED
    assert "Line 2" in found.stdout


def test_what_cannot_be_verified_is_said_in_words(tmp_path: Path) -> None:
    with control_room(tmp_path / "h") as room:
        make_key(room.home)
        with room.database.write() as connection:
            audit.record(connection, actor=STAFF, action="model.promoted", subject="x")
        lines = b"".join(json_lines(room.database, load_signer(room.home), 1.0, names=True))
        with room.client() as client:
            messages = b"".join(client.audit_export("dicom", names=False))
    home, file = ("--home", str(room.home.path)), tmp_path / "audit"
    file.write_bytes(messages)
    assert "only an export as JSON lines" in run("verify", "--file", str(file), *home).stdout
    file.write_bytes(lines)
    assert "1 row of the audit: all is as written" in run("verify", "--file", str(file), *home).stdout
    found = run("verify", "--file", str(file), "--key", "zz", *home)
    assert (found.returncode, "is no public key" in found.stderr) == (Exit.FAILED, True)
    found = run("verify", "--file", str(file), "--key", "0" * 64, *home)
    assert "another key than the one of --key" in found.stdout


def test_no_user_keeps_a_name_and_no_single_typed_word_is_exported(room: Room) -> None:
    with room.database.write() as connection:
        for user in ("test", "guard", "ingest"):
            details = {"reason": "Smith", "policy": "abc", "why": "Jones", "version": 1, "job": "Anna Jones"}
            audit.record(connection, actor=user, action="study.exported", subject="S-1", details=details)
    lines = [json.loads(line) for line in json_lines(room.database, load_signer(room.home), 1.0, names=False)][:-1]
    assert all(line["actor"].startswith("U-") for line in lines)
    wanted = {"reason": "(withheld)", "policy": "abc", "why": "(withheld)", "version": 1, "job": "(withheld)"}
    assert [line["details"] for line in lines] == [wanted] * 3
