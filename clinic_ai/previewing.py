"""What passes between the daemon and the child that makes small pictures for the terminal, and the usual windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, StringConstraints

from clinic_ai.domain import Probability, Segmentation, Word

MAX_COLUMNS, MAX_ROWS = 200, 120
"""Largest picture in pixels: a terminal of 200 columns and 60 lines, with two pixels in each cell."""
MIN_SIDE = 4
MAX_LEVEL = 1e6
"""Bound of centre and width of a window; Hounsfield units end at 65,536."""

Level = Annotated[float, Field(ge=-MAX_LEVEL, le=MAX_LEVEL, allow_inf_nan=False)]
Width = Annotated[float, Field(ge=1e-6, le=2 * MAX_LEVEL, allow_inf_nan=False)]
Edge = Annotated[str, StringConstraints(pattern=r"^[LRAPHF]{0,3}$")]
"""Where an edge of a picture lies in the patient: left, right, anterior, posterior, head, foot; empty if unknown."""


class Window(Word):
    """Which values a picture shows from black to white, in the unit of the file after its rescale (HU for CT)."""

    centre: Level
    width: Width


CT_WINDOWS: Mapping[str, Window] = {
    "soft": Window(centre=40, width=400),
    "lung": Window(centre=-600, width=1500),
    "bone": Window(centre=480, width=2500),
    "brain": Window(centre=40, width=80),
}
"""Windows in Hounsfield units by the tissue that they show well, as viewers usually have them."""


class PreviewOutline(Word):
    """Masks to outline: those of these segments, by number, on the slice at ``place``, from 0, of a segmentation."""

    path: str
    segmentation: Segmentation
    place: int = Field(ge=0)
    numbers: tuple[int, ...]


class PreviewTask(Word):
    """Make a picture of one frame, from 0, of a stored object: just ``columns`` × ``rows`` square pixels.

    Without a window that of the file is used; with ``own_range`` the range of its values without the extremes.
    ``extent`` is (top, left, bottom, right) in 0..1 of the image that the heat map covers.
    """

    path: str
    frame: int = 0
    columns: int = Field(ge=MIN_SIDE, le=MAX_COLUMNS)
    rows: int = Field(ge=MIN_SIDE, le=MAX_ROWS)
    window: Window | None = None
    own_range: bool = False
    heatmap_path: str | None = None
    extent: tuple[Probability, Probability, Probability, Probability] = (0.0, 0.0, 1.0, 1.0)
    outlines: tuple[PreviewOutline, ...] = ()


class PreviewResult(Word):
    """The picture: red, green and blue of each pixel, row by row, in base64; black around an image of another shape.

    ``window`` is the one that was used, None if there is none to use (in colour, or by a table of the file).
    ``right`` and ``bottom`` say where these edges lie in the patient, if the file says it in letters.
    """

    pixels: str = Field(max_length=MAX_COLUMNS * MAX_ROWS * 4)
    window: Window | None = None
    colour: bool = False
    right: Edge = ""
    bottom: Edge = ""
    overlaid: bool = False
    remarks: tuple[Annotated[str, StringConstraints(max_length=300, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")], ...] = Field(
        default=(), max_length=8
    )
