"""Which frames of a loop are asked about."""

from __future__ import annotations

import numpy as np
import pytest

from clinic_ai_ultrasound.frames import CANDIDATES, KEPT, representative, sharpness

EDGES = np.kron(np.indices((16, 16)).sum(axis=0) % 2, np.ones((8, 8))).astype(np.float32)
BLURRED = np.full((128, 128), 0.5, dtype=np.float32)


def shown(frame, half):
    """A sharp frame that is dark but for one half of it."""
    picture = np.zeros((128, 128), dtype=np.float32)
    picture[:, slice(0, 64) if half == "left" else slice(64, 128)] = EDGES[:, :64]
    return picture


def test_sharp_frames_that_differ_are_taken():
    loop = {0: BLURRED, 1: shown(1, "left"), 2: shown(2, "left"), 3: BLURRED, 4: shown(4, "right"), 5: BLURRED}
    assert representative(loop.__getitem__, 6, keep=2) in ([1, 4], [2, 4])


def test_a_loop_of_one_picture_gives_one_frame():
    assert len(representative(lambda _: EDGES, 40)) == 1


def test_the_sharpest_is_the_one_that_is_asked_about_alone():
    loop = [EDGES * level for level in (0.2, 0.9, 0.5)]
    assert representative(loop.__getitem__, 3, keep=1) == [1]


@pytest.mark.parametrize("frames", [0, 1])
def test_a_still_is_not_looked_at(frames):
    assert representative(lambda _: pytest.fail("it was read"), frames) == [0]


def test_a_long_loop_is_read_in_bounds_from_end_to_end():
    read = []

    def noise(frame):
        read.append(frame)
        return np.random.default_rng(frame).random((32, 32), dtype=np.float32)

    taken = representative(noise, 5000)
    assert len(read) == CANDIDATES == len(set(read))
    assert (min(read), max(read)) == (0, 4999)
    assert len(taken) == KEPT == len(set(taken))
    assert taken == sorted(taken)
    assert set(taken) <= set(read)


def test_sharpness_is_zero_where_there_is_no_edge():
    assert sharpness(BLURRED) == 0.0
    assert sharpness(BLURRED[:2]) == 0.0
    assert sharpness(EDGES) > sharpness(EDGES * np.float32(0.5)) > 0
