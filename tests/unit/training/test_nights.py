"""Simulated nights: what pauses a run, what lets it go on, and what the ledger says of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from nights import labelled_folder, simulated

from clinic_ai.domain import RunState
from clinic_ai.home import Home

HOUR = 3600.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return labelled_folder(tmp_path / "labelled")


class TestWindow:
    def test_a_run_waits_for_the_window_pauses_at_its_end_and_goes_on_the_next_night(
        self, home: Home, folder: Path
    ) -> None:
        with simulated(home) as night:
            run_id = night.start(folder, hold_every=10)
            night.tick()
            run = night.get(run_id)
            assert (run.state, run.pause_code) == (RunState.PLANNED, "window")
            assert "the next opens on Monday 22:00" in run.error
            night.tick(HOUR)
            night.at_step(run_id, 10)
            night.tick(7.5 * HOUR)
            assert night.get(run_id).state is RunState.RUNNING
            night.tick(HOUR)
            run = night.get(run_id)
            assert (run.state, run.pause_code) == (RunState.PAUSED, "window")
            assert "the next opens on Tuesday 22:00" in run.error
            assert night.processes() == []
            night.tick(12 * HOUR)
            assert night.get(run_id).state is RunState.PAUSED
            night.tick(4 * HOUR)
            night.at_step(run_id, 20)
            night.tick(60)
