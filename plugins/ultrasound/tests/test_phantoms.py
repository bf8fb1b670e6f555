"""The phantoms: the seed decides, what the sheet says follows from the drawing, no answer is the usual one."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from openpyxl import load_workbook
from PIL import Image

from clinic_ai_ultrasound.plugin import describe_plugin
from clinic_ai_ultrasound.reference.ellipse import HEIGHT, WIDTH, facts
from clinic_ai_ultrasound.reference.phantoms import draw_phantoms, main, write_phantoms
from clinic_ai_ultrasound.reference.questions import SUBJECTS, TOPICS


def test_there_is_a_drawing_for_every_category_of_the_plugin():
    assert {info.key for info in describe_plugin().categories} == set(SUBJECTS)
    for category in SUBJECTS:
        first, second = draw_phantoms(category, 2, seed=1)
        assert first.pixels.shape == (HEIGHT, WIDTH)
        assert first.pixels.std() > 5
        assert not np.array_equal(first.pixels, second.pixels)


def test_the_seed_decides():
    ones, others = draw_phantoms("femur", 3, seed=7), draw_phantoms("femur", 3, seed=8)
    assert [one.truths for one in ones] == [one.truths for one in draw_phantoms("femur", 3, seed=7)]
    assert np.array_equal(ones[2].pixels, draw_phantoms("femur", 3, seed=7)[2].pixels)
    assert not np.array_equal(ones[2].pixels, others[2].pixels)


@pytest.mark.parametrize("category", ["fetal_head", "abdomen", "femur", "thorax", "standard_nt", "non_standard_nt"])
def test_no_answer_is_much_commoner_than_another(category):
    phantoms = draw_phantoms(category, 60, seed=3)
    for topic in SUBJECTS[category].topics:
        counts = Counter(phantom.truths[topic] for phantom in phantoms if topic in phantom.truths)
        if topic == "trimester":
            assert not counts  # no drawing has one
            continue
        assert set(counts) == set(TOPICS[topic].answers)
        assert min(counts.values()) > 0.5 * 60 / len(counts), (topic, counts)


def test_what_is_true_of_a_drawing_follows_from_where_its_structure_lies():
    for phantom in draw_phantoms("femur", 12, seed=5):
        for topic, choice in facts(phantom.ellipse).items():
            assert phantom.truths.get(topic, choice) == choice
        # A rod is the brightest there is, but for the grey wedge at the left edge: its pixels are where it says.
        rows, columns = np.nonzero(phantom.pixels[:, 6:] > 180)
        if phantom.truths["whole"] == "yes":
            assert abs(np.median(columns) + 6 - phantom.ellipse.x) < 0.15 * WIDTH
            assert abs(np.median(rows) - phantom.ellipse.y) < 0.15 * HEIGHT


def test_the_command_writes_images_and_a_sheet_with_a_row_for_each_pair(tmp_path, capsys):
    main(["femur", str(tmp_path / "a"), "--count", "4", "--seed", "2"])
    asked = write_phantoms(tmp_path / "b", "femur", 4, 2)
    assert capsys.readouterr().out == f"4 images and {len(asked)} pairs in {tmp_path / 'a'}\n"
    sheets = [load_workbook(tmp_path / name / "answers.xlsx").active for name in "ab"]
    rows = [list(sheet.values) for sheet in sheets]
    assert rows[0] == rows[1]
    assert rows[0][0] == ("Image", "Question", "Answer")
    assert len(rows[0]) == len(asked) + 1
    for image, _, _ in rows[0][1:]:
        with Image.open(tmp_path / "a" / image) as picture:
            assert picture.size == (WIDTH, HEIGHT)
