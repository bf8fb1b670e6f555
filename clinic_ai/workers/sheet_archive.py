"""What a workbook is made of, looked through before anything is read of it: a ZIP file of XML documents.

Sizes and counts have caps here, and a document type declaration, which no spreadsheet program writes, is refused:
entities that unfold to gigabytes, or name other files, need one. What passes is small enough to be parsed.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO
from xml.parsers import expat
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from clinic_ai.errors import InputError

MAX_FILE_BYTES = 32 << 20
MAX_PARTS = 2000
MAX_UNPACKED_BYTES = 64 << 20
MAX_ROWS = 20_000
"""Rows of one sheet that have filled cells."""
MAX_FILLED = 100_000
"""Filled cells of one sheet."""
MAX_CELLS = 1_000_000
"""Cells of one sheet with the empty ones that have a colour or a border."""
MAX_STRINGS = 200_000
"""Different texts of the workbook."""
_MAX_TOKEN_BYTES = 1 << 20
"""Parsers that get a document piece by piece look at an unfinished tag again with each: a long one halts them."""
_PIECE = 1 << 18
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_BROKEN = (BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)
"""What zipfile raises on archives that are none; RuntimeError: encrypted."""
_SPLIT = "Split it into several workbooks, or delete what is no label."


@dataclass
class Survey:
    """What is known of a sheet before it is read: numbers of hidden rows, merged ranges, how many cells are filled."""

    hidden_rows: set[int] = field(default_factory=set)
    merged: list[str] = field(default_factory=list)
    filled: int = 0


def survey(file: BinaryIO) -> dict[str, Survey]:
    """Return what each sheet of a workbook holds, by the name of its part. Raise InputError if it must not be read."""
    _refuse_other_kinds(file)
    try:
        with ZipFile(file) as archive:
            parts = archive.infolist()
            _refuse_parts(parts)
            return {part.filename: found for part in parts if (found := _survey_part(archive, part)) is not None}
    except _BROKEN as error:
        raise damaged() from error


def damaged() -> InputError:
    """Return the error of a file that is no workbook, or not a whole one."""
    return InputError(
        "damaged",
        "is damaged, was not copied whole, or is no Excel workbook",
        remedy="Open it in Excel or LibreOffice and save it as .xlsx again.",
    )


def _refuse_other_kinds(file: BinaryIO) -> None:
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise InputError("empty", "is empty", remedy="Copy it again.")
    if size > MAX_FILE_BYTES:
        raise InputError(
            "too_large",
            f"is larger than {MAX_FILE_BYTES >> 20} MiB",
            remedy="Delete the pictures inside the sheet: the images belong into the folder.",
        )
    content = file.read(len(_OLE))
    if content == _OLE:
        if _ENCRYPTED in file.read():
            raise _protected()
        raise InputError("old", "is of the old kind .xls", remedy="Save it as .xlsx.")
    file.seek(0)


def _refuse_parts(parts: list[ZipInfo]) -> None:
    if len(parts) > MAX_PARTS or sum(part.file_size for part in parts) > MAX_UNPACKED_BYTES:
        what = f"unpacks to more than {MAX_PARTS} parts or {MAX_UNPACKED_BYTES >> 20} MiB"
        raise InputError("unpacks_too_large", what, remedy=_SPLIT)
    if any(part.flag_bits & 1 for part in parts):
        raise _protected()
    if any(part.compress_type not in {ZIP_STORED, ZIP_DEFLATED} for part in parts):
        raise damaged()
    if any(part.filename.lower().endswith("vbaproject.bin") for part in parts):
        raise InputError("macros", "holds macros", remedy="Save it as a workbook without macros (.xlsx).")


def _protected() -> InputError:
    return InputError("protected", "is protected by a password", remedy="Save it without one.")


def _survey_part(archive: ZipFile, part: ZipInfo) -> Survey | None:
    """Return what a part holds if it is a sheet. Raise InputError if it must not be parsed."""
    reader = _Reader()
    try:
        with archive.open(part) as stream:
            while (piece := stream.read(_PIECE)) and reader.feed(piece):
                pass
    except expat.ExpatError as error:
        if part.filename.lower().endswith((".xml", ".rels")):
            raise damaged() from error
        return None  # a picture, say
    return reader.survey


class _Reader:
    """Looks at one XML document: at all of a sheet or of the shared texts, else up to its first element."""

    def __init__(self) -> None:
        self.survey: Survey | None = None
        self._read = 0
        self._root = ""
        self._row, self._row_filled, self._rows = 0, False, 0
        self._cells, self._in_cell, self._strings = 0, False, 0
        self._parser = expat.ParserCreate(namespace_separator="}")
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._starts: dict[str, Callable[[dict[str, str]], None]] = {
            "row": self._start_row,
            "c": self._start_cell,
            "mergeCell": lambda attributes: self._sheet.merged.append(attributes.get("ref", "")),
            **dict.fromkeys(("v", "is", "f"), self._fill),
        }

    def feed(self, piece: bytes) -> bool:
        """Parse a piece; return whether the rest matters too."""
        self._parser.Parse(piece, False)
        self._read += len(piece)
        if self._read - self._parser.CurrentByteIndex > _MAX_TOKEN_BYTES:
            raise damaged()
        return self._root in {"", "worksheet", "sst"}

    @property
    def _sheet(self) -> Survey:
        assert self.survey is not None
        return self.survey

    def _doctype(self, *_: object) -> None:
        raise InputError(
            "doctype",
            "holds a document type declaration, which no spreadsheet program writes",
            remedy="Do not use it; ask where it comes from.",
        )

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        local = name.rpartition("}")[2]
        if not self._root:
            self._root = local
            self.survey = Survey() if local == "worksheet" else None
        elif self._root == "sst":
            self._strings += local == "si"
            _cap(self._strings, MAX_STRINGS, "different texts")
        elif self.survey is not None and local in self._starts:
            self._starts[local](attributes)

    def _end(self, name: str) -> None:
        if name.endswith("}c") or name == "c":
            self._in_cell = False

    def _start_row(self, attributes: dict[str, str]) -> None:
        number = attributes.get("r", "")
        before, self._row = self._row, int(number) if number.isdecimal() and len(number) < 9 else self._row + 1
        if self._row <= before:
            raise damaged()  # openpyxl leaves out such a row without a word
        self._row_filled = False
        if attributes.get("hidden") in {"1", "true"}:
            self._sheet.hidden_rows.add(self._row)

    def _start_cell(self, _: dict[str, str]) -> None:
        self._cells += 1
        self._in_cell = True
        _cap(self._cells, MAX_CELLS, "cells, with the empty ones that have a colour or border")

    def _fill(self, _: dict[str, str]) -> None:
        if not self._in_cell:
            return
        self._in_cell = False  # a formula and its value are of one cell
        self._sheet.filled += 1
        self._rows += not self._row_filled
        self._row_filled = True
        _cap(self._rows, MAX_ROWS, "rows")
        _cap(self._sheet.filled, MAX_FILLED, "filled cells")


def _cap(number: int, most: int, of_what: str) -> None:
    if number > most:
        raise InputError("too_many", f"has a sheet with more than {most:,} {of_what}", remedy=_SPLIT)
