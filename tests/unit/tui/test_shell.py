"""What all screens share: keys, header, and what happens when the daemon is gone."""

from __future__ import annotations

import pytest
from screens import SIZES, Exhibit, picture
from syrupy.assertion import SnapshotAssertion

from clinic_ai.control.views import StudyPage


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_an_empty_queue(pictures: SnapshotAssertion, size: tuple[int, int]) -> None:
    exhibit = Exhibit({"studies": StudyPage(studies=(), next_before=None)})
    assert picture(exhibit, "queue", "No studies yet", size=size) == pictures
