"""SIGKILLs an ingest at random instants while a sender that never dies goes on dropping; then checks what is there.

``python -m random_kills HOME FAR SEED KILLS`` where FAR is a second inbox, on another file system if there is one. A
life ends after a random delay (killed from outside, alone or with all its children) or at a random lasting step of its
own, recovery included; in some a parser is killed as well. Prints one JSON line: the kills by kind, how many files
were dropped meanwhile, and every fault of the home.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
from dropper import Dropper, send
from intake_site import Site
from reaper import Reaper
from whole import Drops, faults

from clinic_ai.home import Home, init_home, lock_home
from clinic_ai.settings import InboxSettings, IngestSettings, Settings

PATIENCE_S = 600.0
LIFE_S = 1800
QUICK = IngestSettings.model_validate(
    {"settle_s": 0.05, "quiet_period_s": 0.2, "rescan_s": 0.1, "adaptive_quiet": False}
)
BURST_S = 0.25
"""Pause between two bursts of the sender."""


def fork(act: Callable[[], None]) -> int:
    """Do something in a fork; return its process id."""
    if (pid := os.fork()) == 0:
        signal.alarm(LIFE_S)
        try:
            act()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid


def live(home: Home, settings: Settings, *, kill_at: int = 0, until_done: bool = False) -> None:
    """Take in what comes; the last life ends when nothing is left to do."""
    Reaper(kill_at).install()
    with lock_home(home):
        site = Site(home.path, settings=settings)
        deadline = time.monotonic() + PATIENCE_S
        while not (until_done and _idle(site)):
            if until_done and time.monotonic() > deadline:
                raise TimeoutError("it never comes to its end")
            site.intake.cycle()
        site.close()


def _idle(site: Site) -> bool:
    lying = [path for inbox in site.settings.inbox for path in (site.home.path / inbox.path).rglob("*")]
    return not site.receiving() and not any(path.is_file() for path in lying)


def kill_outside(pid: int, how: str, delay_s: float) -> None:
    """Kill a life after a while: alone, with all its children, or some time after its parser."""
    life = psutil.Process(pid)
    if how == "after its parser":
        delay_s /= 2
        time.sleep(delay_s)
        _kill([child for child in life.children(recursive=True) if "parser" in " ".join(child.cmdline())])
    time.sleep(delay_s)  # the instant is what is random here, there is nothing to wait for
    _kill([life, *(life.children(recursive=True) if how == "with its children" else [])])


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


class Journal:
    """One home with two inboxes, a sender that never dies, and what was died of."""

    def __init__(self, path: Path, far: Path, seed: int) -> None:
        self.home = init_home(path)
        inboxes = (InboxSettings(name="inbox", path="inbox"), InboxSettings(name="far", path=str(far)))
        self.settings = Settings(ingest=QUICK, inbox=inboxes)
        self.drops = Drops(path / "dropped")
        self.died: Counter[str] = Counter()
        self._stop = path / "stop"
        dropper = Dropper([self.home.inbox, far], path / "aside", self.drops, seed)
        self._sender = fork(lambda: send(dropper, BURST_S, self._stop))

    def kill_once(self, dice: random.Random) -> None:
        """Live once, to a random end."""
        how = dice.choice(("at a step", "at a step", "at a step", "alone", "with its children", "after its parser"))
        kill_at, delay_s = dice.randint(1, 60), dice.uniform(0.0, 1.2)
        if how == "at a step":
            pid = fork(lambda: live(self.home, self.settings, kill_at=kill_at))
        else:
            pid = fork(lambda: live(self.home, self.settings))
            kill_outside(pid, how, delay_s)
        status = _status(pid)
        self.died[how if status == -signal.SIGKILL else f"ended by itself: {status}"] += 1

    def finish(self) -> tuple[int, int]:
        """Let the sender stop and everything come to its end; return the exit statuses of both."""
        self._stop.touch()
        return _status(self._sender), _status(fork(lambda: live(self.home, self.settings, until_done=True)))


def _status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(path: Path, far: Path, seed: int, kills: int) -> None:
    """Kill so many times, finish, and tell."""
    dice = random.Random(seed)
    journal = Journal(path, far, seed)
    for _ in range(kills):
        journal.kill_once(dice)
    sender, end = journal.finish()
    dropped = journal.drops.all()
    told = {"seed": seed, "died": journal.died, "dropped": len(dropped), "sender": sender, "end": end}
    print(json.dumps({**told, "faults": faults(journal.home, dropped, delivered=False)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
