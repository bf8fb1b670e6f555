"""The promise that no study is lost, with real processes and real SIGKILL."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from harness import Daemon, rows, wait_until
from scans import write_ct_slice

from clinic_ai.home import Home


def drop(home: Home, directory: Path, count: int) -> dict[str, str]:
    """Write ``count`` one-slice studies aside, then move them into the inbox; return SHA-256 by study UID."""
    made = {}
    directory.mkdir()
    for seed in range(count):
        path = directory / f"slice {seed}.dcm"
        uid = write_ct_slice(path, seed=seed)
        made[uid] = hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(directory.iterdir()):
        path.rename(home.inbox / path.name)
    return made


def delivered(home: Home) -> list[Path]:
    return sorted(path for path in home.outbox.glob("*/v*") if path.is_dir())


def check_whole(home: Home, made: dict[str, str]) -> None:
    """Every study is there once, none twice, none partial; every file's fate is named."""
    found = {}
    for place in delivered(home):
        document = json.loads((place / "result.json").read_text())
        for file in document["files"]:
            content = (place / file["name"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == file["sha256"], file["name"]
        assert {"result.json", "report.pdf"} <= {path.name for path in place.iterdir()}
        uid = document["study"]["study_instance_uid"]
        assert uid not in found, f"{uid} was delivered twice: {found[uid]} and {place}"
        found[uid] = place
    assert set(found) == set(made)
    studies = rows(home, "SELECT study_instance_uid, version, state FROM studies")
    assert sorted((s["study_instance_uid"], s["version"], s["state"]) for s in studies) == sorted(
        (uid, 1, "DONE") for uid in made
    )
    fates = rows(home, "SELECT fate, sha256 FROM files")
    assert sorted((f["fate"], f["sha256"]) for f in fates) == sorted(("STORED", sha) for sha in made.values())
    for sha in made.values():
        stored = (home.objects / sha[:2] / sha[2:]).read_bytes()
        assert hashlib.sha256(stored).hexdigest() == sha
    assert not [path for path in home.inbox.rglob("*") if path.is_file()]
    assert not [path for path in home.spool.rglob("*") if path.is_file()]
    assert not list(home.jobs.iterdir())


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("kills", "studies"), [(2, 8), pytest.param(10, 50, marks=pytest.mark.torture)])
def test_kills_of_the_daemon_in_the_middle_of_many_studies(
    home: Home, tmp_path: Path, start: Callable[[], Daemon], kills: int, studies: int
) -> None:
    dice = random.Random(20261121)
    made = drop(home, tmp_path / "aside", studies)
    for _ in range(kills):
        daemon = start()
        for _ in range(dice.randint(0, 4)):
            daemon.wait_for(dice.choice(["job.done", "delivery.sent", "job.done"]), timeout_s=60)
        daemon.kill()
        assert len(delivered(home)) < studies, "the batch ended before the kills did: make it larger"
    daemon = start()
    wait_until(lambda: len(delivered(home)) == studies, "delivery of all studies", 200)
    wait_until(lambda: len(rows(home, "SELECT 1 FROM studies WHERE state = 'DONE'")) == studies, "the last study's end")
    assert daemon.stop() == 0
    check_whole(home, made)


@pytest.mark.timeout(240)
def test_kills_of_every_kind_of_child(home: Home, tmp_path: Path, start: Callable[[], Daemon]) -> None:
    made = drop(home, tmp_path / "aside", 16)
    daemon = start()
    killed: dict[str, int] = {"parser": 0, "engine": 0, "guard": 0, "renderer": 0}

    def kill_some() -> bool:
        for kind in killed:
            for child in daemon.children(kind):
                if killed[kind] < 2:
                    try:
                        child.kill()
                    except psutil.NoSuchProcess:
                        continue
                    killed[kind] += 1
        return all(killed.values()) and len(delivered(home)) == len(made)

    wait_until(kill_some, "delivery of all studies in spite of the kills", 200)
    wait_until(lambda: len(rows(home, "SELECT 1 FROM studies WHERE state = 'DONE'")) == len(made), "the end")
    assert daemon.stop() == 0
    check_whole(home, made)


def test_nothing_is_left_running_after_sigterm(home: Home, tmp_path: Path, start: Callable[[], Daemon]) -> None:
    drop(home, tmp_path / "aside", 2)
    daemon = start()
    daemon.wait_for("job.done")
    children = daemon.children()
    assert children
    assert daemon.stop() == 0
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert not home.control_socket.exists()
