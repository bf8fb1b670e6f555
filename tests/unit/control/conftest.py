"""One served control room per test; serving takes some milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from control_room import Room, control_room


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with control_room(tmp_path / "h") as served:
        yield served
