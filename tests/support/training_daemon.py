"""The training rooms as a process of their own, to be killed: starts a run, says its id, and waits.

Run as ``python -m training_daemon HOME FOLDER``.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from school import open_school

from clinic_ai.home import Home


def main() -> None:
    """Start a run that holds at its fifth step."""
    school = open_school(Home(Path(sys.argv[1])))
    run_id = school.runs.start("tiny", Path(sys.argv[2]), {"hold_at": 5}, "ada")
    print(run_id, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
