"""Senders as clinics have them: real processes that write into an inbox, step by step as the test says.

Usage: writers.py PATH; then on standard input ``write HEX``, ``map HEX``, ``rename NAME``, ``open`` or ``close``, each
answered by ``done``.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path


class Writer:
    """A process that has a file open for writing. It ends with the ``with`` block."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def begin(self, *words: str) -> None:
        """Order a step, without waiting for its end."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()

    def wait(self) -> None:
        """Wait for the end of the step."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "done\n"

    def do(self, *words: str) -> None:
        """Order a step and wait for its end."""
        self.begin(*words)
        self.wait()

    def write(self, content: bytes) -> None:
        """Append bytes."""
        self.do("write", content.hex())


def main(path: Path) -> None:
    descriptor = -1
    mapping: mmap.mmap | None = None
    for line in sys.stdin:
        verb, _, word = line.strip().partition(" ")
        if verb == "open":
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        elif verb == "write":
            os.write(descriptor, bytes.fromhex(word))
        elif verb == "map":  # and close the file: the mapping alone keeps it writable
            both = os.open(path, os.O_RDWR)
            os.ftruncate(both, len(word) // 2)
            mapping = mmap.mmap(both, len(word) // 2)
            mapping[: len(word) // 2 - 1] = bytes.fromhex(word)[:-1]
            os.close(both)
        elif verb == "finish":
            assert mapping is not None
            mapping[-1:] = bytes.fromhex(word)
            mapping.close()
        elif verb == "rename":
            path.rename(path.with_name(word))
        elif verb == "close":
            os.close(descriptor)
        sys.stdout.write("done\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
