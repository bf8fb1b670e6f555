"""One line on each stack, for a technician."""

from __future__ import annotations

import pytest
from slices import CORONAL, image, row

from clinic_ai.domain import Instance
from clinic_ai.ingest.geometry import measure
from clinic_ai.ingest.geometry_words import line_of, plane_name
from clinic_ai.ingest.stacks import stacks_of


@pytest.mark.parametrize(
    ("instances", "line"),
    [
        (row([5.0 * n for n in range(28)]), "CT, 28 slices, axial, 5.0 mm apart, regular"),
        (
            row([*(5.0 * n for n in range(12)), *(5.0 * n + 5.0 for n in range(12, 27))]),
            "CT, 27 slices, axial, 5.0 mm apart, not regular: gap of 10.0 mm after slice 12 (between images 12 and 13)",
        ),
        (
            [image(n, (0.0, n * 0.625, 0.0), image_orientation_patient=CORONAL, modality="MR") for n in range(3)],
            "MR, 3 slices, coronal, 0.625 mm apart, regular",
        ),
        ([image(1, (0.0, 0.0, 0.0))], "CT, 1 slice, axial"),
        ([image(1, None)], "CT, 1 image, it is not known where each image lies"),
        ([image(1, None, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))], "CT, scout, 1 image"),
        ([image(1, None, geometry=None, modality="CR")], "CR, 1 image"),
        (
            [image(1, None, geometry=None, modality="US", frames=120)],
            "US, 120 images in 1 file, it is not known where each frame lies",
        ),
        (
            row([0, 1, 2], gantry_detector_tilt=12.0),
            "CT, 3 slices, axial, 1.0 mm apart, regular; the header names a gantry tilt of 12.0 degrees, the positions "
            "show none",
        ),
        (
            row([0, 2, 4], shift=0.2),
            "CT, 3 slices, axial, 2.0 mm apart, not regular: tilted by 11.3 degrees",
        ),
    ],
)
def test_the_line_says_it_all(instances: list[Instance], line: str) -> None:
    assert [line_of(measure(stack)) for stack in stacks_of(instances)] == [line]


@pytest.mark.parametrize(
    ("normal", "name"),
    [
        ((0.0, 0.0, -1.0), "axial"),
        ((0.0, -1.0, 0.0), "coronal"),
        ((0.99, 0.1, 0.0), "sagittal"),
        ((0.0, 0.6, 0.8), "oblique, nearest to axial"),
    ],
)
def test_planes_have_their_names(normal: tuple[float, float, float], name: str) -> None:
    assert plane_name(normal) == name
