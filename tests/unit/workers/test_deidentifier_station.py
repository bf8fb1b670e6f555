"""The name of a station becomes a pseudonym."""

from __future__ import annotations

import re
from pathlib import Path

import marked


def test_a_station_has_the_same_pseudonym_at_one_site(tmp_path: Path) -> None:
    path = marked.write(marked.image(StationName=marked.MARK), tmp_path / "a")
    one, again, other = (
        marked.copy_of(path, tmp_path / str(n), key=key)[0].groups["station"]
        for n, key in enumerate((marked.KEY, marked.KEY, "7b" * 32))
    )
    assert one == again != other
    assert re.fullmatch("station [0-9a-f]{8}", one)
