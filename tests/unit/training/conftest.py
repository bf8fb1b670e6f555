"""Training rooms in a home of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_learner
from school import School, open_school

from clinic_ai.home import Home, init_home


@pytest.fixture(autouse=True)
def _children_find_the_tiny_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(tiny_learner.__file__))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return init_home(tmp_path / "home")


@pytest.fixture
def school(home: Home) -> Iterator[School]:
    school = open_school(home)
    yield school
    school.close()
    assert not school.crew.living()
