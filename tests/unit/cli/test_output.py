"""What commands print: columns stand below one another, whatever is in them."""

from __future__ import annotations

import pytest

from clinic_ai.cli.output import columns, table


@pytest.mark.parametrize(
    ("text", "wide"), [("abc", 3), ("漢字", 4), ("a漢\N{COMBINING ACUTE ACCENT}", 3), ("ｆ", 2), ("é", 1)]
)
def test_a_text_takes_so_many_columns(text: str, wide: int) -> None:
    assert columns(text) == wide


def test_columns_stand_below_one_another_beside_wide_letters(capsys: pytest.CaptureFixture[str]) -> None:
    table(("file", "fate", "why"), [("漢字.dcm", "STORED", "x"), ("plain.dcm", "STORED", "y")], empty="")
    lines = capsys.readouterr().out.splitlines()
    assert len({columns(line[: line.index("STORED")]) for line in lines[1:]}) == 1
