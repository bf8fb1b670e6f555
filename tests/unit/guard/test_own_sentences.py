"""What the appliance itself writes about a finding goes out unchanged and without a note, for every condition."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from importlib.resources import files

import pytest

from clinic_ai.domain import Finding, GuardAction, GuardVerdict, Statement
from clinic_ai.guard.lexicon import NEITHER
from clinic_ai.guard.policy import Policy
from clinic_ai.results.statements import sentence

CONDITIONS = tuple(tomllib.loads((files("clinic_ai.results") / "codes.toml").read_text()))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_our_own_sentences_are_released_as_they_are(
    say: Callable[..., GuardVerdict], finding: Callable[..., Finding], condition: str
) -> None:
    for probability in (0.0, 0.049, 0.05, 0.2, 0.25, 0.5, 0.75, 0.9, 0.91, 1.0):
        for laterality in ("", "left", "right", "bilateral"):
            for threshold in (0.1, 0.5, 0.9):
                found = finding(
                    probability,
                    condition=condition,
                    label=condition,
                    laterality=laterality,
                    threshold=threshold,
                    presence="present" if probability >= threshold else "absent",
                )
                text = sentence(found)
                verdict = say(
                    Statement(statement_id="f_1", kind="finding", text=text, finding=found), findings=(found,)
                )
                assert verdict.action is GuardAction.ALLOW, (text, verdict.decisions)
                assert [(r.text, r.annotations) for r in verdict.released] == [(text, ())]


def test_the_lexicon_of_findings_uses_the_keys_of_the_table_of_codes(policy: Policy) -> None:
    """Or those of a condition that is a kind of one with a code."""
    detector = next(r for r in policy.rules if r.entry.id == "contradiction").condition.detector
    assert detector is not None
    keys, kinds = (detector._lexicons[name].terms for name in ("findings", "kinds"))
    uncoded = {key for key, _ in keys} - {NEITHER} - set(CONDITIONS)
    assert uncoded <= {kind for kind, _ in kinds}
    assert {general for _, general in kinds} <= set(CONDITIONS)
