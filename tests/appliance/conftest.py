"""Fixtures: a home, and daemons on it that leave no process behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from harness import QUICK, Daemon

from clinic_ai.home import Home, init_home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = init_home(tmp_path / "h")
    home.clinic_toml.write_text(QUICK)
    return home


@pytest.fixture
def start(home: Home) -> Iterator[Callable[[], Daemon]]:
    """Start daemons on the test's home, and leave no process behind."""
    daemons: list[Daemon] = []

    def begin() -> Daemon:
        daemon = Daemon(home)
        daemons.append(daemon)
        daemon.wait_for("daemon.ready")
        return daemon

    yield begin
    for daemon in daemons:
        left = daemon.children() if daemon.process.poll() is None else []
        if daemon.process.poll() is None:
            daemon.kill()
        _, alive = psutil.wait_procs(left, timeout=20)
        assert not alive, f"children outlived the daemon: {alive}"
