"""SIGKILL at random instants, again and again in one home, while a sender that never dies goes on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from torture import tell


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Path]:
    """Give a folder for a second inbox, on another file system if there is one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as name:
        yield Path(name)


@pytest.mark.parametrize(
    ("seed", "kills"), [(1, 8), *(pytest.param(seed, 50, marks=pytest.mark.torture) for seed in range(2, 12))]
)
def test_killed_at_random_instants(tmp_path: Path, far: Path, seed: int, kills: int) -> None:
    told = tell("random_kills", tmp_path / "h", far, seed, kills, timeout_s=3000)
    assert sum(told["died"].values()) == kills, told
    assert set(told["died"]) <= {"at a step", "alone", "with its children", "after its parser"}, told
    assert told["sender"] == told["end"] == 0
    assert told["dropped"] > kills
    assert told["faults"] == []
