"""SIGKILL at every lasting step of an ingest."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from intake_killer import killed_at, steps_of

FEWEST = 50


@pytest.mark.torture
def test_killed_at_every_step(tmp_path: Path) -> None:
    steps = steps_of(tmp_path / "whole")
    killed = []
    for kill_at in range(1, steps + 1):
        killed.append(killed_at(tmp_path / str(kill_at), kill_at))
        shutil.rmtree(tmp_path / str(kill_at))
    # Files that come in one batch or in two make a few steps more or less: the last ones may not come.
    assert all(killed[:FEWEST])
