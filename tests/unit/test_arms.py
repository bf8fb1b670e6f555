"""The thread of an inbox: nobody waits for it without an end, and it is given nothing while it is away."""

from __future__ import annotations

import threading
import time

import pytest

from clinic_ai.arms import Arm, Beat


def test_an_errand_brings_its_result_or_its_error() -> None:
    arm = Arm("test", lambda: None)
    good = arm.give(lambda _: 7)
    assert good.wait(time.monotonic() + 10)
    assert good.result() == 7

    def fail(_: Beat) -> None:
        raise OSError(5, "gone")

    bad = arm.give(fail)
    assert bad.wait(time.monotonic() + 10)
    with pytest.raises(OSError, match="gone"):
        bad.result()
    arm.close()


def test_an_arm_that_does_not_come_back_is_given_nothing_and_tells_when_it_does() -> None:
    told, go_on, begun = threading.Event(), threading.Event(), threading.Event()
    arm = Arm("test", told.set)

    def stuck(beat: Beat) -> str:
        beat()
        begun.set()
        go_on.wait()
        return "at last"

    errand = arm.give(stuck)
    assert begun.wait(10)
    assert not errand.wait(time.monotonic())
    assert arm.busy
    assert errand.beat_at >= errand.started_at
    with pytest.raises(RuntimeError):
        arm.give(stuck)
    assert not told.is_set()
    go_on.set()
    assert told.wait(10)
    assert (arm.busy, errand.result()) == (False, "at last")
    arm.close()
