"""The log: what libraries say becomes one line each, and what they quote stays out of it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SAYS = """
import logging, threading, warnings
from clinic_ai.logs import configure
configure("info", "json")
configure("info", "json")
{what}
"""


@pytest.mark.parametrize(
    ("what", "event", "kind"),
    [
        ("warnings.warn('inbox/MUSTER^HANS is odd', RuntimeWarning)", "library.warned", "RuntimeWarning"),
        ("logging.getLogger('watchdog').error('MUSTER^HANS')", "library.logged", "error"),
        (
            "try: {}['MUSTER^HANS']\nexcept KeyError: logging.getLogger('x').exception('of MUSTER^HANS')",
            "library.logged",
            "KeyError",
        ),
        (
            "t = threading.Thread(target=lambda: {}['MUSTER^HANS']); t.start(); t.join()",
            "thread.died",
            "KeyError",
        ),
    ],
)
def test_a_library_is_heard_and_not_quoted(what: str, event: str, kind: str) -> None:
    ended = subprocess.run([sys.executable, "-c", SAYS.format(what=what)], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0
    (line,) = ended.stderr.splitlines()
    assert "MUSTER" not in line
    said = json.loads(line)
    assert (said["event"], said["kind"]) == (event, kind)
    assert ":" in str(said["at"])


def test_what_is_of_no_weight_is_not_told() -> None:
    what = "logging.getLogger('uvicorn').info('started'); logging.getLogger('asyncio').debug('x')"
    ended = subprocess.run([sys.executable, "-c", SAYS.format(what=what)], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
