"""Trains again and again in processes that are SIGKILLed or stopped at random steps; then tells what became of it.

``python -m trainer_lives TRAINER MODULE TASK SEED KILLS`` where TRAINER is ``package.module:Class``, MODULE the one
whose ``_SAVED_EVERY_S`` says how often a checkpoint is written within an epoch, and TASK a file with a TrainingTask.
Each life is a fork of this process, which has imported everything and computed nothing. A step is whatever lasts on the
disk, a report, or a question whether to stop. Prints one JSON line: for each run, the SHA-256 of the files of its
model, its history, and how its lives ended; the first run was left in peace.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import random
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from reaper import Reaper

from clinic_ai.contract import Trainer, TrainingProgress, TrainingTask

LIFE_S = 600
NEVER = 10**9
LATE = ("transformers.", "matplotlib.", "sklearn.", "scipy.", "onnx", "peft.", "accelerate.", "clinic_ai", "pydicom.")
"""Modules that are imported when they are first needed."""
OF_THE_MOMENT = {"model.toml", "training_summary.json"}
"""Files of a model that say when it was made and how long that took."""


class _Watched:
    """What the trainer sees of the daemon; asks it to stop at the n-th question."""

    def __init__(self, reaper: Reaper, stop_at: int) -> None:
        self._reaper, self._left = reaper, stop_at

    def report(self, progress: TrainingProgress) -> None:
        assert progress.pf_days is not None
        self._reaper.step()

    def stop_requested(self) -> bool:
        self._reaper.step()
        self._left -= 1
        return self._left < 0


class Lives:
    """The lives of runs of one task, each run in a directory of its own."""

    def __init__(self, trainer: str, module: str, task: TrainingTask) -> None:
        name, _, kind = trainer.partition(":")
        self._trainer: type[Trainer] = getattr(importlib.import_module(name), kind)
        self._module = importlib.import_module(module)
        self._task = task

    def live(self, directory: Path, *, kill_at: int = 0, stop_at: int = NEVER, often: bool = False) -> dict[str, Any]:
        """Live once; return what it told: its result and how many steps it took. Empty if it was killed."""
        directory.mkdir(exist_ok=True)
        told = directory / "told.json"
        told.unlink(missing_ok=True)
        if (pid := os.fork()) == 0:
            signal.alarm(LIFE_S)
            try:
                self._work(directory, told, kill_at, stop_at, often)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status not in {0, -signal.SIGKILL}:
            raise SystemExit(f"a life ended with status {status}")
        return json.loads(told.read_text()) if told.exists() else {}

    def _work(self, directory: Path, told: Path, kill_at: int, stop_at: int, often: bool) -> None:
        reaper = Reaper(kill_at)
        reaper.install()
        if often:
            self._module._SAVED_EVERY_S = -1.0  # type: ignore[attr-defined]
        task = self._task.model_copy(update={"run_directory": str(directory)})
        result = self._trainer().train(task, _Watched(reaper, stop_at))
        reaper.kill_at = 0
        loaded = [name for name in sys.modules if name.startswith(LATE)]
        told.write_text(json.dumps({"steps": reaper.steps, "result": result.model_dump(mode="json"), "loaded": loaded}))

    def run(self, directory: Path, dice: random.Random, steps: int, kills: int) -> dict[str, Any]:
        """Let a run come to its end, after so many kills or fewer, and some stops; return what is left of it."""
        ended = []
        for _ in range(kills):
            often, stop = dice.random() < 0.7, dice.random() < 0.25
            if stop:
                self.live(directory, stop_at=dice.randint(0, steps // 2), often=often)
            told = self.live(directory, kill_at=dice.randint(1, steps), often=often)
            ended.append("ended" if told else "killed")
            if told:  # before it came to the step it was to die at
                break
        return {"ended": ended, **self.last(directory)}

    def last(self, directory: Path) -> dict[str, Any]:
        """Live to the end, and once more, which must give the same result; return what is left of the run."""
        told = self.live(directory)
        for name in told["loaded"]:  # so that no later life has to
            with suppress(ImportError):
                importlib.import_module(name)
        model = Path(told["result"]["model_directory"])
        before = (model / "model.toml").read_bytes()
        again = self.live(directory)
        assert (again["result"], (model / "model.toml").read_bytes()) == (told["result"], before)
        hashes = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(model.iterdir())
            if path.name not in OF_THE_MOMENT
        }
        result = told["result"]
        kept = {name: result[name] for name in ("state", "scores", "history")}
        return {"files": hashes, "steps": told["steps"], "again": again["steps"], **kept}


def main(trainer: str, module: str, task: Path, seed: int, kills: int) -> None:
    """Train once in peace, then again until so many lives were ended by a kill; tell of all."""
    torch.set_num_threads(1)  # no thread is there that a fork would lose
    lives = Lives(trainer, module, TrainingTask.model_validate_json(task.read_text()))
    runs = [lives.last(task.parent / "in-peace")]
    dice, killed = random.Random(seed), 0
    while killed < kills:
        run = lives.run(task.parent / f"run-{len(runs)}", dice, runs[0]["steps"], kills - killed)
        killed += run["ended"].count("killed")
        runs.append(run)
    print(json.dumps(runs))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
