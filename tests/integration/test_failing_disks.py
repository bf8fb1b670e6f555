"""Disks that are full, fail, refuse or go away while files are filed: nothing lost, nothing twice, every fate named.

Nobody restarts the ingest meanwhile. `make torture` fills and fails at many more places.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from failing_disk import SETTINGS, prepare
from intake_site import Site
from torture import own_mounts, strace, tell, tell_under
from whole import QUARANTINED, Drops, faults

from clinic_ai.home import Home

FULL = ["home", "state", "quarantine"]
CALLS = {
    "sync": "fsync,fdatasync",
    "link": "link,linkat",
    "rename": "rename,renameat,renameat2",
    "unlink": "unlink,unlinkat",
    "write the database": "pwrite64",
    "make a folder": "mkdir,mkdirat",
    "change a mode": "chmod,fchmodat",
}
FEWEST = 2
"""Places of a call that must have failed in one run over all."""


def disk_was_full(tmp_path: Path, where: str, sizes: range) -> None:
    kib = ",".join(map(str, sizes))
    told = tell_under(own_mounts(), "failing_disk", "full", tmp_path / "h", where, kib, 7, timeout_s=3000)
    assert told["met"], "the disk was never full when it mattered"
    assert told["faults"] == []


@pytest.mark.parametrize("where", ["home", "state"])
def test_a_full_disk(tmp_path: Path, where: str) -> None:
    disk_was_full(tmp_path, where, range(0, 120, 30))


@pytest.mark.torture
@pytest.mark.parametrize("where", FULL)
def test_a_disk_full_at_every_step(tmp_path: Path, where: str) -> None:
    disk_was_full(tmp_path, where, range(0, 600, 6))


def call_failed(path: Path, calls: str, error: str, which: int) -> bool:
    """Fail one call, whatever thread's it is the ``which``-th of; return whether there was such a call."""
    prepare(path, seed=3)
    trace = path / "trace"
    inject = strace("-o", str(trace), "-e", f"trace={calls}", "-e", f"inject={calls}:error={error}:when={which}")
    told = tell_under(inject, "failing_disk", "calls", path)
    assert told["dropped"] > 3
    injected = "INJECTED" in trace.read_text()
    site = Site(path, settings=SETTINGS)  # what could not be removed is so at the next start
    spoilt = {row.name for row in site.files() if row.reason_code == "disk_failed"}
    site.close()
    assert not spoilt or calls == CALLS["sync"]
    drops = [
        replace(drop, fates=QUARANTINED) if drop.name in spoilt else drop for drop in Drops(path / "dropped").all()
    ]
    assert faults(Home(path), drops, delivered=False) == []
    return injected


@pytest.mark.parametrize(("call", "which"), [("sync", 2), ("write the database", 3)])
def test_a_call_that_fails_once(tmp_path: Path, call: str, which: int) -> None:
    assert call_failed(tmp_path / "h", CALLS[call], "EIO", which)


@pytest.mark.torture
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("call", CALLS)
def test_each_call_fails_once(tmp_path: Path, call: str, error: str) -> None:
    # Several threads share the work: none is sure to make many of the calls that are few.
    failed = [call_failed(tmp_path / str(which), CALLS[call], error, which) for which in (1, 2, 3, 4, 5, 7, 9, 12)]
    assert failed[0]
    assert sum(failed) >= FEWEST


def test_rights_that_are_missing_for_a_while(tmp_path: Path) -> None:
    told = tell("failing_disk", "rights", tmp_path / "h", 5)
    assert told["faults"] == []
    seen = told["seen"]
    assert "cannot_take" in seen["inbox that cannot be written"]
    assert "PermissionError" in seen["objects"]
    assert "PermissionError" in seen["quarantine"]


@pytest.mark.parametrize("rounds", [2, pytest.param(100, marks=pytest.mark.torture)])
def test_a_share_that_goes_away_while_files_are_in_flight(tmp_path: Path, rounds: int) -> None:
    told = tell_under(own_mounts(), "failing_disk", "mounts", tmp_path / "h", rounds, 5, timeout_s=3000)
    assert told["offline"] == [1] * rounds, "each time people are told, once"
    assert told["faults"] == []
