"""Starts ``trainer_lives`` for a test and looks at what it tells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from clinic_ai.contract import TrainingTask

SUPPORT = Path(__file__).parent


def die_and_go_on(task: TrainingTask, trainer: str, module: str, folder: Path, *, seed: int, kills: int) -> None:
    """Assert that a training that is killed so often leaves what one leaves that nobody disturbs."""
    file = folder / "task.json"
    file.write_text(task.model_dump_json())
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-m", "trainer_lives", trainer, module, str(file), str(seed), str(kills)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    whole, *torn = json.loads(done.stdout.splitlines()[-1])
    assert whole["files"]
    assert whole["state"] == "finished"
    assert whole["again"] < whole["steps"] / 4  # what is finished is told again, not done again
    for run in torn:
        assert {name: run[name] for name in ("files", "state", "scores", "history")} == {
            name: whole[name] for name in ("files", "state", "scores", "history")
        }
    ended = [how for run in torn for how in run["ended"]]
    assert ended.count("killed") == kills
    print(f"{kills} kills in {len(torn)} runs, {len(ended)} lives, {whole['steps']} steps each")
