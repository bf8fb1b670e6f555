"""A candidate beside the model in use, in words and columns."""

from __future__ import annotations

import time

from rich.text import Text

from clinic_ai.domain import ModelState
from clinic_ai.gating import Compared, GateReport, Interval
from clinic_ai.promoting import CanaryResult, PromotionRecord, Shadow
from clinic_ai.tui.measures import heading, line

_WHAT = 24
_FIGURE = 22
_ROOM = _WHAT + 10 + 3 * _FIGURE
"""Columns from which the comparison is a table."""


def report_text(report: GateReport, width: int) -> Text:
    """Return an examination: the verdict first, then why, the figures, and what the guard made of it."""
    text = Text()
    sign, style = ("✓ It passed", "bold green") if report.passed else ("✗ It did not pass", "bold red")
    against = report.incumbent
    held = f"held against {against.name} {against.version}" if against is not None else "with no model in use beside it"
    text.append(f"{sign}", style=style)
    text.append(f", {held}, {_day(report.at)}.\n", style="not bold")
    for sentence in report.reasons:
        text.append(f"  {sentence}\n", style="not bold")
    for sentence in report.doubts:
        text.append("  ? doubt: ", style="bold yellow")
        text.append(f"{sentence}\n", style="not bold")
    if report.comparison is not None:
        text.append("\n")
        _figures(text, report, width)
    if report.guard is not None:
        guard, before = report.guard, report.guard.incumbent_kept_back
        words = f"of {guard.examples} test images it keeps back words about {guard.candidate_kept_back}"
        words += "" if before is None else f", of the model in use about {before}"
        line(text, "Guard", f"{words}; {len(guard.new)} of them new.")
        for new in guard.new[:5]:
            text.append(f"  ✗ image {new.sha256[:12]}: {new.rule}. {new.reason}\n", style="not bold")
        if len(guard.new) > 5:
            text.append(f"  and {len(guard.new) - 5} more\n", style="not bold")
    for note in report.notes:
        line(text, "Note", note)
    return text


def _figures(text: Text, report: GateReport, width: int) -> None:
    assert report.comparison is not None
    compared = report.comparison
    rows = [(compared.figure, compared.overall), *((group.title, group) for group in compared.groups)]
    if width >= _ROOM:
        text.append(
            f"  {'test part':<{_WHAT}}{'images':>8}  {'candidate':<{_FIGURE}}{'in use':<{_FIGURE}}difference (95 %)\n",
            style="dim",
        )
    for what, row in rows:
        _row(text, what, row, loss=report.rules.subgroup_loss, wide=width >= _ROOM)


def _row(text: Text, what: str, row: Compared, *, loss: float, wide: bool) -> None:
    """Append a row of figures; a sign says where the candidate is proven better or worse."""
    sign, style = _sign(row, loss)
    text.append(f"{sign} ", style=style)
    if row.why_not:
        text.append(f"{what}, {row.examples} images: too few to tell\n", style="dim")
        return
    candidate = _figure(row.candidate, row.candidate_interval)
    incumbent = _figure(row.incumbent, row.incumbent_interval)
    difference = _figure(row.difference, row.interval, "+")
    if wide:
        words = f"{what[: _WHAT - 1]:<{_WHAT}}{row.examples:>8}  {candidate:<{_FIGURE}}{incumbent:<{_FIGURE}}"
        text.append(words, style="not bold")
        text.append(f"{difference}\n", style=style or "not bold")
        return
    text.append(f"{what}, {row.examples} images", style="not bold")
    text.append(f": {difference}\n" if row.difference is not None else "\n", style=style or "not bold")
    beside = f" against {incumbent}" if row.incumbent is not None else ""
    text.append(f"    {candidate}{beside}\n", style="not bold")


def _sign(row: Compared, loss: float) -> tuple[str, str]:
    if row.interval is None or row.difference is None:
        return " ", ""
    if row.interval[0] > 0:
        return "▲", "green"
    if row.interval[1] < 0:
        return "▼", "bold red"
    return ("?", "yellow") if -row.difference > loss else ("=", "")


def _figure(value: float | None, interval: Interval | None, sign: str = "") -> str:
    if value is None:
        return "-"
    if interval is None:
        return f"{value:{sign}.3f}"
    return f"{value:{sign}.3f} ({interval[0]:{sign}.3f}…{interval[1]:{sign}.3f})"


SIGNS_LINE = "▲ proven better   ▼ proven worse   ? loses more than permitted, may be chance   = no difference proven"
"""What the signs before the figures mean."""


# ---------------------------------------------------------------- all that stands behind a model


def record_text(record: PromotionRecord, width: int) -> Text:
    """Return what stands behind a model: its examination, its making, who decided, and how it is taken back."""
    text = Text()
    if record.report is not None:
        heading(text, "Candidate against the model in use")
        text.append_text(report_text(record.report, width))
        if record.report.comparison is not None:
            text.append(SIGNS_LINE + "\n", style="dim")
    elif record.state is ModelState.CANDIDATE:
        text.append("? It was not examined yet; c holds it against the model in use.\n", style="yellow")
    _decided(text, record)
    _made_of(text, record)
    return text


def _decided(text: Text, record: PromotionRecord) -> None:
    heading(text, "Who decided")
    if record.approval is None:
        text.append("Nobody has approved it.\n", style="not bold")
    else:
        reason = f": {record.approval.reason}" if record.approval.reason else ""
        text.append(f"Approved by {record.approval.name}, {_day(record.approval.at)}{reason}\n", style="not bold")
    for one in record.activations:
        kind = "Made active" if one.kind == "promote" else "Made active again by a rollback"
        text.append(f"{kind} by {one.by}, {_day(one.at)}\n", style="not bold")
    if record.canary is not None:
        seen = record.canary
        line(
            text,
            "In the shadow",
            f"{seen.studies} studies; {seen.differing} would have read otherwise, of {seen.stricter} the guard would "
            f"have let less out; the largest change of a probability is {seen.largest_change:.3f}.",
        )


def _made_of(text: Text, record: PromotionRecord) -> None:
    heading(text, "What it was made of")
    line(text, "Source", record.source)
    origin, spent = record.origin, record.spent
    if origin is not None:
        recipe = ", ".join(f"{key}={value}" for key, value in origin.recipe.items()) or "as the plugin has it"
        base = f"{origin.base.name} {origin.base.version}" if origin.base is not None else "the plugin's reference base"
        line(text, "Run", f"{origin.run_id} from {base}; recipe: {recipe}")
        line(text, "It took", f"{spent.seconds / 3600:.2f} h, {spent.kwh:.3f} kWh, {spent.pf_days:.2g} PF-days")
    if record.dataset is not None:
        data = record.dataset
        parts = ", ".join(
            f"{part} {count} images of {data.patients.get(part, 0)} patients" for part, count in data.images.items()
        )
        line(text, "Dataset", f"{data.dataset_id}: {parts}")
    line(text, "Files", ", ".join(f"{file.name} ({file.sha256[:12]})" for file in record.files))


# ---------------------------------------------------------------- in the shadow


def canary_text(found: CanaryResult) -> Text:
    """Return what a candidate said of the studies of late beside what was said of them; no words of theirs."""
    text = Text()
    largest = max((shadow.document.largest_change for shadow in found.shadows), default=0.0)
    text.append(
        f"{len(found.differing)} of {len(found.shadows)} studies would read otherwise; the largest change of a "
        f"probability is {largest:.3f}. Nothing of this was released.\n",
        style="bold",
    )
    for shadow in found.differing:
        line(text, shadow.study_id, _differences(shadow))
    for study_id, why in found.why_not.items():
        line(text, f"Not run on {study_id}", why)
    if found.sentence:
        text.append(found.sentence + "\n", style="not bold")
    return text


def _differences(shadow: Shadow) -> str:
    found = shadow.document
    moved = [finding for finding in found.findings if finding.before is not finding.after]
    words = [f"{one.condition} {one.before or 'not judged'} → {one.after or 'not judged'}" for one in moved[:6]]
    if len(moved) > 6:
        words.append(f"{len(moved) - 6} more")
    if found.answers_changed:
        words.append(f"{found.answers_changed} of {found.answers} answers")
    if found.refusals_before != found.refusals_after:
        words.append(f"refusals {found.refusals_before} → {found.refusals_after}")
    if found.guard_before is not found.guard_after:
        words.append(f"guard {found.guard_before.value} → {found.guard_after.value}")
    return "; ".join(words)


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
