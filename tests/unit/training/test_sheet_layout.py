"""Headers as people write them, and the pairs of each row; every problem with its place."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.tasks import Sheet, SheetCell, SheetRow
from clinic_ai.training.sheet_layout import MAX_ANSWER, Said, question_of, read_sheet, same_question, same_words

LETTERS = "ABCDEFGHIJ"
QUESTIONS = ("Which view does the image show?",)


def sheet(*rows: Sequence[object], hidden: bool = False, **of_sheet: int) -> Sheet:
    """Return a sheet; a tuple in a row is a cell's kind and text."""
    made = []
    for number, row in enumerate(rows, start=1):
        cells = [
            SheetCell(column=LETTERS[n], kind=cell[0], text=cell[1])
            if isinstance(cell, tuple)
            else SheetCell(column=LETTERS[n], text=str(cell))
            for n, cell in enumerate(row)
            if cell != ""
        ]
        if cells:
            made.append(SheetRow(number=number, cells=tuple(cells)))
    return Sheet(title="Femur", rows=tuple(made), hidden=hidden, **of_sheet)


def said(*rows: Sequence[object], **of_sheet: int) -> Said:
    found = Said()
    read_sheet("a.xlsx", sheet(*rows, **of_sheet), QUESTIONS, found)
    return found


def pairs(found: Said) -> list[tuple[str, str, str]]:
    return [(row.image, pair.question, pair.answer) for row in found.rows for pair in row.pairs]


TWO = [("a", "where?", "left"), ("a", "whole?", "yes"), ("b", "where?", "right"), ("b", "whole?", "no")]


@pytest.mark.parametrize(
    "header",
    [
        ("Image", "Question 1", "Answer 1", "Question 2", "Answer 2"),
        ("image_name", "q1", "a1", "q2", "a2"),
        ("FILE NAME", "Q_01", "Ans_01", "Q_02", "Ans_02"),
        ("Picture", "Q1", "Q1 Answer", "Q2", "Q2_Ans"),
        ("img id", "Question", "Answer", "Question.1", "Answer.1"),
        ("Filename", "Question", "Answer", "Question", "Answer"),
        ("Image ID", "Questions", "Answers", "Questions2", "Answers2"),
    ],
)
def test_one_row_for_each_image(header: tuple[str, ...]) -> None:
    found = said(header, ("a", "where?", "left", "whole?", "yes"), ("b", "where?", "right", "whole?", "no"))
    assert (found.problems, found.notes) == ([], [])
    assert pairs(found) == TWO


@pytest.mark.parametrize("header", [("image", "question", "answer"), ("Img.", "Ques.", "Ans."), ("file", "Q", "A")])
def test_one_row_for_each_pair_below_a_title(header: tuple[str, ...]) -> None:
    rows = [("a", "where?", "left"), ("a", "whole?", "yes"), ("b", "where?", "right"), (), ("b", "whole?", "no")]
    found = said(("Labels of the femur",), (), ("by", "A. Example"), header, *rows, header)
    assert (found.problems, found.notes) == ([], [])
    assert pairs(found) == TWO


def test_questions_as_headers() -> None:
    header = ("No.", "Image name", "Patient ID", "1. Where?", "Which view does the image show", "Remarks")
    found = said(header, (1, "a.png", "P7", "left", "axial", "nice"), (2, "b.png", "P8", "right", "axial"), (3,))
    assert found.problems == []
    assert pairs(found) == [
        ("a.png", "Where?", "left"),
        ("a.png", "Which view does the image show", "axial"),
        ("b.png", "Where?", "right"),
        ("b.png", "Which view does the image show", "axial"),
    ]
    assert [row.patient for row in found.rows] == ["P7", "P8"]
    assert found.notes == ["a.xlsx, sheet Femur: these columns were not read: A (No.), F (Remarks)."]


def test_words_that_are_signs_to_a_model_are_told_before_a_run_fails_of_them() -> None:
    found = said(("image", "question", "answer"), ("<a>.png", "<image> where?", "left"), ("b.png", "where?", "</s> a"))
    assert found.problems == [
        "a.xlsx, sheet Femur, row 2, column B: <image> may mean something else to a model; write it without the "
        "brackets.",
        "a.xlsx, sheet Femur, row 3, column C: </s> may mean something else to a model; write it without the brackets.",
    ]
    [problem] = said(("image", "<pad> where?"), ("a.png", "left")).problems
    assert problem.startswith("a.xlsx, sheet Femur, row 1, column B: <pad> may mean something else")
    assert said(("image", "where?"), ("a.png", "< 3 mm and > 2 mm")).problems == []


def test_every_problem_has_its_place_and_all_are_told_at_once() -> None:
    header = ("image", "q1", "a1", "q2", "a2", "Bla", "")
    found = said(
        header,
        ("a.png", "where?", "", "", "yes"),
        ("", "where?", "left"),
        ("b.png", ("formula", "=A1"), ("date", "2024-03-05"), "x" * 301, ("error", "#N/A")),
        ("c.png", "where?", "y" * (MAX_ANSWER + 1), "", "", "", "stray"),
        (("formula", "=B2"), "where?", "left"),
    )
    assert found.problems == [
        "a.xlsx, sheet Femur, row 1, column F: “Bla” is neither image, question nor answer; a question as header ends "
        "with a question mark.",
        "a.xlsx, sheet Femur, row 5, column G: the column has no header in row 1.",
        "a.xlsx, sheet Femur, row 2, column C: the answer is empty.",
        "a.xlsx, sheet Femur, row 2, column D: the question is empty.",
        "a.xlsx, sheet Femur, row 3, column A: the row names no image.",
        "a.xlsx, sheet Femur, row 4, column B: the cell holds a formula; write the value itself.",
        "a.xlsx, sheet Femur, row 4, column C: the cell is a date (2024-03-05); format the cell as text and write it "
        "again.",
        "a.xlsx, sheet Femur, row 4, column D: the text is longer than 300 characters.",
        "a.xlsx, sheet Femur, row 4, column E: the cell holds the error #N/A; write the value.",
        "a.xlsx, sheet Femur, row 5, column C: the text is longer than 1000 characters.",
        "a.xlsx, sheet Femur, row 6, column A: the cell holds a formula; write the value itself.",
    ]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([("Bild", "Frage", "Antwort"), ("a", "b", "c")], "row 1: no header says which column names the images"),
        ([("image", "patient")], "row 1: there is no column of questions and answers"),
        ([("image", "q1", "a2"), ("a", "b", "c")], "column B: question 1 has 1 column(s) and its answer 0"),
        ([("image", "question", "question", "answer")], "column B: question has 2 column(s) and its answer 1"),
        ([("image", "file", "q", "a"), ("a", "a", "b", "c")], "column B: “file” names the image, as column A does"),
        ([("image", "Where?", "where ?"), ("a", "b", "c")], "column C: the question “where ?” is a header twice"),
        ([("image", ("formula", "=B1")), ("a", "b")], "column B: the header holds a formula"),
        ([("image", "q", "a"), ("a",)], "row 2, column A: the row has neither question nor answer"),
    ],
)
def test_a_header_or_row_that_says_too_little(rows: list[tuple[object, ...]], problem: str) -> None:
    found = said(*rows)
    assert any(problem in line for line in found.problems), found.problems


def test_of_two_columns_of_patients_the_first_counts() -> None:
    found = said(("image", "Patient ID", "Patient name", "q", "a"), ("a", "P7", "Anna", "b", "c"))
    assert [row.patient for row in found.rows] == ["P7"]
    assert found.notes == ["a.xlsx, sheet Femur: these columns were not read: C (Patient name)."]


def test_hidden_and_merged_are_noted() -> None:
    found = Said()
    body = sheet(("image", "q", "a"), ("a", "b", "c"), merged=2)
    rows = (body.rows[0], body.rows[1].model_copy(update={"hidden": True}))
    read_sheet("a.xlsx", body.model_copy(update={"rows": rows}), (), found)
    read_sheet("a.xlsx", sheet(("lists",), hidden=True), (), found)
    read_sheet("a.xlsx", sheet(), (), found)
    assert found.problems == []
    assert found.notes == [
        "a.xlsx, sheet Femur: hidden rows were read like the others: 2.",
        "a.xlsx, sheet Femur: what stands in a merged cell counts for each of its rows (2 merged).",
        "a.xlsx, sheet Femur is hidden and was left out.",
    ]


def test_numbers_before_questions_are_no_part_of_them() -> None:
    assert question_of("Q1: Where?") == question_of("1) Where?") == question_of("Question 12. Where?") == "Where?"
    assert question_of("2.5 MHz or 5 MHz?") == "2.5 MHz or 5 MHz?"
    assert same_question("1. Where ?") == same_question("where?") != same_question("Is it > 5 cm?")
    assert same_question("Is it > 5?") != same_question("Is it < 5?")
    assert same_question("?") == "?"
    assert same_words("Left half.") == same_words("left half")
    assert same_words("1. trimester") != same_words("2. trimester")


_TEXT = st.one_of(
    st.sampled_from(["image", "q1", "a1", "q2", "question", "answer", "Where?", "a.png", "patient", "No.", "1. ", "#"]),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).map(str.strip).filter(bool),
)
_CELL = st.builds(
    SheetCell,
    column=st.sampled_from(list(LETTERS[:6])),
    kind=st.sampled_from(["text", "text", "text", "number", "date", "formula", "error"]),
    text=_TEXT,
)
_ROW = st.lists(_CELL, min_size=1, max_size=6, unique_by=lambda cell: cell.column)


@given(rows=st.lists(_ROW, max_size=8))
def test_any_table_is_read_or_its_problems_are_told(rows: list[list[SheetCell]]) -> None:
    made = tuple(
        SheetRow(number=n, cells=tuple(sorted(row, key=lambda cell: cell.column)))
        for n, row in enumerate(rows, start=1)
    )
    found = Said()
    read_sheet("a.xlsx", Sheet(title="t", rows=made), QUESTIONS, found)
    assert all(problem.startswith("a.xlsx, sheet t, row ") for problem in found.problems)
    if made and not found.problems:
        assert all(row.pairs for row in found.rows)
        assert all(pair.question and pair.answer for row in found.rows for pair in row.pairs)
        filled = {(row.number, cell.column) for row in made for cell in row.cells}
        assert {(p.row, p.column) for row in found.rows for p in row.places} <= filled
