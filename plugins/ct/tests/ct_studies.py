"""Tasks made of files, as the appliance makes them: headers by its parser, stacks by its geometry."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from clinic_ai.analyses import volumes_of
from clinic_ai.contract import AnalysisTask, TaskImage
from clinic_ai.domain import FileKind, Instance, InstanceHeader, StudyFacts
from clinic_ai.workers.parser import read_header
from clinic_ai_ct.survey import Survey


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


def header(**words) -> InstanceHeader:
    """Return a header of a CT image, changed by ``words``."""
    return InstanceHeader(**{"kind": FileKind.DICOM, "modality": "CT", "rows": 8, "columns": 8} | words)


def survey_of(**words) -> Survey:
    """Return what is found of an ordinary chest, changed by ``words``."""
    usual = {
        "air_hu": -1000.0,
        "flesh_hu": 50.0,
        "soft": 0.9,
        "lungs_ml": 4000.0,
        "lungs_hu": -850.0,
        "centre": (0.0, 0.0, 0.0),
        "cut_above": False,
        "cut_below": False,
        "cut_aside": False,
        "metal_ml": 0.0,
        "saturated": 0.0,
        "uniform": False,
    }
    return Survey(**usual | words)
