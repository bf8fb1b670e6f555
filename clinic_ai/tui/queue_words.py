"""What stands in the columns of the queue, in words that fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import localtime, strftime

from rich.cells import cell_len, set_cell_size

from clinic_ai.control.queue_views import QueueRow
from clinic_ai.domain import QueueSort, StudyState
from clinic_ai.tui.words import SIGNS, age, held, modality, short_reason

SENTENCE_FROM = 34
"""Columns from which the last one has room for a sentence; else it has the reason in a word or two."""


@dataclass(frozen=True)
class Column:
    """A column: what stands above it, its widths (80 columns, 120 and more), and what it is sorted by."""

    label: str
    narrow: int
    wide: int
    sort: QueueSort | None = None
    highest_first: bool = False


COLUMNS = (
    Column("", 2, 2, QueueSort.PRIORITY, highest_first=True),
    Column("came", 5, 8, QueueSort.ARRIVAL, highest_first=True),
    Column("patient", 10, 10, QueueSort.PATIENT),
    Column("mod", 4, 5, QueueSort.MODALITY),
    Column("source", 7, 10, QueueSort.SOURCE),
    Column("state", 11, 11, QueueSort.STATE),
    Column("guard", 8, 8),
    Column("age", 6, 6, QueueSort.WAIT, highest_first=True),
    Column("waits because", 14, 14),
)

SORTS = {
    QueueSort.ARRIVAL: ("arrival", "the newest first", "the oldest first"),
    QueueSort.WAIT: ("age of the wait", "what waits longest first", "what waits shortest first"),
    QueueSort.PATIENT: ("patient", "A to Z", "Z to A"),
    QueueSort.MODALITY: ("modality", "A to Z", "Z to A"),
    QueueSort.SOURCE: ("source", "A to Z", "Z to A"),
    QueueSort.STATE: ("state", "what needs a person first", "what is done first"),
    QueueSort.PRIORITY: ("priority", "the highest first", "the lowest first"),
}
"""How each order is called, and what comes first in it: as it is, and the other way round."""


@dataclass(frozen=True)
class Cell:
    """Words and how they look."""

    words: str
    style: str = ""


def key_of(row: QueueRow) -> tuple[str, int]:
    """Return what names a row: study and version."""
    return row.study_id, row.version


def cells_of(row: QueueRow, now: float, widths: Sequence[int]) -> tuple[Cell, ...]:
    """Return what stands in the columns for a study."""
    sign = Cell("!!", "bold red") if row.critical else Cell("!", "bold yellow") if row.urgent else Cell("")
    return (
        sign,
        Cell(moment(row.opened_at, now, seconds=widths[1] >= len("12:00:00"))),
        Cell(row.pseudonym),
        Cell(modality(row)),
        Cell(row.source),
        _stand(row),
        _verdict(row),
        Cell(age(now - row.opened_at)),
        Cell(reason_of(row, widths[-1])),
    )


def moment(at: float, now: float, *, seconds: bool = False) -> str:
    """Return the time, or the day if it was another day's."""
    if localtime(at)[:3] != localtime(now)[:3]:
        return strftime("%m-%d", localtime(at))
    return strftime("%H:%M:%S" if seconds else "%H:%M", localtime(at))


def _stand(row: QueueRow) -> Cell:
    if held(row):
        return Cell("‖ HELD", "bold yellow")
    sign, colour = SIGNS[row.state]
    return Cell(f"{sign} {row.state.value}", colour)


def _verdict(row: QueueRow) -> Cell:
    if row.rejected:
        return Cell("rejected", "yellow")
    return Cell(row.verdict, "bold yellow" if row.verdict in {"hold", "block"} else "")


def reason_of(row: QueueRow, width: int) -> str:
    """Return why a study waits, or what is done for it; in a word or two if there is no room for a sentence."""
    if row.wait is not None:
        return row.wait.sentence if width >= SENTENCE_FROM else short_reason(row.wait.code)
    if row.at_work:
        return f"{row.at_work[0] or 'the report'} at work"
    if row.turns:
        return "waits its turn"
    return "routing" if row.state is StudyState.CLOSED else ""


def fitted(words: str, width: int) -> str:
    """Return words in exactly this many columns; what is cut ends in an ellipsis."""
    if cell_len(words) > width:
        return set_cell_size(words, width - 1) + "…"
    return set_cell_size(words, width)
