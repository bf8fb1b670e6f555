"""A labelled folder of small chest films, drawn."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from clinic_ai_xray.phantom import draw_chest


def write_films(folder: Path, patients: int) -> Path:
    """Write two small films for each patient, one of each kind."""
    for patient in range(patients):
        for kind in ("pneumonia", "normal"):
            place = folder / kind / f"P{patient}" / "film.png"
            place.parent.mkdir(parents=True)
            pixels = draw_chest(80, 72, seed=2 * patient + (kind == "normal"), opacity=kind == "pneumonia")
            Image.fromarray((pixels * 255).astype("uint8")).save(place)
    return folder
