"""Whether anything of a study is missing, as far as its own headers tell.

Two ways tell: numbers that the sender announces, and holes in what is counted up, instance numbers or else places of
slices. Nothing here waits or closes; and as headers may say anything, none of it keeps a study open for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import gcd

from clinic_ai.domain import Instance, InstanceHeader
from clinic_ai.ingest.geometry import Oddity, measure
from clinic_ai.ingest.stacks import stacks_of
from clinic_ai.store.arrivals import Counted

MAX_SERIES = 1000
"""Series counted one by one; a study of more is closed by its quiet period or its number of instances."""
MAX_LISTED = 3
"""Holes, and series with holes, told one by one."""


# ---------------------------------------------------------------- what was announced


@dataclass
class _Acquisition:
    instances: int = 0
    announced: int | None = None


@dataclass
class _Series:
    number: int | None = None
    instances: int = 0
    announced: int | None = None
    acquisitions: dict[int | None, _Acquisition] = field(default_factory=dict)

    @property
    def expected(self) -> int | None:
        """How many instances it should have, by its own number or that of every acquisition; None if it is not said."""
        if self.announced is not None:
            return self.announced
        known = [one.announced for key, one in self.acquisitions.items() if key is not None]
        numbers = [number for number in known if number is not None]
        return sum(numbers) if numbers and len(numbers) == len(self.acquisitions) else None


class Tally:
    """Counts a study against what its headers announce, an instance at a time; the order does not matter.

    Announced are Number of Study Related Instances (0020,1208), else Number of Study Related Series (0020,1206) with
    Number of Series Related Instances (0020,1209) or Images in Acquisition (0020,1002) in each. Of different values
    the largest counts.
    """

    def __init__(self) -> None:
        self.instances = 0
        self.announced: int | None = None
        self.announced_series: int | None = None
        self._series: dict[str, _Series] = {}
        self._too_many = False

    def add(self, header: InstanceHeader) -> None:
        """Count one instance."""
        self.add_counted(
            Counted(
                header.series_instance_uid,
                header.series_number,
                header.acquisition_number,
                1,
                header.number_of_study_related_instances,
                header.number_of_series_related_instances,
                header.images_in_acquisition,
                header.number_of_study_related_series,
            )
        )

    def add_counted(self, some: Counted) -> None:
        """Count several instances of one acquisition."""
        self.instances += some.instances
        self.announced = _larger(self.announced, some.in_study)
        self.announced_series = _larger(self.announced_series, some.series_in_study)
        if some.series_instance_uid not in self._series and len(self._series) >= MAX_SERIES:
            self._too_many = True
            return
        series = self._series.setdefault(some.series_instance_uid, _Series())
        series.number = _larger(series.number, some.series_number)
        series.instances += some.instances
        series.announced = _larger(series.announced, some.in_series)
        acquisition = series.acquisitions.setdefault(some.acquisition_number, _Acquisition())
        acquisition.instances += some.instances
        acquisition.announced = _larger(acquisition.announced, some.in_acquisition)

    @property
    def complete(self) -> bool:
        """Whether exactly as much is there as was announced. More than that shows that the number is wrong."""
        if self.announced is not None:
            return self.instances == self.announced
        if self._too_many or self.announced_series != len(self._series):
            return False
        return all(series.instances == series.expected for series in self._series.values())

    @property
    def words(self) -> str:
        """What is there, if it is ``complete``."""
        if self.announced is not None:
            return f"all {counted(self.instances)} that its headers announce are there"
        return (
            f"all {counted(len(self._series), 'series')} that its headers announce are there, each whole, "
            f"{counted(self.instances)}"
        )

    def missing(self) -> Iterator[str]:
        """Yield what is less than announced, in words."""
        if self.complete:
            return  # by the number of the whole; whatever else the headers say contradicts it
        if self.announced is not None and self.instances < self.announced:
            yield f"its headers announce {counted(self.announced)}"
        if self._too_many:
            return
        if self.announced_series is not None and len(self._series) < self.announced_series:
            yield f"{len(self._series)} of {self.announced_series} announced series are there"
        for _, series in sorted(self._series.items(), key=lambda item: (item[1].number or 0, item[0])):
            if series.expected is not None and series.instances < series.expected:
                yield f"{_name(series.number)} has {series.instances} of {series.expected} announced instances"


def _larger(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else max(one, other)


# ---------------------------------------------------------------- what is missing in between


@dataclass(frozen=True)
class Assessment:
    """What the headers of a study say of its completeness.

    ``missing`` says in words what is visibly not there. ``contiguous`` says what all of it was counted by without a
    hole, ``numbered`` or ``placed``; empty if there is a hole, or nothing to count by.
    """

    tally: Tally
    missing: tuple[str, ...]
    contiguous: str

    @property
    def words(self) -> str:
        """How much there is and what is missing: “12 instances; instance number 4 of series 2 is missing”."""
        amount = counted(self.tally.instances)
        if self.contiguous:
            amount += f", {self.contiguous} without gaps"
        return "; ".join(filter(None, (amount, self.missing_words)))

    @property
    def missing_words(self) -> str:
        """What is visibly missing; empty if nothing is."""
        return "; ".join(_first(self.missing, "more of that kind"))


def assess(instances: Iterable[Instance]) -> Assessment:
    """Look at the whole of a study; the order of the instances does not matter."""
    tally, by_series = Tally(), dict[str, list[Instance]]()
    for instance in instances:
        tally.add(instance.header)
        by_series.setdefault(instance.header.series_instance_uid, []).append(instance)
    missing = list(tally.missing())
    kinds = set()
    for uid in sorted(by_series, key=lambda uid: _reading_order(by_series[uid], uid)):
        kind, holes = _holes_of(by_series[uid])
        missing += holes
        kinds.add(kind)
    kinds -= {_SINGLE}
    contiguous = kinds.pop() if len(kinds) == 1 and not missing else ""
    return Assessment(tally, tuple(missing), contiguous)


_SINGLE = "single"


def _holes_of(series: Sequence[Instance]) -> tuple[str, list[str]]:
    """Return what a series can be counted by, empty if by nothing, and its holes in words."""
    if len(series) < 2:
        return _SINGLE, []
    numbers = [instance.header.instance_number for instance in series]
    known = {number for number in numbers if number is not None}
    name = _name(_number_of(series))
    # Several acquisitions may share numbers; then a number is missing only if no acquisition has it.
    holes = holes_in(known) if None not in numbers and len(known) > 1 else None
    if holes is not None:
        return "numbered", [_numbers_missing(holes, name)] if holes else []
    stacks = [measure(stack) for stack in stacks_of(series) if stack.placed and not stack.scout]
    if not stacks or not all(stack.spacing is not None for stack in stacks):
        return "", []
    gaps = [remark.words for stack in stacks for remark in stack.remarks if remark.code is Oddity.GAP]
    return "placed", [f"slices of {name} are missing: {gap}" for gap in gaps]


def holes_in(numbers: set[int]) -> list[tuple[int, int]] | None:
    """Return the missing numbers as (first, last); None if these numbers do not count anything up.

    They count by their common step: 1, 3, 5, 9 lacks 7. Where more would be missing than is there, they are no
    count of this series: key images keep the numbers they had elsewhere.
    """
    ordered = sorted(numbers)
    steps = [high - low for low, high in pairwise(ordered)]
    step = gcd(*steps)
    if step == 0 or (ordered[-1] - ordered[0]) // step + 1 > 2 * len(ordered):
        return None
    return [(low + step, high - step) for low, high in pairwise(ordered) if high - low > step]


def _numbers_missing(holes: Sequence[tuple[int, int]], name: str) -> str:
    words = [str(first) if first == last else f"{first}–{last}" for first, last in holes]
    one = len(holes) == 1 and holes[0][0] == holes[0][1]
    listed = ", ".join(_first(words, "more gaps"))
    return f"instance number{'' if one else 's'} {listed} of {name} {'is' if one else 'are'} missing"


def _first(words: Sequence[str], rest: str) -> list[str]:
    """Return the first few, and how many more there are."""
    more = len(words) - MAX_LISTED
    return [*words[:MAX_LISTED], *([f"{more} {rest}"] if more > 0 else [])]


def _number_of(series: Iterable[Instance]) -> int | None:
    return max((i.header.series_number for i in series if i.header.series_number is not None), default=None)


def _name(number: int | None) -> str:
    return "a series" if number is None else f"series {number}"


def _reading_order(series: Sequence[Instance], uid: str) -> tuple[bool, int, str]:
    number = _number_of(series)
    return (number is None, number or 0, uid)


def counted(number: int, what: str = "instance") -> str:
    """Return ``1 instance`` or ``12 instances``."""
    plural = "" if number == 1 or what.endswith("s") else "s"
    return f"{number} {what}{plural}"
