"""The screen of reviews: what it shows to whom, and what each key sends."""

from __future__ import annotations

import pytest
from review_exhibit import CRITICAL, ROWS, SIGNER, TEXT, reviewing, row, told, view
from screens import SIZES, Exhibit, made_status, picture, play, screen, shows, until
from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot

from clinic_ai.control.alert_views import CriticalView
from clinic_ai.control.client import NoDaemon
from clinic_ai.control.review_views import AcceptReview, RejectReview
from clinic_ai.control.views import Role, TopicView
from clinic_ai.domain import Presence
from clinic_ai.domain.reviews import Correction
from clinic_ai.errors import Conflict
from clinic_ai.tui.app import ClinicApp
from clinic_ai.tui.review_words import bar
from clinic_ai.tui.screens import Choose, Confirm, Prompt
from clinic_ai.tui.views.review import ROWS as LISTED

HELD, OTHER, FREE = ROWS
sizes = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")


def free(**answers: object) -> Exhibit:
    """Return an exhibit with one result that the guard keeps nothing of back."""
    return reviewing((FREE,), **answers)  # type: ignore[arg-type]


# ---------------------------------------------------------------- what is seen


@sizes
def test_nothing_waits(pictures: SnapshotAssertion, size: tuple[int, int]) -> None:
    assert picture(reviewing(()), "review", "Nothing waits", size=size) == pictures


@sizes
def test_much_waits(pictures: SnapshotAssertion, size: tuple[int, int]) -> None:
    exhibit = reviewing(critical=[CRITICAL])
    assert picture(exhibit, "review", "certainty (hold)", size=size) == pictures


@sizes
def test_the_daemon_is_gone(pictures: SnapshotAssertion, size: tuple[int, int]) -> None:
    exhibit = reviewing()

    async def lose(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "certainty (hold)")
        exhibit.answers["status"] = NoDaemon("No daemon answers.", remedy="Start it.")
        exhibit.tell(TopicView(topic="start"))

    assert picture(exhibit, "review", "No daemon answers", size=size, after=lose) == pictures


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [({"role": Role.TECHNICIAN}, "What results say is for clinicians"), ({"may_change": False}, "The monitor socket")],
)
def test_who_may_not_read_sees_what_waits_and_no_words(changes: dict[str, object], sentence: str) -> None:
    exhibit = reviewing(status=made_status(**changes))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, sentence)
        shown = screen(app)
        assert "‖ HELD" in shown
        assert "certainty" in shown
        assert "STAT in its headers" in shown
        assert "Doe" not in shown
        assert "Accept" not in shown
        await pilot.press("a", "e", "x", "c", "s", "t", "o")
        assert len(app.screen_stack) == 1
        # A refused question would be written into the audit, and so come back as news, and so on.
        assert [exhibit.sent(name) for name in ("review", "critical", "signers", "accept")] == [[], [], [], []]

    play(exhibit, script, place="review")


def test_a_list_that_is_cut_says_so() -> None:
    cut = tuple(row(1, artefact_id=f"A-{number}") for number in range(LISTED))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, f"the first {LISTED}; `clinic-ai review list --limit 1000` has more")

    play(reviewing(cut, status=made_status(role=Role.TECHNICIAN)), script, place="review")


def test_each_statement_stands_beside_its_rule_and_its_evidence() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "Decisions so far")
        lines = [line.split("│")[1].strip() for line in screen(app).splitlines() if line.startswith("│")]
        first = next(n for n, line in enumerate(lines) if line.startswith(f"[f_1] {TEXT}"))
        assert lines[first + 1].startswith("note: Worded again.")
        assert lines[first + 2].startswith("‖ certainty (hold): It is too certain.")
        assert "Pneumonia, left: present (98 %, threshold 47 %)" in lines[first + 3]
        kept = next(n for n, line in enumerate(lines) if line.startswith("[f_2] ✗ kept back"))
        assert lines[kept + 1].startswith("‖ side (block): Right and left differ.")
        assert "Pleural effusion, right" in lines[kept + 2]

    play(reviewing(), script, place="review", size=(160, 60))


def test_a_bar_shows_the_probability_and_the_threshold() -> None:
    assert bar(0.98, 0.47) == "█████████┃███████████"
    assert bar(0.1, 1.0) == "██░░░░░░░░░░░░░░░░░░┃"


def test_the_cursor_goes_on_to_the_next_when_one_is_decided() -> None:
    rows = [row(1, "PRELIMINARY"), row(2, "PRELIMINARY"), row(3, "PRELIMINARY")]
    exhibit = reviewing()
    exhibit.answers["reviews"] = lambda _limit: list(rows)
    exhibit.answers["review"] = lambda artefact_id, _r=None: view(next(r for r in rows if r.artefact_id == artefact_id))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "for the clinician; the guard said allow")
        await pilot.press("j")
        await until(pilot, lambda: app.study_id == rows[1].study_id, "the second should be in hand")
        del rows[1]
        exhibit.tell(TopicView(topic="start"))
        await until(pilot, lambda: app.study_id == "S-20261121-7F3K9QX3", "the third should follow")
        await pilot.press("g")
        await until(pilot, lambda: app.study_id == "S-20261121-7F3K9QX1", "g should go to the first")

    play(exhibit, script, place="review")


# ---------------------------------------------------------------- decisions


def test_accepting_asks_naming_the_patient_and_sends_the_digest_that_was_shown() -> None:
    exhibit = free()

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, TEXT)
        await pilot.press("o", "a")
        assert isinstance(app.screen, Confirm)
        assert all(words in app.screen.question for words in (SIGNER, "Doe, Jane", FREE.study_id, "models may learn"))
        await pilot.press("n")
        assert exhibit.sent("accept") == []
        await pilot.press("a", "y")
        await told(pilot, "It is done.")
        order = AcceptReview(digest="d" * 64, reviewer=None, consent=True)
        assert exhibit.sent("accept") == [((FREE.artefact_id, order), {})]

    play(exhibit, script, place="review", size=(140, 40))


def test_who_has_no_name_of_the_list_chooses_one_before_deciding() -> None:
    exhibit = free(own="")

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "nobody yet")
        await pilot.press("a")
        assert isinstance(app.screen, Choose)
        await pilot.press("j", "enter")
        await until(pilot, lambda: isinstance(app.screen, Confirm), "the question should follow the name")
        await pilot.press("y")
        await until(pilot, lambda: bool(exhibit.sent("accept")), "it should be sent")
        [((_, order), _)] = exhibit.sent("accept")
        assert order.reviewer == "Dr. Bo Beispiel"
        await until(pilot, lambda: exhibit.sent("review")[-1][0][1] == "Dr. Bo Beispiel", "it is read as that person")

    play(exhibit, script, place="review", size=(140, 40))


def test_what_the_guard_keeps_back_is_not_accepted() -> None:
    exhibit = reviewing((HELD,))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, TEXT)
        await pilot.press("a")
        await told(pilot, "cannot be accepted")
        assert exhibit.sent("accept") == []

    play(exhibit, script, place="review")


def test_rejecting_needs_a_reason_and_takes_corrections_along() -> None:
    exhibit = reviewing((HELD,))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, TEXT)
        await pilot.press("c", "enter")
        await until(pilot, lambda: isinstance(app.screen, Choose), "what is there in truth?")
        await pilot.press("j", "enter")
        await shows(pilot, "you say: absent")
        await pilot.press("x")
        assert isinstance(app.screen, Prompt)
        await pilot.press("enter")
        assert isinstance(app.screen, Prompt), "an empty reason is none"
        await pilot.press(*"wrong side", "enter")
        await told(pilot, "It is done.")
        order = RejectReview(
            digest="d" * 64,
            reason="wrong side",
            corrections=(Correction(condition="pneumonia", presence=Presence.ABSENT),),
        )
        assert exhibit.sent("reject") == [((HELD.artefact_id, order), {})]
        assert "you say" not in screen(app)

    play(exhibit, script, place="review", size=(140, 40))


def test_corrections_count_with_an_amendment_and_can_be_taken_back() -> None:
    exhibit = free()

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, TEXT)
        await pilot.press("c", "enter", "j", "enter")
        await shows(pilot, "you say: absent")
        await pilot.press("a")
        await told(pilot, "You corrected findings of it")
        assert exhibit.sent("accept") == []
        await pilot.press("c", "enter", "j", "j", "j", "enter")
        await until(pilot, lambda: "you say" not in screen(app), "it should be taken back")

    play(exhibit, script, place="review", size=(140, 40))


def test_a_refused_decision_is_said_and_the_result_fetched_again() -> None:
    exhibit = free(accept=Conflict("It does not read as it did.", remedy="Look at it again."))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, TEXT)
        exhibit.answers["review"] = lambda *_: view(FREE, digest="e" * 64, marks=("It reads otherwise now.",))
        await pilot.press("a", "y")
        await told(pilot, "It does not read as it did. Look at it again.")
        await shows(pilot, "It reads otherwise now.")
        exhibit.answers["accept"] = exhibit.answers["reject"]
        await pilot.press("a", "y")
        await until(pilot, lambda: len(exhibit.sent("accept")) == 2, "it should be sent again")
        assert [call[0][1].digest[0] for call in exhibit.sent("accept")] == ["d", "e"]

    play(exhibit, script, place="review", size=(140, 40))


# ---------------------------------------------------------------- critical findings


def test_a_critical_finding_is_acknowledged_with_who_was_told() -> None:
    exhibit = reviewing(critical=[CRITICAL])

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "▲ 1 critical finding")
        await pilot.press("t")
        assert isinstance(app.screen, Prompt)
        assert "pneumothorax" in app.screen.question
        await pilot.press(*"Dr. Weber", "enter")
        await until(pilot, lambda: bool(exhibit.sent("acknowledge")), "it should be sent")
        assert exhibit.sent("acknowledge") == [((12, "Dr. Weber", None), {})]

    play(exhibit, script, place="review")


def test_of_several_critical_findings_one_is_chosen() -> None:
    many = [CRITICAL, *(CRITICAL.model_copy(update={"alert_id": n, "what": f"finding {n}"}) for n in range(20, 24))]
    exhibit = reviewing(critical=many)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "▲ 5 critical findings")
        assert "and 2 more" in screen(app)
        await pilot.press("t", "j", "enter")
        await until(pilot, lambda: isinstance(app.screen, Prompt), "who was told?")
        await pilot.press("escape")
        assert exhibit.sent("acknowledge") == []
        await pilot.press("t", "j", "enter")
        await until(pilot, lambda: isinstance(app.screen, Prompt), "who was told?")
        await pilot.press("x", "enter")
        await until(pilot, lambda: bool(exhibit.sent("acknowledge")), "it should be sent")
        assert exhibit.sent("acknowledge")[0][0] == (20, "x", None)

    play(exhibit, script, place="review")
    assert all(isinstance(one, CriticalView) for one in many)


def test_nothing_is_drawn_again_while_nothing_changes() -> None:
    exhibit = reviewing()

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "certainty (hold)")
        view_now = app.view
        assert view_now is not None
        before = dict(view_now._texts)
        fetched = len(exhibit.sent("reviews"))
        exhibit.tell(TopicView(topic="start"))
        await until(pilot, lambda: len(exhibit.sent("reviews")) > fetched, "it should be fetched again")
        await pilot.pause()
        assert all(view_now._texts[place] is text for place, text in before.items())

    play(exhibit, script, place="review")
