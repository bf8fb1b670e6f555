"""Which images are asked about at all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import WIDTH, make_base, seal

from clinic_ai.domain import FileKind, InstanceHeader, StudyFacts
from clinic_ai.errors import ModelError
from clinic_ai.ml.images import GreyImage
from clinic_ai.ml.unlike import STATISTICS, Unlike
from clinic_ai_ultrasound.gate import refuse_by_header, refuse_by_pixels, refuse_unlike, remarks_by_pixels

NOISE = np.random.default_rng(0).random((96, 128), dtype=np.float32)


def header(kind=FileKind.DICOM, **words):
    return InstanceHeader(kind=kind, **{"rows": 96, "columns": 128, "modality": "US"} | words)


@pytest.mark.parametrize(
    ("words", "modalities", "code"),
    [
        ({}, (), ""),
        ({"modality": "CR"}, (), "not_an_ultrasound"),
        ({"modality": ""}, (), "not_an_ultrasound"),
        ({"modality": ""}, ("US",), ""),
        ({"modality": ""}, ("US", "CT"), "not_an_ultrasound"),
        ({"kind": FileKind.PNG, "modality": ""}, (), ""),
        ({"kind": FileKind.PNG, "modality": ""}, ("DX",), "not_an_ultrasound"),
        ({"kind": FileKind.JPEG, "modality": "CT"}, ("US",), "not_an_ultrasound"),
        ({"rows": 0}, (), "no_pixels"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.6.2"}, (), "volume"),
    ],
)
def test_the_header_says_what_is_no_ultrasound(words, modalities, code):
    reason = refuse_by_header(header(**words), StudyFacts(modalities=modalities))
    assert (reason.code if reason else "") == code


def grey(pixels=NOISE, colour=0.0):
    return GreyImage(pixels, None, (), pixels.shape, colour)


def test_pixels_that_show_nothing_are_refused():
    assert refuse_by_pixels(grey()) is None
    assert refuse_by_pixels(grey(np.full_like(NOISE, 0.4))).code == "empty_image"
    assert refuse_by_pixels(grey(NOISE[:63])).code == "too_small"
    assert refuse_by_pixels(grey(colour=0.3)).code == "colour_picture"


def test_doppler_is_let_through_and_said():
    assert refuse_by_pixels(grey(colour=0.05)) is None
    assert "colours" in remarks_by_pixels(grey(colour=0.05))[0]
    assert remarks_by_pixels(grey()) == []


@pytest.fixture
def known(tmp_path):
    """A function: a base that knows what its training images were like, with given statistics."""

    def make(limit=2.0, **tensors):
        base = make_base(tmp_path / "base")
        whole = {"mean": torch.ones(WIDTH), "factor": torch.eye(WIDTH)[:, :3]} | tensors
        save_file({key: value.contiguous() for key, value in whole.items()}, tmp_path / "base" / STATISTICS)
        words = {"slot": "base", "name": "tiny", "version": "1"}
        return seal(tmp_path / "base", **words, parameters=base.manifest.parameters | {"feature_limit": limit})

    return make


def test_what_is_unlike_the_training_is_refused(known):
    told = Unlike.of(known(), WIDTH)
    assert refuse_unlike(told, torch.ones(WIDTH)) is None
    assert refuse_unlike(told, torch.ones(WIDTH) + 1.1) is None, "1.1 times the root of three is within 2"
    reason = refuse_unlike(told, torch.ones(WIDTH) - 2.4)
    assert (reason.code, "2.08 times" in reason.sentence) == ("out_of_distribution", True)


def test_a_base_without_statistics_tells_nothing(tiny):
    assert Unlike.of(tiny, WIDTH) is None


@pytest.mark.parametrize(
    "wrong",
    [{"limit": 0.0}, {"mean": torch.ones(3)}, {"factor": torch.full((WIDTH, 2), float("nan"))}, {"limit": "high"}],
)
def test_statistics_that_are_none_are_refused(known, wrong):
    with pytest.raises(ModelError, match=STATISTICS):
        Unlike.of(known(**wrong), WIDTH)
