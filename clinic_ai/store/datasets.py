"""Frozen datasets, and the split of each patient for life."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar

from sqlalchemy import Connection, Row, func, insert, select, update

from clinic_ai.contract import Dataset, Example
from clinic_ai.domain import Key, Lineage, Sha256, Word
from clinic_ai.errors import NotFound
from clinic_ai.store.audit import record
from clinic_ai.store.tables import datasets, patient_splits, runs

Split = Literal["train", "validation", "test"]
_Item = TypeVar("_Item")


class Placed(NamedTuple):
    """The part an image is in, one dataset that has it there, and the key of its patient in that."""

    split: Split
    dataset_id: str
    patient_key: str


class DatasetView(Word):
    """A frozen dataset as people see it; ``images`` and ``patients`` count by split."""

    dataset_id: str
    plugin: Key
    digest: Sha256
    images: dict[str, int]
    patients: dict[str, int]
    notes: tuple[str, ...]
    created_at: float
    category: str = ""
    lineage: Lineage = Lineage()
    """Without its marks."""
    runs: tuple[str, ...] = ()
    """Ids of the training runs that learned from it, oldest first."""


def splits_of(connection: Connection, plugin: str) -> dict[str, Split]:
    """Return the split of every patient key that was ever assigned one."""
    query = select(patient_splits.c.patient_key, patient_splits.c.split).where(patient_splits.c.plugin == plugin)
    return {row.patient_key: row.split for row in connection.execute(query)}


def assign_splits(connection: Connection, plugin: str, fresh: Mapping[str, Split]) -> None:
    """Assign the split of patients who have none; the primary key refuses a second one."""
    rows = [
        {"plugin": plugin, "patient_key": key, "split": split, "assigned_at": time.time()}
        for key, split in fresh.items()
    ]
    if rows:
        connection.execute(insert(patient_splits), rows)


def add_dataset(connection: Connection, dataset: Dataset, lineage: Lineage, actor: str) -> None:
    """Freeze a dataset with what it was made of.

    Its examples are stored without paths: where the images lie is for the home to say.
    """
    examples = tuple(_without_paths(example) for example in dataset.examples)
    connection.execute(
        insert(datasets).values(
            dataset_id=dataset.dataset_id,
            plugin=dataset.plugin,
            digest=dataset.digest,
            document=dataset.model_copy(update={"examples": examples}).model_dump_json(),
            created_at=time.time(),
            lineage=lineage.model_dump_json(),
        )
    )
    record(
        connection,
        actor=actor,
        action="dataset.frozen",
        subject=dataset.dataset_id,
        details={  # no path: folders may be named after patients
            "plugin": dataset.plugin,
            "digest": dataset.digest,
            "images": len(examples),
            "sources": lineage.images,
            "left_out": {f"{left.what}.{left.reason.value}": left.count for left in lineage.left_out},
        },
    )


def _without_paths(example: Example) -> Example:
    beside = tuple(one.model_copy(update={"path": ""}) for one in example.beside)
    return example.model_copy(update={"path": "", "beside": beside})


def lineage_of(connection: Connection, dataset_id: str) -> Lineage:
    """Return what a dataset was made of. Raise NotFound if there is none of that id."""
    text = connection.execute(select(datasets.c.lineage).where(datasets.c.dataset_id == dataset_id)).scalar()
    if text is None:
        raise _not_found(dataset_id)
    return Lineage.model_validate_json(text)


def found_again(connection: Connection, dataset_id: str, lineage: Lineage, actor: str) -> None:
    """Note that the same dataset came of other sources too, and what was looked at for it."""
    known = lineage_of(connection, dataset_id)
    wider = known.model_copy(
        update={
            "reviews": _joined(known.reviews, lineage.reviews),
            "folders": _joined(known.folders, lineage.folders),
            "seen": _joined(known.seen, lineage.seen),
        }
    )
    if wider == known:
        return
    connection.execute(
        update(datasets).where(datasets.c.dataset_id == dataset_id).values(lineage=wider.model_dump_json())
    )
    record(
        connection,
        actor=actor,
        action="dataset.found_again",
        subject=dataset_id,
        details={"looked_at": len(wider.seen)},
    )


def newest(connection: Connection, plugin: str, category: str) -> str | None:
    """Return the id of the newest dataset of a plugin about a category, None if there is none."""
    about = func.coalesce(func.json_extract(datasets.c.document, "$.category"), "")
    query = select(datasets.c.dataset_id).where(datasets.c.plugin == plugin, about == category)
    return connection.execute(query.order_by(datasets.c.created_at.desc(), datasets.c.dataset_id).limit(1)).scalar()


def get_dataset(connection: Connection, dataset_id: str) -> Dataset:
    """Return a dataset, its paths empty. Raise NotFound if there is none of that id."""
    text = connection.execute(select(datasets.c.document).where(datasets.c.dataset_id == dataset_id)).scalar()
    if text is None:
        raise _not_found(dataset_id)
    return Dataset.model_validate_json(text)


def find_digest(connection: Connection, plugin: str, digest: str) -> str | None:
    """Return the id of the dataset with this content, None if there is none."""
    query = select(datasets.c.dataset_id).where(datasets.c.plugin == plugin, datasets.c.digest == digest)
    return connection.execute(query).scalar()


def splits_of_images(connection: Connection, plugin: str, but: str = "") -> dict[str, Placed]:
    """Return where every image of the plugin's datasets is, those of the dataset ``but`` left out."""
    query = select(datasets.c.dataset_id, datasets.c.document).where(
        datasets.c.plugin == plugin, datasets.c.dataset_id != but
    )
    found: dict[str, Placed] = {}
    for row in connection.execute(query):
        for example in json.loads(row.document)["examples"]:
            found[example["sha256"]] = Placed(example["split"], row.dataset_id, example["patient_key"])
    return found


def stamp(connection: Connection) -> tuple[int, float]:
    """Return what changes whenever a dataset is added."""
    row = connection.execute(select(func.count(), func.max(datasets.c.created_at))).one()
    return int(row[0]), float(row[1] or 0.0)


def all_images(connection: Connection) -> frozenset[str]:
    """Return the hashes of all images of all datasets."""
    documents = connection.execute(select(datasets.c.document)).scalars()
    return frozenset(example["sha256"] for text in documents for example in json.loads(text)["examples"])


def list_datasets(connection: Connection, limit: int | None = None, before: str | None = None) -> list[DatasetView]:
    """Return all datasets, newest first; or ``limit`` of them, after ``before``. Raise NotFound if that is none."""
    used = _runs_of(connection)
    query = select(datasets).order_by(datasets.c.created_at.desc(), datasets.c.dataset_id)
    if before is not None:
        at = get_view(connection, before).created_at
        later = (datasets.c.created_at == at) & (datasets.c.dataset_id > before)
        query = query.where((datasets.c.created_at < at) | later)
    return [_view(row, used) for row in connection.execute(query.limit(limit))]


def find_view(connection: Connection, dataset_id: str) -> DatasetView | None:
    """Return a dataset as people see it, None if there is none of that id."""
    row = connection.execute(select(datasets).where(datasets.c.dataset_id == dataset_id)).first()
    return None if row is None else _view(row, _runs_of(connection))


def get_view(connection: Connection, dataset_id: str) -> DatasetView:
    """Return one dataset as people see it. Raise NotFound if there is none of that id."""
    found = find_view(connection, dataset_id)
    if found is None:
        raise _not_found(dataset_id)
    return found


def newer_labels(connection: Connection, dataset_id: str) -> dict[str, dict[str, int]]:
    """Return the labels that later datasets of the same plugin give their images; what the newest says counts."""
    this = select(datasets.c.plugin, datasets.c.created_at).where(datasets.c.dataset_id == dataset_id).subquery()
    query = select(datasets.c.document).join(
        this, (datasets.c.plugin == this.c.plugin) & (datasets.c.created_at > this.c.created_at)
    )
    found: dict[str, dict[str, int]] = {}
    for text in connection.execute(query.order_by(datasets.c.created_at)).scalars():
        for example in json.loads(text)["examples"]:
            found.setdefault(example["sha256"], {}).update(example["labels"])
    return found


def _runs_of(connection: Connection) -> dict[str, tuple[str, ...]]:
    """Return the ids of the runs of each dataset."""
    used: dict[str, tuple[str, ...]] = {}
    for row in connection.execute(select(runs.c.dataset_id, runs.c.run_id).order_by(runs.c.created_at, runs.c.run_id)):
        used[row.dataset_id] = (*used.get(row.dataset_id, ()), row.run_id)
    return used


def _view(row: Row[Any], used: Mapping[str, tuple[str, ...]]) -> DatasetView:
    dataset = Dataset.model_validate_json(row.document)
    patients = {(example.split, example.patient_key) for example in dataset.examples}
    return DatasetView(
        dataset_id=dataset.dataset_id,
        plugin=dataset.plugin,
        digest=dataset.digest,
        images=_count(example.split for example in dataset.examples),
        patients=_count(split for split, _ in patients),
        notes=dataset.notes,
        created_at=row.created_at,
        category=dataset.category,
        lineage=Lineage.model_validate_json(row.lineage).model_copy(update={"seen": ()}),
        runs=used.get(dataset.dataset_id, ()),
    )


def _not_found(dataset_id: str) -> NotFound:
    return NotFound(f"There is no dataset {dataset_id}.", remedy="`clinic-ai dataset list` shows those there are.")


def _joined(known: tuple[_Item, ...], more: tuple[_Item, ...]) -> tuple[_Item, ...]:
    return tuple(dict.fromkeys((*known, *more)))


def _count(splits: Iterable[str]) -> dict[str, int]:
    counts = {"train": 0, "validation": 0, "test": 0}
    for split in splits:
        counts[split] += 1
    return counts
