"""Where in a sheet images, questions and answers stand, by headers as people write them; and the pairs of each row.

A row names one image. Beside it stand questions with their answers, in columns such as ``Q1 A1 … QN AN``, or one pair
for each row; or the questions are the headers and the cells below them the answers.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from clinic_ai.domain import QuestionAnswer, plain_name
from clinic_ai.tasks import Sheet, SheetCell, SheetRow

MAX_QUESTION = 300
MAX_ANSWER = 1000
"""Characters; a longer one is a mistake or no answer that a model could learn to give."""
MAX_NAME = 300
HEADER_WITHIN = 20
"""Filled rows among which the header is looked for: there may be titles above it."""
_IMAGES = frozenset(
    plain_name(name)
    for kind in ("image", "images", "img", "imgs", "file", "picture", "pic", "photo", "scan")
    for name in (kind, *(f"{kind} {word}" for word in ("name", "names", "file", "filename", "file name", "id", "path")))
) | {"filename", "filenames", "nameofimage", "imageno", "imagenumber"}
_PATIENTS = frozenset(
    {"patient", "patientid", "patientno", "patientnumber", "patientname", "subject", "subjectid", "case", "caseid"}
)
_UNUSED = frozenset(
    {
        "",
        "no",
        "nr",
        "sno",
        "srno",
        "slno",
        "sn",
        "serialno",
        "serialnumber",
        "number",
        "index",
        "id",
        "category",
        "class",
    }
    | {"comment", "comments", "remark", "remarks", "note", "notes", "date", "sonographer", "labelledby", "labeledby"}
)
_SUFFIX = r"(?:no|nr|number|text)?0*(\d{0,3})"
_QUESTION = re.compile(r"(?:questions?|ques|quest|query|q)" + _SUFFIX)
_ANSWER = re.compile(r"(?:answers?|answ|ans|reply|replies|responses?|a)" + _SUFFIX)
_ANSWER_TO = re.compile(r"(?:question|q)0*(\d{1,3})(?:answer|ans|a)")
_ASKS = ("?", "？", "؟", "՞", "፧")
_SPECIAL = re.compile(r"</?\w+>")
"""What has this form may be no word to a language model but a sign, such as the end of a text."""
_COUNTED = re.compile(r"(?:q(?:uestion)?\s*\d{1,3}\s*[.:)-]|\d{1,3}\s*[.:)])\s+", re.IGNORECASE)
"""``1. `` or ``Q1: `` before the question itself."""
_NO_VALUE = {
    "formula": "holds a formula; write the value itself",
    "date": "is a date ({}); format the cell as text and write it again",
    "error": "holds the error {}; write the value",
}


@dataclass(frozen=True)
class Place:
    """Where something stands; its text is for people."""

    file: str
    sheet: str = ""
    row: int = 0
    column: str = ""

    def __str__(self) -> str:
        parts = (
            self.sheet and f"sheet {self.sheet}",
            self.row and f"row {self.row}",
            self.column and f"column {self.column}",
        )
        return ", ".join([self.file, *(part for part in parts if part)])


@dataclass(frozen=True)
class ImageRow:
    """What a row says of the image it names. ``place`` is of the name, ``places`` of each pair's answer."""

    place: Place
    image: str
    patient: str
    pairs: tuple[QuestionAnswer, ...]
    places: tuple[Place, ...]


@dataclass
class Said:
    """What one sheet or several say; ``problems`` forbid their use, ``notes`` do not."""

    rows: list[ImageRow] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Pair:
    """Columns of a question and its answer; ``asked`` is the question itself where it is the header of the answer."""

    question: str
    answer: str
    asked: str = ""


@dataclass
class _Columns:
    """What the columns of a sheet hold, by their letters."""

    image: str = ""
    patient: str = ""
    pairs: list[_Pair] = field(default_factory=list)
    unused: dict[str, str] = field(default_factory=dict)
    understood: bool = True
    """Whether each column is known; of others there are problems, and the rest of the sheet is still looked through."""


def read_sheet(file: str, sheet: Sheet, questions: Iterable[str], said: Said) -> None:
    """Add what a sheet says to ``said``; ``questions`` are those of the category, known without a question mark."""
    place = Place(file, sheet.title)
    if not sheet.rows:
        return
    if sheet.hidden:
        said.notes.append(f"{place} is hidden and was left out.")
        return
    start = next((n for n, row in enumerate(sheet.rows[:HEADER_WITHIN]) if _is_header(row)), None)
    if start is None:
        said.problems.append(
            f"{place}, row {sheet.rows[0].number}: no header says which column names the images; write image, question "
            "and answer above the columns, or delete a sheet that holds no labels."
        )
        return
    columns = _columns_of(place, sheet.rows[start], frozenset(map(same_question, questions)), said)
    body = sheet.rows[start + 1 :]
    if not columns.pairs:
        return  # of which the reason was told
    _note(place, sheet, columns, body, said)
    _refuse_headless(place, sheet.rows[start], body, said)
    header = _texts(sheet.rows[start])
    for row in body:
        if _texts(row) != header:
            _read_row(_Row(place, row, said), columns, said)


def _texts(row: SheetRow) -> dict[str, str]:
    return {cell.column: cell.text for cell in row.cells}


def _is_header(row: SheetRow) -> bool:
    return len(row.cells) > 1 and any(cell.kind == "text" and plain_name(cell.text) in _IMAGES for cell in row.cells)


# ---------------------------------------------------------------- headers


def _columns_of(place: Place, header: SheetRow, questions: frozenset[str], said: Said) -> _Columns:
    columns = _Columns()
    numbered: dict[str, list[tuple[str, str]]] = defaultdict(list)  # by number: which of the two, and its column
    before = len(said.problems)
    for cell in header.cells:
        here, plain = Place(place.file, place.sheet, header.number, cell.column), plain_name(cell.text)
        if cell.kind in _NO_VALUE:
            said.problems.append(f"{here}: the header {_NO_VALUE[cell.kind].format(cell.text)}.")
        elif plain in _IMAGES:
            if columns.image:
                said.problems.append(f"{here}: “{cell.text}” names the image, as column {columns.image} does.")
            columns.image = columns.image or cell.column
        elif plain in _PATIENTS and not columns.patient:
            columns.patient = cell.column
        elif found := _numbered(plain):
            numbered[found[1]].append((found[0], cell.column))
        elif cell.text.endswith(_ASKS) or same_question(cell.text) in questions:
            _add_question(here, cell, columns, said)
        elif plain in _UNUSED or plain in _PATIENTS:
            columns.unused[cell.column] = cell.text
        else:
            said.problems.append(
                f"{here}: “{cell.text[:60]}” is neither image, question nor answer; a question as header ends with a "
                "question mark."
            )
    for number, found_columns in numbered.items():
        columns.pairs += _paired(place, header.number, number, found_columns, said)
    columns.understood = len(said.problems) == before
    if not columns.pairs and columns.understood:
        said.problems.append(f"{place}, row {header.number}: there is no column of questions and answers.")
    return columns


def _numbered(plain: str) -> tuple[str, str] | None:
    """Return whether a header is of questions or answers, and its number, if it has one."""
    if match := _ANSWER_TO.fullmatch(plain):
        return "answer", match[1]
    for what, form in (("question", _QUESTION), ("answer", _ANSWER)):
        if match := form.fullmatch(plain):
            return what, match[1]
    return None


def _add_question(place: Place, cell: SheetCell, columns: _Columns, said: Said) -> None:
    asked = question_of(cell.text)
    if len(asked) > MAX_QUESTION:
        said.problems.append(f"{place}: the question is longer than {MAX_QUESTION} characters.")
    elif special := _SPECIAL.search(asked):
        said.problems.append(
            f"{place}: {special[0][:60]} may mean something else to a model; write it without the brackets."
        )
    elif any(pair.asked and same_question(pair.asked) == same_question(asked) for pair in columns.pairs):
        said.problems.append(f"{place}: the question “{asked}” is a header twice.")
    columns.pairs.append(_Pair("", cell.column, asked))


def _paired(place: Place, row: int, number: str, found: Sequence[tuple[str, str]], said: Said) -> list[_Pair]:
    """Return the pairs of columns with one number: a question and the answer after it; several, if they take turns."""
    questions = [column for what, column in found if what == "question"]
    answers = [column for what, column in found if what == "answer"]
    takes_turns = [what for what, _ in found] == ["question", "answer"] * len(questions)
    if len(questions) == len(answers) == 1 or (takes_turns and answers):
        return [_Pair(question, answer) for question, answer in zip(questions, answers, strict=True)]
    here = Place(place.file, place.sheet, row, found[0][1])
    called = f" {number}" if number else ""
    said.problems.append(
        f"{here}: question{called} has {len(questions)} column(s) and its answer {len(answers)}; each question "
        "needs one of answers, right behind it or with the same number."
    )
    return []


def question_of(text: str) -> str:
    """Return a question without the number people put before it, such as ``1.`` or ``Q1:``."""
    return _COUNTED.sub("", text, count=1) if _COUNTED.match(text) else text


def same_question(text: str) -> str:
    """Return what questions that are the same have in common: without their number, and like ``same_words``."""
    return same_words(question_of(text))


def same_words(text: str) -> str:
    """Return what texts that say the same have in common: without case and what stands at their end."""
    return text.casefold().rstrip(" .!:" + "".join(_ASKS)) or text


# ---------------------------------------------------------------- rows


def _note(place: Place, sheet: Sheet, columns: _Columns, body: Sequence[SheetRow], said: Said) -> None:
    hidden = [str(row.number) for row in body if row.hidden]
    if hidden:
        said.notes.append(f"{place}: hidden rows were read like the others: {_few(hidden)}.")
    if sheet.merged:
        said.notes.append(f"{place}: what stands in a merged cell counts for each of its rows ({sheet.merged} merged).")
    if columns.unused:
        unused = (f"{column} ({text})" for column, text in columns.unused.items())
        said.notes.append(f"{place}: these columns were not read: {_few(list(unused))}.")


def _refuse_headless(place: Place, header: SheetRow, body: Sequence[SheetRow], said: Said) -> None:
    """Add a problem for each column that has cells but no header, at its first cell."""
    known = set(_texts(header))
    for row in body:
        for cell in row.cells:
            if cell.column not in known:
                known.add(cell.column)
                here = Place(place.file, place.sheet, row.number, cell.column)
                said.problems.append(f"{here}: the column has no header in row {header.number}.")


def _few(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


class _Row:
    """A row while it is read: its cells by column, and where problems go."""

    def __init__(self, place: Place, row: SheetRow, said: Said) -> None:
        self.cells = {cell.column: cell for cell in row.cells}
        self._place = place
        self._number = row.number
        self._said = said

    def at(self, column: str) -> Place:
        """Return the place of a cell."""
        return Place(self._place.file, self._place.sheet, self._number, column)

    def refuse(self, column: str, why: str) -> None:
        """Add a problem of a cell."""
        self._said.problems.append(f"{self.at(column)}: {why}.")

    def text(self, column: str, most: int) -> str | None:
        """Return what a cell says, empty if nothing; None if that is a problem, which is told."""
        cell = self.cells.get(column)
        if cell is None:
            return ""
        if cell.kind in _NO_VALUE:
            self.refuse(column, f"the cell {_NO_VALUE[cell.kind].format(cell.text)}")
            return None
        if len(cell.text) > most:
            self.refuse(column, f"the text is longer than {most} characters")
            return None
        return cell.text

    def words(self, column: str, most: int) -> str | None:
        """Return what a cell says to a model; as ``text``."""
        said = self.text(column, most)
        if special := _SPECIAL.search(said or ""):
            self.refuse(column, f"{special[0][:60]} may mean something else to a model; write it without the brackets")
            return None
        return said


def _read_row(row: _Row, columns: _Columns, said: Said) -> None:
    if not row.cells.keys() - columns.unused.keys():
        return
    before = len(said.problems)
    image = row.text(columns.image, MAX_NAME)
    if image == "":
        row.refuse(columns.image, "the row names no image")
    patient = row.text(columns.patient, MAX_NAME) if columns.patient else ""
    found = list(_pairs(row, columns))
    if not found and columns.understood and len(said.problems) == before:
        row.refuse(columns.image, "the row has neither question nor answer")
    if image:
        pairs, places = tuple(pair for pair, _ in found), tuple(place for _, place in found)
        said.rows.append(ImageRow(row.at(columns.image), image, patient or "", pairs, places))


def _pairs(row: _Row, columns: _Columns) -> Iterator[tuple[QuestionAnswer, Place]]:
    for pair in columns.pairs:
        asked = pair.asked or row.words(pair.question, MAX_QUESTION)
        answer = row.words(pair.answer, MAX_ANSWER)
        if asked == "" and answer:
            row.refuse(pair.question, "the question is empty")
        if asked and answer == "":
            row.refuse(pair.answer, "the answer is empty")
        if asked and answer:
            yield QuestionAnswer(question=question_of(asked), answer=answer), row.at(pair.answer)
