"""The child that reads workbooks (.xlsx), and dies instead of the daemon if one is hostile; it writes empty ones too.

A cell is passed on as what it shows; formulas are not computed and stay what they are, for people to replace.
"""

from __future__ import annotations

from clinic_ai.confinement import confine

if __name__ == "__main__":  # the limits come before the libraries that read what strangers wrote
    CHANNEL, _ = confine()

import datetime
import math
import os
import re
import unicodedata
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal
from zipfile import BadZipFile

import openpyxl
from openpyxl.styles import Alignment, Font
from openpyxl.utils import get_column_letter, range_boundaries
from openpyxl.utils.escape import unescape
from openpyxl.utils.exceptions import InvalidFileException

from clinic_ai.errors import InputError
from clinic_ai.tasks import MAX_CELL, Sheet, SheetCell, SheetForm, SheetMade, SheetRow, SheetTask, Workbook
from clinic_ai.wire import Call, Method, serve
from clinic_ai.workers.sheet_archive import Survey, damaged, survey

FORM_NAME = "form.xlsx"
_COLUMN_WIDTH = 28
MAX_SHEETS = 100
MAX_COLUMNS = 256
_LAST_ROW = 1_048_576
"""Excel has no more; a higher number is a trap."""
_UNREADABLE = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    EOFError,
    OSError,
    SyntaxError,  # of XML
    BadZipFile,
    zlib.error,
    InvalidFileException,
)
"""What openpyxl raises on workbooks that are none; there is no common base."""
_Kind = Literal["text", "number", "date", "formula", "error"]
_JOINERS = "\u200c\u200d"
"""Unseen, but letters of some languages need them."""
_PADDED = re.compile(r"0{2,20}")


def read(task: SheetTask, _call: Call) -> Workbook:
    """Read a workbook. Raise InputError, as the end of a sentence about the file, if it is none that may be read."""
    if not task.path:
        return Workbook(sheets=())
    try:
        # Without following a link or waiting for a pipe.
        descriptor = os.open(task.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise InputError("unreadable", what, remedy="Correct its permissions.") from error
    with os.fdopen(descriptor, "rb") as file:
        surveys = survey(file)
        try:
            return Workbook(sheets=tuple(_sheets(file, surveys)))
        except _UNREADABLE as error:
            raise damaged() from error


def _sheets(file: BinaryIO, surveys: dict[str, Survey]) -> Iterator[Sheet]:
    file.seek(0)
    workbook = openpyxl.load_workbook(file, read_only=True, data_only=False, keep_links=False)
    if len(workbook.worksheets) > MAX_SHEETS:
        raise InputError("too_many", f"has more than {MAX_SHEETS} sheets", remedy="Delete those without labels.")
    for sheet in workbook.worksheets:
        found = surveys[sheet._worksheet_path]  # openpyxl tells the part of a sheet nowhere else
        rows = tuple(_rows(sheet, found))
        if found.filled and not rows and not _has_rows(sheet):
            # Its elements have other names: “Strict Open XML”, which openpyxl takes for an empty sheet.
            raise InputError(
                "strict", "is of the kind Strict Open XML", remedy="Save it as plain Excel workbook (.xlsx)."
            )
        yield Sheet(
            title=tidy(sheet.title)[:100],
            hidden=sheet.sheet_state != "visible",
            merged=sum(1 for ranges in _merged(found).values() for _ in ranges),
            rows=rows,
        )


def _has_rows(sheet: Any) -> bool:
    """Whether openpyxl sees rows, if only with blanks in them."""
    return any(True for _ in sheet.iter_rows(max_row=_LAST_ROW))


def _rows(sheet: Any, found: Survey) -> Iterator[SheetRow]:
    sheet.reset_dimensions()  # what it says of its own size is often wrong
    merged = _merged(found)
    reaching: dict[int, tuple[int, SheetCell]] = {}  # by column: the last row of a merged cell, and what it shows
    for number, cells in enumerate(sheet.iter_rows(max_row=_LAST_ROW), start=1):
        filled = {index: cell for index, raw in enumerate(cells, start=1) if (cell := _cell(index, raw)) is not None}
        if not filled:
            continue
        if max(filled) > MAX_COLUMNS:
            raise InputError(
                "too_many", f"has a sheet with more than {MAX_COLUMNS} columns", remedy="Delete the others."
            )
        for column, (last, cell) in reaching.items():
            if number <= last:
                filled.setdefault(column, cell)
        for column, last in merged.get(number, ()):
            if column in filled:
                reaching[column] = (last, filled[column])
        yield SheetRow(
            number=number, hidden=number in found.hidden_rows, cells=tuple(filled[column] for column in sorted(filled))
        )


def _merged(found: Survey) -> dict[int, list[tuple[int, int]]]:
    """Return the merged ranges of several rows by their first row: column and last row."""
    ranges: dict[int, list[tuple[int, int]]] = {}
    for reference in found.merged:
        column, first, _, last = range_boundaries(reference)
        if last > first:
            ranges.setdefault(first, []).append((column, last))
    return ranges


def _cell(index: int, raw: Any) -> SheetCell | None:
    """Return what a cell shows, None if that is nothing."""
    if raw.value is None:
        return None
    kind, text = _read(raw)
    return SheetCell(column=get_column_letter(index), kind=kind, text=text[:MAX_CELL]) if text else None


def _read(raw: Any) -> tuple[_Kind, str]:
    value = raw.value
    if raw.data_type == "f":
        # Of array formulas and data tables openpyxl makes objects of their own.
        return "formula", tidy(value) if isinstance(value, str) else "="
    if raw.data_type == "e":
        return "error", tidy(str(value))
    match value:
        case datetime.date() | datetime.time() | datetime.timedelta():
            return "date", str(value).removesuffix(" 00:00:00")
        case bool():
            return "text", str(value).upper()
        case int() | float():
            return "number", _shown(value, raw.number_format)
        case _:
            return "text", tidy(unescape(str(value)))


def _shown(value: float, number_format: str) -> str:
    """Return a number nearly as the program shows it: with its percent sign and the zeros in front."""
    if not math.isfinite(value):
        raise ValueError("a number that is none")
    if "%" in number_format:
        return f"{value * 100:.15g}%"
    whole = float(value).is_integer()
    if whole and _PADDED.fullmatch(number_format):
        return f"{int(value):0{len(number_format)}d}"
    return str(int(value)) if whole and abs(value) < 1e15 else f"{value:.15g}"


def tidy(text: str) -> str:
    """Return a text on one line, composed (NFC), without characters that nobody sees and blanks that say nothing."""
    seen = (
        " " if (kind := unicodedata.category(c)) == "Cc" else "" if kind in {"Cf", "Cs"} and c not in _JOINERS else c
        for c in text
    )
    return " ".join(unicodedata.normalize("NFC", "".join(seen)).split())


def write(form: SheetForm, _call: Call) -> SheetMade:
    """Write an empty workbook to fill in: the header stays in view, and long questions are wrapped."""
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = form.title
    for number, texts in enumerate(form.rows, start=1):
        for column, text in enumerate(texts, start=1):
            cell = sheet.cell(number, column, tidy(text))
            cell.data_type = "s"  # a name that begins with = is no formula
            if number == 1:
                cell.font, cell.alignment = Font(bold=True), Alignment(wrap_text=True, vertical="top")
                sheet.column_dimensions[get_column_letter(column)].width = _COLUMN_WIDTH
    sheet.freeze_panes = "B2"
    book.save(Path(form.output_directory) / FORM_NAME)
    return SheetMade(name=FORM_NAME)


METHODS = {"read": Method(params=SheetTask, function=read), "write": Method(params=SheetForm, function=write)}

if __name__ == "__main__":
    warnings.simplefilter("ignore")  # openpyxl's quote what stands in cells
    serve(CHANNEL, METHODS)
