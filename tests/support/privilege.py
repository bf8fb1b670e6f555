"""Commands without root's right to read and write everything, which would hide every refusal of the file system."""

from __future__ import annotations

import os
import shutil

import pytest

_RIGHTS = ("dac_override", "dac_read_search", "fowner", "linux_immutable")


def ordinary(command: list[str]) -> list[str]:
    """Return the command for somebody whom file permissions concern; skip the test where root cannot become that."""
    if os.geteuid() != 0:
        return command
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("root's privilege is dropped by setpriv (util-linux), which is not here")
    without = ",".join(f"-{right}" for right in _RIGHTS)
    return [setpriv, f"--inh-caps={without}", f"--bounding-set={without}", *command]
