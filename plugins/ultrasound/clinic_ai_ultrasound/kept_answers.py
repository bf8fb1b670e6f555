"""What models answered to validation and test, kept as it comes: answering takes long, and a run may end in its middle.

A file of lines of JSON: first which run it is of, then a line for the answers to all questions about one image. A line
that was cut short counts as not written.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from clinic_ai.ml.checkpoints import write_durably
from clinic_ai_ultrasound.answering import Answered


class KeptAnswers:
    """The answers of one run, by keys."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        """Take up what ``path`` has; of another ``fingerprint``, or damaged, it is begun anew."""
        self._path = path
        self._found: dict[str, list[Answered]] = {}
        lines = _whole_lines(path)
        first = json.dumps({"run": fingerprint})
        if lines[:1] == [first]:
            for line in lines[1:]:
                said = json.loads(line)
                self._found[said["key"]] = [
                    Answered(one["text"], one["mean_log_probability"], tuple(one["flags"])) for one in said["answers"]
                ]
        else:
            lines = [first]
        # What was cut short goes; what follows is written behind a whole line.
        write_durably(path, "".join(f"{line}\n" for line in lines).encode())

    def get(self, key: str) -> list[Answered] | None:
        """Return the answers of that key, None if there are none yet."""
        return self._found.get(key)

    def add(self, key: str, answers: list[Answered]) -> None:
        """Keep answers; they are on the disk when this returns."""
        line = json.dumps({"key": key, "answers": [asdict(one) for one in answers]})
        with self._path.open("ab") as stream:
            stream.write(f"{line}\n".encode())
            stream.flush()
            os.fsync(stream.fileno())
        self._found[key] = answers

    def __len__(self) -> int:
        """Return of how many images there are answers."""
        return len(self._found)

    def __bool__(self) -> bool:
        return True


def _whole_lines(path: Path) -> list[str]:
    """Return the lines up to the first one that is not whole JSON."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    whole = []
    for line in text.split("\n")[:-1]:
        try:
            json.loads(line)
        except ValueError:
            break
        whole.append(line)
    return whole
