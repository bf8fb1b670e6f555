"""Every bit of a small audit, one after the other: each flip is found and the row is named, and nothing breaks."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from control_room import Room, control_room
from signing_here import signing_here
from tampering import said, sentences

from clinic_ai.heads.exporting import json_lines
from clinic_ai.heads.head import BROKEN, HeadKeeper
from clinic_ai.heads.keys import load_signer, make_key
from clinic_ai.store import alerts, audit

COLUMNS = ("at", "actor", "action", "subject", "details", "previous_hash", "hash")
ROWS = 2


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with control_room(tmp_path / "h") as served:
        with signing_here():
            make_key(served.home)
            HeadKeeper(served.home, served.database).open()
            with served.database.write() as connection:
                for number in range(ROWS):
                    audit.record(connection, actor="jürg", action="a.b", subject=f"S-{number}", details={"n": number})
            HeadKeeper(served.home, served.database).open()
        yield served


def broken_row(room: Room) -> int | None:
    with room.database.read() as connection:
        found = audit.chain_break(connection)
    return None if found is None else found.seq


def bits(start: int, end: int) -> list[int]:
    """Return the highest bit of each byte, which makes it no text, and one more that differs from byte to byte."""
    return [8 * byte + bit for byte in range(start, end) for bit in (byte % 7, 7)]


def test_bits_of_every_byte_of_every_column_of_every_row(room: Room) -> None:
    connection = sqlite3.connect(room.home.database, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    for seq in range(1, ROWS + 1):
        for column in COLUMNS:
            (value,) = connection.execute(f"SELECT {column} FROM audit WHERE seq = ?", (seq,)).fetchone()
            content = struct.pack(">d", value) if column == "at" else value.encode()
            for bit in bits(0, len(content)):
                flipped = bytearray(content)
                flipped[bit // 8] ^= 1 << bit % 8
                if column == "at":
                    changed: object = struct.unpack(">d", flipped)[0]
                    put = "?"
                else:
                    changed, put = bytes(flipped), "CAST(? AS TEXT)"
                if changed != changed:  # SQLite has no NaN: it would be NULL, which the column does not take
                    continue
                connection.execute(f"UPDATE audit SET {column} = {put} WHERE seq = ?", (changed, seq))
                assert broken_row(room) == seq, (seq, column, bit)
            connection.execute(f"UPDATE audit SET {column} = ? WHERE seq = ?", (value, seq))
            assert broken_row(room) is None
    connection.close()


@pytest.mark.parametrize("column", ["details", "hash"])
@pytest.mark.parametrize(
    "put",
    ["CAST({} AS BLOB)", "CAST(X'FB' || substr(CAST({} AS BLOB), 2) AS TEXT)", "7.5", "X''"],
)
def test_what_is_no_text_is_found_exported_and_an_alert_at_the_start(room: Room, column: str, put: str) -> None:
    connection = sqlite3.connect(room.home.database)
    connection.execute(f"UPDATE audit SET {column} = {put.format(column)} WHERE seq = {ROWS}")
    connection.commit()
    connection.close()
    assert said(sentences(room.home, room.database), f"Row {ROWS} of the audit is not what was written")
    HeadKeeper(room.home, room.database).open()
    with room.database.read() as c:
        assert alerts.is_open(c, BROKEN, "audit")
    assert said(sentences(room.home, room.database), f"Row {ROWS} of the audit is not what was written")
    lines = list(json_lines(room.database, load_signer(room.home), 1.0, names=False))
    assert len(lines) == ROWS + 2  # those, the alert, and the end


def test_bits_of_every_byte_of_the_newest_row_in_the_file(room: Room) -> None:
    connection = sqlite3.connect(room.home.database)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (last,) = connection.execute("SELECT CAST(hash AS BLOB) FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    (actor,) = connection.execute("SELECT CAST(actor AS BLOB) FROM audit WHERE seq = 1").fetchone()
    connection.close()
    content = room.home.database.read_bytes()
    details = content.index(f'{{"n": {ROWS - 1}}}'.encode())
    end = content.index(last, details) + len(last)
    start = content.rindex(actor, 0, details) - 8 - 10  # the time, and the row's header before it
    for bit in bits(start, end):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        room.database.close()  # no page of it is in anybody's cache any more
        room.home.database.write_bytes(flipped)
        if bit < (start + 10) * 8 or bit % 8 == 7:
            found = sentences(room.home, room.database)
        # Of the row's header only what is read can be found: it also says how the number of the row is kept.
        if bit >= (start + 10) * 8:
            assert broken_row(room) == ROWS, bit
            assert bit % 8 != 7 or said(found, f"Row {ROWS} of the audit"), bit
    room.database.close()
    room.home.database.write_bytes(content)
    assert not sentences(room.home, room.database)
