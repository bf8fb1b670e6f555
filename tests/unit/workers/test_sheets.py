"""Workbooks in the real child: what cells show, and files that are hostile, damaged or of another kind."""

from __future__ import annotations

import dataclasses
import datetime
import zipfile
from collections.abc import Iterator
from pathlib import Path

import openpyxl
import pytest
import workbooks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clinic_ai.errors import InputError
from clinic_ai.processes import Crew
from clinic_ai.tasks import MAX_CELL, Sheet, SheetRow, SheetTask, Workbook
from clinic_ai.training import sheet_reading
from clinic_ai.training.sheet_reading import SheetReader
from clinic_ai.workers import sheets
from clinic_ai.workers.sheet_archive import MAX_ROWS

DOCTYPE = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;">]>'


@pytest.fixture
def reader() -> Iterator[SheetReader]:
    crew = Crew()
    yield SheetReader(crew)
    assert not crew.living()
    crew.close()


def here(path: Path) -> Workbook:
    """Read a workbook as the child does, in this process."""
    return sheets.read(SheetTask(path=str(path)), None)  # type: ignore[arg-type]


def only_sheet(path: Path) -> Sheet:
    (sheet,) = here(path).sheets
    return sheet


def shown(row: SheetRow) -> dict[str, tuple[str, str]]:
    return {cell.column: (cell.kind, cell.text) for cell in row.cells}


def test_cells_are_what_they_show(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["  two\n\twords\u200b\u00a0", 7, 0.5, 0.85, 7, True])
    sheet["D1"].number_format, sheet["E1"].number_format = "0%", "000"
    sheet["A3"], sheet["B3"], sheet["C3"] = "=1+1", "#N/A", datetime.date(2024, 3, 5)
    sheet["D3"], sheet["E3"], sheet["F3"] = "=", "   ", "x" * (MAX_CELL + 5)
    sheet["D3"].data_type = "s"
    book.save(tmp_path / "a.xlsx")

    first, third = only_sheet(tmp_path / "a.xlsx").rows

    assert (first.number, third.number) == (1, 3)
    assert shown(first) == {
        "A": ("text", "two words"),
        "B": ("number", "7"),
        "C": ("number", "0.5"),
        "D": ("number", "85%"),
        "E": ("number", "007"),
        "F": ("text", "TRUE"),
    }
    assert shown(third) == {
        "A": ("formula", "=1+1"),
        "B": ("error", "#N/A"),
        "C": ("date", "2024-03-05"),
        "D": ("text", "="),
        "F": ("text", "x" * MAX_CELL),
    }


def test_texts_that_excel_keeps_in_a_part_of_their_own(tmp_path: Path) -> None:
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
    texts = (
        b'<sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
        b"<si><t>image_x000D_ name</t></si><si><r><t>wh</t></r><r><t>ich?</t></r></si></sst>"
    )

    def announce(part: str, content: bytes) -> bytes:
        override = f'<Override PartName="/xl/sharedStrings.xml" ContentType="{kind}"/></Types>'.encode()
        return content.replace(b"</Types>", override) if part == "[Content_Types].xml" else content

    plain = workbooks.workbook(tmp_path / "plain.xlsx", [["x"]])
    shared = workbooks.repacked(plain, tmp_path / "shared.xlsx", announce, **{"xl/sharedStrings.xml": texts})
    row = b'<row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="s"><v>1</v></c></row>'

    (first,) = only_sheet(workbooks.with_rows(shared, tmp_path / "a.xlsx", row)).rows

    assert shown(first) == {"A": ("text", "image name"), "B": ("text", "which?")}
    many = texts.replace(b"</sst>", b"<si/>" * 200_000 + b"</sst>")
    with pytest.raises(InputError, match="200,000 different texts"):
        here(workbooks.repacked(plain, tmp_path / "many.xlsx", announce, **{"xl/sharedStrings.xml": many}))


def test_hidden_and_merged_is_said(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    for row in (["image", "q", "a"], ["a.png", "one", "1"], [None, "two", "2"], ["b.png", "one", "1"], ["c.png"]):
        sheet.append(row)
    sheet.merge_cells("A2:A3")
    sheet.merge_cells("A4:C4")  # of one row: nothing to hand down
    sheet.row_dimensions[3].hidden = True
    book.create_sheet("lists").sheet_state = "hidden"
    book.save(tmp_path / "a.xlsx")

    visible, hidden = here(tmp_path / "a.xlsx").sheets

    assert (visible.merged, visible.hidden, hidden.hidden, hidden.rows) == (1, False, True, ())
    assert [row.hidden for row in visible.rows] == [False, False, True, False, False]
    assert [shown(row).get("A", ("", ""))[1] for row in visible.rows] == ["image", "a.png", "a.png", "b.png", "c.png"]


def test_hostile_and_other_files_are_refused_in_words_and_the_child_lives_on(
    reader: SheetReader, tmp_path: Path
) -> None:
    good = workbooks.workbook(tmp_path / "good.xlsx", [["image", "q", "a"], ["a.png", "which?", "left"]])
    content = good.read_bytes()

    def made(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    def entities(part: str, content: bytes) -> bytes:
        return content.replace(b"<worksheet", DOCTYPE + b"<worksheet", 1).replace(b"which?", b"&c;")

    def utf_16(part: str, content: bytes) -> bytes:
        text = (DOCTYPE + content.removeprefix(b"<?xml version='1.0' encoding='utf-8'?>")).decode()
        return text.encode("utf-16") if part == workbooks.SHEET else content

    def strict(_: str, content: bytes) -> bytes:
        return content.replace(
            b"http://schemas.openxmlformats.org/spreadsheetml/2006/main",
            b"http://purl.oclc.org/ooxml/spreadsheetml/main",
        )

    (tmp_path / "link.xlsx").symlink_to(good)
    expected = {
        good: None,
        made("empty.xlsx", b""): "is empty",
        made("text.xlsx", b"image,question,answer\n"): "no Excel workbook",
        made("cut.xlsx", content[: len(content) // 2]): "not copied whole",
        made("flipped.xlsx", content[:300] + bytes(200) + content[500:]): "damaged",
        made("old.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)): "kind .xls",
        made("locked.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le")): "a password",
        workbooks.repacked(good, tmp_path / "macros.xlsx", _same, **{"xl/vbaProject.bin": b"x"}): "holds macros",
        workbooks.repacked(
            good, tmp_path / "bomb.xlsx", _same, **{"xl/x.xml": bytes(65 << 20)}
        ): "unpacks to more than",
        workbooks.repacked(good, tmp_path / "entities.xlsx", entities): "document type declaration",
        workbooks.repacked(good, tmp_path / "utf16.xlsx", utf_16): "document type declaration",
        workbooks.repacked(good, tmp_path / "strict.xlsx", strict): "Strict Open XML|no Excel workbook",
        workbooks.with_rows(
            good, tmp_path / "rows.xlsx", b"<row><c><v>1</v></c></row>" * 1_000_000
        ): f"{MAX_ROWS:,} rows",
        workbooks.with_rows(good, tmp_path / "wide.xlsx", b'<row r="1"><c r="ZZ1"><v>1</v></c></row>'): "256 columns",
        workbooks.with_rows(good, tmp_path / "back.xlsx", b'<row r="2"/><row r="1"><c><v>1</v></c></row>'): "damaged",
        workbooks.with_rows(good, tmp_path / "long.xlsx", b"<row x='" + b"y" * (9 << 20) + b"'/>"): "damaged",
        workbooks.workbook(tmp_path / "much.xlsx", [["a" * MAX_CELL] * 100] * 90): "Split it into several",
        tmp_path / "link.xlsx": "cannot be read",
        tmp_path / "missing.xlsx": "cannot be read",
    }

    answers = reader(list(expected))

    for (path, words), answer in zip(expected.items(), answers, strict=True):
        if words is None:
            assert isinstance(answer, Workbook)
        else:
            assert isinstance(answer, str), path.name
            assert any(word in answer for word in words.split("|")), f"{path.name}: {answer}"
            assert answer.endswith(".")


def test_a_file_that_kills_the_child_takes_nothing_else_with_it(
    reader: SheetReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = workbooks.workbook(tmp_path / "good.xlsx", [["image"]])
    # So many cells pass the caps, and in one row they are more than this child may hold.
    fat = workbooks.with_rows(good, tmp_path / "fat.xlsx", b"<row><c><v>1</v></c>" + b"<c/>" * 400_000 + b"</row>")
    small = sheet_reading._SPEC.confinement.model_copy(update={"address_space": 220 << 20})
    monkeypatch.setattr(sheet_reading, "_SPEC", dataclasses.replace(sheet_reading._SPEC, confinement=small))

    died, read = reader([fat, good])

    assert isinstance(died, str)
    assert "brought the process that reads it down" in died
    assert isinstance(read, Workbook)


def _same(_: str, content: bytes) -> bytes:
    return content


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    path = workbooks.workbook(tmp_path_factory.mktemp("b") / "a.xlsx", [["image", "q", 1, "=A1"], ["a.png", None, 0.5]])
    with zipfile.ZipFile(path) as archive:
        return path, {name: archive.read(name) for name in archive.namelist()}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rubbish_in_any_part_is_read_or_refused(
    parts: tuple[Path, dict[str, bytes]], tmp_path: Path, data: st.DataObject
) -> None:
    source, contents = parts
    victim = data.draw(st.sampled_from(sorted(contents)))
    content = contents[victim]
    start = data.draw(st.integers(0, len(content)))
    rubbish = data.draw(
        st.one_of(st.binary(max_size=12), st.sampled_from([b"999999999", b"-1", b'"', b"<c/>", b"1e999"]))
    )
    length = data.draw(st.integers(0, 12))
    changed = content[:start] + rubbish + content[start + length :]
    path = workbooks.repacked(source, tmp_path / "b.xlsx", lambda part, old: changed if part == victim else old)
    try:
        here(path)
    except InputError:
        pass  # in words; anything else fails the test
