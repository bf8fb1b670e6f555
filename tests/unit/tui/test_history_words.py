"""What the audit names, the history of a study says in words: every action there is, none by its name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import clinic_ai
from clinic_ai.domain import ArtefactState
from clinic_ai.domain.reviews import ReviewDecision
from clinic_ai.states import JOB, STUDY
from clinic_ai.tui.history_words import HAPPENED, WIDTH, happened

_ABOUT_STUDIES = r'action="((?:study|job|artefact|analysis|review|delivery|critical|notice)\.[a-z_]+)"'


def _named() -> set[str]:
    """Return every action that the program writes about a study or its jobs."""
    literal = {
        name
        for path in Path(clinic_ai.__file__).parent.rglob("*.py")
        for name in re.findall(_ABOUT_STUDIES, path.read_text(encoding="utf-8"))
    }
    moved = {f"study.{event}" for _, event in STUDY} | {f"job.{event}" for _, event in JOB}
    made = {f"artefact.{state.value.lower()}" for state in ArtefactState if state is not ArtefactState.DRAFT}
    return literal | moved | made | {f"review.{decision.value}" for decision in ReviewDecision}


def test_every_action_about_a_study_has_its_words() -> None:
    named = _named()
    assert len(named) > 30
    assert named - HAPPENED.keys() == set()


@pytest.mark.parametrize("action", HAPPENED)
def test_words_fit_into_their_column(action: str) -> None:
    assert 0 < len(HAPPENED[action]) <= WIDTH
    assert "." not in HAPPENED[action]


def test_what_nobody_foresaw_is_said_by_its_name() -> None:
    assert happened("study.sent_to_the_moon") == "study sent to the moon"
