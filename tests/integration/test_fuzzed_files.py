"""Files that are not quite DICOM: those that pydicom ships, with bytes flipped, cut, repeated and exchanged."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from clinic_ai.ingest.headers import HeaderReader
from clinic_ai.processes import Crew
from clinic_ai.settings import IngestSettings

BATCH = 100


def flip(dice: random.Random, content: bytearray) -> None:
    for _ in range(dice.randint(1, 8)):
        content[dice.randrange(len(content))] = dice.randrange(256)


def flip_in_the_header(dice: random.Random, content: bytearray) -> None:
    for _ in range(dice.randint(1, 4)):
        content[dice.randrange(min(len(content), 2000))] = dice.choice((0, 1, 0x7F, 0x80, 0xFF))


def cut(dice: random.Random, content: bytearray) -> None:
    del content[dice.randrange(len(content)) :]


def leave_out(dice: random.Random, content: bytearray) -> None:
    at = dice.randrange(len(content))
    del content[at : at + dice.randint(1, 64)]


def repeat(dice: random.Random, content: bytearray) -> None:
    at = dice.randrange(len(content))
    content[at:at] = content[at : at + dice.randint(1, 500)] * dice.randint(1, 20)


def lie_about_a_length(dice: random.Random, content: bytearray) -> None:
    at = dice.randrange(max(1, min(len(content), 4000) - 4))
    content[at : at + 4] = dice.choice(
        (b"\xff\xff\xff\xff", b"\xfe\xff\x00\xe0", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x00")
    )


HARMS: list[Callable[[random.Random, bytearray], None]] = [
    flip,
    flip_in_the_header,
    cut,
    leave_out,
    repeat,
    lie_about_a_length,
]


def shipped() -> list[bytes]:
    """Return the DICOM files of pydicom of at most 100 KiB."""
    spec = find_spec("pydicom")
    assert spec is not None
    assert spec.origin is not None
    files = sorted((Path(spec.origin).parent / "data").rglob("*.dcm"))
    return [path.read_bytes() for path in files if 0 < path.stat().st_size <= 100 << 10]


@pytest.fixture
def reader() -> Iterator[HeaderReader]:
    crew = Crew()
    reader = HeaderReader(crew)
    yield reader
    reader.close()
    crew.close()


@pytest.mark.parametrize(("seed", "batches"), [(1, 5), pytest.param(2, 500, marks=pytest.mark.torture)])
def test_whatever_becomes_of_a_file_it_is_told_and_costs_no_other(
    reader: HeaderReader, tmp_path: Path, seed: int, batches: int
) -> None:
    dice, originals = random.Random(seed), shipped()
    good = tmp_path / "good.dcm"
    good.write_bytes(max(originals, key=lambda content: content.count(b"CT Image")))
    settings = IngestSettings()
    (expected,) = reader.read([good], settings)
    assert expected.header is not None
    for number in range(batches):
        paths = [tmp_path / f"{place}.dcm" for place in range(BATCH)]
        for path in paths:
            content = bytearray(dice.choice(originals))
            for harm in dice.choices(HARMS, k=dice.randint(1, 3)):
                if content:
                    harm(dice, content)
            path.write_bytes(content)
        *told, last = reader.read([*paths, good], settings)
        for path, file in zip(paths, told, strict=True):
            assert (file.header is None) != (file.problem is None), (seed, number, path.name)
            # Nothing of what was made here is a killer; one that turns up is worth a case of its own.
            code = file.problem.code if file.problem else ""
            assert not code.startswith("parser_"), (seed, number, path.name, code)
            assert code != "unreadable", (seed, number, path.name)
        assert last.header == expected.header
