"""The phantoms: the same seed gives the same film, and what is written is valid DICOM."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter

import numpy as np
import pytest

from clinic_ai.ml.images import load_grey
from clinic_ai_xray.phantom import draw_chest, main, write_dx
from clinic_ai_xray.phantom_clinic import draw_film, phantom_patients

SCANNERS = ("sharp", "soft")


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


def test_the_films_of_a_study_say_whose_they_are_and_where_they_were_taken(tmp_path):
    import pydicom

    *_, patient = phantom_patients("soft", 8, first=3)
    first, second = (pydicom.dcmread(path) for path in patient.draw(tmp_path, "P7", films=2))
    assert first.StudyInstanceUID == second.StudyInstanceUID
    assert first.SeriesInstanceUID == second.SeriesInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    said = (first.PatientID, first.PatientSex, first.PatientAge, first.StationName)
    assert said == ("P7", "M", "071Y", "SOFT1")


def test_half_of_the_patients_are_ill_among_women_and_men_young_and_old():
    patients = phantom_patients("sharp", 16, first=0)
    assert set(Counter((p.ill, p.sex, p.age) for p in patients).values()) == {2}


@pytest.mark.parametrize("scanner", SCANNERS)
def test_an_ill_phantom_of_the_clinic_is_dense_at_both_lung_bases(scanner):
    ill, well = (draw_film(scanner, seed=4, ill=ill) for ill in (True, False))
    denser = ill - well
    bases, tops = denser[90:115], denser[20:45]
    assert all(bases[:, columns].mean() > 0.1 for columns in (slice(25, 60), slice(85, 120)))
    assert np.abs(tops).mean() < 0.01


def test_the_soft_scanner_shows_less_of_the_ribs():
    sharp, soft = (np.abs(np.diff(draw_film(scanner, seed=4, ill=False), axis=0)).mean() for scanner in SCANNERS)
    assert soft < 0.8 * sharp


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools' dciodvfy is not installed")
@pytest.mark.parametrize(("view", "monochrome1"), [("PA", False), ("AP", True), ("LL", False)])
def test_the_files_are_valid_dx_objects(tmp_path, view, monochrome1):
    write_dx(tmp_path / "a.dcm", draw_chest(128, 112, seed=2), seed=2, view=view, monochrome1=monochrome1)
    done = subprocess.run(["dciodvfy", tmp_path / "a.dcm"], capture_output=True, text=True, check=False)
    assert "Error" not in done.stderr + done.stdout
