"""``python -m clinic_ai_ct.phantoms OUTDIR --count N``: write chest CT phantoms, as DICOM or as training files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from clinic_ai_ct.phantoms.dicom import Spoilt, write_dicom
from clinic_ai_ct.phantoms.files import write_collection
from clinic_ai_ct.phantoms.making import make


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="clinic_ai_ct.phantoms", description="Write chest CT phantoms; they show nobody."
    )
    parser.add_argument("outdir", type=Path)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1, help="seed of the first; the others follow")
    parser.add_argument("--shape", type=int, nargs=3, default=(96, 128, 128), metavar=("Z", "Y", "X"))
    parser.add_argument("--spacing", type=float, nargs=3, default=(3.0, 2.8, 2.8), metavar=("Z", "Y", "X"), help="mm")
    parser.add_argument("--files", choices=("dicom", "training"), default="dicom")
    parser.add_argument("--tilt", type=float, default=0.0, help="of the gantry, in degrees (DICOM)")
    parser.add_argument("--gap", type=float, default=0.0, help="mm in the middle of the series (DICOM)")
    parser.add_argument("--missing", type=int, nargs="*", default=(), help="slices left out, from 0 (DICOM)")
    parser.add_argument("--shuffled", action="store_true", help="names and instance numbers in any order (DICOM)")
    chosen = parser.parse_args(arguments)
    seeds = range(chosen.seed, chosen.seed + chosen.count)
    made = ((seed, make(seed, shape=tuple(chosen.shape), spacing=tuple(chosen.spacing))) for seed in seeds)
    if chosen.files == "training":
        count = write_collection(chosen.outdir, ((f"phantom_{seed}", phantom) for seed, phantom in made))
    else:
        spoilt = Spoilt(chosen.tilt, chosen.gap, frozenset(chosen.missing), chosen.shuffled)
        count = sum(len(write_dicom(phantom, chosen.outdir / f"phantom_{seed}", spoilt)) for seed, phantom in made)
    sys.stdout.write(f"{count} {'volumes' if chosen.files == 'training' else 'images'} in {chosen.outdir}\n")


if __name__ == "__main__":
    main()
