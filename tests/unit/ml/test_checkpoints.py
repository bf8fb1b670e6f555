"""Checkpoints: whole or not taken up, the newest and the best kept, nothing lost on a full disk."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.errors import HomeError
from clinic_ai.ml import checkpoints
from clinic_ai.ml.checkpoints import Checkpoint, Checkpoints, fingerprint, write_durably

FILES = ("tensors.safetensors", "state.json", "complete.json")


def checkpoint(epoch: int, step: int = 0) -> Checkpoint:
    return Checkpoint(epoch, {"w": np.full((3, 2), epoch, dtype=np.float32)}, {"loss": [0.1 * epoch]}, step)


def names(directory) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def saved(directory, *places, keep=2) -> Checkpoints:
    kept = Checkpoints(directory, "this", keep)
    for place in places:
        kept.save(checkpoint(*place))
    return kept


def test_a_checkpoint_comes_back_and_old_ones_go(tmp_path):
    saved(tmp_path, (1,), (2,), (2, 7), (3,))
    found = Checkpoints(tmp_path, "this").newest()
    assert (found.epoch, found.step) == (3, 0)
    np.testing.assert_array_equal(found.tensors["w"], checkpoint(3).tensors["w"])
    assert found.state == {**checkpoint(3).state, "fingerprint": "this"}
    assert names(tmp_path) == ["epoch-00002-step-000007", "epoch-00003"]


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_so_many_are_kept_and_that_of_the_best_epoch(tmp_path, keep):
    kept = Checkpoints(tmp_path, "this", keep)
    for epoch in range(1, 9):
        kept.save(checkpoint(epoch), best_epoch=min(epoch, 2))
        kept.save(checkpoint(epoch, 5), best_epoch=min(epoch, 2))
    newest = [f"epoch-{epoch:05d}{end}" for epoch in (5, 6, 7, 8) for end in ("", "-step-000005")][-keep:]
    assert names(tmp_path) == ["epoch-00002", *newest]


def spoil(path, how):
    content = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[:-1])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        place = len(content) // 2
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["gone", "cut", "empty", "one bit flipped"])
def test_of_a_damaged_checkpoint_the_one_before_is_taken_up(tmp_path, name, how):
    saved(tmp_path, (1,), (1, 3))
    spoil(tmp_path / "epoch-00001-step-000003" / name, how)
    kept = Checkpoints(tmp_path, "this")
    assert (kept.newest().epoch, kept.newest().step) == (1, 0)
    assert kept.notes == [
        "A checkpoint could not be used (after epoch 1, step 3 of the next: damaged); the run went on from the one "
        "after epoch 1."
    ]
    kept.save(checkpoint(1, 3))  # the same place once more; the damaged one goes only now
    assert names(tmp_path) == ["epoch-00001", "epoch-00001-step-000003-again-001"]
    assert Checkpoints(tmp_path, "this").newest().step == 3


def test_what_is_of_another_run_is_not_taken_up_and_not_in_the_way(tmp_path):
    saved(tmp_path, (7,), (8,))
    kept = Checkpoints(tmp_path, "other")
    assert kept.newest() is None
    (note,) = kept.notes
    assert note == (
        "No checkpoint could be used (after epoch 8: of another run; after epoch 7: of another run), so the run began "
        "anew."
    )
    kept.save(checkpoint(1))
    assert names(tmp_path) == ["epoch-00001"]
    assert Checkpoints(tmp_path, "other").newest().epoch == 1


def test_a_run_that_went_back_goes_on_from_there(tmp_path):
    kept = saved(tmp_path, (1,), (2,), (2, 4))
    kept.save(checkpoint(2))
    assert Checkpoints(tmp_path, "this").newest().step == 0
    assert names(tmp_path) == ["epoch-00002", "epoch-00002-again-001"]


def test_no_checkpoint_at_all(tmp_path):
    kept = Checkpoints(tmp_path / "absent", "this")
    assert kept.newest() is None
    assert kept.notes == []


STEPS = 6
"""Lasting steps of writing a checkpoint: three files and their folder, then its new name."""


@pytest.mark.parametrize("at", range(1, STEPS + 1))
def test_on_a_full_disk_those_before_stay_whole(tmp_path, monkeypatch, at):
    """The disk is full at the n-th lasting step of writing one."""
    kept, real, left = saved(tmp_path, (1,), (2,)), os.fsync, [at]

    def fsync(descriptor):
        left[0] -= 1
        if left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(checkpoints.os, "fsync", fsync)
    before = names(tmp_path)
    with pytest.raises(HomeError, match="The disk is full: the checkpoint after epoch 3 could not") as caught:
        kept.save(checkpoint(3))
    assert "Make room" in caught.value.remedy
    assert names(tmp_path) == before
    monkeypatch.undo()
    again = Checkpoints(tmp_path, "this")
    assert again.newest().epoch == 2
    assert again.notes == []


def test_other_faults_of_the_disk_are_not_taken_for_a_full_one(tmp_path, monkeypatch):
    def fsync(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(checkpoints.os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output"):
        saved(tmp_path, (1,))
    with pytest.raises(OSError, match="Input/output"):
        write_durably(tmp_path / "text", b"words")
    assert names(tmp_path) == []


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.floats(allow_nan=False)))
def test_a_fingerprint_tells_values_apart_and_not_their_order(values):
    turned = dict(reversed(values.items()))
    assert fingerprint(recipe=values) == fingerprint(recipe=turned)
    assert fingerprint(recipe=values) != fingerprint(recipe={**values, "one more": 1})
