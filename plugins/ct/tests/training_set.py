"""A training set of small phantoms in a folder, and a network and a language model that learn from it in seconds."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import tiny_ct
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from clinic_ai.contract import Dataset, Device, Limits, LoadedModel, TrainingTask
from clinic_ai_ct.configurations import NetworkConfig
from clinic_ai_ct.network import made
from clinic_ai_ct.phantoms import Nodule, Phantom, PleuralEffusion, make
from clinic_ai_ct.phantoms.files import write_collection
from clinic_ai_ct.saving import write_network
from clinic_ai_ct.training.cases import cases_of, folder_dataset
from clinic_ai_ct.training.prepared import Preparing

SHAPE, SPACING = (8, 32, 32), (40.0, 12.0, 12.0)


def config() -> NetworkConfig:
    """Return a tiny network that sees a whole chest."""
    return tiny_ct.config(regions=20).model_copy(update={"spacing": SPACING})


@cache
def phantom(seed: int) -> Phantom:
    """Return a phantom: each second one has an effusion, each third a large nodule."""
    lesions = []
    if seed % 2:
        lesions.append(PleuralEffusion("right" if seed % 4 == 1 else "left", 900.0))
    if seed % 3 == 0:
        lesions.append(Nodule("right_upper_lobe", 29.0))
    shown = ("cardiomegaly",) if seed % 4 == 0 else ()
    return make(seed, shape=SHAPE, spacing=SPACING, lesions=lesions, conditions=shown)


def write_set(folder: Path, count: int = 12) -> Dataset:
    """Write so many phantoms, each of a patient of its own; return them as a dataset that validates on a third."""
    write_collection(folder, ((f"train_{seed}_a_1", phantom(seed)) for seed in range(count)))
    dataset = folder_dataset(folder)
    splits = ("train", "train", "validation", "train", "validation", "test")
    examples = [
        example.model_copy(update={"split": splits[int(example.patient_key.split("_")[1]) * 6 // count % 6]})
        for example in dataset.examples
    ]
    return dataset.model_copy(update={"examples": tuple(examples)})


def write_base(directory: Path, seed: int = 1) -> LoadedModel:
    """Write the tiny network with random weights as a model."""
    directory.mkdir()
    write_network(made(config(), seed), directory)
    return tiny_ct.seal(directory)


def write_language(directory: Path, dataset: Dataset) -> Path:
    """Write a tiny language model that knows the words of the reports of a dataset."""
    prepare = Preparing(config(), None, 0, 0, 1)
    ready = [prepare(case) for case in cases_of(dataset)]
    words = tiny_ct.words([text for one in ready for text in (one.asked, one.report)])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(words),
                hidden_size=24,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                num_key_value_heads=1,
                initializer_range=0.3,
                bos_token_id=words.bos_token_id,
                eos_token_id=words.eos_token_id,
                pad_token_id=words.pad_token_id,
            )
        )
    model.save_pretrained(directory)
    words.save_pretrained(directory)
    return directory


def task(folder: Path, dataset: Dataset, base: LoadedModel, **recipe: float | int | str | bool) -> TrainingTask:
    """Return a task that runs in ``folder``."""
    return TrainingTask(
        run_id="R-1",
        dataset=dataset,
        base=base,
        recipe=recipe,
        run_directory=str(folder),
        limits=Limits(),
        device=Device(),
    )


class Told:
    """Progress that is remembered; asks to stop at the ``stop_at``-th question."""

    def __init__(self, stop_at: int = 10**9) -> None:
        self.reports = []
        self._left = stop_at

    def report(self, progress) -> None:
        self.reports.append(progress)

    def stop_requested(self) -> bool:
        self._left -= 1
        return self._left < 0
