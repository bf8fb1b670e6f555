"""Results that wait for a review, made up for the terminal's screens."""

from __future__ import annotations

from typing import Any

from screens import NOW, Exhibit, made_status, until
from textual.app import App
from textual.pilot import Pilot

from clinic_ai.control.alert_views import CriticalView
from clinic_ai.control.review_views import DecidedRow, FindingRow, ReviewRow, ReviewView, SignersView, SubjectRow
from clinic_ai.control.views import DecisionRow, DoneView, StatusView, StudyPage
from clinic_ai.domain import Audience, Presence, Released

SIGNER = "Dr. Ada Example"
TEXT = "The image most likely shows pneumonia on the left."


def row(number: int, state: str = "HELD", **changes: Any) -> ReviewRow:
    """Return a result that came ``number`` times ten minutes ago."""
    held = state == "HELD"
    values = {
        "artefact_id": f"A-20261121-7F3K9QX{number}",
        "study_id": f"S-20261121-7F3K9QX{number}",
        "version": 1,
        "audience": "clinician",
        "state": state,
        "action": "hold" if held else "allow",
        "rules": ("certainty", "side") if held else (),
        "created_at": NOW - 600 * number,
        "pseudonym": "P-4711AAAA",
        "modality": "DX",
    }
    return ReviewRow.model_validate(values | changes)


ROWS = (row(1, priority=50, priority_reason="STAT in its headers"), row(2), row(3, "PRELIMINARY"))
CRITICAL = CriticalView(
    alert_id=12,
    study_id="S-20261121-7F3K9QX1",
    what="pneumothorax",
    category=1,
    act_within="minutes",
    raised_at=NOW - 720,
    notices=2,
    next_at=NOW + 60,
    escalated=True,
)


def said(statement_id: str, text: str, *notes: str) -> Released:
    """Return a statement as the guard lets it out."""
    return Released(
        statement_id=statement_id, audience=Audience.CLINICIAN, text=text, annotations=notes, policy_hash="c" * 64
    )


def view(of: ReviewRow = ROWS[0], **changes: Any) -> ReviewView:
    """Return a result as a reviewer reads it: two statements, and one that the guard keeps back if it is held."""
    held = of.state == "HELD"
    values = {
        "row": of,
        "subject": SubjectRow(
            patient_name="Doe^Jane",
            patient_id="4711",
            birth_date="19700131",
            study_dates=("20261121",),
            modalities=("DX",),
            body_parts=("CHEST",),
        ),
        "signer": "",
        "statements": (said("f_1", TEXT, "Worded again."), said("m_1", "One view was sent.")),
        "withheld": ("f_2",) if held else (),
        "decisions": (DecisionRow(rule="side", action="block", reason="Right and left differ.", statement_id="f_2"),)
        if held
        else (),
        "original_decisions": (
            DecisionRow(rule="certainty", action="hold", reason="It is too certain.", statement_id="f_1"),
        )
        if held
        else (),
        "marks": ("Investigational. Not for clinical use.",),
        "findings": (
            FindingRow(
                condition="pneumonia",
                label="Pneumonia",
                laterality="left",
                presence=Presence.PRESENT,
                probability=0.98,
                threshold=0.47,
            ),
            FindingRow(
                condition="effusion",
                label="Pleural effusion",
                laterality="right",
                presence=Presence.UNCERTAIN,
                probability=0.51,
                threshold=0.5,
            ),
        ),
        "digest": "d" * 64,
        "history": (
            DecidedRow(
                review_id="W-20261121-7F3K9QX1",
                decision="amend",
                reviewer=SIGNER,
                reason="wrong words",
                diff="- It is pneumonia.\n+ It may be pneumonia.",
                consent=True,
                decided_at=NOW - 9000,
            ),
        ),
    }
    return ReviewView.model_validate(values | changes)


def reviewing(
    rows: tuple[ReviewRow, ...] = ROWS, *, status: StatusView | None = None, own: str = SIGNER, **answers: Any
) -> Exhibit:
    """Return an exhibit whose reviews are these; whoever asks signs as ``own``, or has to choose if that is empty."""
    done = DoneView(sentence="It is done.")
    given: dict[str, Any] = {
        "reviews": lambda _limit: list(rows),
        "review": lambda artefact_id, _reviewer=None: view(next(r for r in rows if r.artefact_id == artefact_id)),
        "critical": [],
        "signers": SignersView(names=(SIGNER, "Dr. Bo Beispiel"), own=own),
        "studies": StudyPage(studies=(), next_before=None),
        "accept": done,
        "amend": done,
        "reject": done,
        "acknowledge": done,
    }
    return Exhibit(given | answers, status=status or made_status())


async def told(pilot: Pilot[None], words: str) -> None:
    """Wait until a person was told these words in a corner of the screen."""
    await until(pilot, lambda: words in notices(pilot.app), f"{words!r} should be told; told was {notices(pilot.app)}")


def notices(app: App[Any]) -> str:
    """Return what was told in the corner of the screen and still stands there."""
    return "\n".join(notice.message for notice in app._notifications)
