"""What is answered about the night: what will be trained, what it will cost, and what was spent."""

from __future__ import annotations

from clinic_ai.control.views import View


class SpentView(View):
    """What training cost. PF-days are days of computing at 10^15 operations a second."""

    seconds: float
    kwh: float
    pf_days: float
    money: float


class EstimateView(View):
    """What a run will cost, learned from as many earlier runs; 0: nothing is known but its trainer's own word."""

    steps: int
    seconds: float
    kwh: float
    pf_days: float
    money: float
    disk_mb: int
    memory_mb: int
    learned_from: int


class ExpectedView(View):
    """A plan of the settings, or a run: whether it is trained in the next window, why or why not, and its cost.

    ``untold`` says why there is no estimate of one that is due.
    """

    name: str
    plugin: str
    due: bool
    sentence: str
    remedy: str
    estimate: EstimateView | None
    untold: str


class TonightView(View):
    """What will be trained in the window that is open or opens next; times in UTC seconds."""

    configured: bool
    opens_at: float | None
    closes_at: float | None
    expected: tuple[ExpectedView, ...]
    currency: str
    may_sleep: str


class LimitView(View):
    """One key of ``[training.budget]`` and what is spent of it; a ``limit`` of 0 is none."""

    key: str
    unit: str
    spent: float
    limit: float


class ComparedView(View):
    """What a run was to cost by its trainer's plan, and what it cost so far."""

    run_id: str
    plugin: str
    state: str
    planned_seconds: float
    planned_pf_days: float
    spent: SpentView


class PeaksView(View):
    """The most that was measured in a stretch of work; None: nobody measured it."""

    hottest_c: float | None
    watts: float | None
    memory_mb: int | None
    gpu_memory_mb: int | None
    disk_mb: int | None
    steps: int | None


class ExpenseView(View):
    """One row of the ledger: what was spent from ``began_at`` to ``ended_at``, UTC seconds.

    ``kind`` is work, pause, fail, finish or refuse; of the last four ``code`` and ``sentence`` say why.
    """

    run_id: str
    plugin: str
    kind: str
    code: str
    sentence: str
    began_at: float
    ended_at: float
    night: str
    year: int
    device: str
    spent: SpentView
    peaks: PeaksView


class SpendingView(View):
    """What training may use and has used; ``night`` is the date on which this one began."""

    night: str
    year: int
    tonight: SpentView
    this_year: SpentView
    limits: tuple[LimitView, ...]
    compared: tuple[ComparedView, ...]
    rows: tuple[ExpenseView, ...]
    currency: str
