"""A folder of a public training set, sample by sample: volume, regions, lesion masks, labels, report.

::

    DIRECTORY/
      volumes/ (or any name)        NAME.npz with {imgs, gts, spacing}, or NAME.nii.gz in HU
      lesion_masks/LESION/          NAME.nii.gz, or NAME_LESION_mask.nii.gz
      *.csv                         labels, a volume in each line
      reports/                      NAME.txt, or NAME.json
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from clinic_ai.errors import DatasetError
from clinic_ai_ct.formats import Labels, Npz, read_mask, read_nifti, read_npz, read_report, read_sheet, volume_name
from clinic_ai_ct.lesions import LESIONS
from clinic_ai_ct.reading import canonical
from clinic_ai_ct.volume import Bits, Grid, Volume
from clinic_ai_ct.windows import SOFT_TISSUE, Window, from_grey

MASKS, REPORTS = "lesion_masks", "reports"
MAX_REPORT_BYTES = 1024**2
_NAME = re.compile(r"(?P<split>[a-z]+)_(?P<case>\d+)_(?P<scan>[a-z]+)_(?P<number>\d+)")
_LEFT_OUT = "The upper and lower ends of its window are all that is known of what lies beyond them."


@dataclass(frozen=True)
class Sample:
    """Files of one volume. ``volumes`` are one in several formats, NIfTI first: it holds HU, NPZ one window of them."""

    name: str
    volumes: tuple[Path, ...]
    masks: dict[str, Path] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    report: Path | None = None

    @property
    def patient(self) -> str:
        """Who it is of, so that nobody is in two splits: train_1000_a_1 and train_1000_b_2 are one person's."""
        found = _NAME.fullmatch(self.name)
        return f"{found['split']}_{found['case']}" if found else self.name


@dataclass(frozen=True)
class Loaded:
    """A sample in memory, all of it on the grid of ``volume``.

    ``regions`` are labels (D, H, W), all 0 where there are none. ``masks`` (D, H, W) has a lesion only if it is known
    where it lies: there is a file, or the label says that it is nowhere.
    """

    volume: Volume
    regions: Labels
    masks: dict[str, Bits]


def samples_of(directory: Path) -> tuple[Sample, ...]:
    """Return the samples of a folder, by name. Raise DatasetError if it holds no volume, or a sheet cannot be used."""
    volumes: dict[str, list[Path]] = {}
    for path in _files(directory, (".npz", ".nii", ".nii.gz")):
        if MASKS not in path.relative_to(directory).parts:
            volumes.setdefault(volume_name(path.name), []).append(path)
    if not volumes:
        raise DatasetError(f"The folder {directory.name} holds no volume (.npz or .nii.gz).")
    masks, labels = _masks(directory), _labels(directory)
    reports = {volume_name(path.stem): path for path in _files(directory / REPORTS, (".txt", ".json"))}
    return tuple(
        Sample(
            name,
            tuple(sorted(volumes[name], key=lambda path: (path.suffix == ".npz", str(path)))),
            masks.get(name, {}),
            labels.get(name, {}),
            reports.get(name),
        )
        for name in sorted(volumes)
    )


def load(sample: Sample, window: Window = SOFT_TISSUE) -> Loaded:
    """Return a sample's volume, regions and masks; grey levels of an NPZ become HU by the ``window`` they came from.

    NPZ files do not say how their axes lie: they are taken to run to head, back and left. Raise DatasetError if a file
    cannot be read, or they do not fit.
    """
    npz = next((read_npz(path) for path in sample.volumes if path.suffix == ".npz"), None)
    nifti = next((path for path in sample.volumes if path.suffix != ".npz"), None)
    volume = _from_npz(npz, window) if npz is not None and nifti is None else canonical(read_nifti(sample.volumes[0]))
    shape = volume.grid.shape
    if npz is not None and npz.regions.shape != shape:
        raise DatasetError(f"The NPZ and the NIfTI file of {sample.name} are of different sizes.")
    masks = {name: read_mask(path, volume.grid) for name, path in sample.masks.items()}
    for name in LESIONS:
        if sample.labels.get(name) == 0:
            masks.setdefault(name, np.zeros(shape, dtype=np.bool_))
    return Loaded(volume, np.zeros(shape, dtype=np.uint8) if npz is None else npz.regions, masks)


def _from_npz(npz: Npz, window: Window) -> Volume:
    shape = (npz.images.shape[0], npz.images.shape[1], npz.images.shape[2])
    return Volume(from_grey(npz.images, window), Grid(shape, npz.spacing), (_LEFT_OUT,))


def report_text(sample: Sample) -> str:
    """Return the text of a sample's report, empty if it has none. Raise DatasetError if it cannot be read."""
    if sample.report is None:
        return ""
    if sample.report.suffix == ".json":
        return read_report(sample.report).report_text
    try:
        if sample.report.stat().st_size > MAX_REPORT_BYTES:
            raise DatasetError(f"{sample.report.name} is too long for a report.")
        return sample.report.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{sample.report.name} cannot be read as text in UTF-8.") from error


def _files(directory: Path, endings: tuple[str, ...]) -> Iterable[Path]:
    """Yield the files of a folder and its folders by name; links are not followed out of it."""
    if not directory.is_dir():
        return
    for path in sorted(directory.rglob("*")):
        if path.name.endswith(endings) and path.is_file() and not path.is_symlink():
            yield path


def _masks(directory: Path) -> dict[str, dict[str, Path]]:
    found: dict[str, dict[str, Path]] = {}
    for lesion in LESIONS:
        for path in _files(directory / MASKS, (".nii", ".nii.gz")):
            name = volume_name(path.name)
            if name.endswith(f"_{lesion}_mask"):
                found.setdefault(name.removesuffix(f"_{lesion}_mask"), {})[lesion] = path
            elif path.parent.name == lesion:
                found.setdefault(name, {})[lesion] = path
    return found


def _labels(directory: Path) -> dict[str, dict[str, int]]:
    """Return the labels of all sheets. Lesions go by their keys, whatever the sheet calls them; others as they are."""
    found: dict[str, dict[str, int]] = {}
    for path in sorted(directory.glob("*.csv")):
        for name, labels in read_sheet(path).labels.items():
            known = found.setdefault(name, {})
            for column, value in labels.items():
                if known.setdefault(_key(column), value) != value:
                    raise DatasetError(f"{path.name} has another label of {column} for {name} than a sheet before it.")
    return found


def _key(column: str) -> str:
    key = re.sub(r"[^a-z]+", "_", column.lower()).strip("_")
    return {"ground_glass": "ground_glass_opacity"}.get(key, key)
