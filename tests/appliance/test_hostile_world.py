"""Everything hostile at once into a real daemon: each is told apart, its memory stays, the next study is processed."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from harness import Daemon, rows, wait_until
from hostile import QUARANTINED, STORED
from scans import write_ct_slice

from clinic_ai.home import Home
from clinic_ai.settings import load_settings

MIB = 1 << 20
MOST_GROWTH = 200 * MIB
MOST_CPU_S = 10.0


def fates(home: Home) -> dict[str, tuple[str, str]]:
    query = "SELECT name, fate, reason_code FROM files WHERE fate NOT IN ('CLAIMING', 'CLAIMED')"
    return {row["name"].removesuffix("/x.dcm"): (row["fate"], row["reason_code"]) for row in rows(home, query)}


def drop(home: Home, aside: Path, name: str, content: bytes) -> None:
    """Let a file appear in a folder of its own."""
    (aside / name).mkdir()
    (aside / name / "x.dcm").write_bytes(content)
    (aside / name).rename(home.inbox / name)


def cpu_s(daemon: Daemon) -> float:
    """Return the processor time that the daemon, its ended children and its living parser took so far, in seconds."""
    parsers = [parser.cpu_times()[:2] for parser in daemon.children("parser")]
    return sum(map(sum, [psutil.Process(daemon.process.pid).cpu_times()[:4], *parsers]))


@pytest.mark.timeout(400)
def test_a_daemon_among_hostile_files(home: Home, tmp_path: Path, start: Callable[[], Daemon]) -> None:
    aside = tmp_path / "aside"
    aside.mkdir()
    expected = {name: ("QUARANTINED", code) for name, (code, _) in QUARANTINED.items()}
    expected |= dict.fromkeys(STORED, ("STORED", ""))
    hostile = {name: make() for name, (_, make) in QUARANTINED.items()} | {n: make() for n, make in STORED.items()}
    daemon = start()
    itself = psutil.Process(daemon.process.pid)
    study(home, tmp_path, 1)
    before = itself.memory_info().rss
    slow = {}
    for name, content in hostile.items():
        began = cpu_s(daemon)
        drop(home, aside, name, content)
        wait_until(lambda n=name: n in fates(home), f"the fate of “{name}”", 60)
        slow[name] = cpu_s(daemon) - began
        for parser in daemon.children("parser"):
            limit = parser.rlimit(resource.RLIMIT_AS)[0]
            assert limit == load_settings(home.clinic_toml).ingest.parser_memory_mb * MIB
    found = fates(home)
    assert {name: found[name] for name in expected} == expected
    study(home, tmp_path, 2)
    assert itself.memory_info().rss - before < MOST_GROWTH
    assert {name: taken for name, taken in slow.items() if taken > MOST_CPU_S} == {}
    assert daemon.stop() == 0
    told = json.dumps(daemon.seen)
    assert not [word for word in ("PHANTOM", "script", "etc/passwd", "MULLER") if word in told]


def study(home: Home, tmp_path: Path, seed: int) -> None:
    """Have a good study processed to its end."""
    path = tmp_path / f"good {seed}.dcm"
    uid = write_ct_slice(path, seed=4710 + seed)
    path.rename(home.inbox / path.name)
    query = "SELECT 1 FROM studies WHERE study_instance_uid = ? AND state = 'DONE'"
    wait_until(lambda: bool(rows(home, query, uid)), f"the result of good study {seed}", 90)
