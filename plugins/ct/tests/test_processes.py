"""Two processes learn what one alone learns: the steps are the same, each looks at its share of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import training_set
from safetensors.torch import load_file

from clinic_ai_ct.training.cases import folder_dataset


@pytest.mark.torture  # five processes that import torch
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    training_set.write_set(folder)
    assert folder_dataset(folder).examples
    training_set.write_base(tmp_path / "base")
    alone, together = tmp_path / "alone", tmp_path / "together"
    learn([sys.executable], folder, alone, tmp_path / "base")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    learn([*launch, "--num_machines", "1", "--mixed_precision", "no"], folder, together, tmp_path / "base")
    first, second = (load_file(run / "model" / "network.safetensors") for run in (alone, together))
    base = load_file(tmp_path / "base" / "network.safetensors")
    moved = [name for name, value in first.items() if not value.equal(base[name])]
    assert moved, "something was learned"
    for name, value in first.items():
        assert value.allclose(second[name], atol=1e-5), name
    assert (alone / "evaluation.txt").read_text() == (together / "evaluation.txt").read_text()


def learn(start: list[str], folder: Path, run: Path, base: Path) -> None:
    settings = ["phase=classification,localisation", "epochs=2", "accumulation=3"]
    command = [*start, "-m", "clinic_ai_ct.training", str(folder), str(run), "--base", str(base)]
    for setting in settings:
        command += ["--set", setting]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
