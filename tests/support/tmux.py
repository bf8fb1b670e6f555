"""A terminal to look at and to type into: tmux, with a server of its own for each."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import subprocess
import sys

from harness import wait_until

from clinic_ai.home import Home

INSTALLED = shutil.which("tmux") is not None
WAIT_S = 60.0


class Terminal:
    """``clinic-ai tui`` in a pseudo-terminal; ``size`` is columns and rows."""

    def __init__(self, home: Home, size: tuple[int, int] = (140, 40)) -> None:
        self._server = f"clinic-ai-{secrets.token_hex(6)}"
        command = shlex.join([sys.executable, "-m", "clinic_ai", "tui", "--home", str(home.path)])
        columns, rows = map(str, size)
        self._tmux("-f", "/dev/null", "new-session", "-d", "-s", "t", "-x", columns, "-y", rows, command)

    def _tmux(self, *arguments: str) -> str:
        environment = {key: value for key, value in os.environ.items() if key != "TMUX"}
        done = subprocess.run(
            ["tmux", "-L", self._server, *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            env={**environment, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def open(self) -> bool:
        """Whether the screen is still there."""
        listed = subprocess.run(["tmux", "-L", self._server, "list-sessions"], capture_output=True, timeout=30)
        return listed.returncode == 0

    def press(self, *keys: str) -> None:
        """Press keys by their names for tmux, such as ``Enter`` and ``C-s``."""
        self._tmux("send-keys", "-t", "t", *keys)

    def write(self, text: str) -> None:
        """Type a text."""
        self._tmux("send-keys", "-t", "t", "-l", text)

    def screen(self) -> str:
        """Return what is to be seen."""
        return self._tmux("capture-pane", "-p", "-t", "t")

    def sees(self, *words: str) -> str:
        """Wait until all the words are to be seen; return the screen."""
        seen = ""

        def there() -> bool:
            nonlocal seen
            seen = self.screen()
            return all(word in seen for word in words)

        try:
            wait_until(there, f"{words} on the screen", WAIT_S)
        except BaseException:
            sys.stderr.write(seen)
            raise
        return seen

    def end(self) -> None:
        """Close it, as whoever closes the window does."""
        subprocess.run(["tmux", "-L", self._server, "kill-server"], capture_output=True, timeout=30)
