"""Training sets in folders: volumes as NPZ or NIfTI, lesion masks, a sheet of labels and reports beside them.

::

    FOLDER/volumes/NAME.nii.gz      Hounsfield units, or
    FOLDER/volumes/NAME.npz         8-bit grey levels and the regions of the chest; both may be there
    FOLDER/lesion_masks/LESION/NAME.nii.gz
    FOLDER/labels.csv               the volume, perhaps patient_id, then a column for each condition
    FOLDER/reports/NAME.json

Only the volumes are needed. Without a patient_id a name such as ``train_1000_a_1`` is of the patient ``train_1000``,
and any other is a patient of its own.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clinic_ai.contract import Beside, Dataset, Example
from clinic_ai.errors import DatasetError
from clinic_ai_ct.formats import Sheet, is_npz, read_sheet, volume_name
from clinic_ai_ct.label_sets import CODED, all_labels, label_sets
from clinic_ai_ct.lesions import LESIONS
from clinic_ai_ct.training.phases import Phase

VOLUMES, MASKS, REPORTS, LABELS = "volumes", "lesion_masks", "reports", "labels.csv"
NIFTI, NPZ = ".nii.gz", ".npz"
SPLITS = ("train", "validation", "test")
_PLUGIN = "ct"
_OF_PATIENT = re.compile(r"(.+?)_[a-z]_\d+")
_JUDGED_SHARE = 0.15
"""Of the patients, how many validate, and how many test."""
_NAMED = 10


@dataclass(frozen=True)
class Case:
    """One volume of a training set and what lies beside it; a path is None where there is nothing.

    ``labels`` are 0 or 1 by condition key; those that are not there are unknown.
    """

    name: str
    sha256: str
    split: str
    volume: Path
    labels: dict[str, int]
    regions: Path | None
    masks: dict[str, Path]
    report: Path | None
    slices: tuple[Path, ...] = ()
    """The other files of a DICOM series; ``volume`` is one of it."""
    drawn: frozenset[str] = frozenset(LESIONS)
    """Lesions that masks of the train part show. Of others all that could be learned here is to draw nothing."""
    unused: tuple[str, ...] = ()
    """Conditions of which it has masks that nothing is learned from."""

    def knows(self, lesion: str) -> bool:
        """Return whether it is known where the lesion is, or that there is none of one that others show."""
        return lesion in self.masks or (lesion in self.drawn and self.labels.get(lesion) == 0)

    @property
    def masked(self) -> bool:
        """Whether it has a mask to learn from."""
        return bool(self.masks)

    @property
    def told(self) -> bool:
        """Whether there is a report, or enough to write one."""
        return self.report is not None or bool(self.labels) or self.masked


def folder_dataset(folder: Path) -> Dataset:
    """Return a folder as a dataset, its patients divided by the hash of their names or ids, 70 to 15 to 15.

    Its digest is over the contents of all its files. Raise DatasetError if it holds no volumes, less than three
    patients, or if the sheet of labels is wrong or names none of our conditions.
    """
    names = _volumes(folder)
    sheet = keyed_sheet(folder / LABELS) if (folder / LABELS).is_file() else Sheet({}, {})
    labels, patients = sheet.labels, {name: sheet.patients.get(name) or _patient(name) for name in names}
    unlabelled = [name for name in names if name not in labels]
    notes = (f"{len(unlabelled)} of {len(names)} volumes have no line in {LABELS}.",) if labels and unlabelled else ()
    splits = _divided(set(patients.values()))
    whole = hashlib.sha256()
    examples = []
    for name, path in names.items():
        digest, beside = _hash(path), _beside(folder, name, path)
        for file, sha256 in ((str(path), digest), *((one.path, one.sha256) for one in beside)):
            whole.update(f"{Path(file).relative_to(folder)} {sha256}\n".encode())
        patient = patients[name]
        examples.append(
            Example(
                path=str(path),
                sha256=digest,
                patient_key=patient,
                labels=labels.get(name, {}),
                split=splits[patient],
                beside=beside,
            )
        )
    whole.update(repr(sorted((name, sorted(row.items())) for name, row in labels.items())).encode())
    if sheet.patients:  # which part a volume is in follows from its patient
        whole.update(repr(sorted(patients.items())).encode())
    return Dataset(
        dataset_id=f"folder-{whole.hexdigest()[:12]}",
        plugin=_PLUGIN,
        digest=whole.hexdigest(),
        examples=tuple(examples),
        notes=notes,
    )


def cases_of(dataset: Dataset) -> list[Case]:
    """Return the cases of a dataset with what lies beside their volumes.

    Raise DatasetError if a patient or a volume is in more than one part, or if a volume is not there.
    """
    patients: dict[str, set[str]] = {}
    volumes: dict[str, set[str]] = {}
    for example in dataset.examples:
        patients.setdefault(example.patient_key, set()).add(example.split)
        volumes.setdefault(example.sha256, set()).add(example.split)
    for what, found in (("patients", patients), ("volumes", volumes)):
        torn = sum(len(splits) > 1 for splits in found.values())
        if torn:
            raise DatasetError(f"{torn} {what} are in more than one part of the split; the figures would be too good.")
    gone = [Path(example.path).name for example in dataset.examples if not Path(example.path).is_file()]
    if gone:
        raise DatasetError(f"{len(gone)} volumes are not there any more, such as {gone[0]}.")
    train = [example for example in dataset.examples if example.split == SPLITS[0]]
    masks = {one.condition for example in train or dataset.examples for one in example.beside if one.role == "mask"}
    return [_case(example, frozenset(masks & set(LESIONS))) for example in dataset.examples]


def refuse_useless(cases: Sequence[Case], phase: Phase, labels: Sequence[str]) -> None:
    """Raise DatasetError unless training and validation have cases that ``phase`` can learn from.

    ``labels`` are those of the network.
    """
    for split in SPLITS[:2]:
        part = [case for case in cases if case.split == split]
        useful = usable(part, phase, labels)
        if not useful or (phase.name == "localisation" and not any(case.masked for case in useful)):
            raise DatasetError(
                f"The {split} part has {len(part)} volumes and none with the {phase.needs} that the phase {phase.name} "
                "learns from.",
                remedy="Add such cases of more patients, or leave the phase out.",
            )
    if phase.name == "classification":
        train = [case for case in cases if case.split == "train"]
        counts = Counter(key for case in train for key, there in case.labels.items() if there and key in labels)
        if not any(0 < counts[key] < sum(key in case.labels for case in train) for key in counts):
            raise DatasetError(
                "No label of the train part is there in some volumes and absent in others: there is nothing to tell "
                "apart."
            )


def usable(cases: Sequence[Case], phase: Phase, labels: Sequence[str]) -> list[Case]:
    """Return the cases that a phase can learn from, in their order; ``labels`` are those of the network."""

    def wanted(one: Case) -> bool:
        match phase.name:
            case "encoder":
                return True
            case "classification":
                return not one.labels.keys().isdisjoint(labels)
            case "localisation":
                return any(one.knows(lesion) for lesion in LESIONS)
            case _:
                return one.told

    return [case for case in cases if wanted(case)]


def described(cases: Sequence[Case]) -> tuple[str, ...]:
    """Return what there is to learn from, in sentences."""
    sentences = []
    for split in SPLITS:
        part = [case for case in cases if case.split == split]
        has = {
            "labels": sum(bool(c.labels) for c in part),
            "lesion masks": sum(c.masked for c in part),
            "regions": sum(c.regions is not None for c in part),
            "reports": sum(c.report is not None for c in part),
        }
        listed = ", ".join(f"{count} with {what}" for what, count in has.items())
        sentences.append(f"{split}: {len(part)} volumes, {listed}.")
    if unused := sorted({condition.replace("_", " ") for case in cases for condition in case.unused}):
        outlined = ", ".join(lesion.replace("_", " ") for lesion in LESIONS)
        sentences.append(f"Masks of {', '.join(unused)} are not learned from; what is drawn is {outlined}.")
    return tuple(sentences)


def keyed_sheet(path: Path) -> Sheet:
    """Return a sheet with its labels by condition key; columns that are none of ours are passed over.

    A column is named by the key of a condition, or as a label set names it. Raise DatasetError if the sheet is wrong
    or names none of our conditions.
    """
    known = {label.name.casefold(): label.key for one in label_sets().values() for label in one.labels}
    known |= {key: key for key in all_labels()}
    sheet = read_sheet(path)
    columns = {name for row in sheet.labels.values() for name in row}
    keys = {name: known[name.casefold()] for name in columns if name.casefold() in known}
    if not keys:
        named = ", ".join(sorted(columns)[:_NAMED])
        raise DatasetError(
            f"{path.name} names none of our conditions; its columns are {named}.",
            remedy="Name the columns as VLM3D or CT-RATE do, or by our keys such as lung_nodule.",
        )
    labels = {
        name: {keys[column]: value for column, value in row.items() if column in keys}
        for name, row in sheet.labels.items()
    }
    return Sheet(labels, sheet.patients)


def _volumes(folder: Path) -> dict[str, Path]:
    """Return the file of each volume, of Hounsfield units if there is one."""
    place = folder / VOLUMES
    files = [*place.glob(f"*{NPZ}"), *place.glob(f"*{NIFTI}")]  # of one name the last one counts
    if not files:
        raise DatasetError(
            f"{folder.name} holds no volumes: there is no NAME{NIFTI} or NAME{NPZ} in {folder.name}/{VOLUMES}."
        )
    return dict(sorted({volume_name(path.name): path for path in files}.items()))


def _case(example: Example, drawn: frozenset[str]) -> Case:
    path = Path(example.path)
    beside = {(one.role, one.condition): Path(one.path) for one in example.beside}
    return Case(
        name=volume_name(path.name),
        sha256=example.sha256,
        split=example.split,
        volume=path,
        labels=_by_label(example.labels),
        regions=path if is_npz(path) else beside.get(("regions", "")),
        masks={lesion: beside["mask", lesion] for lesion in LESIONS if ("mask", lesion) in beside},
        report=beside.get(("report", "")),
        slices=tuple(Path(one.path) for one in example.beside if one.role == "slice"),
        drawn=drawn,
        unused=tuple(name for role, name in beside if role == "mask" and name not in LESIONS),
    )


def _by_label(labels: Mapping[str, int]) -> dict[str, int]:
    """Return labels by what the network calls them, of those that come by what findings are called."""
    found = {CODED.get(key, key): value for key, value in labels.items()}
    return {**found, **{key: value for key, value in labels.items() if key in all_labels()}}


def _beside(folder: Path, name: str, volume: Path) -> tuple[Beside, ...]:
    files: list[tuple[Literal["regions", "mask", "report"], str, Path]] = [
        ("regions", "", folder / VOLUMES / f"{name}{NPZ}"),
        ("report", "", folder / REPORTS / f"{name}.json"),
        *(("mask", lesion, folder / MASKS / lesion / f"{name}{NIFTI}") for lesion in LESIONS),
    ]
    return tuple(
        Beside(role=role, condition=condition, path=str(path), sha256=_hash(path))
        for role, condition, path in files
        if path != volume and path.is_file()
    )


def _patient(name: str) -> str:
    found = _OF_PATIENT.fullmatch(name)
    return found[1] if found else name


def _divided(patients: set[str]) -> dict[str, str]:
    if len(patients) < len(SPLITS):
        raise DatasetError(f"The volumes are of {len(patients)} patients; to learn, validate and test takes three.")
    order = sorted(patients, key=lambda patient: hashlib.sha256(patient.encode()).hexdigest())
    few = max(1, round(_JUDGED_SHARE * len(order)))
    return {p: SPLITS[1] if n < few else SPLITS[2] if n < 2 * few else SPLITS[0] for n, p in enumerate(order)}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
