"""Reads a folder of one category: images, and workbooks that say what is asked about them and answered.

::

    femur/labels.xlsx             one workbook or more
    femur/a.png  femur/b.dcm      each image counts as a patient of its own
    femur/patient7/c.png          unless a folder names the patient, or a column of the sheet

The workbooks are read in a child; here are only words. Every problem is found before anything stops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clinic_ai.domain import CategoryInfo, LeftOutReason, QuestionAnswer, plain_name
from clinic_ai.errors import DatasetError
from clinic_ai.tasks import Workbook
from clinic_ai.training.category_folders import SHEET_SUFFIX
from clinic_ai.training.image_names import ImageNames
from clinic_ai.training.labelled_folder import (
    LabelledImage,
    Reading,
    counted,
    files_below,
    looks_like_image,
    named,
    note_strange,
)
from clinic_ai.training.sheet_layout import ImageRow, Place, Said, read_sheet, same_question, same_words

ReadWorkbooks = Callable[[Sequence[Path]], "list[Workbook | str]"]
"""Returns, for each path, what the workbook says, or the end of a sentence about why it cannot be read."""
MAX_WORKBOOKS = 50
_OTHER_TABLES = frozenset({".xls", ".xlsm", ".xlsb", ".xltx", ".xltm", ".ods", ".csv", ".tsv", ".numbers"})
_OWNER = "~$"
"""Before the name of the file by which Excel marks a workbook that is open."""
_COLLECTIONS = frozenset(
    {"images", "image", "imgs", "img", "pictures", "pics", "photos", "data", "scans", "dicom", "png"}
)
"""Folders that hold the images of all patients; any other one names a patient."""


@dataclass
class _Folder:
    """What lies in a folder."""

    images: list[Path] = field(default_factory=list)
    sheets: list[Path] = field(default_factory=list)
    strange: list[Path] = field(default_factory=list)


@dataclass
class _Gathered:
    """What the rows say of one image: its pairs by what their questions have in common, and where each stands."""

    patient: str = ""
    pairs: dict[str, tuple[QuestionAnswer, Place]] = field(default_factory=dict)


def read_answers(directory: Path, category: CategoryInfo, read_workbooks: ReadWorkbooks) -> Reading:
    """Read the folder of a category. Raise DatasetError if it is none that can be read."""
    reading = Reading()
    folder = _look(directory, reading)
    note_strange(directory, folder.strange, reading)
    said = _said(directory, folder.sheets, category, read_workbooks)
    reading.problems += said.problems
    reading.notes += said.notes
    names = [str(path.relative_to(directory)) for path in folder.images]
    gathered = _gather(said.rows, ImageNames(names), directory, reading)
    for path, name in zip(folder.images, names, strict=True):
        if name in gathered:
            found = gathered[name]
            pairs = tuple(pair for pair, _ in found.pairs.values())
            patient = found.patient or _patient_of(path.relative_to(directory))
            reading.images.append(LabelledImage(path, name, patient, {}, pairs=pairs))
    _note_images(names, gathered, reading)
    _note_questions(reading)
    return reading


def form_of(directory: Path, category: CategoryInfo) -> list[tuple[str, ...]]:
    """Return the rows of a sheet to fill in: the questions of the category as headers, a row for each image.

    A category without questions gets a row to begin with for each image, with room for a question and its answer.
    Raise DatasetError if the folder cannot be read.
    """
    images = [str(path.relative_to(directory)) for path in _look(directory, Reading()).images]
    asked = [question if question.endswith("?") else f"{question}?" for question in category.questions]
    return [("image", *(asked or ("question", "answer"))), *((image,) for image in images)]


def _look(directory: Path, reading: Reading) -> _Folder:
    if not directory.is_dir():
        raise DatasetError(f"{directory} is not a folder that can be read.", remedy="Give the folder of a category.")
    folder = _Folder()
    for path in files_below(directory, reading):
        name, suffix = str(path.relative_to(directory)), path.suffix.lower()
        readable = name.encode(errors="backslashreplace").decode()
        if path.name.startswith(_OWNER):
            continue
        if readable != name:
            reading.problems.append(f"{readable} has a name that is no text (UTF-8); rename it.")
        elif suffix == SHEET_SUFFIX:
            folder.sheets.append(path)
            if any((path.parent / lock).exists() for lock in (f"{_OWNER}{path.name}", f".~lock.{path.name}#")):
                reading.notes.append(f"{name} is open in a spreadsheet program; what is not saved is not in it.")
        elif suffix in _OTHER_TABLES:
            reading.problems.append(
                f"{name} is no {SHEET_SUFFIX} workbook; open it in Excel or LibreOffice, save it as {SHEET_SUFFIX}, "
                "and take this one away."
            )
        else:
            _sort_in(path, folder, reading)
    return folder


def _sort_in(path: Path, folder: _Folder, reading: Reading) -> None:
    try:
        (folder.images if looks_like_image(path) else folder.strange).append(path)
    except DatasetError as error:
        reading.problems.append(error.message)


def _said(directory: Path, sheets: list[Path], category: CategoryInfo, read_workbooks: ReadWorkbooks) -> Said:
    said = Said()
    if len(sheets) > MAX_WORKBOOKS:
        said.problems.append(f"There are {len(sheets)} workbooks in it; put the labels into at most {MAX_WORKBOOKS}.")
        return said
    for path, workbook in zip(sheets, read_workbooks(sheets), strict=True):
        name = str(path.relative_to(directory))
        if isinstance(workbook, str):
            said.problems.append(f"{name} {workbook}")
            continue
        if not any(sheet.rows for sheet in workbook.sheets):
            said.problems.append(f"{name} is empty: no sheet of it has a filled cell.")
        for sheet in workbook.sheets:
            read_sheet(name, sheet, category.questions, said)
    return said


def _gather(rows: Iterable[ImageRow], images: ImageNames, directory: Path, reading: Reading) -> dict[str, _Gathered]:
    """Return what the rows say, by the name of the image."""
    gathered: dict[str, _Gathered] = {}
    twice: list[str] = []
    for row in rows:
        found = images.named(row.image)
        if not found:
            reading.problems.append(f"{row.place}: there is no image “{row.image}” in {directory.name}.")
        elif len(found) > 1:
            reading.problems.append(
                f"{row.place}: “{row.image}” may be {' or '.join(found)}; write it with its folder and ending."
            )
        else:
            _add(row, gathered.setdefault(found[0], _Gathered()), reading, twice)
    reading.leave_out(
        LeftOutReason.DUPLICATE,
        len(twice),
        f"{counted(len(twice), 'question', 'stands', 'stand')} there twice for one image with the same answer, and "
        f"{'was' if len(twice) == 1 else 'were'} taken once{named(twice)}.",
        "pair",
    )
    return gathered


def _add(row: ImageRow, image: _Gathered, reading: Reading, twice: list[str]) -> None:
    if row.patient and image.patient and plain_name(row.patient) != plain_name(image.patient):
        reading.problems.append(f"{row.place}: “{row.image}” is of another patient in an earlier row.")
    image.patient = image.patient or row.patient
    for pair, place in zip(row.pairs, row.places, strict=True):
        first, where = image.pairs.setdefault(same_question(pair.question), (pair, place))
        if where is place:
            continue
        if same_words(first.answer) == same_words(pair.answer):
            twice.append(str(place))
        else:
            reading.problems.append(
                f"{place}: “{pair.question}” about “{row.image}” has another answer than at {where}."
            )


def _patient_of(path: Path) -> str:
    """Return the folder that names the patient of an image; empty if there is none."""
    folders = [part for part in path.parts[:-1] if plain_name(part) not in _COLLECTIONS]
    return folders[0] if folders else ""


def _note_images(names: list[str], gathered: dict[str, _Gathered], reading: Reading) -> None:
    left = [name for name in names if name not in gathered]
    if left and gathered:
        reading.notes.append(
            f"{counted(len(left), 'image', 'has', 'have')} no row and will not be learned{named(left)}."
        )
    alone = sum(1 for image in reading.images if not image.patient_id)
    if alone:
        reading.notes.append(
            f"{counted(alone, 'image', 'has', 'have')} no patient; each counts as a patient of its own. If some are of "
            "one patient, put them into a folder, or name the patients in a column of the sheet."
        )


def _note_questions(reading: Reading) -> None:
    """Note the questions from which nothing can be learned about an image."""
    answers: dict[str, tuple[str, list[str]]] = {}
    for pair in (pair for image in reading.images for pair in image.pairs):
        answers.setdefault(same_question(pair.question), (pair.question, []))[1].append(same_words(pair.answer))
    same = [question for question, given in answers.values() if len(given) > 1 and len(set(given)) == 1]
    if same:
        reading.notes.append(
            f"{counted(len(same), 'question', 'has', 'have')} the same answer for every image, which a model learns "
            f"without looking at any{named([f'“{question}”' for question in same])}."
        )
