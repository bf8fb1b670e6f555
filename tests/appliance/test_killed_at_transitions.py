"""Homes through SIGKILL at every transition of the tables.

Dying once for each takes four homes side by side: the suite makes one of them, `make torture` the others. That one also
dies before and after each commit, in one home.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from torture import tell
from transition_killer import ROWS
from transitions_killed import rows_of

PARTS = 4


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.torture) for part in (1, 2, 3))])
def test_killed_once_at_each_transition_of_a_part(tmp_path: Path, part: int) -> None:
    check(tell("transitions_killed", tmp_path / "h", "either", part, PARTS, timeout_s=590))


def test_every_transition_belongs_to_a_part() -> None:
    assert {row for part in range(PARTS) for row in rows_of(part, PARTS)} == set(ROWS)


@pytest.mark.torture
def test_killed_before_and_after_every_transition(tmp_path: Path) -> None:
    check(tell("transitions_killed", tmp_path / "h", "before,after", timeout_s=3600))


def check(told: dict[str, object]) -> None:
    assert told["broken"] == [], "scenarios that came to an end before anybody died"
    assert told["never"] == [], "rows that nobody died at: a scenario has to lead there, or NOT_REACHED to say why not"
    assert told["stale"] == [], "rows that NOT_REACHED says nothing leads to"
    assert told["end"] == 0
    assert told["faults"] == []
