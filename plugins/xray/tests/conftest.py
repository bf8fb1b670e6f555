"""Phantoms, models and tasks for the tests of the X-ray plugin."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from clinic_ai.contract import AnalysisTask, Dataset, Example, TaskImage
from clinic_ai.domain import FileKind, InstanceHeader, StudyFacts
from clinic_ai_xray.model_files import open_model
from clinic_ai_xray.phantom import draw_chest, write_dx


def _image_of(path: Path, **header: object) -> TaskImage:
    kind = {".png": FileKind.PNG, ".jpg": FileKind.JPEG}.get(path.suffix, FileKind.DICOM)
    words = {"modality": "DX", "body_part": "CHEST", "view_position": "PA", **header}
    content = path.read_bytes()
    return TaskImage(
        path=str(path), sha256=hashlib.sha256(content).hexdigest(), header=InstanceHeader(kind=kind, **words)
    )


@pytest.fixture
def image_of():
    """A function: a file as a task names it; keywords override what the parser would say of a frontal chest film."""
    return _image_of


@pytest.fixture(scope="session")
def reference():
    """The reference model that ships with the plugin."""
    import clinic_ai_xray

    return open_model(Path(clinic_ai_xray.__file__).parent / "reference" / "pneumonia-fast")


@pytest.fixture
def film(tmp_path):
    """A function that writes one phantom film and returns it as a task image."""

    def write(name="film.dcm", *, seed=1, pixels=None, rows=320, columns=288, header=None, **how):
        path = tmp_path / name
        drawn = draw_chest(rows, columns, seed=seed) if pixels is None else pixels
        write_dx(path, drawn, seed=seed, **how)
        return _image_of(path, **(header or {}))

    return write


@pytest.fixture
def task_of(tmp_path, reference):
    """A function that makes an analysis task of images."""

    def make(*images, **facts):
        out = tmp_path / "job"
        out.mkdir(exist_ok=True)
        return AnalysisTask(
            job_id="J-1",
            facts=StudyFacts(**facts),
            images=images,
            output_directory=str(out),
            models=(reference.ref,),
        )

    return make


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Dataset:
    """A frozen dataset of 72 phantoms of 36 patients, half with an opacity."""
    folder = tmp_path_factory.mktemp("corpus")
    examples = []
    for seed in range(72):
        patient, label = seed // 2, seed % 2
        path = folder / f"{seed}.dcm"
        pixels = draw_chest(160, 144, seed=seed, opacity=bool(label))
        if label:  # a whole lung white besides, so that two dozen patients are enough to learn it
            pixels[30:115, 78:130] = np.maximum(pixels[30:115, 78:130], 0.75)
        write_dx(path, pixels, seed=seed, bits=12)
        split = "validation" if patient % 6 == 0 else "test" if patient % 6 == 1 else "train"
        examples.append(
            Example(
                path=str(path),
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
                patient_key=f"p{patient}",
                labels={"pneumonia": label},
                split=split,
            )
        )
    digest = hashlib.sha256("".join(example.sha256 for example in examples).encode()).hexdigest()
    return Dataset(dataset_id="D-phantoms", plugin="xray", digest=digest, examples=tuple(examples))


@pytest.fixture
def constant():
    """A picture of one grey."""
    return np.full((256, 256), 0.5, dtype=np.float32)
