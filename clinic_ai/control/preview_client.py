"""The client of pictures of studies."""

from __future__ import annotations

from typing import Any

from clinic_ai.control.client import Client, segment
from clinic_ai.control.preview_views import PreviewView


class PreviewClient(Client):
    """Talks to the daemon of one home about pictures; raises what ``Client`` raises."""

    def preview(
        self,
        study_id: str,
        *,
        columns: int,
        rows: int,
        stack: int = 1,
        image: int = 1,
        preset: str = "",
        window: tuple[float, float] | None = None,
        overlay: bool = False,
        reader: str = "",
    ) -> PreviewView:
        """Return a picture of an image, just ``columns`` × ``rows`` pixels; ``window`` is centre and width.

        Raise NotFound, NotAllowed, Conflict if a newer request of this reader took its place, or ChildError.
        """
        query: dict[str, Any] = {
            "columns": columns,
            "rows": rows,
            "stack": stack,
            "image": image,
            "preset": preset,
            "overlay": overlay,
            "reader": reader,
        }
        if window is not None:
            query |= {"centre": window[0], "width": window[1]}
        return self._get(f"/v1/studies/{segment(study_id, 'study')}/preview", PreviewView, query)
