"""What of a study's pictures is looked at: which stack and image, through which window. Plain values, no widget."""

from __future__ import annotations

from dataclasses import dataclass, replace

from clinic_ai.control.preview_views import PreviewView
from clinic_ai.control.study_views import SeriesView, StackImages

WINDOW_STEP = 0.1
"""Share of its width by which a window is moved or widened."""
_LEAST_WIDTH = 1.0


@dataclass(frozen=True)
class Looking:
    """A picture that is wanted. Numbers count from 1; ``window`` (centre, width) goes before ``preset``."""

    study_id: str
    key: object = None
    """What the picture depends on beside this: another key, and it is fetched again."""
    stack: int = 1
    image: int = 1
    preset: str = ""
    window: tuple[float, float] | None = None
    overlay: bool = False

    def at(self, stack: int, image: int, series: SeriesView) -> Looking:
        """Return the picture of another image; of another stack with the file's own window."""
        found = stack_of(series, stack)
        if found is None:
            return self
        image = min(max(1, image), found.images)
        if stack == self.stack:
            return replace(self, image=image)
        return replace(self, stack=stack, image=image, window=None, preset="")

    def next_window(self, presets: tuple[str, ...]) -> Looking:
        """Return the picture through the next window: the file's, those that have a name, and the file's again."""
        names = ("", *presets)
        here = names.index(self.preset) if self.preset in names and self.window is None else -1
        return replace(self, window=None, preset=names[(here + 1) % len(names)])

    def moved(self, shown: PreviewView | None, *, centre: int = 0, width: int = 0) -> Looking:
        """Return the picture with the window that is shown moved by steps up, or made wider by steps."""
        if shown is None or shown.window is None:
            return self
        now = shown.window
        new_width = max(now.width * (1 + WINDOW_STEP) ** width, _LEAST_WIDTH)
        new_centre = now.centre + centre * WINDOW_STEP * now.width
        return replace(self, window=(round(new_centre, 2), round(new_width, 2)))


def stack_of(series: SeriesView | None, number: int) -> StackImages | None:
    """Return the stack of a number, None if there is none."""
    if series is None:
        return None
    return next((stack for row in series.series for stack in row.stacks if stack.number == number), None)


def first_stack(series: SeriesView) -> int:
    """Return the number of the stack to begin with: the first that is no scout, else the first."""
    stacks = [stack for row in series.series for stack in row.stacks]
    return next((stack.number for stack in stacks if not stack.scout), 1)


def loop_of(shown: PreviewView) -> tuple[int, int]:
    """Return the first and last image that a cine runs through: the frames of a file, or else the whole stack."""
    if shown.frames == 1:
        return 1, shown.images
    first = max(1, shown.image - shown.frame + 1)
    return first, min(shown.images, first + shown.frames - 1)
