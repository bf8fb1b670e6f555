"""SIGKILL at some steps; `make torture` does it at every one."""

from __future__ import annotations

from pathlib import Path

import pytest
from intake_killer import killed_at, steps_of


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> int:
    return steps_of(tmp_path_factory.mktemp("whole") / "h")


@pytest.mark.parametrize("part", [3, 8])
def test_killed_at_a_step(steps: int, tmp_path: Path, part: int) -> None:
    assert killed_at(tmp_path / "h", max(1, steps * part // 12))
