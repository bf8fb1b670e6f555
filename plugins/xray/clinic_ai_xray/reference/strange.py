"""What share of strange images the reference models refuse: ``python -m clinic_ai_xray.reference.strange --data DIR``.

The images are made of films that chose the epoch and that the distance takes its limits from; they were not trained on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clinic_ai.contract import Device
from clinic_ai.ml.greys import resize
from clinic_ai.ml.model_files import open_model
from clinic_ai_xray.reference.films import read_films
from clinic_ai_xray.served import ServedModel
from clinic_ai_xray.tiers import TIERS

Picture = npt.NDArray[np.float32]
_AT_MOST = 100


def _photograph(film: Picture) -> Picture:
    """Return the film as it hangs before a grey wall."""
    border = film.shape[0] // 3
    return resize(np.pad(film, border, constant_values=0.6), (film.shape[0], film.shape[1]))


STRANGE: dict[str, Callable[[Picture], Picture]] = {
    "films as they are": lambda film: film,
    "mirrored": lambda film: film[:, ::-1],
    "inverted": lambda film: 1 - film,
    "on its side": lambda film: np.rot90(film).copy(),
    "upside down": lambda film: film[::-1],
    "photograph with a border": _photograph,
    "noise": lambda film: np.random.default_rng(0).random(film.shape, dtype=np.float32),
}


def refused(model: ServedModel, films: npt.NDArray[np.float32]) -> dict[str, float]:
    """Return the share that ``model`` refuses of each kind, made of films (n, 1, side, side)."""
    chosen = films[:_AT_MOST, 0]
    return {
        kind: float(np.mean([model.judge(np.ascontiguousarray(change(film))).distance > 1 for film in chosen]))
        for kind, change in STRANGE.items()
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure both reference models and write the shares into their summaries."""
    parser = argparse.ArgumentParser(description="Measure what strange images the reference models refuse.")
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv and images/")
    chosen = parser.parse_args(arguments)
    for tier in TIERS.values():
        place = Path(__file__).parent / f"pneumonia-{tier.name}"
        films = read_films(chosen.data, tier.side)
        shares = refused(ServedModel(open_model(place), Device()), films.images[films.validation() & ~films.fold(0)])
        path = place.with_name(f"{place.name}.training_summary.json")
        path.write_text(json.dumps({**json.loads(path.read_text()), "refused": shares}, indent=1) + "\n")
        sys.stdout.write(f"{tier.name}: {json.dumps(shares)}\n")


if __name__ == "__main__":
    main()
