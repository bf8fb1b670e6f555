"""The API as it describes itself: what schemathesis makes of that is answered as described, and never by a 5xx."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from control_room import Room, control_room

from clinic_ai.control.pace import Pace

EACH = 2
"""Cases of each kind for each operation in the suite; the torture sends more."""
TORTURE_EACH = 14
"""On both sockets more than two thousand cases."""


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Room, dict[str, Any]]]:
    folder: Path = tmp_path_factory.mktemp("schema") / "h"
    from schema_cases import furnish

    with control_room(folder, pace=Pace(1e6, 10**6)) as room:
        yield room, furnish(room)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("monitor", [False, True], ids=["control", "monitor"])
def test_answers_are_as_described(furnished: tuple[Room, dict[str, Any]], monitor: bool) -> None:
    from schema_cases import attack  # loading schemathesis takes seconds, and every worker collects this file

    room, known = furnished
    tally = attack(room, known, each=EACH, monitor=monitor, number=8)
    assert not tally.faults, "\n\n".join(tally.faults[:10])
    assert tally.cases >= (75 if monitor else 200), tally
    assert 200 in tally.statuses, tally


@pytest.mark.torture
def test_two_thousand_answers_are_as_described(furnished: tuple[Room, dict[str, Any]]) -> None:
    from schema_cases import attack

    room, known = furnished
    tallies = [attack(room, known, each=TORTURE_EACH, monitor=monitor, number=1) for monitor in (False, True)]
    faults = [fault for tally in tallies for fault in tally.faults]
    assert not faults, "\n\n".join(faults[:10])
    assert sum(tally.cases for tally in tallies) >= 2000, [tally.statuses for tally in tallies]
