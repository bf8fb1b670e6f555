"""The bytes of an original as they may leave."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clinic_ai.errors import HomeError, NotFound
from clinic_ai.store.objects import ObjectStore
from clinic_ai.store.outgoing import outgoing

ELF = b"\x7fELF" + bytes(range(124))


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "objects")


def sent(objects: ObjectStore, content: bytes) -> bytes:
    sha256, _ = objects.write_bytes(content)
    return b"".join(outgoing(objects, sha256))


def test_a_program_before_the_scan_does_not_leave(objects: ObjectStore) -> None:
    assert sent(objects, ELF + b"DICM" + b"scan") == b"\0" * 128 + b"DICM" + b"scan"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400))
def test_what_is_no_dicom_leaves_as_it_is(objects: ObjectStore, content: bytes) -> None:
    if content[128:132] != b"DICM":
        assert sent(objects, content) == content


def test_a_large_file_leaves_whole(objects: ObjectStore) -> None:
    content = ELF + b"DICM" + bytes(range(256)) * 20_000
    assert sent(objects, content) == b"\0" * 128 + content[128:]


def test_what_the_disk_damaged_does_not_leave_whole(objects: ObjectStore) -> None:
    sha256, _ = objects.write_bytes(b"x" * 3_000_000)
    place = objects.path(sha256)
    place.chmod(0o600)
    with place.open("r+b") as file:
        file.seek(2_999_999)
        file.write(b"y")
    got = bytearray()
    with pytest.raises(HomeError, match="not what was stored"):
        for piece in outgoing(objects, sha256):
            got += piece
    assert len(got) < 3_000_000
    with pytest.raises(NotFound):
        next(outgoing(objects, "0" * 64))
