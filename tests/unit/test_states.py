"""The tables of states: every transition listed, everything else refused."""

from __future__ import annotations

from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_ai import states
from clinic_ai.domain import ArtefactState, Fate, JobState, ModelState, RunState, StudyState
from clinic_ai.errors import Conflict

TABLES = {
    "file": (states.FILE, Fate.CLAIMING),
    "study": (states.STUDY, StudyState.RECEIVING),
    "job": (states.JOB, JobState.QUEUED),
    "artefact": (states.ARTEFACT, ArtefactState.DRAFT),
    "run": (states.RUN, RunState.PLANNED),
}
EVENTS = sorted(
    {event for table in (*[t for t, _ in TABLES.values()], states.MODEL, states.DELIVERY) for _, event in table}
)


@pytest.mark.parametrize("name", TABLES)
def test_every_state_can_be_reached(name: str) -> None:
    table, start = TABLES[name]
    reached, frontier = {start}, [start]
    while frontier:
        here = frontier.pop()
        for (state, _), following in table.items():
            if state is here and following not in reached:
                reached.add(following)
                frontier.append(following)
    assert reached == set(type(start))


@pytest.mark.parametrize("name", TABLES)
@given(event=st.sampled_from(EVENTS), data=st.data())
def test_a_step_follows_the_table_or_is_refused(name: str, event: str, data: st.DataObject) -> None:
    table, start = TABLES[name]
    state: StrEnum = data.draw(st.sampled_from(list(type(start))))
    if (state, event) in table:
        assert states.step(table, state, event) is table[(state, event)]
    else:
        with pytest.raises(Conflict):
            states.step(table, state, event)


@given(events=st.lists(st.sampled_from(EVENTS), max_size=12))
def test_nothing_becomes_final_without_being_signed(events: list[str]) -> None:
    state, taken = ArtefactState.DRAFT, []
    for event in events:
        if (state, event) in states.ARTEFACT:
            state = states.step(states.ARTEFACT, state, event)
            taken.append(event)
        if state is ArtefactState.FINAL:
            assert "sign" in taken


def test_models_that_were_rejected_stay_rejected() -> None:
    assert not [event for (state, event) in states.MODEL if state is ModelState.REJECTED]
