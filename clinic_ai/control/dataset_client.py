"""The client of frozen datasets."""

from __future__ import annotations

from clinic_ai.control.client import LONG_S, Client, segment
from clinic_ai.control.dataset_views import DatasetCheckView, DatasetRow, DatasetView


class DatasetClient(Client):
    """Talks to the daemon of one home about datasets; raises what ``Client`` raises."""

    def datasets(self) -> tuple[DatasetRow, ...]:
        """Return all datasets, newest first."""
        return tuple(self._get("/v1/datasets", list[DatasetRow]))

    def dataset(self, dataset_id: str) -> DatasetView:
        """Return all that is known of a dataset. Raise NotFound or NotAllowed."""
        return self._get(f"/v1/datasets/{segment(dataset_id, 'dataset')}", DatasetView)

    def check_dataset(self, dataset_id: str) -> DatasetCheckView:
        """Have the images of a dataset read again. Raise NotFound or NotAllowed."""
        place = f"/v1/datasets/{segment(dataset_id, 'dataset')}/check"
        return self._post(place, None, DatasetCheckView, timeout_s=LONG_S)
