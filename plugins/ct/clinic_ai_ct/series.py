"""Files of a DICOM series as the task that the daemon makes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from clinic_ai.analyses import volumes_of
from clinic_ai.contract import AnalysisTask, TaskImage
from clinic_ai.domain import Instance, ModelRef, StudyFacts
from clinic_ai.workers.parser import read_header

_MOST_PIXELS = 10**9


def task_of(files: Sequence[Path], output: Path, models: tuple[ModelRef, ...] = ()) -> AnalysisTask:
    """Return the task of judging these files. Raise InputError if one of them cannot be read, OSError if it is gone."""
    images, instances = [], []
    for path in files:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = stream.tell()
            stream.seek(0)
            header = read_header(stream, size, _MOST_PIXELS)
        images.append(TaskImage(path=str(path), sha256=digest, header=header))
        instances.append(Instance(sha256=digest, size_bytes=size, header=header))
    return AnalysisTask(
        job_id="series",
        facts=StudyFacts(),
        images=tuple(images),
        output_directory=str(output),
        models=models,
        volumes=volumes_of(instances),
    )
