"""The whole daemon and its children killed at random instants, while a folder and the network go on receiving."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from harness import QUICK, Daemon, rows, wait_until
from receiving_room import PEER, free_port, read, slices, store
from whole import Drops, faults

from clinic_ai.home import Home

KINDS = ("parser", "engine", "guard", "renderer", "receiver")
PAUSE_S = 4.0
KILLS = 60
SUPPORT = Path(__file__).parents[1] / "support"


class Modality(threading.Thread):
    """A sender that repeats what was not acknowledged, as real ones do, until it is told to stop."""

    def __init__(self, port: int, aside: Path) -> None:
        super().__init__(daemon=True)
        self.acknowledged: Counter[str] = Counter()
        self.stopping = threading.Event()
        self._port = port
        self._aside = aside

    def run(self) -> None:
        seed = 500_000
        while not self.stopping.wait(PAUSE_S):
            seed += 1
            left = read(slices(self._aside / str(seed), 4, seed=seed, side=16))
            while left:
                answers = store(self._port, left)
                for dataset, answer in zip(left, answers, strict=False):
                    self.acknowledged[str(dataset.SOPInstanceUID)] += answer == 0x0000
                left = [dataset for dataset in left if not self.acknowledged[str(dataset.SOPInstanceUID)]]
                self.stopping.wait(0.2)


@pytest.fixture
def modality(home: Home, tmp_path: Path) -> Iterator[Modality]:
    port = free_port()
    network = f'[network]\nenabled = true\nbind = "127.0.0.1"\nport = {port}\n'
    home.clinic_toml.write_text(
        f'{QUICK}\n{network}[[network.peer]]\nname = "{PEER.name}"\nae_title = "{PEER.ae_title}"\n'
    )
    modality = Modality(port, tmp_path / "modality")
    modality.start()
    yield modality
    modality.stopping.set()
    modality.join()


def kill(daemon: Daemon, dice: random.Random, killed: Counter[str]) -> str:
    """Kill something at a random instant and return what: the daemon, all there is, or children of a kind."""
    what = dice.choice(("daemon", "everything", "children", "children"))
    if what == "children":
        what = min(KINDS, key=lambda kind: killed[kind])
        wait_until(lambda: bool(daemon.children(what)), f"the next {what}", 120)
        time.sleep(dice.uniform(0.0, 0.3))  # the instants are what is random here, there is nothing to wait for
        victims = daemon.children(what)
    else:
        time.sleep(dice.uniform(0.0, 4.0))
        victims = [psutil.Process(daemon.process.pid), *(daemon.children() if what == "everything" else [])]
    for victim in victims:
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            continue
    return what


def idle(home: Home, drops: Drops) -> bool:
    """Return whether everything has its fate and every study its end."""
    pending = rows(home, "SELECT 1 FROM files WHERE fate IN ('CLAIMING', 'CLAIMED')")
    living = rows(home, "SELECT 1 FROM studies WHERE state IN ('RECEIVING', 'CLOSED', 'ROUTED')")
    (decided,) = rows(home, "SELECT count(*) AS n FROM files WHERE source = 'inbox'")
    return not pending and not living and decided["n"] >= len(drops.all())


@pytest.mark.torture
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_instants(home: Home, tmp_path: Path, modality: Modality, seed: int) -> None:
    dice, drops, stop = random.Random(seed), Drops(tmp_path / "dropped"), tmp_path / "stop"
    arguments = [tmp_path / "aside", drops.path, seed, PAUSE_S, stop, home.inbox]
    sender = subprocess.Popen([sys.executable, "-m", "dropper", *map(str, arguments)], cwd=SUPPORT)
    killed: Counter[str] = Counter()
    daemon = Daemon(home)
    while sum(killed.values()) < KILLS:
        what = kill(daemon, dice, killed)
        killed[what] += 1
        if what in {"daemon", "everything"}:
            daemon.process.wait()
            daemon = Daemon(home)
    stop.touch()
    modality.stopping.set()
    assert sender.wait(timeout=60) == 0
    wait_until(lambda: not modality.is_alive(), "the last object acknowledged", 120)
    wait_until(lambda: idle(home, drops), "the end of all that came", 600)
    assert daemon.stop() == 0
    assert faults(home, drops.all(), network=PEER.name) == [], (seed, killed)
    stored = Counter(row["sop_instance_uid"] for row in rows(home, "SELECT sop_instance_uid FROM instances"))
    assert {uid: stored[uid] for uid in modality.acknowledged if stored[uid] != 1} == {}
    assert killed["daemon"] + killed["everything"] > 5
    assert all(killed[kind] for kind in KINDS), killed
