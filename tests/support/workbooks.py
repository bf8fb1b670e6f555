"""Workbooks for tests, made with openpyxl and, where that would not make such a thing, by hand."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from openpyxl import Workbook

SHEET = "xl/worksheets/sheet1.xml"


def workbook(path: Path, rows: Iterable[Sequence[object]], title: str = "Labels") -> Path:
    """Write a workbook of one sheet."""
    book = Workbook()
    sheet = book.active
    sheet.title = title
    for row in rows:
        sheet.append(list(row))
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)
    return path


def repacked(source: Path, target: Path, change: Callable[[str, bytes], bytes], **added: bytes) -> Path:
    """Write a copy of a workbook, each part as ``change`` returns it, and further ones by name."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.namelist():
            new.writestr(part, change(part, old.read(part)))
        for name, content in added.items():
            new.writestr(name, content)
    return target


def with_rows(source: Path, target: Path, rows: bytes) -> Path:
    """Write a copy of a workbook whose first sheet holds these elements instead of its rows."""

    def change(part: str, content: bytes) -> bytes:
        if part != SHEET:
            return content
        head, tail = content.split(b"<sheetData>")[0], content.split(b"</sheetData>")[1]
        return head + b"<sheetData>" + rows + b"</sheetData>" + tail

    return repacked(source, target, change)
