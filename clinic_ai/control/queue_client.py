"""The client of the queue."""

from __future__ import annotations

from typing import Any

from clinic_ai.control.client import Client
from clinic_ai.control.queue_views import QueuePage
from clinic_ai.domain import QueueSort


class QueueClient(Client):
    """Talks to the daemon of one home about the queue; raises what ``Client`` raises."""

    def queue(
        self,
        *,
        sort: QueueSort = QueueSort.ARRIVAL,
        reverse: bool = False,
        words: str = "",
        offset: int = 0,
        limit: int = 100,
        study_id: str | None = None,
        version: int | None = None,
    ) -> QueuePage:
        """Return ``limit`` studies of the queue from place ``offset``, and where a study stands in it."""
        query: dict[str, Any] = {
            "sort": sort.value,
            "reverse": reverse,
            "words": words,
            "offset": offset,
            "limit": limit,
        }
        asked = {"study": study_id, "version": version}
        return self._get("/v1/queue", QueuePage, query | {k: v for k, v in asked.items() if v is not None})
