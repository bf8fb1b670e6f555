"""A file larger than what is filed at most, for whose copy there is no room: it is named, and nobody waits for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from intake_site import Site
from scans import write_ct_slice

from clinic_ai.disk.room import Shortage
from clinic_ai.domain import Fate


def large(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(3 << 20)
    return path


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site that has room for a slice, and not for a file of some MiB."""
    site = Site(tmp_path / "h", max_file_mb=1)
    short = Shortage("There is no room.", "Make some.")
    monkeypatch.setattr(site.intake.room, "shortage", lambda size=0, **_: short if size > 1 << 20 else None)
    yield site
    site.close()


def test_it_is_named_and_every_pass_goes_well(site: Site, tmp_path: Path) -> None:
    os.link(large(tmp_path / "film.raw"), site.home.inbox / "film.raw")  # so that it has to be copied
    write_ct_slice(site.home.inbox / "a.dcm", seed=1)
    rows = site.settle(2)
    for _ in range(3):
        site.intake.cycle()
    assert site.fates() == {Fate.STORED: 1, Fate.IGNORED: 1}
    assert rows["film.raw"].reason_code == "too_large"
    assert "has 3 MiB; this appliance takes at most 1 MiB" in rows["film.raw"].reason
    assert (site.home.inbox / "film.raw").exists()


def test_a_person_who_gives_it_is_told(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    large(folder / "film.raw")
    write_ct_slice(folder / "a.dcm", seed=1)
    site.intake.take([folder], "process")
    assert {row.reason_code for row in site.files()} == {"", "too_large"}
