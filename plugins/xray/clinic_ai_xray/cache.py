"""What the frozen part of a model makes of the images of a dataset: computed once, kept in shards on disk.

View 0 of an image is the image, view 1 its mirror; further ones are turned, shifted, zoomed and changed in contrast by
chance, which follows from the image's hash. Images of the training part have the recipe's views, others the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from clinic_ai.contract import Example
from clinic_ai.errors import DatasetError, InputError, ModelError
from clinic_ai.ml.checkpoints import write_durably
from clinic_ai_xray import distance
from clinic_ai_xray.data import PREPROCESSING_VERSION, in_threads, read_input
from clinic_ai_xray.fitting import Recipe, augment
from clinic_ai_xray.served import ServedModel
from clinic_ai_xray.tiers import Tier

Array = npt.NDArray[np.float32]

SPLITS = ("train", "validation", "test")
_EACH = 4
"""Images for each thread between two looks at whether to stop."""
_CACHE_VERSION = 3
_TAKEN = 256
"""Rows of activations in memory at once where all of them are gone through."""


class Stopped(Exception):
    """The run was asked to stop while images were read; whole shards are kept."""


class Activations:
    """Activations (images, views, …) in shards; rows are read from disk when they are taken."""

    def __init__(self, shards: Sequence[Any], rows: list[tuple[int, int]], views: int) -> None:
        """``rows`` are (shard, row in it); a shard is indexed by (row, view)."""
        self._shards, self._rows, self.views = shards, rows, views

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, rows: Tensor, views: Tensor) -> Tensor:
        """Return float32 (rows, …): of each image the given view."""
        places = [(*self._rows[row], view) for row, view in zip(rows.tolist(), views.tolist(), strict=True)]
        found = np.stack([self._shards[shard][row, view] for shard, row, view in places])
        return torch.from_numpy(found.astype(np.float32, copy=False))

    def view(self, number: int) -> Iterator[Tensor]:
        """Yield one view of all images, in batches."""
        for begin in range(0, len(self), _TAKEN):
            rows = torch.arange(begin, min(begin + _TAKEN, len(self)))
            yield self.take(rows, torch.full_like(rows, number))


@dataclass(frozen=True)
class Part:
    """One part of the split: its readable examples, their activations, pooled features (images, views, features).

    The pooled features are those of the base as it is; training replaces them by those of what it has trained.
    ``looks`` (images, views, 128) tell what the images look like.
    """

    examples: tuple[Example, ...]
    activations: Activations
    pooled: Array
    looks: Array

    def labels(self, condition: str) -> Array:
        """Return the labels (images,), 0 or 1."""
        return np.array([example.labels[condition] for example in self.examples], dtype=np.float32)

    def patients(self) -> list[str]:
        """Return the patient of each image."""
        return [example.patient_key for example in self.examples]


def compute_parts(
    base: ServedModel,
    examples: list[Example],
    cache: Path,
    views: int,
    report: Callable[[int], None],
    stop: Callable[[], bool],
    computed: Callable[[int], None] = lambda _: None,
) -> tuple[dict[str, Part], int]:
    """Return the parts of the split, and how many images could not be read; ``report`` is told how many are done.

    ``computed`` is told how many views the network has looked at, each time it has.

    Shards below ``cache`` are not computed again; the name of a shard follows from the base, the preparation, the
    views and the images. Raise Stopped if ``stop`` says so, DatasetError if no image can be read.
    """
    cache.mkdir(parents=True, exist_ok=True)
    tier = base.training_tier
    parts: dict[str, Part] = {}
    done = 0
    for split in SPLITS:
        chosen = [example for example in examples if example.split == split]
        count = views if split == "train" else 1
        shards: list[Any] = []
        rows, readable = [], []
        pooled = [np.zeros((0, count, tier.features), dtype=np.float32)]
        looks = [np.zeros((0, count, distance.LOOK), dtype=np.float32)]
        for begin in range(0, len(chosen), tier.shard):
            of_shard = chosen[begin : begin + tier.shard]
            opened = _shard(base, of_shard, cache, count, stop, computed)
            kept = np.flatnonzero(opened.get_tensor("readable"))
            features = opened.get_tensor("features")
            rows += [(len(shards), int(row)) for row in kept]
            readable += [of_shard[row] for row in kept]
            pooled.append(features[kept])
            looks.append(opened.get_tensor("looks")[kept])
            shards.append(features if tier.cached == "features" else opened.get_slice(tier.cached))
            done += len(of_shard)
            report(done)
        parts[split] = Part(
            tuple(readable), Activations(shards, rows, count), np.concatenate(pooled), np.concatenate(looks)
        )
    found = sum(len(part.examples) for part in parts.values())
    if not found:
        raise DatasetError("None of the images of the dataset can be read.")
    return parts, len(examples) - found


def _shard(
    base: ServedModel,
    examples: list[Example],
    cache: Path,
    views: int,
    stop: Callable[[], bool],
    computed: Callable[[int], None],
) -> Any:
    images = " ".join(example.sha256 for example in examples)
    key = f"{_CACHE_VERSION} {base.ref.digest} {PREPROCESSING_VERSION} {views} {images}"
    path = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
    try:
        return safe_open(path, "numpy")
    except (OSError, SafetensorError):
        pass  # not computed yet, or cut short
    rows: list[dict[str, npt.NDArray[Any]] | None] = []
    at_once = 1 if base.threads < 2 else _EACH * base.threads
    for begin in range(0, len(examples), at_once):
        if stop():
            raise Stopped
        # Each image goes its way alone: nothing depends on which others are beside it, or on the number of threads.
        some = examples[begin : begin + at_once]
        rows += in_threads(lambda example: _activations(base, example, views), some, base.threads)
        computed(views * len(some))
    tier = base.training_tier
    blank = _kept(
        tier, np.zeros((views, distance.LOOK)), np.zeros((views, tier.features)), np.zeros((views, *tier.cached_shape))
    )
    shard = {name: np.stack([(row or blank)[name] for row in rows]) for name in blank}
    shard["readable"] = np.array([row is not None for row in rows], dtype=np.float32)
    write_durably(path, save(shard))
    return safe_open(path, "numpy")


def _kept(
    tier: Tier, looks: npt.NDArray[Any], features: npt.NDArray[Any], cached: npt.NDArray[Any]
) -> dict[str, npt.NDArray[Any]]:
    """Return what a shard keeps of one image, each (views, …) and flat; pooled features are never rounded."""
    with np.errstate(over="ignore"):  # the caller refuses what is not finite
        flat = cached.reshape(len(cached), -1).astype(tier.kept_as)
    return {tier.cached: flat, "features": features.astype(np.float32), "looks": looks.astype(np.float32)}


def _activations(base: ServedModel, example: Example, views: int) -> dict[str, npt.NDArray[Any]] | None:
    """Return what is kept of one image, None if it cannot be read. Raise ModelError if it does not fit its type."""
    tier = base.training_tier
    try:
        image = read_input(example.path, tier.side)
    except InputError:
        return None
    # One view at a time: the activations in between take more memory than a batch saves time.
    seen = views_of(image, example.sha256, views)
    found = [base.activations(view[None]) for view in seen]
    row = _kept(
        tier,
        distance.looks(seen),
        *(np.concatenate([each[name] for each in found]) for name in ("features", tier.cached)),
    )
    if not all(np.isfinite(values).all() for values in row.values()):
        raise ModelError(
            f"Model {base.ref.label()} cannot be trained on: its activations for image {example.sha256[:12]} are "
            f"beyond {tier.kept_as}."
        )
    return row


def views_of(image: Array, sha256: str, views: int) -> Array:
    """Return the views (views, 1, side, side) of an image (side, side)."""
    plain = np.stack([image, image[:, ::-1]])[:views, None]
    if views <= len(plain):
        return plain
    generator = torch.Generator().manual_seed(int(sha256[:12], 16))
    copies = torch.from_numpy(np.repeat(image[None, None], views - len(plain), axis=0))
    return np.concatenate([plain, augment(copies, Recipe(), generator).numpy()])
