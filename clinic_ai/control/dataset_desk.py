"""The routes about frozen datasets."""

from __future__ import annotations

from fastapi import APIRouter

from clinic_ai.control.asking import Administrator, Content, Having, Id
from clinic_ai.control.dataset_views import DatasetCheckView, DatasetView, row_of
from clinic_ai.control.orders import DatasetDesk
from clinic_ai.control.pages import DatasetPage
from clinic_ai.control.paging import Before, Limit
from clinic_ai.control.slowly import ORDERS, slowly

router = APIRouter(prefix="/v1/datasets", tags=["training"])


@router.get("")
def get_datasets(services: Having, limit: Limit = 100, before: Before = None) -> DatasetPage:
    """Return frozen datasets, newest first."""
    rows = tuple(map(row_of, services.runs.datasets.list_datasets(limit, before)))
    return DatasetPage(datasets=rows, next_before=rows[-1].dataset_id if len(rows) == limit else None)


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
@slowly(ORDERS)
def check_dataset(dataset_id: Id, services: Having, person: Administrator) -> DatasetCheckView:  # noqa: ARG001
    """Read the images of a dataset again and say what is wrong with it."""
    return DatasetDesk(services.runs.datasets).check_dataset(dataset_id)
