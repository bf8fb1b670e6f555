"""The second screen: one study. Pictures, findings and words for clinicians; where it stands for everybody."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.events import Resize
from textual.widgets import ContentSwitcher, DataTable, Static, Tree

from clinic_ai.control.study_views import FindingsView, HistoryView, SeriesView
from clinic_ai.control.terminal_client import TerminalClient
from clinic_ai.control.views import FileRow, Role, RouteView, StatusView, StudyView
from clinic_ai.errors import ClinicError, NotFound
from clinic_ai.tui import study_orders
from clinic_ai.tui.feed import Fetch
from clinic_ai.tui.history_words import history_text
from clinic_ai.tui.picture_pane import PicturePane
from clinic_ai.tui.series_tree import SeriesTree, Spot
from clinic_ai.tui.study_details import details_text
from clinic_ai.tui.study_files import StudyFiles
from clinic_ai.tui.study_words import (
    NO_STUDY,
    file_text,
    findings_text,
    guard_text,
    head_text,
    no_content_text,
    report_text,
    routing_text,
)
from clinic_ai.tui.view import ClinicView

PAGES = ("Picture", "Overview", "Series", "Findings", "Report", "Guard", "History", "Files", "Routing")
_CONTENT = frozenset({"Picture", "Findings", "Report"})
_OF_PICTURE = frozenset({"slice", "stack", "window", "level", "width", "cine", "overlay"})
"""Actions on the picture, which is content too."""
_WIDGETS = {"Series": "series", "Files": "study-files"}
"""Pages that are more than text, and their widgets."""


@dataclass(frozen=True)
class Shown:
    """A study, and of the rest what the page in front needs. All None: no study is chosen."""

    study: StudyView | None = None
    series: SeriesView | None = None
    findings: FindingsView | None = None
    history: HistoryView | None = None
    route: RouteView | None = None


class OneStudyView(ClinicView):
    """One study: its picture beside or instead of a page of words."""

    NAME = "study"
    TITLE = "Study"
    ORDERS: ClassVar[Mapping[str, Role]] = {
        "retry": Role.TECHNICIAN,
        "reroute": Role.TECHNICIAN,
        "prioritise": Role.TECHNICIAN,
        "category": Role.TECHNICIAN,
        "accept": Role.TECHNICIAN,
        "discard": Role.CLINICIAN,
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "page(1)", "Page", id="study.page", tooltip="The next page", priority=False),
        Binding("shift+tab", "page(-1)", "Page back", show=False, id="study.back", tooltip="The page before"),
        Binding("left_square_bracket", "slice(-1)", show=False, id="study.slice.down", tooltip="The slice before"),
        Binding("right_square_bracket", "slice(1)", "Slice", id="study.slice.up", tooltip="The next slice"),
        Binding("left_curly_bracket", "stack(-1)", show=False, id="study.stack.down", tooltip="The stack before"),
        Binding("right_curly_bracket", "stack(1)", show=False, id="study.stack.up", tooltip="The next stack"),
        Binding("j,down", "move(1)", show=False, id="study.down", tooltip="Down; on the picture the next slice"),
        Binding("k,up", "move(-1)", show=False, id="study.up", tooltip="Up; on the picture the slice before"),
        Binding("g", "first", show=False, id="study.first", tooltip="To the top; on the picture the first slice"),
        Binding("G", "last", show=False, id="study.last", tooltip="To the end; on the picture the last slice"),
        Binding("w", "window", "Window", id="study.window", tooltip="The next window: the file's, full, lung, bone …"),
        Binding("h", "level(-1)", show=False, id="study.level.down", tooltip="Window lower: the picture gets brighter"),
        Binding("l", "level(1)", show=False, id="study.level.up", tooltip="Window higher: the picture gets darker"),
        Binding("plus", "width(1)", show=False, id="study.width.up", tooltip="Window wider: less contrast"),
        Binding("minus", "width(-1)", show=False, id="study.width.down", tooltip="Window narrower: more contrast"),
        Binding("space", "cine", "Cine", id="study.cine", tooltip="Let the images run, or stand still"),
        Binding("o", "overlay", "Overlay", id="study.overlay", tooltip="Show or hide the heat map"),
        Binding("r", "retry", "Retry", id="study.retry", tooltip="Try the study again (asks first)"),
        Binding("R", "reroute", show=False, id="study.reroute", tooltip="Route it again, even in work (asks first)"),
        Binding("u", "prioritise", show=False, id="study.prioritise", tooltip="Let it go before or after others"),
        Binding("c", "category", show=False, id="study.category", tooltip="Say which category its images are of"),
        Binding("a", "accept", show=False, id="study.accept", tooltip="Let the selected file out of the quarantine"),
        Binding("x", "discard", show=False, id="study.discard", tooltip="Remove the selected file (asks why)"),
    ]
    DEFAULT_CSS = """
    OneStudyView #study-head { height: auto; max-height: 4; padding: 0 1; }
    OneStudyView #study-tabs { height: 1; padding: 0 1; }
    OneStudyView #study-body { layout: vertical; height: 1fr; }
    OneStudyView.wide #study-body { layout: horizontal; }
    OneStudyView #picture-pane { width: 1fr; height: 1fr; display: none; }
    OneStudyView #study-pages { width: 1fr; height: 1fr; border: round $primary; }
    OneStudyView #study-page { padding: 0 1; scrollbar-size-vertical: 1; }
    OneStudyView #study-files-table { height: 1fr; scrollbar-size-vertical: 1; }
    OneStudyView #study-file { height: auto; max-height: 6; padding: 0 1; border-top: solid $primary; }
    OneStudyView.picture #picture-pane { display: block; }
    OneStudyView.picture #study-pages { display: none; }
    OneStudyView.picture PicturePane { border: none; }
    OneStudyView.picture PicturePane.shown #caption { height: 3; }
    OneStudyView.wide #picture-pane, OneStudyView.wide #study-pages { display: block; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._page = PAGES[0]
        self._data = Shown()
        self._turned = False
        self._refusal: ClinicError | None = None

    def compose(self) -> ComposeResult:
        """Lay out the head, the pages' names, the picture and the pages."""
        yield Static(id="study-head")
        yield Static(id="study-tabs")
        with Container(id="study-body"):
            yield PicturePane(watched=self._sees_picture)
            with ContentSwitcher(id="study-pages", initial="study-page"):
                with VerticalScroll(id="study-page"):
                    yield Static(id="study-text")
                yield SeriesTree()
                with Vertical(id="study-files"):
                    yield StudyFiles()
                    yield Static(id="study-file")

    # ------------------------------------------------------------ what is fetched

    def fetching(self) -> Fetch:
        """Return what fetches the study in hand, and what the page in front shows of it."""
        study_id, page = self.clinic.study_id, self._page

        def fetch(client: TerminalClient) -> Shown:
            if study_id is None:
                return Shown()
            study, before = client.study(study_id), self._data  # which never changes, but is replaced
            return Shown(
                study=study,
                series=before.series if _same_images(before, study) else client.series(study_id),
                findings=client.findings(study_id) if study.content and page == "Findings" else None,
                history=client.history(study_id) if page == "History" else None,
                route=client.route(study_id) if page == "Routing" else None,
            )

        return fetch

    def show(self, answer: object) -> None:
        """Draw the study."""
        if not isinstance(answer, Shown):
            return
        study = answer.study
        if study is not None and study.study_id != self.clinic.study_id:
            return  # another was chosen meanwhile
        if study is not None and not study.content and self._page == "Picture" and not self._turned:
            self._page = "Overview"  # what a technician came for
            self.focus_first()
        sees = self._sees_content
        self._data, self._refusal = answer, None
        self._draw()
        if sees != self._sees_content:
            self.app.refresh_bindings()

    def refuse(self, error: ClinicError) -> None:
        """Say why there is no study."""
        self._refusal = error
        if isinstance(error, NotFound):
            self._data = Shown()
        self._draw()

    def status_changed(self, status: StatusView) -> None:  # noqa: ARG002 - the app has it
        """Draw the reason why there is no picture anew: it names the role."""
        if self._data.study is not None and not self._data.study.content:
            self._draw()

    @property
    def _sees_content(self) -> bool:
        return self._data.study is None or self._data.study.content

    def may(self, action: str) -> bool:
        """Return whether the keys of an action are there: those of the picture only for who may see it."""
        return super().may(action) and (action not in _OF_PICTURE or self._sees_content)

    # ------------------------------------------------------------ drawing

    @property
    def _wide(self) -> bool:
        """Whether picture and words stand side by side; without the picture the words have all of it."""
        return self._sees_content and self.clinic.query_one("#body").has_class("wide")

    @property
    def _pages(self) -> tuple[str, ...]:
        return PAGES[1:] if self._wide else PAGES

    def _sees_picture(self) -> bool:
        return self.clinic.view is self and (self._wide or self._page == "Picture")

    @on(Resize)
    def _resized(self) -> None:
        self._draw()

    def _draw(self) -> None:
        wide = self._wide
        if wide and self._page == "Picture":
            self._page = "Overview"
            self.refetch()
        self.set_class(wide, "wide")
        self.set_class(self._page == "Picture", "picture")
        self._draw_head()
        self._draw_picture()
        self._draw_page()

    def _draw_head(self) -> None:
        study = self._data.study
        self.query_one("#study-body").display = study is not None
        width = self.clinic.size.width - 2
        if self._refusal is not None:
            self.put("#study-head", Text(f"{self._refusal.message} {self._refusal.remedy}", style="bold"))
        else:
            self.put("#study-head", Text(NO_STUDY) if study is None else head_text(study, width))
        tabs = Text(no_wrap=True)
        for page in self._pages:
            here = page == self._page
            tabs.append(f"[{page}]" if here else f" {page} ", style="bold reverse" if here else "")
        self.put("#study-tabs", tabs if study is not None else Text())

    def _draw_picture(self) -> None:
        pane, study, series = self.query_one(PicturePane), self._data.study, self._data.series
        if study is None or series is None:
            pane.say(Text(""))
        elif not study.content:
            pane.say(no_content_text(self.clinic.status))
        else:
            newest = study.versions[0]
            made = tuple((artefact.artefact_id, artefact.state) for artefact in newest.artefacts)
            pane.take(study.study_id, (series.version, newest.instances, made), series)

    def _draw_page(self) -> None:
        switcher = self.query_one("#study-pages", ContentSwitcher)
        switcher.current = _WIDGETS.get(self._page, "study-page")
        switcher.border_title = self._page
        study = self._data.study
        self.query_one(SeriesTree).show(self._data.series)
        files = self.query_one(StudyFiles)
        files.show(() if study is None else study.files)
        self.put("#study-file", file_text(files.selected))
        self.put("#study-text", Text("") if study is None else self._words(study))

    def _words(self, study: StudyView) -> Text:
        """Return the page in front as text; nothing of one that is more than text."""
        if self._page in _CONTENT and not study.content:
            return no_content_text(self.clinic.status)
        data, row = self._data, study.versions[0].study
        pages: dict[str, Callable[[], Text]] = {
            "Overview": lambda: self._overview(study),
            "Findings": lambda: findings_text(data.findings),
            "Report": lambda: report_text(study),
            "Guard": lambda: guard_text(study),
            "History": lambda: history_text(study, data.history),
            "Routing": lambda: routing_text(row, data.route),
        }
        make = pages.get(self._page)
        return Text("") if make is None else make()

    def _overview(self, study: StudyView) -> Text:
        status, now = self.clinic.status, self.clinic.clock()
        return details_text(study.versions[0].study, study, status, now, all_files="all stand on the page Files")

    def tick(self, now: float) -> None:  # noqa: ARG002 - the clock of the app is the same
        """Let the ages on the overview grow."""
        study = self._data.study
        if self._page == "Overview" and study is not None:
            self.put("#study-text", self._overview(study))

    def focus_first(self) -> None:
        """Put the focus where the page in front is moved."""
        self._draw()
        self.call_after_refresh(self._focus_page)

    def _focus_page(self) -> None:
        """Focus what is displayed by now: else the keys of this screen would do nothing."""
        targets = {"Picture": "#picture-pane", "Series": "#series", "Files": "#study-files-table"}
        self.query_one(targets.get(self._page, "#study-page")).focus()

    # ------------------------------------------------------------ pages

    def action_page(self, by: int) -> None:
        """Turn to another page."""
        pages = self._pages
        here = pages.index(self._page) if self._page in pages else 0
        self._page, self._turned = pages[(here + by) % len(pages)], True
        self.query_one("#study-page", VerticalScroll).scroll_home(animate=False)
        self.focus_first()
        self.refetch()

    def action_move(self, by: int) -> None:
        """Move on the page; on the picture to another slice."""
        if self._page == "Picture":
            self.action_slice(by)
        elif self._page in _WIDGETS:
            return  # the tree and the table have keys of their own
        else:
            self.query_one("#study-page", VerticalScroll).scroll_relative(y=by, animate=False)

    def action_first(self) -> None:
        """Go to the top, or to the first slice."""
        pane = self.query_one(PicturePane)
        if self._page == "Picture" and pane.looking is not None:
            pane.go_to(pane.looking.stack, 1)
        else:
            self.query_one("#study-page", VerticalScroll).scroll_home(animate=False)

    def action_last(self) -> None:
        """Go to the end, or to the last slice."""
        if self._page == "Picture":
            self.query_one(PicturePane).last()
        else:
            self.query_one("#study-page", VerticalScroll).scroll_end(animate=False)

    def copied(self) -> str:
        """Return the words of the page, the name of the selected file, or the id of the study."""
        study = self._data.study
        if study is None:
            return ""
        if self._page == "Files":
            file = self.query_one(StudyFiles).selected
            return study.study_id if file is None else file.name
        return self._words(study).plain.strip() or study.study_id

    @on(DataTable.RowHighlighted)
    def _file_chosen(self) -> None:
        self.put("#study-file", file_text(self.query_one(StudyFiles).selected))

    @on(Tree.NodeSelected)
    def _image_chosen(self, event: Tree.NodeSelected[Spot | None]) -> None:
        spot = event.node.data
        if spot is None or self._data.study is None or not self._data.study.content:
            return
        self.query_one(PicturePane).go_to(spot.stack, spot.image)
        if not self._wide:
            self._page = "Picture"
            self.focus_first()

    # ------------------------------------------------------------ the picture

    def action_slice(self, by: int) -> None:
        """Go to another slice."""
        self.query_one(PicturePane).step(by)

    def action_stack(self, by: int) -> None:
        """Go to another stack."""
        self.query_one(PicturePane).step_stack(by)

    def action_window(self) -> None:
        """Take the next window."""
        self.query_one(PicturePane).next_window()

    def action_level(self, by: int) -> None:
        """Move the window."""
        self.query_one(PicturePane).move_window(centre=by)

    def action_width(self, by: int) -> None:
        """Make the window wider or narrower."""
        self.query_one(PicturePane).move_window(width=by)

    def action_cine(self) -> None:
        """Let the images run, or stand still."""
        self.query_one(PicturePane).toggle_cine()

    def action_overlay(self) -> None:
        """Show or hide the heat map."""
        self.query_one(PicturePane).toggle_overlay()

    # ------------------------------------------------------------ orders

    def action_retry(self) -> None:
        """Ask, then try the study again."""
        study = self._data.study
        if study is None:
            return
        row = study.versions[0].study
        if row.state not in study_orders.WHAT_RETRY_DOES:
            self.clinic.notify(f"Study {study.study_id} is on its way already.")
            return
        question = f"Try study {study.study_id} ({row.pseudonym}) again?\n{study_orders.WHAT_RETRY_DOES[row.state]}"
        self.order(question, lambda client: client.retry(study.study_id))

    def action_reroute(self) -> None:
        """Ask, then route the study again."""
        study = self._data.study
        if study is None:
            return
        question = (
            f"Route study {study.study_id} again, even if it is in work?\n"
            "What runs or waits of it is dropped, and the rules as they are now say where it goes."
        )
        self.order(question, lambda client: client.reroute(study.study_id))

    def action_prioritise(self) -> None:
        """Ask how urgent it is."""
        if self._data.study is not None:
            study_orders.prioritise(self, self._data.study.study_id)

    def action_category(self) -> None:
        """Ask which category its images are of."""
        if self._data.study is not None:
            study_orders.choose_category(self, self._data.study.study_id)

    def action_accept(self) -> None:
        """Ask how the selected file is to be accepted."""
        file = self._quarantined()
        if file is not None:
            study_orders.accept_file(self, file)

    def action_discard(self) -> None:
        """Ask why the selected file is not wanted."""
        file = self._quarantined()
        if file is not None:
            study_orders.discard_file(self, file)

    def _quarantined(self) -> FileRow | None:
        """Return the selected file if it waits for a decision; else say what to do."""
        file = self.query_one(StudyFiles).selected if self._page == "Files" else None
        if file is None or file.fate != "QUARANTINED":
            self.clinic.notify("Select a file in quarantine on the page Files first.")
            return None
        return file


def _same_images(before: Shown, study: StudyView) -> bool:
    """Return whether the series that are known are still those of the study."""
    if before.study is None or before.series is None or before.study.study_id != study.study_id:
        return False
    old, new = before.study.versions[0], study.versions[0]
    return (old.study.version, old.instances) == (new.study.version, new.instances)


VIEW = OneStudyView
