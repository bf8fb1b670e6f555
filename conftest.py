"""Compiles the sources once, as installing does; the suite starts thousands of processes that would each do it again.

A child of the daemon writes no bytecode, and where PYTHONDONTWRITEBYTECODE is set nothing does.
"""

from __future__ import annotations

import compileall
from pathlib import Path

import pytest

SOURCES = ("clinic_ai", "plugins", "tests/support")


def pytest_configure(config: pytest.Config) -> None:
    """Compile what has changed, before the workers of xdist start; where nothing may be written it is only slower."""
    if not hasattr(config, "workerinput"):
        for folder in SOURCES:
            compileall.compile_dir(Path(__file__).parent / folder, quiet=2)
