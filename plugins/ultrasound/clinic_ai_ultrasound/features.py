"""What the frozen part of the base makes of the images: computed once, before the first epoch, for all questions.

For BLIP-2 that is the output of vision tower, Q-Former and projection, one for each image. The Q-Former of an
InstructBLIP reads the question too, so there it is one for each question of an image.

It is kept in shards below the run directory, and in memory as well if there is room. A shard is named by all it follows
from: base, pixels, preparation, words. What an interrupted run has computed is not computed again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from clinic_ai.contract import Example
from clinic_ai.errors import DatasetError, InputError
from clinic_ai.ml.checkpoints import write_durably
from clinic_ai_ultrasound.answering import image_features, look
from clinic_ai_ultrasound.loading import Base
from clinic_ai_ultrasound.pictures import picture
from clinic_ai_ultrasound.prompts import PROMPT_VERSION

_CACHE_VERSION = 1
"""Goes up when the same files and the same base would give other numbers."""
_SHARD = 16
"""Images in one shard."""
_SHARE_OF_MEMORY = 0.25
"""Of the memory a run may use, for features; what takes more is read from the shards again and again."""
_MIB = 1 << 20


class Stopped(Exception):
    """The run was asked to stop while images were read; whole shards are kept."""


class Features(Mapping[str, torch.Tensor]):
    """Features (image tokens, width of the language model) by key, on the processor.

    A key that is not there is of an image that cannot be read.
    """

    def __init__(self, shards: Sequence[Path], memory_mb: int) -> None:
        """Open ``shards``; they are taken into memory if they fit into a quarter of ``memory_mb``."""
        size = sum(shard.stat().st_size for shard in shards)
        self.in_memory = size <= _SHARE_OF_MEMORY * memory_mb * _MIB
        opened: list[Any] = [safe_open(shard, "pt") for shard in shards]
        self._places = {key: shard for shard in opened for key in shard.keys()}  # noqa: SIM118 - it is no mapping
        self._held: dict[str, torch.Tensor] = (
            {key: shard.get_tensor(key) for key, shard in self._places.items()} if self.in_memory else {}
        )

    def __getitem__(self, key: str) -> torch.Tensor:
        found: torch.Tensor = self._held[key] if self.in_memory else self._places[key].get_tensor(key)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def of(self, keys: Sequence[str], device: torch.device) -> torch.Tensor:
        """Return the features (n, image tokens, width) of several keys."""
        return torch.stack([self[key] for key in keys]).to(device)


def key_of(base: Base, sha256: str, question: str) -> str:
    """Return the key of what an image says: of the image alone, or with the question where the Q-Former reads it."""
    if base.family == "blip2":
        return sha256
    return f"{sha256}-{hashlib.sha256(question.encode()).hexdigest()[:32]}"


def compute_features(
    base: Base,
    examples: Sequence[Example],
    cache: Path,
    memory_mb: int,
    report: Callable[[int], None],
    stop: Callable[[], bool],
    computed: Callable[[int], None] = lambda _: None,
) -> Features:
    """Return the features of all examples; ``report`` is told how many images are done.

    ``computed`` is told how many images the base has looked at, each time it has.

    Raise Stopped if ``stop`` says so, DatasetError if no image can be read.
    """
    cache.mkdir(parents=True, exist_ok=True)
    by_image = sorted(examples, key=lambda example: example.sha256)
    images = [list(same) for _, same in groupby(by_image, key=lambda example: example.sha256)]
    shards = []
    for begin in range(0, len(images), _SHARD):
        some = images[begin : begin + _SHARD]
        shards.append(_shard(base, some, cache, stop, computed))
        report(begin + len(some))
    features = Features(shards, memory_mb)
    if not features:
        raise DatasetError("None of the images of the dataset can be read.")
    return features


def _shard(
    base: Base,
    images: Sequence[Sequence[Example]],
    cache: Path,
    stop: Callable[[], bool],
    computed: Callable[[int], None],
) -> Path:
    asked = [(same[0], _questions(base, same)) for same in images]
    keys = " ".join(key_of(base, example.sha256, question) for example, questions in asked for question in questions)
    name = f"{_CACHE_VERSION} {base.ref.digest} {base.dtype} {base.quantisation} {PROMPT_VERSION} {keys}"
    path = cache / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.safetensors"
    try:
        with safe_open(path, "pt"):
            return path
    except (OSError, SafetensorError):
        pass  # not computed yet, or cut short
    rows: dict[str, torch.Tensor] = {}
    for example, questions in asked:
        if stop():
            raise Stopped
        rows |= _features(base, example, questions)
        computed(1)
    write_durably(path, save(rows))
    return path


def _questions(base: Base, same: Sequence[Example]) -> list[str]:
    """Return the questions that one image's features differ by: none but the first if they do not."""
    questions = list(dict.fromkeys(pair.question for example in same for pair in example.pairs))
    return questions[:1] if base.family == "blip2" else questions


def _features(base: Base, example: Example, questions: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return the features of one image by their keys, none if it cannot be read."""
    try:
        shown = picture(example.path)
    except InputError:
        return {}
    found = image_features(base, look(base, shown), questions).cpu()
    return {key_of(base, example.sha256, question): row.clone() for question, row in zip(questions, found, strict=True)}
