"""SIGKILL at every lasting step of an ingest."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from intake_killer import killed_at, steps_of


@pytest.mark.torture
def test_killed_at_every_step(tmp_path: Path) -> None:
    steps = steps_of(tmp_path / "whole")
    assert steps > 50
    for kill_at in range(1, steps + 1):
        killed_at(tmp_path / str(kill_at), kill_at)
        shutil.rmtree(tmp_path / str(kill_at))
