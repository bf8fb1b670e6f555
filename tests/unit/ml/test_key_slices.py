"""Which slices are shown of masks, and what is drawn on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from outlined import all_released, ball, ct_object, ct_slices, found, outlines, segmentation, thorax
from PIL import Image
from rendering import task, verdict

from clinic_ai.domain import Mask
from clinic_ai.ml.key_slices import COLOURS, WIDTH, KeySlice, draw_key_slices
from clinic_ai.ml.outlines import read_outlines
from clinic_ai.ml.report import choose_images
from clinic_ai.tasks import RenderImage, RenderTask

SHAPE = (8, 40, 48)
NODULE = ball(SHAPE, (0.625, 0.5, 0.3), 6)
NODULE[2, 18:20, 14:16] = True  # a smaller piece below
EFFUSION = ball(SHAPE, (0.25, 0.7, 0.7), 11)


@pytest.fixture
def images(tmp_path: Path) -> tuple[RenderImage, ...]:
    return ct_slices(tmp_path, thorax(*SHAPE))


def drawn(asked: RenderTask) -> tuple[list[KeySlice], list[str]]:
    omissions: list[str] = []
    outlined = read_outlines(asked, omissions)
    return draw_key_slices(asked, outlined, Path(asked.output_directory), omissions), omissions


def both(directory: Path, images: tuple[RenderImage, ...], **changes: object) -> RenderTask:
    findings = (found(images[0], "lung_nodule"), found(images[0], "pleural_effusion"))
    stored = segmentation(directory, images, {"lung_nodule": NODULE, "pleural_effusion": EFFUSION})
    masks = (Mask(name="lung_nodule", side="right", size_mm=11.6, volume_mm3=905.0),)
    values = {"verdict": all_released(findings), "outlines": outlines(2, stored, masks)}
    return task(directory, images, findings=findings, **(values | changes))


def coloured(picture: KeySlice, directory: Path, colour: tuple[int, int, int]) -> np.ndarray:
    """Return where a picture has just this colour, bool (row, column)."""
    with Image.open(directory / picture.picture.name) as image:
        return (np.asarray(image) == colour).all(axis=-1)


def test_the_slice_with_most_of_a_mask_is_shown_with_its_outline(
    tmp_path: Path, images: tuple[RenderImage, ...]
) -> None:
    (effusion, nodule, overview), omissions = drawn(both(tmp_path, images))

    assert omissions == []
    assert (effusion.title, nodule.title) == ("Pleural effusion", "Lung nodule")
    assert nodule.lines == ("Image 6, lung window", "Longest diameter 12 mm, volume 905 mm³, right")
    assert effusion.lines == ("Image 3, soft-tissue window",)
    line = coloured(nodule, tmp_path, COLOURS[1])
    assert line.any()
    assert not coloured(nodule, tmp_path, COLOURS[0]).any()
    rows, columns = np.nonzero(line)
    assert columns.mean() < WIDTH / 2, "the patient's right is at the left"
    with Image.open(tmp_path / nodule.picture.name) as image:
        inside = np.asarray(image)[int(rows.mean()), int(columns.mean())]
    assert inside[0] == inside[1] == inside[2], "what is outlined stays visible"
    assert (overview.letter, overview.lines[0]) == ("", "Maximum-intensity projection of 8 slices")


def test_the_overview_is_upright_and_marks_every_finding(tmp_path: Path, images: tuple[RenderImage, ...]) -> None:
    (*_, overview), _ = drawn(both(tmp_path, images))
    effusion, nodule = (np.argwhere(coloured(overview, tmp_path, colour)).mean(axis=0) for colour in COLOURS[:2])
    assert nodule[0] < effusion[0], "what is nearer to the head is above"
    assert nodule[1] < effusion[1]
    assert overview.picture.height == round(WIDTH * (SHAPE[0] * 2.5) / (SHAPE[2] * 1.5))


def test_only_released_findings_are_drawn(tmp_path: Path, images: tuple[RenderImage, ...]) -> None:
    pictures, omissions = drawn(both(tmp_path, images, verdict=verdict(("f_2", "Words."))))
    assert [one.title for one in pictures] == ["Pleural effusion", "Overview from the front"]
    assert omissions == []
    assert not coloured(pictures[1], tmp_path, COLOURS[1]).any()
    assert drawn(both(tmp_path, images, verdict=verdict(("m_1", "Words."))))[0] == []


def test_a_stack_in_one_object_names_the_frame(tmp_path: Path) -> None:
    image = ct_object(tmp_path, thorax(*SHAPE))
    pictures, omissions = drawn(both(tmp_path, (image,)))
    assert omissions == []
    assert [one.lines[0] for one in pictures[:2]] == [
        "Image 1, frame 3, soft-tissue window",
        "Image 1, frame 6, lung window",
    ]


def test_a_slice_that_cannot_be_decoded_costs_its_picture_alone(
    tmp_path: Path, images: tuple[RenderImage, ...]
) -> None:
    asked = both(tmp_path, images)
    Path(images[5].path).write_bytes(b"no image")  # the nodule's
    pictures, omissions = drawn(asked)
    assert [one.title for one in pictures] == ["Pleural effusion"]
    assert [text.split(":")[0] for text in omissions] == [
        "No slice is shown for lung nodule",
        "No projection of the stack is shown",
    ]


def test_of_a_stack_without_masks_slices_from_all_over_are_shown(tmp_path: Path) -> None:
    many = ct_slices(tmp_path, thorax(16, 8, 8))
    assert [many.index(image) for image in choose_images(task(tmp_path, many))] == [2, 6, 10, 14]
    assert choose_images(task(tmp_path, many[:5])) == list(many[:4])
