"""One home through SIGKILL at every transition of the tables; `make torture` does it before and after each commit."""

from __future__ import annotations

from pathlib import Path

import pytest
from torture import tell


@pytest.mark.timeout(600)
def test_killed_once_at_every_transition(tmp_path: Path) -> None:
    check(tell("transitions_killed", tmp_path / "h", "either", timeout_s=590))


@pytest.mark.torture
def test_killed_before_and_after_every_transition(tmp_path: Path) -> None:
    check(tell("transitions_killed", tmp_path / "h", "before,after", timeout_s=3600))


def check(told: dict[str, object]) -> None:
    assert told["broken"] == [], "scenarios that came to an end before anybody died"
    assert told["never"] == [], "rows that nobody died at: a scenario has to lead there, or NOT_REACHED to say why not"
    assert told["stale"] == [], "rows that NOT_REACHED says nothing leads to"
    assert told["end"] == 0
    assert told["faults"] == []
