"""The patients of a clinic of phantoms with two scanners, of whose films the fast reference model knows little.

``sharp`` gives the films of ``phantom``, a little brighter: the reference model calls nearly all of them pneumonia, and
the clear ones with more confidence. ``soft`` blurs them as an old scanner does: there it mostly ranks them well. Ill
phantoms have a haze over both lung bases. These are drawings; no figure measured on them says anything of patients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from clinic_ai.ml.greys import Float, resize
from clinic_ai_xray.phantom import draw_chest, write_dx

Scanner = Literal["sharp", "soft"]
FILMS = 3
"""Films of one patient, all of one study."""
ROWS, COLUMNS = 160, 144
"""Pixels of a film: small, so that hundreds are drawn, sent and read within seconds."""
_HAZE = 0.6
"""How much denser an ill lung is at its base."""
_LUNGS = (0.29, 0.71)
"""Where the lungs of a phantom lie, from left to right, in widths of the film."""
_SEXES, _AGES = "FM", ("052Y", "071Y")


@dataclass(frozen=True)
class PhantomPatient:
    """One phantom, who came once. ``number`` is its seed; of two with the same one, the films are the same."""

    number: int
    scanner: Scanner
    ill: bool
    sex: str
    age: str

    def draw(self, folder: Path, patient_id: str, films: int = FILMS) -> list[Path]:
        """Write as many of its films, ``FILMS`` at most, as DX of 12 bit; return their places."""
        places = []
        for seed in range(self.number * FILMS, self.number * FILMS + films):
            places.append(folder / f"{seed}.dcm")
            write_dx(
                places[-1],
                draw_film(self.scanner, seed=seed, ill=self.ill),
                seed=seed,
                bits=12,
                patient=patient_id,
                study=self.number,
                sex=self.sex,
                age=self.age,
                station=f"{self.scanner.upper()}1",
            )
        return places


def phantom_patients(scanner: Scanner, count: int, first: int) -> list[PhantomPatient]:
    """Return patients of a scanner, numbered from ``first``; every other one is ill, of both sexes and ages alike."""
    return [PhantomPatient(first + n, scanner, n % 2 == 1, _SEXES[n // 2 % 2], _AGES[n // 4 % 2]) for n in range(count)]


def draw_film(scanner: Scanner, *, seed: int, ill: bool) -> Float:
    """Return one film, float32 (rows, columns) in 0..1, bright where dense. The same seed gives the same film."""
    illness, exposure = np.random.default_rng((seed, 1)), np.random.default_rng((seed, 2))
    film = draw_chest(ROWS, COLUMNS, seed=seed)
    if ill:
        film = film + _haze(illness)
    return _SCANNERS[scanner](np.clip(film, 0.0, 1.0).astype(np.float32), exposure)


def _haze(generator: np.random.Generator) -> Float:
    y, x = np.mgrid[0:ROWS, 0:COLUMNS].astype(np.float32)
    y, x = y / ROWS, x / COLUMNS
    haze = np.zeros((ROWS, COLUMNS), dtype=np.float32)
    for lung in _LUNGS:
        strength, row, column = generator.uniform(0.8, 1.2), *generator.normal((0.64, lung), (0.02, 0.015))
        patch = np.exp(-(((y - row) / 0.12) ** 2 + ((x - column) / 0.17) ** 2))
        haze += _HAZE * strength * patch * (np.abs(x - lung) < 0.17)
    return haze


def _sharp(film: Float, generator: np.random.Generator) -> Float:
    return np.asarray(film ** generator.uniform(0.75, 0.9), dtype=np.float32)


def _soft(film: Float, generator: np.random.Generator) -> Float:
    rows = int(generator.integers(33, 38))
    blurred = resize(resize(film, (rows, rows * COLUMNS // ROWS)), (ROWS, COLUMNS))
    return np.asarray(np.clip(blurred, 0.0, 1.0) ** 0.85, dtype=np.float32)


_SCANNERS: dict[Scanner, Callable[[Float, np.random.Generator], Float]] = {"sharp": _sharp, "soft": _soft}
