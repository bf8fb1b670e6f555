"""Files of masks: read as they were written, or refused; never more than they should hold."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clinic_ai.domain import Segment, Segmentation, SliceRef
from clinic_ai.errors import InputError
from clinic_ai.ml.segmentations import read_masks, unpacked, write_masks


def about(shape: tuple[int, int, int, int]) -> Segmentation:
    """Return what goes with masks of this shape."""
    return Segmentation(
        file="m.npz",
        slices=tuple(SliceRef(sha256="a" * 64, frame=n) for n in range(shape[1])),
        rows=shape[2],
        columns=shape[3],
        segments=tuple(Segment(number=n, name=f"s{n}", label="S") for n in range(1, shape[0] + 1)),
    )


@given(st.tuples(*(st.integers(1, 9) for _ in range(3)), st.integers(1, 20)), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_written_is_read(tmp_path: Path, shape: tuple[int, int, int, int], seed: int) -> None:
    masks = np.random.default_rng(seed).random(shape) < 0.3
    masks[0] = False
    write_masks(tmp_path / "m.npz", masks)
    found = read_masks(tmp_path / "m.npz", about(shape), range(1, shape[0] + 1))
    assert set(found) == {n + 1 for n in range(shape[0]) if masks[n].any()}
    for number, packed in found.items():
        assert np.array_equal(unpacked(packed, shape[3]), masks[number - 1])


def test_only_what_is_wanted_is_kept(tmp_path: Path) -> None:
    write_masks(tmp_path / "m.npz", np.ones((3, 2, 4, 5), bool))
    assert set(read_masks(tmp_path / "m.npz", about((3, 2, 4, 5)), [2])) == {2}


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_that_was_tampered_with_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    shape = (2, 3, 4, 9)
    masks = np.random.default_rng(1).random(shape) < 0.5
    write_masks(tmp_path / "m.npz", masks)
    content = bytearray((tmp_path / "m.npz").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    (tmp_path / "m.npz").write_bytes(content[:cut])
    found = {}
    with contextlib.suppress(InputError):  # anything else it raises would end the renderer
        found = read_masks(tmp_path / "m.npz", about(shape), (1, 2))
    assert all(packed.shape == (3, 4, 2) for packed in found.values())


def test_masks_beyond_all_bounds_are_refused_before_they_are_read(tmp_path: Path) -> None:
    huge = about((2, 3, 4, 9)).model_copy(update={"rows": 60_000, "columns": 60_000})
    with pytest.raises(InputError, match="larger than can be worked on"):
        read_masks(tmp_path / "not there", huge, (1, 2))


def test_an_array_of_objects_is_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return pytest.fail, ("it was unpickled",)

    buffer = io.BytesIO()
    np.savez(buffer, masks=np.array([Trap()], dtype=object))
    (tmp_path / "m.npz").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="another shape or type"):
        read_masks(tmp_path / "m.npz", about((1, 1, 1, 1)), (1,))
