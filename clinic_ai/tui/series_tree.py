"""The series of a study as a tree: series, stacks, images, and what is odd about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widgets import Tree
from textual.widgets.tree import TreeNode

from clinic_ai.control.study_views import ImageRow, SeriesRow, SeriesView, StackImages
from clinic_ai.tui.measures import counted


@dataclass(frozen=True)
class Spot:
    """An image that a line of the tree stands for."""

    stack: int
    image: int


class SeriesTree(Tree[Spot | None], inherit_bindings=False):
    """Shows the series; the space bar is left to the cine."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "cursor_up", "Up", show=False),
        Binding("down,j", "cursor_down", "Down", show=False),
        Binding("home,g", "scroll_home", "First", show=False),
        Binding("end,G", "scroll_end", "Last", show=False),
        Binding("pageup", "page_up", "Page up", show=False),
        Binding("pagedown", "page_down", "Page down", show=False),
        Binding("enter", "select_cursor", "Show", show=False),
        Binding("right", "unfold", "Unfold", show=False),
        Binding("left", "fold", "Fold", show=False),
    ]

    def __init__(self) -> None:
        super().__init__("Series", id="series")
        self.show_root = False
        self.guide_depth = 2
        self._shown: SeriesView | None = None

    def show(self, series: SeriesView | None) -> None:
        """Show these series; the same ones again change nothing."""
        if series == self._shown:
            return
        self._shown = series
        self.clear()
        for row in series.series if series is not None else ():
            self._add_series(row)
        self.call_after_refresh(self._to_top)

    def _to_top(self) -> None:
        self.cursor_line = max(self.cursor_line, 0)

    def _add_series(self, row: SeriesRow) -> None:
        first = Spot(row.stacks[0].number, 1) if row.stacks else None
        images = sum(stack.images for stack in row.stacks)
        number = "?" if row.number is None else row.number
        what = " ".join(filter(None, (row.modality, row.description)))
        label = Text.assemble((f"Series {number}", "bold"), f" {what} ({counted(images, 'image')})")
        node = self.root.add(label, first, expand=len(self._series()) <= _OPEN)
        for stack in row.stacks:
            self._add_stack(node, stack)

    def _add_stack(self, node: TreeNode[Spot | None], stack: StackImages) -> None:
        label = Text.assemble((f"{stack.number} ", "bold"), stack.line)
        inner = node.add(label, Spot(stack.number, 1), expand=False)
        for remark in stack.remarks:
            inner.add_leaf(Text(f"! {remark}", style="yellow"), None)
        for file in stack.files:
            inner.add_leaf(Text(_file_line(file)), Spot(stack.number, file.first))
        listed = sum(file.frames for file in stack.files)
        if listed < stack.images:
            inner.add_leaf(Text(f"and {stack.images - listed} more"), None)

    def _series(self) -> tuple[SeriesRow, ...]:
        return self._shown.series if self._shown is not None else ()

    def action_unfold(self) -> None:
        """Show what is inside."""
        if self.cursor_node is not None:
            self.cursor_node.expand()

    def action_fold(self) -> None:
        """Hide what is inside, or go to what holds it."""
        node = self.cursor_node
        if node is None:
            return
        if node.is_expanded and node.children:
            node.collapse()
        elif node.parent is not None and node.parent is not self.root:
            self.move_cursor(node.parent)


_OPEN = 8
"""Up to so many series are shown with their stacks."""


def _file_line(file: ImageRow) -> str:
    which = f"{file.first}" if file.frames == 1 else f"{file.first} to {file.first + file.frames - 1}"
    number = "" if file.instance_number is None else f", number {file.instance_number}"
    where = "" if file.position_mm is None else f", at {file.position_mm:.1f} mm"
    return f"image {which}{number}, {file.columns} × {file.rows}{where}"
