"""Tasks made of files, as the appliance makes them: headers by its parser, stacks by its geometry."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from clinic_ai.analyses import volumes_of
from clinic_ai.contract import AnalysisTask, TaskImage
from clinic_ai.domain import Instance, StudyFacts
from clinic_ai.workers.parser import read_header


def task_of(files: Iterable[Path], output: Path | None = None, **facts) -> AnalysisTask:
    """Return the task of analysing these files."""
    images, instances = [], []
    for path in files:
        content = path.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        with path.open("rb") as file:
            header = read_header(file, len(content), 10**9)
        images.append(TaskImage(path=str(path), sha256=sha256, header=header))
        instances.append(Instance(sha256=sha256, size_bytes=len(content), header=header))
    return AnalysisTask(
        job_id="J",
        facts=StudyFacts(**facts),
        images=tuple(images),
        output_directory=str(output or "/nonexistent"),
        models=(),
        volumes=volumes_of(instances),
    )
