"""Small pictures of a study for the terminal: the route, for clinicians on the control socket."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from clinic_ai.control.asking import Content, Having
from clinic_ai.control.preview_views import PreviewView, WindowView
from clinic_ai.errors import InputError
from clinic_ai.previewing import MAX_COLUMNS, MAX_LEVEL, MAX_ROWS, MIN_SIDE, Window
from clinic_ai.results.previews import Preview, Wish

router = APIRouter(prefix="/v1/studies", tags=["pictures"])

_Number = Annotated[int, Query(ge=1, le=2**31)]


@router.get("/{study_id}/preview")
def get_preview(
    study_id: str,
    services: Having,
    person: Content,
    columns: Annotated[int, Query(ge=MIN_SIDE, le=MAX_COLUMNS, description="Pixels of a row.")] = 80,
    rows: Annotated[int, Query(ge=MIN_SIDE, le=MAX_ROWS, description="Rows of pixels.")] = 60,
    stack: _Number = 1,
    image: _Number = 1,
    preset: Annotated[
        Literal["", "full", "soft", "lung", "bone", "brain"],
        Query(description="A window by name; nothing: that of the file. ``full``: the range of the values."),
    ] = "",
    centre: Annotated[float | None, Query(ge=-MAX_LEVEL, le=MAX_LEVEL, allow_inf_nan=False)] = None,
    width: Annotated[float | None, Query(ge=1e-6, le=2 * MAX_LEVEL, allow_inf_nan=False)] = None,
    overlay: bool = False,
    reader: Annotated[
        str, Query(max_length=40, description="A newer request of the same reader replaces one that waits.")
    ] = "",
) -> PreviewView:
    """Return a small picture of one image of a study's newest version, made by a child; not for diagnosis."""
    if (centre is None) != (width is None):
        raise InputError("half_a_window", "A window has a centre and a width.", remedy="Give both, or neither.")
    window = None if centre is None or width is None else Window(centre=centre, width=width)
    wish = Wish(columns=columns, rows=rows, stack=stack, image=image, window=window, preset=preset, overlay=overlay)
    return _view(study_id, wish, services.previews.show(study_id, wish, f"{person.name} {reader}"))


def _view(study_id: str, wish: Wish, found: Preview) -> PreviewView:
    place, made, window = found.place, found.made, found.made.window
    unit = "HU" if place.modality == "CT" else ""
    return PreviewView(
        study_id=study_id,
        version=place.version,
        stack=place.stack,
        stacks=place.stacks,
        image=place.image,
        images=place.images,
        frame=place.frame,
        frames=place.frames,
        line=place.line,
        position_mm=place.position_mm,
        columns=wish.columns,
        rows=wish.rows,
        pixels=made.pixels,
        colour=made.colour,
        window=None if window is None else WindowView(centre=window.centre, width=window.width, unit=unit),
        edges=found.edges,
        presets=found.presets,
        overlay=found.overlays[0] if made.overlaid and found.overlays else "",
        overlays=found.overlays,
        overlay_note=found.overlay_note,
        remarks=made.remarks,
    )
