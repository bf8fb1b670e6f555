"""Signs in the process of a test what a fixture needs signed, by the same code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from clinic_ai.heads import keys
from clinic_ai.heads.signing import answer


@contextmanager
def signing_here() -> Iterator[None]:
    """Start no process to sign: for setting up, where dozens of tests would start half a dozen each.

    What a test itself does goes the daemon's way, through a process of its own.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "_ask", answer)
        yield
