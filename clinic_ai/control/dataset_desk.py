"""The routes about frozen datasets."""

from __future__ import annotations

from fastapi import APIRouter

from clinic_ai.control.asking import Administrator, Content, Having, Id
from clinic_ai.control.dataset_views import DatasetCheckView, DatasetRow, DatasetView
from clinic_ai.control.orders import DatasetDesk

router = APIRouter(prefix="/v1/datasets", tags=["training"])


@router.get("")
def get_datasets(services: Having) -> list[DatasetRow]:
    """Return all frozen datasets, newest first."""
    return list(DatasetDesk(services.runs.datasets).datasets())


@router.get("/{dataset_id}")
def get_dataset(
    dataset_id: Id,
    services: Having,
    person: Administrator,  # noqa: ARG001 - the role
    there: Content,  # noqa: ARG001 - on the control socket: notes name files, and files are named after patients
) -> DatasetView:
    """Return where a dataset comes from, what was left out, and what it holds."""
    return DatasetDesk(services.runs.datasets).dataset(dataset_id)


@router.post("/{dataset_id}/check")
def check_dataset(dataset_id: Id, services: Having, person: Administrator) -> DatasetCheckView:  # noqa: ARG001
    """Read the images of a dataset again and say what is wrong with it."""
    return DatasetDesk(services.runs.datasets).check_dataset(dataset_id)
