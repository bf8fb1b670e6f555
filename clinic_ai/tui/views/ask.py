"""The seventh screen: a question about an image of the study in hand, and what was asked about it before."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.widgets import Input, Static

from clinic_ai.control.question_views import AskedView, AskOrder
from clinic_ai.control.terminal_client import TerminalClient
from clinic_ai.control.views import Role, StatusView, StudyView
from clinic_ai.errors import ClinicError, NotFound
from clinic_ai.tui.ask_words import asked_text, offered, study_text
from clinic_ai.tui.feed import Fetch
from clinic_ai.tui.making import made
from clinic_ai.tui.screens import Choose, Prompt
from clinic_ai.tui.view import ClinicView
from clinic_ai.tui.words import age

Audience = Literal["clinician", "patient"]

NO_STUDY = "No study is in hand. Choose one in the queue (key 1) and come back (key 7)."
FOR_PATIENTS_ONLY = (
    "Technicians ask in a patient's place, who reads words of the policy pack alone; what was asked before is for "
    "clinicians."
)
NOT_HERE = "The monitor socket only reads; questions are asked on the control socket."


@dataclass(frozen=True)
class Shown:
    """The study in hand, None if there is none; the standard questions about it, and what was asked."""

    study: StudyView | None = None
    offered: tuple[str, ...] = ()
    asked: tuple[AskedView, ...] = ()


@dataclass(frozen=True)
class Pending:
    """A question that was sent and is not answered yet; ``since`` is UTC seconds."""

    study_id: str
    order: AskOrder
    since: float


class AskView(ClinicView):
    """Asks one question at a time. Whoever leaves the screen meanwhile finds the answer here afterwards."""

    NAME = "ask"
    TITLE = "Ask"
    ORDERS: ClassVar[Mapping[str, Role]] = dict.fromkeys(
        ("ask", "standard", "audience", "image", "frame"), Role.TECHNICIAN
    )
    DEFAULT_CSS = """
    AskView #ask-facts { height: auto; max-height: 3; padding: 0 1; }
    AskView #ask-question { border: round $primary; padding: 0 1; height: 3; }
    AskView #ask-question:focus { border: round $accent; }
    AskView #ask-state { display: none; height: auto; max-height: 6; padding: 0 1; }
    AskView #ask-answers { height: 1fr; border: round $primary; padding: 0 1; scrollbar-size-vertical: 1; }
    AskView #ask-answers:focus { border: round $accent; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "ask", "Ask", id="ask.ask", tooltip="Write a question; Enter asks it, Escape leaves the line"),
        Binding("s", "standard", "Standard", id="ask.standard", tooltip="Choose one of the standard questions"),
        Binding("t", "audience", "For whom", id="ask.audience", tooltip="Who reads the answer: clinician or patient"),
        Binding("i", "image", "Image", id="ask.image", tooltip="Which image it is about, by its number"),
        Binding("f", "frame", "Frame", id="ask.frame", tooltip="Which frame of a loop; else the plugin chooses"),
        Binding("j", "read(1)", "Down", show=False, id="ask.down", tooltip="Read on"),
        Binding("k", "read(-1)", "Up", show=False, id="ask.up", tooltip="Read back"),
        Binding("g", "end(-1)", "Newest", show=False, id="ask.newest", tooltip="The newest question"),
        Binding("G", "end(1)", "Oldest", show=False, id="ask.oldest", tooltip="The oldest question"),
        Binding("escape", "leave_line", "Leave the line", show=False, id="ask.leave", tooltip="Stop writing"),
    ]

    class Answered(Message):
        """The daemon answered a question, or would not."""

        def __init__(self, pending: Pending, answer: AskedView | ClinicError) -> None:
            super().__init__()
            self.pending = pending
            self.answer = answer

    def __init__(self) -> None:
        super().__init__()
        self._shown = Shown()
        self._fetched = False
        self._study_id: str | None = None
        self._reads = False
        self._audience: Audience = "clinician"
        self._image: str | None = None
        self._frame: int | None = None
        self._pending: Pending | None = None
        self._failed: tuple[Pending, ClinicError] | None = None
        self._mine: dict[str, tuple[AskedView, ...]] = {}
        """Answers that came here, by study: who may not read the list sees those."""

    def compose(self) -> ComposeResult:
        """Lay out the study, the question, what is on its way, and the answers."""
        yield Static(id="ask-facts")
        yield Input(placeholder="Your question; Enter asks it", id="ask-question", max_length=1000)
        yield Static(id="ask-state")
        with VerticalScroll(id="ask-answers"):
            yield Static(id="ask-asked")

    def on_mount(self) -> None:
        """Name the parts."""
        self.query_one("#ask-question").border_title = "Question"
        self.query_one("#ask-answers").border_title = "Asked so far, newest first"

    def focus_first(self) -> None:
        """Put the focus on the answers, so that keys work at once."""
        self.query_one("#ask-answers").focus()

    # ------------------------------------------------------------ fetching

    def fetching(self) -> Fetch:
        """Return what fetches the study in hand and, for who may read it, what was asked about it."""
        study_id, reads = self.clinic.study_id, self._reads
        if study_id != self._study_id:
            self._study_id, self._image, self._frame, self._failed = study_id, None, None, None

        def fetch(client: TerminalClient) -> Shown:
            if study_id is None:
                return Shown()
            try:
                study = client.study(study_id)
            except NotFound:
                return Shown()
            questions = offered(study, client.plugin_categories(), client.plugins())
            return Shown(study, questions, tuple(client.questions(study_id)) if reads else ())

        return fetch

    def status_changed(self, status: StatusView) -> None:
        """Ask for answers only where they are given: a refused question is written into the audit."""
        reads = status.may_change and status.role.covers(Role.CLINICIAN)
        if not status.role.covers(Role.CLINICIAN):
            self._audience = "patient"
        self.query_one("#ask-question", Input).disabled = not status.may_change
        if reads != self._reads:
            self._reads = reads
            self.refetch()

    def show(self, answer: object) -> None:
        """Draw the study and what was asked."""
        if isinstance(answer, Shown):
            self._shown, self._fetched = answer, True
            self._draw()

    def tick(self, now: float) -> None:  # noqa: ARG002 - the clock is asked where it is needed
        """Let the time of a question on its way go on."""
        if self._pending is not None and self.query("#ask-state"):
            self._draw_state()

    # ------------------------------------------------------------ drawing

    @property
    def _study(self) -> StudyView | None:
        """The study in hand as it was fetched, None if it was not yet."""
        study = self._shown.study
        return study if study is not None and study.study_id == self._study_id else None

    def _draw(self) -> None:
        self.put("#ask-facts", self._facts())
        self._draw_state()
        study = self._study
        if study is None:
            self.put("#ask-asked", Text(NO_STUDY if self._study_id is None and self._fetched else ""))
            return
        asked = self._shown.asked if self._reads else self._mine.get(study.study_id, ())
        nothing = "Nobody asked about this study yet; a asks." if self._reads else ""
        text = asked_text(asked) if asked else Text(nothing)
        status = self.clinic.status
        if status is not None and not self._reads:
            text = Text.assemble(NOT_HERE if not status.may_change else FOR_PATIENTS_ONLY, "\n\n", text)
        self.put("#ask-asked", text)

    def _facts(self) -> Text:
        study = self._study
        if study is None:
            return Text("")
        text = study_text(study)
        frame = "any" if self._frame is None else self._frame
        text.append(f"\nfor: {self._audience} (t)  image: {self._image_words(study)} (i)  frame: {frame} (f)")
        if self._shown.offered:
            text.append(f"  standard: {len(self._shown.offered)} (s)")
        return text

    def _image_words(self, study: StudyView) -> str:
        if self._image is not None:
            return self._image
        return "1" if study.versions[0].instances == 1 else "not chosen"

    def _draw_state(self) -> None:
        text = Text()
        if self._pending is not None:
            waits = age(self.clinic.clock() - self._pending.since)
            text.append(f"… ASKED {waits} ago about {self._pending.study_id}: ", style="bold")
            text.append(f"{self._pending.order.question}\n")
            text.append("A model that is not loaded yet takes longer. You may leave this screen; the answer stays.")
        elif self._failed is not None:
            pending, error = self._failed
            text.append("✗ NOT ANSWERED: ", style="bold red")
            text.append(f"{pending.order.question}\n{error.message} {error.remedy}")
        self.query_one("#ask-state").display = bool(text)
        self.put("#ask-state", text)

    def copied(self) -> str:
        """Return the newest question with what became of it."""
        study = self._study
        if study is None:
            return ""
        asked = self._shown.asked if self._reads else self._mine.get(study.study_id, ())
        return asked_text(asked[-1:]).plain

    # ------------------------------------------------------------ asking

    @on(Input.Submitted, "#ask-question")
    def _submitted(self, event: Input.Submitted) -> None:
        study = self._study
        if not self.may("ask"):
            self.clinic.notify("Nothing can be asked now.", severity="warning")
        elif study is None:
            self.clinic.notify(NO_STUDY)
        elif self._pending is not None:
            self.clinic.notify("One question at a time: the one before is not answered yet. Yours stays in the line.")
        elif self._image is None and study.versions[0].instances > 1:
            self.clinic.notify("Which image is it about? Escape leaves the line, i chooses. Your question stays.")
        else:
            self._ask(study.study_id, event.value)

    def _ask(self, study_id: str, question: str) -> None:
        try:
            order = made(AskOrder, question=question, audience=self._audience, image=self._image, frame=self._frame)
        except ClinicError as error:
            self.clinic.notify(f"{error.message} {error.remedy}", severity="error", markup=False)
            return
        pending = Pending(study_id, order, self.clinic.clock())
        self._pending, self._failed = pending, None
        self.query_one("#ask-question", Input).value = ""
        self.focus_first()
        # A daemon thread, which nobody waits for: an answer may take longer than the person stays.
        threading.Thread(target=self._wait, args=(pending,), name="question", daemon=True).start()
        self._draw()

    def _wait(self, pending: Pending) -> None:
        """Ask and wait for the answer; in a thread of its own."""
        answer: AskedView | ClinicError
        try:
            with self.clinic.connect() as client:
                answer = client.ask(pending.study_id, pending.order)
        except ClinicError as error:
            answer = error
        except Exception as error:  # noqa: BLE001 - thread boundary: the question would be on its way for ever
            self.clinic.broke(error)
            return
        self.post_message(self.Answered(pending, answer))

    @on(Answered)
    def _answered(self, message: Answered) -> None:
        pending, answer = message.pending, message.answer
        self._pending = None
        if isinstance(answer, ClinicError):
            self._failed = (pending, answer)
            words = f"The question about {pending.study_id} is not answered. {answer.message}"
            self.clinic.notify(words, severity="error", markup=False)
        else:
            self._mine[pending.study_id] = (*self._mine.get(pending.study_id, ()), answer)
            if self.clinic.view is not self or pending.study_id != self._study_id:
                words = f"Your question about {pending.study_id} is {answer.outcome.value}; key 7 shows it."
                self.clinic.notify(words, markup=False)
        self.refetch()
        self._draw()

    # ------------------------------------------------------------ keys

    def action_ask(self) -> None:
        """Write a question."""
        self.query_one("#ask-question").focus()

    def action_leave_line(self) -> None:
        """Stop writing; what was written stays."""
        self.focus_first()

    def action_read(self, by: int) -> None:
        """Read on or back."""
        self.query_one("#ask-answers").scroll_relative(y=by, animate=False)

    def action_end(self, which: int) -> None:
        """Go to the newest or the oldest question."""
        answers = self.query_one("#ask-answers")
        if which < 0:
            answers.scroll_home(animate=False)
        else:
            answers.scroll_end(animate=False)

    def action_audience(self) -> None:
        """Change who reads the answer."""
        status = self.clinic.status
        if status is not None and not status.role.covers(Role.CLINICIAN):
            self.clinic.notify(FOR_PATIENTS_ONLY)
            return
        self._audience = "patient" if self._audience == "clinician" else "clinician"
        self._draw()

    def action_standard(self) -> None:
        """Choose a standard question; it comes into the line, to be changed or asked."""
        if not self._shown.offered:
            self.clinic.notify("No plugin of this study has standard questions.")
            return

        def chosen(question: str | None) -> None:
            if question is not None:
                line = self.query_one("#ask-question", Input)
                line.value = question
                line.focus()

        self.clinic.push_screen(Choose("Which question?", [(q, q) for q in self._shown.offered]), chosen)

    def action_image(self) -> None:
        """Ask which image."""
        study = self._study
        if study is None:
            self.clinic.notify(NO_STUDY)
            return

        def written(image: str | None) -> None:
            if image is not None:
                self._image = image or None
                self._draw()

        count = study.versions[0].instances
        question = f"Which image is it about, 1 to {count}? Eight or more digits of its SHA-256 will do too."
        self.clinic.push_screen(Prompt(question, initial=self._image or "", required=False), written)

    def action_frame(self) -> None:
        """Ask which frame."""

        def written(frame: str | None) -> None:
            if frame is None:
                return
            if frame and not (frame.isascii() and frame.isdigit()):
                self.clinic.notify(f"{frame} is no number of a frame.", severity="error", markup=False)
                return
            self._frame = int(frame) if frame else None
            self._draw()

        question = "Which frame is it about, from 1? Leave it empty and the plugin chooses."
        self.clinic.push_screen(Prompt(question, initial=str(self._frame or ""), required=False), written)


VIEW = AskView
