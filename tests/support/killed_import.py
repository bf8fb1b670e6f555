"""Imports and promotes a model in forked processes that are killed just before their n-th step, for
n = 0, STRIDE, 2·STRIDE … until one comes to its end.

Run as ``python -m killed_import HOME SOURCE STRIDE``; prints one JSON line per n: how the process ended, which versions
the registry then has and verifies, and which one is active.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from school import open_school
from sqlalchemy import Engine, event

from clinic_ai.domain import ModelState
from clinic_ai.home import Home

DONE = 42
_STEPS = {"open", "os.mkdir", "os.rename", "os.chmod", "os.remove", "os.rmdir", "shutil.rmtree"}


def _import_until_killed(home: Home, source: Path, steps: int) -> None:
    school, left = open_school(home), steps

    def step(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", step)
    event.listen(Engine, "commit", step)
    sys.addaudithook(lambda name, _: step() if name in _STEPS else None)
    ref = school.registry._import(source, "ada", ModelState.IMPORTED, trial=False)
    school.registry.promote(ref.plugin, ref.name, ref.version, "ada")
    os._exit(DONE)


def main() -> None:
    """Do it until one process comes to its end."""
    template, source, stride = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    steps, status = 0, -1
    while status != DONE:
        home = Home(template.with_name(f"home-{steps}"))
        shutil.copytree(template, home.path)
        if (pid := os.fork()) == 0:
            _import_until_killed(home, source, steps)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        school = open_school(home)
        after = {m.version: school.registry.verify("tiny", m.name, m.version) for m in school.registry.list_models()}
        active = [ref.version for ref in school.registry.active("tiny")]
        school.registry._import(source, "ada", ModelState.IMPORTED, trial=False)
        healed = school.registry.verify("tiny", "scalar", "2")
        leftovers = [path.name for path in home.models.glob(".import-*")]
        school.close()
        shutil.rmtree(home.path)
        print(
            json.dumps({"status": status, "after": after, "active": active, "healed": healed, "leftovers": leftovers})
        )
        steps += stride


if __name__ == "__main__":
    main()
