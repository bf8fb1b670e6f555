"""Label sets as data: which labels a data set gives, and a mask for those of the network that it does not have."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from clinic_ai.errors import DatasetError

CONDITION_OF = {"fibrosis": "fibrotic_sequela"}
"""Labels that the table of codes has under another key."""
CODED = {condition: label for label, condition in CONDITION_OF.items()}
"""The label of each of those conditions."""
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Label:
    """One label: its ``key`` in the core's table of codes, and its ``name``, the column of the set's own table."""

    key: str
    name: str


@dataclass(frozen=True)
class LabelSet:
    """What one data set labels, in the order of its table."""

    name: str
    title: str
    labels: tuple[Label, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the labels, in order."""
        return tuple(label.key for label in self.labels)

    def by_key(self, row: Mapping[str, int | None]) -> dict[str, int]:
        """Return a row of the set's table by keys instead of column names; empty cells are left out.

        Columns that are no label, such as the name of the volume, are passed over. Raise DatasetError if a label is
        neither 0 nor 1.
        """
        found: dict[str, int] = {}
        for label in self.labels:
            value = row.get(label.name)
            if value is None:
                continue
            if value not in {0, 1}:
                raise DatasetError(f"The label {label.name!r} of the set {self.name} is {value!r}; it must be 0 or 1.")
            found[label.key] = int(value)
        return found


@dataclass(frozen=True)
class Targets:
    """What a network learns of one example: ``values`` (L,) 0 or 1, and ``known`` (L,), 0 where nothing is known."""

    values: Floats
    known: Floats


def targets(network_labels: Sequence[str], labels: Mapping[str, int]) -> Targets:
    """Return the targets of a network with ``network_labels`` from what an example says by key.

    A label that the example does not have is masked, never taken as absent. Keys that the network does not have are
    passed over: data sets label more than one network learns.
    """
    known = np.array([key in labels for key in network_labels], dtype=np.float32)
    values = np.array([labels.get(key, 0) for key in network_labels], dtype=np.float32)
    return Targets(values, known)


def class_weights(examples: Iterable[Targets], *, limit: float = 20.0) -> Floats:
    """Return the weight (L,) of the positives of each label: known negatives by known positives, 1/limit to limit.

    A label without a positive, or without a negative, gets 1: there is nothing to balance.
    """
    found = list(examples)
    if not found:
        raise DatasetError("There are no examples to weigh the classes by.")
    positives = np.sum([one.values * one.known for one in found], axis=0)
    negatives = np.sum([(1 - one.values) * one.known for one in found], axis=0)
    ratio = np.ones_like(positives)
    np.divide(negatives, positives, out=ratio, where=(positives > 0) & (negatives > 0))
    weights: Floats = np.clip(ratio, 1 / limit, limit).astype(np.float32)
    return weights


@cache
def label_sets() -> dict[str, LabelSet]:
    """Return the label sets that are known, by name."""
    return {
        name: LabelSet(name, one["title"], tuple(Label(**label) for label in one["labels"]))
        for name, one in _table()["sets"].items()
    }


@cache
def label_texts() -> dict[str, str]:
    """Return what the text encoder reads for each label, by key; every label of every set has one."""
    return dict(_table()["texts"])


def all_labels() -> tuple[str, ...]:
    """Return the keys of all sets, each once, in the order of the sets."""
    return tuple(dict.fromkeys(key for one in label_sets().values() for key in one.keys))


def _table() -> dict[str, Any]:
    return tomllib.loads(files("clinic_ai_ct").joinpath("label_sets.toml").read_text(encoding="utf-8"))
