"""The client of frozen datasets."""

from __future__ import annotations

from collections.abc import Sequence

from clinic_ai.control.client import LONG_S, Client, all_pages, page_query, segment
from clinic_ai.control.dataset_views import DatasetCheckView, DatasetRow, DatasetView
from clinic_ai.control.pages import DatasetPage


class DatasetClient(Client):
    """Talks to the daemon of one home about datasets; raises what ``Client`` raises."""

    def datasets(self) -> tuple[DatasetRow, ...]:
        """Return all datasets, newest first."""

        def fetch(before: str | None) -> tuple[Sequence[DatasetRow], str | None]:
            page = self._get("/v1/datasets", DatasetPage, page_query(before))
            return page.datasets, page.next_before

        return tuple(all_pages(fetch))

    def dataset(self, dataset_id: str) -> DatasetView:
        """Return all that is known of a dataset. Raise NotFound or NotAllowed."""
        return self._get(f"/v1/datasets/{segment(dataset_id, 'dataset')}", DatasetView)

    def check_dataset(self, dataset_id: str) -> DatasetCheckView:
        """Have the images of a dataset read again. Raise NotFound or NotAllowed."""
        place = f"/v1/datasets/{segment(dataset_id, 'dataset')}/check"
        return self._post(place, None, DatasetCheckView, timeout_s=LONG_S)
