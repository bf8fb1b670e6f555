"""The client of the log."""

from __future__ import annotations

from typing import Any

from clinic_ai.control.client import Client
from clinic_ai.control.log_views import ChangesView, Level, LogPage


class LogClient(Client):
    """Talks to the daemon of one home about its log; raises what ``Client`` raises."""

    def log(
        self,
        *,
        after: int | None = None,
        words: str = "",
        study: str | None = None,
        run: str | None = None,
        job: str | None = None,
        worker: str | None = None,
        level: Level = Level.DEBUG,
        limit: int = 500,
    ) -> LogPage:
        """Return lines of the log: those after a number, or without one the newest."""
        query: dict[str, Any] = {"words": words, "level": level.value, "limit": limit}
        optional = {"after": after, "study": study, "run": run, "job": job, "worker": worker}
        return self._get("/v1/log", LogPage, query | {k: v for k, v in optional.items() if v is not None})

    def changes(self, *, after: int | None = None, limit: int = 200) -> ChangesView:
        """Return changes that the audit records: those after a number, or without one the newest."""
        query: dict[str, Any] = {"limit": limit}
        return self._get("/v1/changes", ChangesView, query if after is None else query | {"after": after})
