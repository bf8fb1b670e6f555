"""Phantoms, models and tasks for the tests of the X-ray plugin."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clinic_ai.contract import AnalysisTask, Dataset, Example, TaskImage
from clinic_ai.domain import FileKind, InstanceHeader, StudyFacts
from clinic_ai.ml.model_files import open_model
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
                groups={"age": "40-64" if patient < 18 else "65+"},
            )
        )
    digest = hashlib.sha256("".join(example.sha256 for example in examples).encode()).hexdigest()
    return Dataset(dataset_id="D-phantoms", plugin="xray", digest=digest, examples=tuple(examples))


@pytest.fixture
def constant():
    """A picture of one grey."""
    return np.full((256, 256), 0.5, dtype=np.float32)


@pytest.fixture(scope="session")
def small():
    """The intensive tier with one or two dense layers where DenseNet121 has dozens, at 64 x 64: exported in seconds."""
    from clinic_ai_xray import convert, network, recipe, tiers

    tier = replace(tiers.INTENSIVE, name="small", side=64, features=228, cached_shape=(100, 2, 2), shard=16)

    class SmallNetwork(network.IntensiveNetwork):
        blocks = (1, 1, 1, 6)

    SmallNetwork.tier = tier
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiers.TIERS, tier.name, tier)
        patch.setitem(network.NETWORKS, tier, SmallNetwork)
        patch.setitem(convert.PLACE, tier, convert.PLACE[tiers.INTENSIVE])
        patch.setitem(recipe.DEFAULTS, tier, replace(recipe.DEFAULTS[tiers.INTENSIVE], tier=tier.name))
        yield tier


@pytest.fixture(scope="session")
def densenet_tensors():
    """A function: random weights in the layout of torchvision's DenseNet, of some blocks and channels of input."""
    return _densenet_tensors


def _densenet_tensors(blocks, channels=3):
    generator = torch.Generator().manual_seed(5)
    tensors = {}

    def convolution(name, *shape):
        spread = (2 / np.prod(shape[1:])) ** 0.5
        tensors[f"{name}.weight"] = torch.randn(shape, generator=generator) * spread

    def norm(name, width):
        for part, around in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            tensors[f"{name}.{part}"] = around + 0.3 * (torch.rand(width, generator=generator) - 0.5)

    convolution("features.conv0", 64, channels, 7, 7)
    norm("features.norm0", 64)
    width = 64
    for block, layers in enumerate(blocks, start=1):
        for layer in range(1, layers + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            norm(f"{name}.norm1", width)
            convolution(f"{name}.conv1", 128, width, 1, 1)
            norm(f"{name}.norm2", 128)
            convolution(f"{name}.conv2", 32, 128, 3, 3)
            width += 32
        if block < len(blocks):
            norm(f"features.transition{block}.norm", width)
            convolution(f"features.transition{block}.conv", width // 2, width, 1, 1)
            width //= 2
    norm("features.norm5", width)
    tensors["classifier.weight"], tensors["classifier.bias"] = torch.zeros(18, width), torch.zeros(18)
    return tensors


@pytest.fixture(scope="session")
def small_base(small, densenet_tensors, tmp_path_factory):
    """A base of the small tier, converted of random weights."""
    from clinic_ai_xray.convert import main

    folder = tmp_path_factory.mktemp("base")
    torch.save(densenet_tensors((1, 1, 1, 6)), folder / "weights.pt")
    words = ["--licence", "Apache-2.0", "--source-of-weights", "Random numbers.", "--slot", "second"]
    assert main([str(folder / "weights.pt"), str(folder / "base"), "--tier", small.name, *words]) == 0
    return open_model(folder / "base")
