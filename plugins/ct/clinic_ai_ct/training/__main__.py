"""``python -m clinic_ai_ct.training FOLDER RUN_DIRECTORY --set KEY=VALUE``: train over a folder, beside the clinic.

``accelerate launch --num_processes 2 -m clinic_ai_ct.training …`` does it on several GPUs at once; each process gets
its share of the volumes of every step. What it leaves in
``RUN_DIRECTORY/model`` is imported with ``clinic-ai model import``. It can be used if ``--base`` can be used, or if the
validation part has enough examples to fit the probabilities of all that the network outlines; its notes say so.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from clinic_ai.contract import Device, Limits, Recipe, TrainingProgress, TrainingTask
from clinic_ai.errors import ClinicError
from clinic_ai.ml.model_files import open_model
from clinic_ai_ct.trainer import CTTrainer
from clinic_ai_ct.training.cases import folder_dataset


class _Terminal:
    """Progress as lines; never asks to stop: Ctrl-C does, and the run goes on from its newest checkpoint."""

    def report(self, progress: TrainingProgress) -> None:
        figure = f", {progress.metric_name} {progress.metric:.4f}" if progress.metric is not None else ""
        loss = f", loss {progress.loss:.4f}" if progress.loss is not None else ""
        sys.stdout.write(f"{progress.message}: step {progress.step} of {progress.steps}{loss}{figure}\n")

    def stop_requested(self) -> bool:
        return False


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return 0, or 1 with a sentence if something is wrong."""
    parser = argparse.ArgumentParser(prog="clinic_ai_ct.training", description="Train the CT network over a folder.")
    parser.add_argument("folder", type=Path, help="volumes/, lesion_masks/, labels.csv and reports/ lie in it")
    parser.add_argument("run_directory", type=Path)
    parser.add_argument(
        "--base",
        type=Path,
        help="directory of a model to start from; else the network is new, and the notes say whether it can be used",
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--hours", type=float, default=24.0 * 30)
    parser.add_argument("--plan", action="store_true", help="only say what it would cost")
    chosen = parser.parse_args(arguments)
    try:
        return _train(chosen)
    except ClinicError as error:
        sys.stderr.write(f"{error.message} {error.remedy or ''}\n")
        return 1


def _train(chosen: argparse.Namespace) -> int:
    dataset, recipe = folder_dataset(chosen.folder), _recipe(chosen.set)
    base = None if chosen.base is None else open_model(chosen.base)
    limits = Limits(memory_mb=1 << 20, threads=chosen.threads, max_seconds=chosen.hours * 3600)
    if chosen.plan:
        sys.stdout.write(CTTrainer().plan(dataset, limits, recipe, base).model_dump_json(indent=1) + "\n")
        return 0
    chosen.run_directory.mkdir(parents=True, exist_ok=True)
    task = TrainingTask(
        run_id=chosen.run_directory.name,
        dataset=dataset,
        base=base,
        recipe=recipe,
        run_directory=str(chosen.run_directory),
        limits=limits,
        device=Device(kind=chosen.device, threads=chosen.threads),
    )
    result = CTTrainer().train(task, _Terminal())
    for note in result.notes:
        sys.stdout.write(f"{note}\n")
    if result.scores is not None:
        sys.stdout.write((chosen.run_directory / "evaluation.txt").read_text(encoding="utf-8") + "\n")
    return 0


def _recipe(words: list[str]) -> Recipe:
    """Return KEY=VALUE as a recipe: numbers and true or false as such, all else as words."""
    found: Recipe = {}
    for word in words:
        key, _, value = word.partition("=")
        found[key] = _value(value)
    return found


def _value(word: str) -> float | int | str | bool:
    if word.lower() in {"true", "false"}:
        return word.lower() == "true"
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


if __name__ == "__main__":
    sys.exit(main())
