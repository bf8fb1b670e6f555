"""Frozen datasets through the API: rows for everybody, files and folders for administrators on the control socket."""

from __future__ import annotations

import pytest
from control_room import Room

from clinic_ai.contract import Dataset, Example
from clinic_ai.control.dataset_client import DatasetClient
from clinic_ai.domain import FolderOrigin, Lineage
from clinic_ai.errors import NotAllowed, NotFound
from clinic_ai.store.datasets import add_dataset, assign_splits
from clinic_ai.training.datasets import digest_of


def frozen(room: Room) -> str:
    """Freeze a dataset whose images are gone."""
    examples = tuple(
        Example(path="", sha256=f"{n:064x}", patient_key=f"p{n}", labels={"gout": n % 2}, split=split)
        for n, split in enumerate(("train", "train", "validation", "test"))
    )
    lineage = Lineage(folders=(FolderOrigin(path="/srv/anna", given_by="ada"),), images={"reviews": 1, "labels": 3})
    dataset = Dataset(
        dataset_id="D-1",
        plugin="echo",
        digest=digest_of(examples),
        examples=examples,
        notes=("anna.png was left out.",),
    )
    with room.database.write() as c:
        assign_splits(c, "echo", {example.patient_key: example.split for example in examples})
        add_dataset(c, dataset, lineage, "ada")
    return dataset.dataset_id


def test_datasets_are_listed_shown_and_checked(room: Room) -> None:
    dataset_id = frozen(room)
    with DatasetClient(room.home) as client:
        [row] = client.datasets()
        assert (row.images, row.sources) == ({"train": 2, "validation": 1, "test": 1}, {"reviews": 1, "labels": 3})
        assert "anna" not in row.model_dump_json()
        found = client.dataset(dataset_id)
        assert (found.row, found.notes, found.folders[0].path) == (row, ("anna.png was left out.",), "/srv/anna")
        [problem] = client.check_dataset(dataset_id).problems
        assert problem.startswith("4 images are missing or not what was frozen")
        with pytest.raises(NotFound, match="There is no dataset D-2"):
            client.dataset("D-2")


def test_the_monitor_socket_tells_of_no_file(room: Room) -> None:
    dataset_id = frozen(room)
    with DatasetClient(room.home, monitor=True) as client:
        assert len(client.datasets()) == 1
        with pytest.raises(NotAllowed):
            client.dataset(dataset_id)
        with pytest.raises(NotAllowed):
            client.check_dataset(dataset_id)
