"""A store whose studies a test makes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from shelf import Shelf, shelf


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Shelf]:
    found = shelf(tmp_path / "h")
    yield found
    found.close()
