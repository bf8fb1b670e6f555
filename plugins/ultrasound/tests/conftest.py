"""A tiny base, adapters for it and pictures, made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import make_adapter, make_base

from clinic_ai.contract import Device


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A random BLIP-2 on disk, as an engine receives it."""
    return make_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="session")
def tiny_int8(tmp_path_factory):
    """The same, to be served in 8 bits."""
    return make_base(tmp_path_factory.mktemp("tiny") / "base", quantisation="int8")


@pytest.fixture(scope="session")
def adapters(tiny, tmp_path_factory):
    """Adapters of the tiny base for five categories, by category."""
    folder = tmp_path_factory.mktemp("adapters")
    keys = ("femur", "abdomen", "thorax", "cervix", "fetal_head")
    return {key: make_adapter(folder / key, tiny, key, seed=number) for number, key in enumerate(keys, start=1)}


@pytest.fixture(scope="session")
def loaded(tiny):
    """The tiny base in memory; not to be changed by a test."""
    from clinic_ai_ultrasound.loading import load_base

    return load_base(tiny, Device())


@pytest.fixture(scope="session")
def picture_file(tmp_path_factory):
    """A function: a PNG of grey clouds that differ by seed."""
    folder = tmp_path_factory.mktemp("pictures")

    def write(seed: int = 0) -> Path:
        path = folder / f"{seed}.png"
        if not path.exists():
            noise = np.random.default_rng(seed).integers(0, 256, (8, 10), dtype=np.uint8)
            Image.fromarray(noise).resize((100, 80)).save(path)
        return path

    return write
