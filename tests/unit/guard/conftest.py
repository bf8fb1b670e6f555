"""The shipped pack, loaded once, and short ways to make what the guard judges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clinic_ai.domain import Audience, Finding, GuardVerdict, Presence, Statement, StudyFacts
from clinic_ai.guard.engine import judge
from clinic_ai.guard.packs import shipped_pack
from clinic_ai.guard.policy import Policy
from clinic_ai.guard.proof import load_policy
from clinic_ai.tasks import GuardSubject, GuardTask


@pytest.fixture(scope="session")
def policy() -> Policy:
    return load_policy(shipped_pack("default"))


@pytest.fixture(scope="session")
def finding() -> Callable[..., Finding]:
    def make(probability: float = 0.82, **values: Any) -> Finding:
        presence = Presence.PRESENT if probability >= 0.5 else Presence.ABSENT
        known = {"condition": "pneumonia", "label": "Pneumonia", "threshold": 0.5, "instance_sha256": "0" * 64}
        return Finding.model_validate({**known, "probability": probability, "presence": presence, **values})

    return make


@pytest.fixture(scope="session")
def say(policy: Policy) -> Callable[..., GuardVerdict]:
    """Judge statements; strings are answers."""

    def judged(*statements: str | Statement, audience: Audience = Audience.CLINICIAN, **subject: Any) -> GuardVerdict:
        made = tuple(
            Statement(statement_id=f"a_{n}", kind="answer", text=s) if isinstance(s, str) else s
            for n, s in enumerate(statements, start=1)
        )
        known = {"facts": StudyFacts(), "validated": True, "reference": False, "signed_by": "a person"}
        about = GuardSubject.model_validate({**known, **subject})
        task = GuardTask(audience=audience, subject=about, statements=made, policy_hash=policy.digest)
        return judge(policy, task)

    return judged
