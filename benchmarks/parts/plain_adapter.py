"""A LoRA of a small BLIP-2 trained three ways on the same pairs: plainly, by this plugin, and by bare arithmetic."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch
from PIL import Image
from torch.utils.data import Dataset, Sampler
from transformers import Blip2ForConditionalGeneration, GenerationConfig, PrinterCallback, Trainer, TrainingArguments
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from clinic_ai.contract import Device, Example, LoadedModel
from clinic_ai.domain import QuestionAnswer
from clinic_ai_ultrasound.collating import Row, collate, encode
from clinic_ai_ultrasound.features import Features, compute_features, key_of
from clinic_ai_ultrasound.fitting import AdapterFit, add_adapter
from clinic_ai_ultrasound.loading import Base, load_base
from clinic_ai_ultrasound.pictures import picture
from clinic_ai_ultrasound.recipe import AdapterRecipe

SIDE = 168
QUESTIONS = 8
_VISION, _QFORMER, _LANGUAGE = 320, 128, 320
"""Widths of the parts."""


@dataclass(frozen=True)
class Compared:
    """Seconds of processor time for one epoch, the mean loss of each epoch, and what was trained.

    ``features`` are the seconds of computing the features once.
    """

    plain: float
    ours: float
    bare: float
    features: float
    plain_losses: list[float]
    our_losses: list[float]
    pairs: int
    parameters: int

    @property
    def ratio(self) -> float:
        """How many times faster an epoch is than the plain one."""
        return self.plain / self.ours

    @property
    def limit(self) -> float:
        """How many times faster it would be if nothing but the language model's arithmetic took time."""
        return self.plain / self.bare

    @property
    def loss_difference(self) -> float:
        """The largest difference between the losses of an epoch."""
        return max(abs(one - other) for one, other in zip(self.plain_losses, self.our_losses, strict=True))


def make_base(directory: Path) -> LoadedModel:
    """Write a BLIP-2 of about 7 million parameters with random weights and without dropout; return it."""
    words = tiny.tokenizer()
    heads = {"num_attention_heads": 4, "num_hidden_layers": 4}
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = tiny.config(words)
    parts = {
        "vision_config": {
            **config.vision_config.to_dict(),
            **heads,
            "hidden_size": _VISION,
            "intermediate_size": 4 * _VISION,
            "image_size": SIDE,
            "patch_size": 14,
            "initializer_range": 0.02,
        },
        "qformer_config": {
            **config.qformer_config.to_dict(),
            **none,
            "hidden_size": _QFORMER,
            "intermediate_size": 4 * _QFORMER,
            "num_attention_heads": 4,
            "encoder_hidden_size": _VISION,
            "initializer_range": 0.02,
        },
        "text_config": {
            **config.text_config.to_dict(),
            **heads,
            "hidden_size": _LANGUAGE,
            "word_embed_proj_dim": _LANGUAGE,
            "ffn_dim": 4 * _LANGUAGE,
            "dropout": 0.0,
            "init_std": 0.02,
        },
        "num_query_tokens": 32,
    }
    torch.manual_seed(1)
    model = Blip2ForConditionalGeneration(tiny.config(words, **parts))
    torch.nn.init.normal_(model.query_tokens, std=0.02)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=1, pad_token_id=0)
    model.save_pretrained(directory)
    words.save_pretrained(directory)
    BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(directory)
    return tiny.seal(
        directory, slot="base", name="bench", version="1", parameters={"family": "blip2", "dtype": "float32"}
    )


def make_examples(folder: Path, images: int) -> list[Example]:
    """Draw pictures with eight questions each; the last image is for validation."""
    generator = np.random.default_rng(1)
    examples = []
    for number in range(images + 1):
        path = folder / f"{number}.png"
        Image.fromarray(generator.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)).save(path)
        pairs = tuple(
            QuestionAnswer(
                question=f"Is the structure {n} of the image in view?", answer=f"It shows {number % 7}, {n}."
            )
            for n in range(QUESTIONS)
        )
        examples.append(
            Example(
                path=str(path),
                sha256=f"{number:064x}",
                patient_key=str(number),
                labels={},
                split="train" if number < images else "validation",
                pairs=pairs if number < images else pairs[:1],
            )
        )
    return examples


def compare(folder: Path, *, images: int, rounds: int, epochs: int, device: Device, batch: int) -> Compared:
    """Train ``epochs`` epochs all three ways, taking turns; the medians of the rounds count.

    The plain loop is of batch 1, with ``batch`` steps accumulated. Pixels are prepared beforehand for all.
    """
    model = make_base(folder / "base")
    examples = make_examples(folder, images)
    recipe = AdapterRecipe(epochs=epochs, patience=epochs, dropout=0.0, batch=batch)
    times: dict[str, list[float]] = {"plain": [], "ours": [], "bare": [], "features": []}
    losses: dict[str, list[float]] = {}
    for turn in range(rounds):
        base = load_base(model, device)
        cache = folder / f"features-{turn}"
        began = _clock(device)
        features = compute_features(base, examples, cache, 4096, lambda _: None, lambda: False)
        times["features"].append(_clock(device) - began)
        fresh = _Side(base, examples, features, recipe, folder / f"checkpoints-{turn}", device)
        for name, train in (("ours", _Side.ours), ("plain", _Side.plain), ("bare", _Side.bare)):
            # Each on a base of its own: training puts an adapter into it.
            seconds, losses[name] = train(replace(fresh, base=load_base(model, device)))
            times[name].append(seconds / epochs)
        shutil.rmtree(fresh.checkpoints)
    middle = {name: float(np.median(values)) for name, values in times.items()}
    return Compared(
        **middle,
        plain_losses=losses["plain"],
        our_losses=losses["ours"],
        pairs=images * QUESTIONS,
        parameters=sum(weights.numel() for weights in base.model.parameters()),
    )


def _clock(device: Device) -> float:
    """Return processor time, which other work does not change; with a GPU, which works aside, the time."""
    if device.kind == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


@dataclass(frozen=True)
class _Side:
    base: Base
    examples: Sequence[Example]
    features: Features
    recipe: AdapterRecipe
    checkpoints: Path
    device: Device

    def rows(self, split: str) -> list[Row]:
        return [
            encode(self.base, key_of(self.base, example.sha256, pair.question), pair)
            for example in self.examples
            if example.split == split
            for pair in example.pairs
        ]

    def fit(self) -> AdapterFit:
        return AdapterFit(
            self.base,
            self.rows("train"),
            self.rows("validation"),
            self.features,
            self.recipe,
            self.checkpoints,
            "benchmark",
        )

    def ours(self) -> tuple[float, list[float]]:
        """Train as the plugin does, checkpoints included; the validation part is one answer."""
        fit = self.fit()
        began = _clock(self.device)
        state = fit.run(lambda *_: None, lambda _: None, lambda: False)
        return _clock(self.device) - began, [entry["loss"] for entry in state.history]

    def plain(self) -> tuple[float, list[float]]:
        """Train by transformers' Trainer over PEFT, which looks at the image anew in every step."""
        rows, adapted = self.rows("train"), add_adapter(self.base, self.recipe)
        pixels = {
            example.sha256: self.base.processor.image_processor(picture(example.path), return_tensors="pt")[
                "pixel_values"
            ]
            for example in self.examples
        }
        order = _Order(rows, self.recipe)
        arguments = TrainingArguments(
            output_dir=str(self.checkpoints / "plain"),
            num_train_epochs=self.recipe.epochs,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=self.recipe.batch,
            learning_rate=self.recipe.rate,
            max_grad_norm=0.0,
            logging_strategy="epoch",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=self.device.kind == "cpu",
        )
        trainer = _Plain(
            order, model=adapted, args=arguments, train_dataset=_Pairs(rows), data_collator=_collator(self.base, pixels)
        )
        trainer.remove_callback(PrinterCallback)
        began = _clock(self.device)
        trainer.train()
        return _clock(self.device) - began, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    def bare(self) -> tuple[float, list[float]]:
        """Go forward, back and on with the language model alone, over embeddings that are there already."""
        fit = self.fit()
        model, base = self.base.model.language_model.train(), self.base
        weights = [one for one in model.parameters() if one.requires_grad]
        optimiser = torch.optim.AdamW(weights, lr=self.recipe.rate, weight_decay=0.0, fused=True)
        ready = []
        for rows in _Order(fit.train, self.recipe).batches(1):
            batch = collate(base, rows)
            embeddings = model.get_input_embeddings()(batch.tokens)
            image = (batch.tokens == base.model.config.image_token_index)[..., None]
            seen = self.features.of([row.features for row in rows], base.device)
            ready.append((embeddings.masked_scatter(image, seen), batch))
        began, losses = _clock(self.device), []
        for _ in range(self.recipe.epochs):
            total = 0.0
            for embeddings, batch in ready:
                logits = model(
                    inputs_embeds=embeddings, attention_mask=batch.mask, logits_to_keep=batch.kept, use_cache=False
                ).logits
                loss = torch.nn.functional.cross_entropy(
                    logits[:, :-1].flatten(0, 1), batch.labels[:, 1 - batch.kept :].flatten()
                )
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total += loss.item()
            losses.append(total / len(ready))
        return _clock(self.device) - began, losses


class _Order(Sampler[int]):
    """The order in which the plugin takes the rows, one epoch after the other."""

    def __init__(self, rows: Sequence[Row], recipe: AdapterRecipe) -> None:
        self._rows, self._recipe, self._epoch = rows, recipe, 0

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[int]:
        self._epoch += 1
        return iter(self.of(self._epoch))

    def of(self, epoch: int) -> list[int]:
        """Return the order of an epoch; within a step it does not matter."""
        generator = torch.Generator().manual_seed(self._recipe.seed_of(epoch))
        order: list[int] = torch.randperm(len(self._rows), generator=generator).tolist()
        return order

    def batches(self, epoch: int) -> list[list[Row]]:
        """Return the rows of each step."""
        order, size = self.of(epoch), self._recipe.effective_batch
        return [[self._rows[at] for at in order[begin : begin + size]] for begin in range(0, len(order), size)]


class _Pairs(Dataset[Row]):
    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: int) -> Row:
        return self._rows[at]


def _collator(base: Base, pixels: dict[str, torch.Tensor]) -> Any:
    def collator(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        batch = collate(base, rows)
        images = torch.cat([pixels[row.features] for row in rows]).to(base.device)
        return {
            "pixel_values": images,
            "input_ids": batch.tokens,
            "attention_mask": batch.mask,
            "labels": batch.labels,
        }

    return collator


class _Plain(Trainer):  # type: ignore[misc]
    def __init__(self, order: _Order, **words: Any) -> None:
        self._order = order
        super().__init__(**words)

    def _get_train_sampler(self, *_: Any) -> _Order:
        return self._order
