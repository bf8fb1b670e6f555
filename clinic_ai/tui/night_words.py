"""The night in words: the window, the budgets, what is planned, and where a run stands."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from clinic_ai.control.night_views import EstimateView, ExpectedView, ExpenseView, LimitView, SpendingView, TonightView
from clinic_ai.control.progress_views import HistoryView, SeriesView
from clinic_ai.control.views import RunRow
from clinic_ai.tui.measures import amount, duration, heading, line, moment
from clinic_ai.tui.plots import bar, beside, curve, number

SIGNS = {
    "PLANNED": ("○", "cyan"),
    "RUNNING": ("▶", "bold green"),
    "PAUSED": ("‖", "yellow"),
    "FINISHED": ("✓", "green"),
    "STOPPED": ("■", "dim"),
    "FAILED": ("✗", "bold red"),
}
"""Sign and colour of each state of a run."""
_LIMITS = {
    "kwh_per_night": "night kWh",
    "kwh_per_year": "year kWh",
    "pf_days_per_year": "year PF-days",
    "money_per_year": "year",
}
_LABEL = 13
_SHORTEST_BAR = 8
_NEARLY = 0.8
"""Share of a budget from which it is marked."""
_STEPS = "step loss"
"""The series of the losses of single steps; see ``HistoryView``."""


# ---------------------------------------------------------------- window and budget


def window_text(found: TonightView, now: float) -> Text:
    """Return when training may work: the window that is open or opens next, and the time until then."""
    text = Text()
    if not found.configured:
        text.append("No training windows: ", style="bold")
        text.append("nothing is trained by itself, and runs that people start begin at once.", style="not bold")
    elif found.opens_at is not None and found.closes_at is not None:
        text.append("○ Window closed: ", style="bold")
        text.append(
            f"opens {moment(found.opens_at, now)}, in {duration(found.opens_at - now)}; closes "
            f"{moment(found.closes_at, now)}.",
            style="not bold",
        )
    elif found.closes_at is not None:
        text.append("● Window open ", style="bold green")
        text.append(f"until {moment(found.closes_at, now)}, {duration(found.closes_at - now)} more.", style="not bold")
    else:
        text.append("✗ No window opens within 400 days: ", style="bold yellow")
        text.append("look at training.window and training.holidays in clinic.toml.", style="not bold")
    if found.may_sleep:
        text.append(f"\n? {found.may_sleep}", style="yellow")
    return text


def budget_text(found: SpendingView, width: int) -> Text:
    """Return a bar for each budget, two in a line, each with its numbers."""
    room = max((width - 2) // 2, 30)
    numbers = max((len(_numbers(limit)) for limit in found.limits if limit.limit > 0), default=0)
    blocks = [_budget(limit, room, numbers) for limit in found.limits]
    text = Text()
    for at in range(0, len(blocks), 2):
        row = beside(blocks[at : at + 1], blocks[at + 1 : at + 2], room + 2)[0]
        row.rstrip()
        text.append_text(row)
        if at + 2 < len(blocks):
            text.append("\n")
    return text


def _numbers(limit: LimitView) -> str:
    if limit.key == "money_per_year":
        return f"{limit.spent:,.2f} of {limit.limit:,.2f}"
    return f"{amount(limit.spent)} of {amount(limit.limit)}"


def _budget(limit: LimitView, width: int, numbers: int) -> Text:
    label = _LIMITS.get(limit.key, limit.key)
    if limit.key == "money_per_year":
        label = f"year {limit.unit}"
    text = Text(f"{label:<{_LABEL}}", no_wrap=True)
    if limit.limit <= 0:
        spent = f"{limit.spent:,.2f}" if limit.key == "money_per_year" else amount(limit.spent)
        text.append(f"{spent}, no limit", style="dim")
        return text
    share = limit.spent / limit.limit
    style = "bold red" if share >= 1 else "yellow" if share >= _NEARLY else "green"
    text.append_text(bar(share, max(width - _LABEL - 9 - numbers, 4), style))
    mark = "!" if share >= _NEARLY else " "
    text.append(f"{100 * share:>4.0f} %{mark}", style="bold" if share >= _NEARLY else "not bold")
    text.append(f" {_numbers(limit)}", style="not bold")
    return text


# ---------------------------------------------------------------- what is planned


def plan_text(expected: ExpectedView, currency: str) -> Text:
    """Return an entry of the settings: whether it is trained in the next window, why or why not, and what it costs."""
    text = Text()
    text.append(f"Plan {expected.name}\n", style="bold")
    if expected.due:
        text.append("✓ It is trained in the next window. ", style="bold green")
    else:
        text.append("– It is not trained in the next window. ", style="bold yellow")
    text.append(expected.sentence + "\n", style="not bold")
    line(text, "What to do", expected.remedy)
    cost(text, expected, currency)
    return text


def cost(text: Text, expected: ExpectedView, currency: str) -> None:
    """Append what a run will cost, or why nobody can say."""
    if expected.estimate is not None:
        line(text, "It will take", estimate_words(expected.estimate, currency))
    elif expected.untold:
        asks = " (e asks its trainer)" if expected.due and "asked" in expected.untold else ""
        line(text, "Cost", f"{expected.untold}{asks}")


def estimate_words(cost: EstimateView, currency: str) -> str:
    """Return in words what a run will cost, and how far that is known."""
    runs = "run" if cost.learned_from == 1 else "runs"
    learned = f"learned from {cost.learned_from} earlier {runs}" if cost.learned_from else "by its trainer's own word"
    return (
        f"about {duration(cost.seconds)} for {cost.steps:,} steps, {amount(cost.kwh)} kWh, {amount(cost.pf_days)} "
        f"PF-days, {cost.money:.2f} {currency}, {cost.memory_mb:,} MiB of memory ({learned})."
    )


# ---------------------------------------------------------------- a run


def state_text(state: str) -> Text:
    """Return the state of a run with its sign."""
    sign, style = SIGNS.get(state, ("?", ""))
    return Text(f"{sign} {state}", style=style, no_wrap=True)


def subject_of(run: RunRow) -> str:
    """Return what a run learns: its plugin, and what of it."""
    said = (run.recipe.get(key) for key in ("category", "condition", "tier"))
    return " ".join([run.plugin, *(str(word) for word in said if word)])


def left_s(run: RunRow, told_at: float, now: float) -> float | None:
    """Return the seconds a run at work has left, by what it said at ``told_at``; None if it did not."""
    eta = (run.progress or {}).get("eta_s")
    return None if eta is None or run.state != "RUNNING" else max(float(eta) - (now - told_at), 0.0)


def stands(run: RunRow, told_at: float, now: float) -> str:
    """Return where a run stands, in a few words for a list."""
    progress = run.progress or {}
    if run.state in {"RUNNING", "PAUSED"} and progress.get("steps"):
        left = left_s(run, told_at, now)
        share = f"{_share(progress):.0%}" + ("" if left is None else f", {duration(left)} left")
        return f"{share}, epoch {progress['epoch']} of {progress['epochs']}" + (f"; {run.error}" if run.error else "")
    if run.error:
        return run.error
    scores = (run.result or {}).get("scores")
    if scores:
        return ", ".join(f"{name} {value:.3f}" for name, value in scores["values"].items())
    return str(progress.get("message") or {"PLANNED": "waits for its turn", "RUNNING": "starts"}.get(run.state, ""))


def run_text(run: RunRow, *, told_at: float, now: float, width: int) -> Text:
    """Return where a run stands: state, why it waits, progress, and the figures of the machine."""
    text = Text()
    text.append_text(state_text(run.state))
    text.append(f"  {subject_of(run)}  {run.run_id}\n", style="bold")
    if run.error:
        text.append(f"{run.error}\n", style="bold red" if run.state == "FAILED" else "bold yellow")
    if run.state in {"PLANNED", "PAUSED"}:
        goes_on = "It goes on by itself." if run.goes_on else "It waits for a person: space lets it go on."
        text.append(goes_on + "\n", style="not bold")
    _progress(text, run, told_at, now, width)
    return text


def _progress(text: Text, run: RunRow, told_at: float, now: float, width: int) -> None:
    progress = run.progress or {}
    if progress.get("steps") and run.state in {"RUNNING", "PAUSED"}:
        left = left_s(run, told_at, now)
        words = f" {_share(progress):.0%}  epoch {progress['epoch']} of {progress['epochs']}"
        more = f", step {progress['step']:,} of {progress['steps']:,}"
        if left is not None:
            words += f", {duration(left)} left"
            more = f", until {moment(now + left, now)}{more}"
        words += more if len(words) + len(more) + _SHORTEST_BAR <= width else ""
        text.append_text(bar(_share(progress), max(min(width - len(words), 40), _SHORTEST_BAR), "green"))
        text.append(words + "\n", style="not bold")
    if progress.get("message"):
        text.append(f"{progress['message']}\n", style="not bold")
    figures = []
    if progress.get("loss") is not None:
        figures.append(f"loss {progress['loss']:.4f}")
    if progress.get("metric") is not None:
        figures.append(f"{progress.get('metric_name') or 'metric'} {progress['metric']:.3f}")
    if run.state == "RUNNING":
        known = (("temperature_c", "{:.0f} °C"), ("power_w", "{:.0f} W"), ("memory_mb", "{:,} MiB"))
        figures += [form.format(progress[key]) for key, form in known if progress.get(key) is not None]
    if figures and run.state != "FINISHED":
        text.append("   ".join(figures) + "\n", style="not bold")


def _share(progress: dict[str, float]) -> float:
    return min(progress["step"] / max(progress["steps"], 1), 1.0)


# ---------------------------------------------------------------- curves


def curves(text: Text, history: HistoryView, width: int, tall: int) -> None:
    """Append the loss, and beside it the figure that the run is judged by, ``tall`` lines high."""
    if history.note:
        text.append(history.note + "\n", style="yellow")
    loss, metric = _pair(history.series)
    if loss is None:
        return
    room = (width - 2) // 2 if metric is not None else width
    left = _plot(loss, history.epochs, room, tall, least=True)
    right = _plot(metric, history.epochs, room, tall, least="loss" in metric.name) if metric is not None else []
    for row in beside(left, right, room + 2):
        row.rstrip()
        text.append_text(row)
        text.append("\n")


def _pair(series: Sequence[SeriesView]) -> tuple[SeriesView | None, SeriesView | None]:
    """Return the densest loss, and the figure that tells most beside it."""
    named = {each.name: each for each in series if each.points}
    loss = named.get(_STEPS) or named.get("loss")
    others = [each for name, each in named.items() if name not in {_STEPS, "loss"}]
    judged = [each for each in others if "loss" not in each.name]
    return loss, next(iter([*judged, *others]), None)


def _plot(series: SeriesView, epochs: int, width: int, tall: int, *, least: bool) -> list[Text]:
    values = [value for _, value in series.points]
    best = min(values) if least else max(values)
    title = Text(no_wrap=True)
    name = series.name.replace("_", " ").replace("auroc", "AUROC")
    title.append(name, style="bold")
    told = f" {number(values[-1])} (best {number(best)})"
    title.append(told if len(name) + len(told) <= width else f" {number(values[-1])}", style="not bold")
    return [title, *curve(series.points, width=width, height=tall, right=float(epochs), unit="epochs")]


# ---------------------------------------------------------------- what it cost


def spent_text(found: SpendingView, run_id: str, now: float) -> Text:
    """Return what a run was to cost and has cost, and its rows of the ledger, the newest first."""
    text = Text()
    for compared in found.compared:
        if compared.run_id == run_id:
            spent = compared.spent
            line(
                text,
                "So far",
                f"{duration(spent.seconds)} of {duration(compared.planned_seconds)} planned, {amount(spent.kwh)} kWh, "
                f"{amount(spent.pf_days)} PF-days, {spent.money:.2f} {found.currency}",
            )
    rows = [row for row in found.rows if row.run_id == run_id]
    if rows:
        heading(text, "Ledger")
        for row in rows[:8]:
            text.append_text(ledger_line(row, now))
    return text


def ledger_line(row: ExpenseView, now: float) -> Text:
    """Return one row of the ledger on one line."""
    text = Text()
    text.append(f"{moment(row.ended_at, now):>10}  ", style="dim")
    if row.kind == "work":
        figures = [f"worked {duration(row.spent.seconds)}", f"{amount(row.spent.kwh)} kWh"]
        if row.peaks.hottest_c is not None:
            figures.append(f"up to {row.peaks.hottest_c:.0f} °C")
        if row.peaks.watts is not None:
            figures.append(f"{row.peaks.watts:.0f} W")
        text.append(", ".join(figures) + "\n", style="not bold")
    else:
        said = {"pause": "paused", "fail": "failed", "finish": "finished", "refuse": "may not begin"}
        text.append(f"{said.get(row.kind, row.kind)}: {row.sentence}".removesuffix(": ") + "\n", style="not bold")
    return text


def ledger_text(found: SpendingView, now: float) -> Text:
    """Return the whole ledger, with the totals of the night and the year."""
    text = Text()
    totals = ((f"Night of {found.night}", found.tonight), (f"Year {found.year}", found.this_year))
    for name, spent in totals:
        line(
            text,
            name,
            f"{duration(spent.seconds)}, {amount(spent.kwh)} kWh, {amount(spent.pf_days)} PF-days, {spent.money:.2f} "
            f"{found.currency}",
        )
    text.append("\n")
    for row in found.rows:
        text.append(f"{row.run_id}  ", style="not bold")
        text.append_text(ledger_line(row, now))
    if not found.rows:
        text.append("The ledger is empty: nothing was trained yet.", style="not bold")
    return text
