"""The third screen: what waits for a person to sign, with the words, the rules that spoke and what they rest on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.widgets import DataTable, Static

from clinic_ai.control.alert_views import CriticalView
from clinic_ai.control.review_views import AcceptReview, RejectReview, ReviewRow, ReviewView, SignersView
from clinic_ai.control.terminal_client import TerminalClient
from clinic_ai.control.views import DoneView, Role, StatusView
from clinic_ai.domain import Presence
from clinic_ai.errors import ClinicError, Conflict, NotFound
from clinic_ai.tui.acknowledging import ask_who_was_told, choose_critical
from clinic_ai.tui.amending import AmendScreen, NotTaken, Signing
from clinic_ai.tui.feed import Fetch
from clinic_ai.tui.making import made
from clinic_ai.tui.review_table import ReviewTable
from clinic_ai.tui.review_words import critical_text, finding_words, record_text, row_words, words_text
from clinic_ai.tui.screens import Choose, Prompt
from clinic_ai.tui.view import ClinicView

ROWS = 200
"""Results shown; held ones first. ``clinic-ai review list --limit`` shows more."""
NOT_FOR_YOU = "What results say is for clinicians. You see what waits and the rules that spoke; a clinician decides."
NOT_HERE = "The monitor socket shows what waits, not what it says. Decisions are made on the control socket."
_CONSENT = {
    None: "as clinic.toml says ([review] consent_default)",
    True: "yes, models may learn from it",
    False: "no, models may not learn from it",
}
_NEXT_CONSENT = {None: True, True: False, False: None}
_NO_CORRECTION = "as it is"


@dataclass(frozen=True)
class Shown:
    """What waits; for clinicians also the selected result, or why it cannot be read, and open critical findings."""

    rows: tuple[ReviewRow, ...]
    critical: tuple[CriticalView, ...] = ()
    signers: SignersView | None = None
    view: ReviewView | None = None
    why_not: ClinicError | None = None


class ReviewsView(ClinicView):
    """Results that wait for a clinician: read, accept, amend, reject, correct; and critical findings to acknowledge."""

    NAME = "review"
    TITLE = "Review"
    ORDERS: ClassVar[Mapping[str, Role]] = dict.fromkeys(
        ("accept", "amend", "reject", "correct", "consent", "sign_as", "acknowledge"), Role.CLINICIAN
    )
    SCOPED_CSS = False
    DEFAULT_CSS = """
    ReviewsView #review-critical { display: none; height: auto; max-height: 5; padding: 0 1; text-wrap: nowrap;
        text-overflow: ellipsis; }
    ReviewsView ReviewTable { height: 2fr; min-height: 5; }
    ReviewsView #review-details { height: 4fr; border: round $primary; scrollbar-size-vertical: 1; }
    ReviewsView #review-details:focus { border: round $accent; }
    ReviewsView #review-panes { height: auto; layout: vertical; }
    ReviewsView #review-words, ReviewsView #review-record { height: auto; padding: 0 1; }
    #body.wide ReviewsView #review-panes { layout: horizontal; }
    #body.wide ReviewsView #review-words { width: 3fr; }
    #body.wide ReviewsView #review-record { width: 2fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "accept", "Accept", id="review.accept", tooltip="Sign the selected result as it is (asks first)"),
        Binding("e", "amend", "Amend", id="review.amend", tooltip="Change its words, then sign them"),
        Binding("x", "reject", "Reject", id="review.reject", tooltip="Let nothing of it go out, and say why"),
        Binding("c", "correct", "Correct", id="review.correct", tooltip="Say whether a finding is there in truth"),
        Binding("o", "consent", "Learning", id="review.consent", tooltip="Whether models may learn from your decision"),
        Binding("s", "sign_as", "Sign as", id="review.sign_as", tooltip="The name you sign with, of clinic.toml"),
        Binding("t", "acknowledge", "Told", id="review.acknowledge", tooltip="Acknowledge a critical finding"),
        Binding("j", "move(1)", "Down", show=False, id="review.down", tooltip="The next result"),
        Binding("k", "move(-1)", "Up", show=False, id="review.up", tooltip="The result before"),
        Binding("g", "end(-1)", "First", show=False, id="review.first", tooltip="The first result"),
        Binding("G", "end(1)", "Last", show=False, id="review.last", tooltip="The last result"),
        Binding("d", "read(1)", "Read on", show=False, id="review.read_on", tooltip="Read on in the text"),
        Binding("u", "read(-1)", "Read back", show=False, id="review.read_back", tooltip="Read back in the text"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._shown: Shown | None = None
        self._wanted: str | None = None
        self._signer: str | None = None
        self._consent: bool | None = None
        self._corrections: dict[str, dict[str, Presence]] = {}
        """By artefact: what the person says of conditions, to go with the next decision."""
        self._reads = False

    def compose(self) -> ComposeResult:
        """Lay out critical findings, what waits, and the selected result."""
        yield Static(id="review-critical")
        yield ReviewTable()
        with VerticalScroll(id="review-details"), Container(id="review-panes"):
            yield Static(id="review-words")
            yield Static(id="review-record")

    def on_mount(self) -> None:
        """Name the parts."""
        self.query_one(ReviewTable).border_title = "Waits for a person"
        self.query_one("#review-details").border_title = "Result"

    def focus_first(self) -> None:
        """Put the focus on what waits."""
        self.query_one(ReviewTable).focus()

    # ------------------------------------------------------------ fetching

    def fetching(self) -> Fetch:
        """Return what fetches the queue and, for who may read it, the selected result."""
        reads, wanted, signer = self._reads, self._wanted, self._signer

        def fetch(client: TerminalClient) -> Shown:
            rows = tuple(client.reviews(ROWS))
            if not reads:
                return Shown(rows)
            view, why_not = None, None
            if wanted is not None and any(row.artefact_id == wanted for row in rows):
                try:
                    view = client.review(wanted, signer)
                except (Conflict, NotFound) as error:
                    why_not = error
            return Shown(rows, tuple(client.critical()), client.signers(), view, why_not)

        return fetch

    def status_changed(self, status: StatusView) -> None:
        """Ask for words only where they are given: a refused question is written into the audit."""
        reads = status.may_change and status.role.covers(Role.CLINICIAN)
        if reads != self._reads:
            self._reads = reads
            self.refetch()

    def show(self, answer: object) -> None:
        """Draw what waits."""
        if isinstance(answer, Shown):
            self._shown = answer
            table = self.query_one(ReviewTable)
            table.show(answer.rows, self.clinic.clock())
            cut = len(answer.rows) == ROWS
            more = f"the first {ROWS}; `clinic-ai review list --limit 1000` has more" if cut else ""
            if table.border_subtitle != more:
                table.border_subtitle = more
            self._draw()

    def tick(self, now: float) -> None:
        """Let the ages go on."""
        if self._shown is not None and self.query(ReviewTable):
            self.query_one(ReviewTable).tick(now)
            self._draw_critical()

    @on(DataTable.RowHighlighted)
    def _chosen(self) -> None:
        self._draw()

    def _draw(self) -> None:
        shown = self._shown
        if shown is None:
            return
        selected = self.query_one(ReviewTable).selected
        if selected != self._wanted:
            self._wanted = selected
            self.query_one("#review-details").scroll_home(animate=False)
            row = self._row
            if row is not None:
                self.clinic.study_id = row.study_id
            self.refetch()
        self._draw_critical()
        words, record = self._texts_of(shown)
        self.put("#review-words", words)
        self.put("#review-record", record)

    def _draw_critical(self) -> None:
        text = critical_text(self._shown.critical if self._shown is not None else (), self.clinic.clock())
        self.query_one("#review-critical").display = bool(text)
        self.put("#review-critical", text)

    def _texts_of(self, shown: Shown) -> tuple[Text, Text]:
        row, view = self._row, self._view
        if row is None:
            return Text("Nothing waits for a review."), Text()
        if not self._reads:
            status = self.clinic.status
            here = status is None or status.may_change
            return Text.assemble(row_words(row), "\n\n", NOT_FOR_YOU if here else NOT_HERE), Text()
        if view is None:
            if shown.why_not is not None:
                return Text.assemble((shown.why_not.message, "bold"), "\n", shown.why_not.remedy), Text()
            return Text(row_words(row)), Text()
        corrections = self._corrections.get(row.artefact_id, {})
        record = record_text(view, corrections, signer=self._signer_words(), learning=_CONSENT[self._consent])
        return words_text(view, corrections), record

    @property
    def _row(self) -> ReviewRow | None:
        rows = self._shown.rows if self._shown is not None else ()
        return next((row for row in rows if row.artefact_id == self._wanted), None)

    @property
    def _view(self) -> ReviewView | None:
        """The selected result as it was fetched, None if it was not yet."""
        view = self._shown.view if self._shown is not None else None
        return view if view is not None and view.row.artefact_id == self._wanted else None

    def copied(self) -> str:
        """Return the id of the selected result's study."""
        return self._row.study_id if self._row is not None else ""

    # ------------------------------------------------------------ moving

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        table = self.query_one(ReviewTable)
        table.move_cursor(row=table.cursor_row + by)

    def action_end(self, which: int) -> None:
        """Go to the first or the last result."""
        table = self.query_one(ReviewTable)
        table.move_cursor(row=0 if which < 0 else table.row_count - 1)

    def action_read(self, by: int) -> None:
        """Read on or back in the selected result."""
        details = self.query_one("#review-details")
        details.scroll_relative(y=by * max(details.size.height - 1, 1), animate=False)

    # ------------------------------------------------------------ who signs, and how

    def _signer_words(self) -> str:
        signers = self._shown.signers if self._shown is not None else None
        if self._signer is not None:
            return f"{self._signer} (s changes it)"
        if signers is None or not signers.own:
            return "nobody yet: s chooses a name of [review] reviewers in clinic.toml"
        return signers.own + (" (s changes it)" if len(signers.names) > 1 else "")

    def _as_somebody(self, then: Callable[[str], None]) -> None:
        """Call ``then`` with the name that signs, after asking for one if there is none yet."""
        signers = self._shown.signers if self._shown is not None else None
        name = self._signer or (signers.own if signers is not None else "")
        if name:
            then(name)
        else:
            self._choose_signer(then)

    def _choose_signer(self, then: Callable[[str], None]) -> None:
        signers = self._shown.signers if self._shown is not None else None
        if signers is None or not signers.names:
            self.clinic.notify(
                "An administrator lists who signs under [review] reviewers in clinic.toml, and reloads.",
                title="Only a named person decides about a result",
                severity="warning",
                markup=False,
            )
            return

        def chosen(name: str | None) -> None:
            if name is not None:
                self._signer = name
                self.refetch()
                self._draw()
                then(name)

        question = "Who are you? Your name will stand under what you decide."
        self.clinic.push_screen(Choose(question, [(listed, listed) for listed in signers.names]), chosen)

    def action_sign_as(self) -> None:
        """Choose the name that signs."""
        self._choose_signer(lambda _: None)

    def action_consent(self) -> None:
        """Say whether models may learn from the next decisions."""
        self._consent = _NEXT_CONSENT[self._consent]
        self.clinic.notify(f"Learning from your decisions: {_CONSENT[self._consent]}.", markup=False)
        self._draw()

    def _signing(self, view: ReviewView, name: str) -> Signing:
        return Signing(self._signer, name, self._consent, dict(self._corrections.get(view.row.artefact_id, {})))

    # ------------------------------------------------------------ decisions

    def _ready(self) -> ReviewView | None:
        """Return the result to decide about; if there is none to read, say why."""
        if self._row is None:
            self.clinic.notify("Nothing waits for a review.")
        elif self._view is None:
            self.clinic.notify("This result is not read yet; wait until its words are shown.")
        return self._view

    def action_accept(self) -> None:
        """Ask, then sign the selected result as it is."""
        view = self._ready()
        if view is None:
            return
        if view.withheld:
            self.clinic.notify(
                "The guard keeps part of it back, so it cannot be accepted. Amend it (e) or reject it (x)."
            )
            return
        if self._corrections.get(view.row.artefact_id):
            self.clinic.notify("You corrected findings of it. Amend it (e) so that they count, or take them back (c).")
            return
        self._as_somebody(lambda name: self._accept(view, name))

    def _accept(self, view: ReviewView, name: str) -> None:
        count = len(view.statements)
        question = (
            f"Sign this result as {name}, as it is?\n\n{view.subject.patient}\n{view.row.study_id}, for the "
            f"{view.row.audience}, {count} statement{'' if count == 1 else 's'}\n\n"
            f"The final report follows in the outbox.\nLearning: {_CONSENT[self._consent]}."
        )
        order = AcceptReview(digest=view.digest, reviewer=self._signer, consent=self._consent)
        self._decide(question, view, lambda client: client.accept(view.row.artefact_id, order))

    def action_reject(self) -> None:
        """Ask why, then let nothing of the selected result go out."""
        view = self._ready()
        if view is not None:
            self._as_somebody(lambda name: self._reject(view, name))

    def _reject(self, view: ReviewView, name: str) -> None:
        signing = self._signing(view, name)

        def written(reason: str | None) -> None:
            if reason is None:
                return
            try:
                order = made(
                    RejectReview,
                    digest=view.digest,
                    reviewer=signing.reviewer,
                    consent=signing.consent,
                    reason=reason,
                    corrections=signing.as_corrections(),
                )
            except ClinicError as error:
                self.clinic.notify(f"{error.message} {error.remedy}", severity="error", markup=False)
                return
            self._decide(None, view, lambda client: client.reject(view.row.artefact_id, order))

        question = (
            f"Reject this result as {name}? Nothing of it goes out.\n\n{view.subject.patient}\n{view.row.study_id}, "
            f"for the {view.row.audience}\n\nSay why. It is kept for good, so do not name the patient."
        )
        self.clinic.push_screen(Prompt(question, placeholder="such as: wrong side"), written)

    def _decide(self, question: str | None, view: ReviewView, call: Callable[[TerminalClient], DoneView]) -> None:
        """Send a decision; if it is refused say why, and fetch again what it is about."""

        def safe(client: TerminalClient) -> DoneView | NotTaken:
            try:
                return call(client)
            except ClinicError as error:
                return NotTaken(error, None)

        def done(answer: DoneView | NotTaken) -> None:
            if isinstance(answer, DoneView):
                self._corrections.pop(view.row.artefact_id, None)
                self.clinic.notify(answer.sentence, markup=False)
            else:
                words = f"{answer.error.message} {answer.error.remedy}"
                self.clinic.notify(words, title="Nothing was decided", severity="error", timeout=15, markup=False)
            self.refetch()

        self.order(question, safe, done)

    def action_amend(self) -> None:
        """Open the editor on the selected result."""
        view = self._ready()
        if view is not None:
            self._as_somebody(lambda name: self._amend(view, name))

    def _amend(self, view: ReviewView, name: str) -> None:
        def closed(answer: DoneView | None) -> None:
            if answer is not None:
                self._corrections.pop(view.row.artefact_id, None)
                self.clinic.notify(answer.sentence, markup=False)
            self.refetch()

        self.clinic.push_screen(AmendScreen(view, self._signing(view, name)), closed)

    # ------------------------------------------------------------ corrections

    def action_correct(self) -> None:
        """Ask which finding, then what is there in truth; it goes with the next amendment or rejection."""
        view = self._ready()
        if view is None:
            return
        if not view.findings:
            self.clinic.notify("No model gave a finding that could be corrected.")
            return
        options = [(finding.condition, finding_words(finding)) for finding in view.findings]

        def chosen(condition: str | None) -> None:
            if condition is not None:
                self._correct(view, condition)

        self.clinic.push_screen(Choose("Which finding do you correct?", list(dict(options).items())), chosen)

    def _correct(self, view: ReviewView, condition: str) -> None:
        options = [(presence.value, presence.value) for presence in Presence]
        label = next(finding.label for finding in view.findings if finding.condition == condition)

        def chosen(said: str | None) -> None:
            if said is None:
                return
            mine = self._corrections.setdefault(view.row.artefact_id, {})
            mine.pop(condition, None)
            if said != _NO_CORRECTION:
                mine[condition] = Presence(said)
            self._draw()

        as_it_is = (_NO_CORRECTION, "as the software says: no correction")
        self.clinic.push_screen(Choose(f"{label}: what is there in truth?", [*options, as_it_is]), chosen)

    def action_acknowledge(self) -> None:
        """Ask which critical finding and who was told, then acknowledge it."""
        found = self._shown.critical if self._shown is not None else ()

        def chosen(one: CriticalView) -> None:
            self._as_somebody(lambda name: ask_who_was_told(self, one, name, self._signer))

        choose_critical(self, found, chosen)


VIEW = ReviewsView
