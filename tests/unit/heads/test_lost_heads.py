"""A head that is gone hides nothing: cut and rewritten logs are found, and no daemon signs what does not continue."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from control_room import Room, control_room
from signing_here import signing_here
from tampering import FORGET, by_hand, chain_anew, said, sentences

from clinic_ai.errors import HomeError
from clinic_ai.heads.head import BROKEN, HEAD_S, UNSIGNED, HeadKeeper, head_file
from clinic_ai.heads.keys import make_key, public_key
from clinic_ai.heads.verifying import examine
from clinic_ai.store import alerts, audit

LATER = 3 * HEAD_S


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with control_room(tmp_path / "h") as served:
        with signing_here():
            make_key(served.home)
            HeadKeeper(served.home, served.database).open()
            write_rows(served, 30)
            HeadKeeper(served.home, served.database).open()
        assert not sentences(served.home, served.database)
        yield served


def write_rows(room: Room, count: int) -> None:
    with room.database.write() as connection:
        for number in range(count):
            audit.record(connection, actor="weber", action="review.accept", subject=f"S-{number}")


def newest(room: Room) -> int:
    with room.database.read() as connection:
        entry = audit.newest(connection)
    return 0 if entry is None else entry.seq


def started(room: Room, now: float | None = None) -> list[str]:
    """Start what signs as a daemon does; return what its alerts about the audit say."""
    HeadKeeper(room.home, room.database, lambda: time.time() if now is None else now).open()
    with room.database.read() as connection:
        return [alert.sentence for alert in alerts.open_alerts(connection) if alert.code == BROKEN]


def stored_head(room: Room) -> str:
    connection = sqlite3.connect(room.home.database)
    (value,) = connection.execute("SELECT value FROM meta WHERE key = 'audit_head'").fetchone()
    connection.close()
    return str(value)


def test_a_home_that_was_just_made_has_a_head_before_its_first_row(tmp_path: Path) -> None:
    with control_room(tmp_path / "h") as room:
        assert started(room) == []
        assert head_file(room.home).is_file()
        write_rows(room, 1)
        assert not sentences(room.home, room.database, now=time.time() + LATER)
        assert examine(room.home, room.database).signed == 0


def test_the_head_in_the_database_is_the_one_of_the_file(room: Room) -> None:
    assert stored_head(room) == head_file(room.home).read_text()


def test_what_is_signed_during_an_examination_is_no_cut(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def grows_meanwhile(*arguments: Any, **more: Any) -> audit.Break | None:
        monkeypatch.undo()
        write_rows(room, 3)
        HeadKeeper(room.home, room.database).open()
        return found(*arguments, **more)

    before, found = newest(room), audit.chain_break
    monkeypatch.setattr(audit, "chain_break", grows_meanwhile)
    examined = examine(room.home, room.database)
    assert (examined.findings, examined.signed, examined.rows) == ((), before, before)
    assert newest(room) == before + 3


def test_a_head_that_cannot_be_written_is_an_error_in_words(room: Room) -> None:
    now = [time.time()]
    keeper = HeadKeeper(room.home, room.database, lambda: now[0])
    write_rows(room, 1)
    fresh = head_file(room.home).with_name(f".{head_file(room.home).name}.new")
    fresh.mkdir()  # where the new file would be written, whoever asks
    with pytest.raises(HomeError, match=r"head\.json cannot be written"):
        keeper.open()
    keeper.close()
    now[0] += HEAD_S
    keeper.step()
    with room.database.read() as connection:
        assert alerts.is_open(connection, UNSIGNED, "audit")
    fresh.rmdir()
    HeadKeeper(room.home, room.database).open()
    assert not sentences(room.home, room.database)


def test_a_log_cut_off_with_its_head_is_found_and_not_signed(room: Room) -> None:
    by_hand(room.home, f"DELETE FROM audit WHERE seq > {newest(room) - 20}")
    head_file(room.home).unlink()
    assert said(sentences(room.home, room.database), "cut off")
    assert said(started(room), "cut off")
    assert not head_file(room.home).exists()
    write_rows(room, 40)
    assert said(sentences(room.home, room.database), "is missing")
    assert started(room)
    assert not head_file(room.home).exists()


def test_a_log_rewritten_with_a_chain_that_holds_and_no_head_is_found_and_not_signed(room: Room) -> None:
    by_hand(room.home, "UPDATE audit SET actor = 'Dr. Evil' WHERE action LIKE 'review.%'")
    chain_anew(room.home)
    head_file(room.home).unlink()
    assert said(sentences(room.home, room.database), "written anew")
    before = stored_head(room)
    assert said(started(room), "written anew")
    assert stored_head(room) == before


def test_a_log_without_any_head_is_found_and_not_signed(room: Room) -> None:
    by_hand(room.home, f"DELETE FROM audit WHERE seq > {newest(room) - 20}", *FORGET)
    head_file(room.home).unlink()
    later = time.time() + LATER
    assert said(sentences(room.home, room.database, now=later), "no signed head is left")
    assert said(started(room, later), "no signed head is left")
    assert not head_file(room.home).exists()
    assert said(sentences(room.home, room.database, now=time.time() - 9 * LATER), "no signed head is left")


def test_the_cut_of_rows_that_no_head_vouches_for_yet_is_found(room: Room) -> None:
    write_rows(room, 5)
    by_hand(room.home, f"DELETE FROM audit WHERE seq > {newest(room) - 2}")
    assert said(sentences(room.home, room.database), "cut off")
    assert said(started(room), "cut off")


def test_an_older_head_put_back_into_the_database_alone_is_found(room: Room) -> None:
    older = stored_head(room)
    write_rows(room, 5)
    assert started(room) == []
    by_hand(room.home, f"UPDATE meta SET value = '{older}' WHERE key = 'audit_head'")
    assert said(sentences(room.home, room.database), "gone or older")


def test_rows_changed_after_the_last_head_are_not_signed(room: Room) -> None:
    write_rows(room, 5)
    by_hand(room.home, f"UPDATE audit SET actor = 'nobody' WHERE seq = {newest(room) - 2}")
    assert said(started(room), f"Row {newest(room) - 3} of the audit is not what was written")


def test_a_lost_file_is_said_and_written_anew_where_the_log_continues_the_other_head(room: Room) -> None:
    head_file(room.home).unlink()
    assert said(sentences(room.home, room.database), "head.json is gone")
    assert said(started(room), "head.json is gone")
    assert head_file(room.home).is_file()
    assert not sentences(room.home, room.database)


def test_a_home_of_an_earlier_version_has_no_head_in_the_database_yet(room: Room) -> None:
    content = head_file(room.home).read_bytes()
    by_hand(room.home, *FORGET)
    assert said(sentences(room.home, room.database), "gone or older")  # this version had stored it
    from clinic_ai.heads.head import Head, canonical
    from clinic_ai.heads.keys import load_signer

    signer = load_signer(room.home)
    old = Head.model_validate_json(content).model_copy(update={"format": 1, "signature": ""})
    signed = old.model_copy(update={"signature": signer.sign(old.content())})
    head_file(room.home).write_bytes(canonical(signed.model_dump()))
    assert not sentences(room.home, room.database)
    write_rows(room, 1)
    assert started(room) == []
    assert stored_head(room) == head_file(room.home).read_text()


def test_a_new_key_is_said_and_signs_only_what_continues_the_head_of_the_old_one(room: Room) -> None:
    before = public_key(room.home)
    shutil.rmtree(room.home.audit)
    assert said(started(room), "before its present key was made")
    assert public_key(room.home) != before
    assert not sentences(room.home, room.database)
    by_hand(room.home, "UPDATE audit SET actor = 'Dr. Evil' WHERE action LIKE 'review.%'")
    chain_anew(room.home)
    shutil.rmtree(room.home.audit)
    assert said(started(room), "written anew")
    assert not head_file(room.home).exists()


@pytest.mark.parametrize("damage", ["directory", "rubbish"])
def test_a_head_that_cannot_be_read_is_said_and_not_replaced(room: Room, damage: str) -> None:
    head_file(room.home).unlink()
    if damage == "directory":
        head_file(room.home).mkdir()
    else:
        head_file(room.home).write_bytes(b"\xff\x00")
    write_rows(room, 1)
    assert said(sentences(room.home, room.database), "was changed")
    assert said(started(room), "was changed")
    assert examine(room.home, room.database).signed < newest(room)
