"""The pane with a study's picture: what is looked at, how it is fetched, and the words below it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Container
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Static

from clinic_ai.control.client import NoDaemon
from clinic_ai.control.preview_views import PreviewView
from clinic_ai.control.study_views import SeriesView
from clinic_ai.errors import ClinicError, Conflict
from clinic_ai.previewing import MAX_COLUMNS, MAX_ROWS, MIN_SIDE
from clinic_ai.tui.picture_feed import Came, PictureFeed, Want
from clinic_ai.tui.pixels import Pixels
from clinic_ai.tui.showing import Looking, first_stack, loop_of, stack_of
from clinic_ai.tui.study_words import NOT_FOR_DIAGNOSIS, caption_text

if TYPE_CHECKING:
    from clinic_ai.tui.app import ClinicApp

CINE_S = 1 / 6
"""Time from one picture of a cine to the next; over a slow line it takes as long as it takes."""


class PicturePane(Container, can_focus=True):
    """One picture of a study. ``watched`` says whether anybody sees it: else nothing is fetched and nothing plays.

    The words below a picture have a height of their own: else it would be made anew for each that has more of them.
    """

    DEFAULT_CSS = """
    PicturePane { border: round $primary; padding: 0; }
    PicturePane:focus { border: round $accent; }
    PicturePane Pixels { display: none; }
    PicturePane.shown Pixels { display: block; }
    PicturePane #caption { height: auto; max-height: 6; padding: 0 1; }
    PicturePane.shown #caption { height: 4; }
    """

    class PictureCame(Message):
        """The feed of pictures has an answer."""

        def __init__(self, came: Came) -> None:
            super().__init__()
            self.came = came

    def __init__(self, *, watched: Callable[[], bool]) -> None:
        super().__init__(id="picture-pane")
        self._watched = watched
        self._series: SeriesView | None = None
        self._looking: Looking | None = None
        self._shown: PreviewView | None = None
        self._asked: Want | None = None
        self._failed = False
        self._hopeless: Looking | None = None
        self._waiting = False
        self._cine: Timer | None = None
        self._feed: PictureFeed | None = None
        self._caption = Text()

    def compose(self) -> ComposeResult:
        """Lay out the picture and what it is of."""
        yield Pixels(id="pixels")
        yield Static(id="caption")

    def on_mount(self) -> None:
        """Say what it is not for, and get ready to fetch."""
        self.border_title = NOT_FOR_DIAGNOSIS
        clinic = cast("ClinicApp", self.app)
        self._feed = PictureFeed(clinic.connect, tell=self._tell, broke=clinic.broke)

    def _tell(self, came: Came) -> None:
        """Called in the feed's thread."""
        self.post_message(self.PictureCame(came))

    def on_unmount(self) -> None:
        """Fetch no more."""
        if self._feed is not None:
            self._feed.stop()

    # ------------------------------------------------------------ what is looked at

    @property
    def looking(self) -> Looking | None:
        """What is looked at; None if there is nothing."""
        return self._looking

    def take(self, study_id: str, key: object, series: SeriesView) -> None:
        """Show pictures of this study; ``key`` changes with what they depend on."""
        self._series = series
        if not any(row.stacks for row in series.series):
            self.say(Text("This study holds no image. What it holds instead stands among its files."))
            return
        looking = self._looking
        if looking is None or looking.study_id != study_id:
            self._stop_cine()
            looking = Looking(study_id, stack=first_stack(series))
        found = stack_of(series, looking.stack)
        if found is None:
            looking = replace(looking, stack=first_stack(series), image=1)
        elif looking.image > found.images:
            looking = replace(looking, image=found.images)
        looking = replace(looking, key=key)
        self._look(looking, even_so=self._failed)

    def say(self, words: Text) -> None:
        """Show words instead of a picture."""
        self._stop_cine()
        self._looking = self._shown = self._asked = None
        self._clear(words)

    def look_again(self) -> None:
        """Fetch the picture if somebody sees it and it is another now or of another size."""
        if self._looking is not None:
            self._look(self._looking)

    def _look(self, looking: Looking, *, even_so: bool = False) -> None:
        if looking == self._hopeless:
            return  # it would end a process each time
        self._looking, self._hopeless = looking, None
        if not self._watched():
            return
        if self.has_class("shown"):
            self._ask(even_so=even_so)
        else:  # picture and words take their places first: else it would be made twice
            self.add_class("shown")
            self.call_after_refresh(self._ask, even_so=even_so)

    def _ask(self, *, even_so: bool) -> None:
        size = self.query_one("#pixels", Pixels).size
        columns, rows = min(size.width, MAX_COLUMNS), min(2 * size.height, MAX_ROWS)
        if self._looking is None or self._looking == self._hopeless or columns < MIN_SIDE or rows < MIN_SIDE:
            return
        want = Want(self._looking, columns, rows)
        if self._feed is not None and (want != self._asked or even_so):
            self._asked, self._waiting, self._failed = want, True, False
            self._feed.want(want)

    @on(Pixels.Room)
    def _resized(self) -> None:
        self.look_again()

    @on(PictureCame)
    def _take_picture(self, message: PictureCame) -> None:
        came = message.came
        if self._looking is None or came.want.looking.study_id != self._looking.study_id:
            return
        if came.want == self._asked:
            self._waiting = False
        if came.picture is not None:
            self._shown = picture = came.picture
            self.query_one("#pixels", Pixels).show(picture.rgb(), picture.columns, picture.rows, picture.edges)
            self._draw_caption()
        elif came.want == self._asked:
            self._fail(came.error)

    def _fail(self, error: ClinicError | None) -> None:
        """Say why there is no picture; while the daemon is gone the last one stays, and comes again with it.

        What cannot be decoded is not tried again until something else is looked at.
        """
        self._failed = True
        self._stop_cine()
        if error is None or isinstance(error, NoDaemon):
            return
        if not isinstance(error, Conflict):
            self._hopeless = self._looking
        self._shown = self._asked = None
        self._clear(Text(f"{error.message} {error.remedy}", style="bold"))

    def _clear(self, words: Text) -> None:
        self.query_one("#pixels", Pixels).clear()
        self.remove_class("shown")
        self._put(words)

    def _draw_caption(self) -> None:
        if self._shown is not None and self._looking is not None:
            self._put(caption_text(self._shown, self._looking, playing=self._cine is not None))

    def _put(self, words: Text) -> None:
        if words != self._caption:
            self._caption = words
            self.query_one("#caption", Static).update(words)

    # ------------------------------------------------------------ keys

    def go_to(self, stack: int, image: int) -> None:
        """Show an image of a stack; before the first is the first."""
        if self._looking is not None and self._series is not None:
            self._look(self._looking.at(stack, image, self._series))

    def step(self, by: int) -> None:
        """Go so many images on in the stack."""
        if self._looking is not None:
            self.go_to(self._looking.stack, self._looking.image + by)

    def step_stack(self, by: int) -> None:
        """Go to the beginning of another stack."""
        if self._looking is not None:
            self._stop_cine()
            self.go_to(self._looking.stack + by, 1)

    def last(self) -> None:
        """Go to the last image of the stack."""
        found = None if self._looking is None else stack_of(self._series, self._looking.stack)
        if found is not None:
            self.go_to(found.number, found.images)

    def next_window(self) -> None:
        """Show it through the next window that has a name."""
        if self._looking is not None and self._shown is not None:
            self._look(self._looking.next_window(self._shown.presets))

    def move_window(self, *, centre: int = 0, width: int = 0) -> None:
        """Move the window, or make it wider."""
        if self._looking is not None:
            self._look(self._looking.moved(self._shown, centre=centre, width=width))

    def toggle_overlay(self) -> None:
        """Lay the heat map over the picture, or take it away."""
        if self._looking is None:
            return
        if self._shown is not None and not self._shown.overlays and not self._looking.overlay:
            note = self._shown.overlay_note or "This image has no heat map."
            self.app.notify(note, markup=False)
            return
        self._look(replace(self._looking, overlay=not self._looking.overlay))

    # ------------------------------------------------------------ cine

    def toggle_cine(self) -> None:
        """Let the images run, or stand still."""
        if self._cine is not None:
            self._stop_cine()
        elif self._shown is not None and self._shown.images > 1:
            self._cine = self.set_interval(CINE_S, self._run_on)
        self._draw_caption()

    def _run_on(self) -> None:
        clinic = cast("ClinicApp", self.app)
        if not self._watched():
            self._stop_cine()
            return
        if self._waiting or clinic.frozen or self._shown is None or self._looking is None:
            return
        first, last = loop_of(self._shown)
        image = self._looking.image
        self.go_to(self._looking.stack, first if image >= last else image + 1)

    def _stop_cine(self) -> None:
        if self._cine is not None:
            self._cine.stop()
            self._cine = None
            self._draw_caption()
