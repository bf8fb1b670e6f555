"""What the API answers about pictures of a study. They are content: for clinicians, on the control socket."""

from __future__ import annotations

import base64

from clinic_ai.control.views import View


class WindowView(View):
    """Which values a picture shows from black to white, in ``unit`` (HU, or empty if the file has one of its own)."""

    centre: float
    width: float
    unit: str = ""


class PreviewView(View):
    """A small picture of one image: ``pixels`` is red, green and blue of ``columns`` × ``rows`` pixels, in base64.

    It is ``image`` of the ``images`` of a stack, numbered from 1, and frame ``frame`` of ``frames`` of its file.
    ``line`` says how the stack lies, ``position_mm`` where on its normal this image does. ``edges`` are the letters
    at the top, right, bottom and left. ``presets`` are the windows that may be named; ``overlays`` what may be laid
    over it, ``overlay`` what is, and ``overlay_note`` why not.
    """

    study_id: str
    version: int
    stack: int
    stacks: int
    image: int
    images: int
    frame: int
    frames: int
    line: str
    position_mm: float | None
    columns: int
    rows: int
    pixels: str
    colour: bool
    window: WindowView | None
    edges: tuple[str, str, str, str]
    presets: tuple[str, ...]
    overlay: str
    overlays: tuple[str, ...]
    overlay_note: str
    remarks: tuple[str, ...]

    def rgb(self) -> bytes:
        """Return the pixels: three bytes each, row by row."""
        return base64.b64decode(self.pixels)
