"""The shipped policy pack and its judge, in process."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from clinic_ai.domain import Audience, Finding, GuardVerdict, ImageFacts, Mask, Statement, StudyFacts
from clinic_ai.guard.engine import judge
from clinic_ai.guard.packs import shipped_pack
from clinic_ai.guard.policy import Policy, read_policy
from clinic_ai.tasks import GuardSubject, GuardTask


@lru_cache(maxsize=1)
def policy() -> Policy:
    return read_policy(shipped_pack("default"))


def guard(
    sentences: Iterable[str], findings: Iterable[Finding], masks: Iterable[Mask], audience: str = "clinician"
) -> GuardVerdict:
    """Judge sentences, each a statement of its own, against findings and masks."""
    said = tuple(Statement(statement_id=f"a_{n}", kind="answer", text=t) for n, t in enumerate(sentences))
    subject = GuardSubject(
        facts=StudyFacts(slices=60),
        findings=tuple(findings),
        masks=tuple(masks),
        image=ImageFacts(calibrated=True, priors=0, burned_in="no"),
    )
    task = GuardTask(audience=Audience(audience), subject=subject, statements=said, policy_hash=policy().digest)
    return judge(policy(), task)
