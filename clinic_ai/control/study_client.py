"""The client of one study in depth."""

from __future__ import annotations

from clinic_ai.control.client import Client, segment
from clinic_ai.control.study_views import FindingsView, HistoryView, SeriesView


class StudyClient(Client):
    """Talks to the daemon of one home about one study; raises what ``Client`` raises."""

    def series(self, study_id: str) -> SeriesView:
        """Return the series of a study, as its pictures are numbered. Raise NotFound."""
        return self._get(f"/v1/studies/{segment(study_id, 'study')}/series", SeriesView)

    def findings(self, study_id: str) -> FindingsView:
        """Return the findings that the guard released. Raise NotFound or NotAllowed."""
        return self._get(f"/v1/studies/{segment(study_id, 'study')}/findings", FindingsView)

    def history(self, study_id: str, *, limit: int = 200) -> HistoryView:
        """Return what happened to a study, the newest first. Raise NotFound."""
        return self._get(f"/v1/studies/{segment(study_id, 'study')}/history", HistoryView, {"limit": limit})
