"""The phantoms: the same seed gives the same film, and what is written is valid DICOM."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest

from clinic_ai.ml.images import load_grey
from clinic_ai_xray.phantom import draw_chest, main, write_dx


def test_the_seed_decides():
    np.testing.assert_array_equal(draw_chest(96, 80, seed=7), draw_chest(96, 80, seed=7))
    assert np.abs(draw_chest(96, 80, seed=7) - draw_chest(96, 80, seed=8)).max() > 0.1


def test_an_opacity_is_brighter_where_it_is_and_nowhere_else():
    difference = draw_chest(256, 224, seed=3, opacity=True) - draw_chest(256, 224, seed=3)
    patch = difference > 0.15
    assert 0.005 < patch.mean() < 0.2


@pytest.mark.parametrize(("bits", "monochrome1"), [(8, False), (12, True), (16, False)])
def test_what_is_wrapped_comes_back(tmp_path, bits, monochrome1):
    pixels = draw_chest(128, 112, seed=2)
    write_dx(tmp_path / "a.dcm", pixels, seed=2, bits=bits, monochrome1=monochrome1)
    image = load_grey(tmp_path / "a.dcm")
    assert image.remarks == ()
    np.testing.assert_allclose(image.pixels, pixels, atol=1.01 / (2**bits - 1))


def test_the_command_writes_files_that_call_themselves_phantoms(tmp_path, capsys):
    import pydicom

    main([str(tmp_path), "--count", "3", "--rows", "128", "--columns", "112"])
    files = sorted(tmp_path.glob("*.dcm"))
    assert capsys.readouterr().out.split() == [str(path) for path in files]
    datasets = [pydicom.dcmread(path) for path in files]
    assert all(str(dataset.PatientName).startswith("PHANTOM") for dataset in datasets)
    assert len({dataset.SOPInstanceUID for dataset in datasets}) == 3


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools' dciodvfy is not installed")
@pytest.mark.parametrize(("view", "monochrome1"), [("PA", False), ("AP", True), ("LL", False)])
def test_the_files_are_valid_dx_objects(tmp_path, view, monochrome1):
    write_dx(tmp_path / "a.dcm", draw_chest(128, 112, seed=2), seed=2, view=view, monochrome1=monochrome1)
    done = subprocess.run(["dciodvfy", tmp_path / "a.dcm"], capture_output=True, text=True, check=False)
    assert "Error" not in done.stderr + done.stdout
