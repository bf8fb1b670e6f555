"""Whoever follows the changes is told when the progress of a run was stored, which no row of the audit tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import known_curves
import pytest

from clinic_ai.home import init_home
from clinic_ai.processes import Child, ChildSpec
from clinic_ai.store import runs
from clinic_ai.store.database import Database
from clinic_ai.training.work import Running, _Recorder


class Trainer:
    """A child that reports; it takes 300 MiB."""

    killed = False
    spec = ChildSpec(kind="trainer", name="trainer")

    def resident_bytes(self) -> int:
        return 300 << 20

    def kill(self) -> None:
        self.killed = True


@pytest.mark.parametrize(("step", "told"), [(5, 1), ("rubbish", 0)])
def test_stored_progress_is_told_once_and_rubbish_never(tmp_path: Path, step: Any, told: int) -> None:
    database = Database(init_home(tmp_path / "h").database)
    database.open()
    try:
        run_id = known_curves.add_run(database, known_curves.losses(3), finished=False)
        times: list[str] = []
        trainer = Trainer()

        def note() -> None:
            with database.read() as connection:
                times.append(str((runs.get_run(connection, run_id).progress or {})["step"]))

        recorder = _Recorder(database, Running(run_id), cast(Child, trainer), lambda _run_id, _progress: None, note)
        recorder({"epoch": 1, "epochs": 2, "step": step, "steps": 10, "loss": 0.5})
        recorder.flush()  # nothing is left to store, and nothing to tell
        assert times == [str(step)] * told
        assert trainer.killed is (not told)
    finally:
        database.close()
