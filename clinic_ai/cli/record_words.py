"""The record of a promotion as a document in Markdown."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from clinic_ai.domain import ModelState
from clinic_ai.gating import Compared, Comparison, GateReport, Interval
from clinic_ai.promoting import PromotionRecord


def document(record: PromotionRecord) -> str:
    """Return the record as a document: the plan of a change until the model is active, its record from then on."""
    model = record.model
    title = "Change plan" if record.state is ModelState.CANDIDATE else "Record of a model"
    lines = [
        f"# {title}: {model.plugin} {model.name} {model.version}",
        "",
        f"Written {_day(record.written_at)}. The model is {record.state.value}.",
        "",
        *_what_changes(record),
        *_made_of(record),
        *_tests(record.report),
        *_shadow(record),
        *_decided(record),
        "## How to take it back",
        "",
        f"`{record.rollback}` makes active again what was so before, within seconds and by the same files.",
        "",
    ]
    return "\n".join(lines)


def figure_rows(comparison: Comparison) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Give a row for all test examples and one for each group: what, how many, both figures, the difference."""
    yield _row(comparison.figure, comparison.overall)
    for group in comparison.groups:
        yield _row(group.title, group)


def _row(what: str, compared: Compared) -> tuple[str, str, str, str, str, str]:
    if compared.why_not:
        return what, str(compared.examples), str(compared.patients), "-", "-", "too few to tell"
    return (
        what,
        str(compared.examples),
        str(compared.patients),
        _figure(compared.candidate, compared.candidate_interval),
        _figure(compared.incumbent, compared.incumbent_interval),
        _figure(compared.difference, compared.interval, "+"),
    )


def _figure(value: float | None, interval: Interval | None, sign: str = "") -> str:
    if value is None:
        return "-"
    if interval is None:
        return f"{value:{sign}.3f}"
    return f"{value:{sign}.3f} ({interval[0]:{sign}.3f} to {interval[1]:{sign}.3f})"


def _what_changes(record: PromotionRecord) -> list[str]:
    model = record.model
    replaces = record.report.incumbent if record.report is not None else None
    return [
        "## What changes",
        "",
        f"- Slot `{model.slot}` of the plugin `{model.plugin}`; digest `{model.digest}`",
        f"- It takes the place of {replaces.label() if replaces is not None else 'nothing'}",
        f"- Active now: {', '.join(ref.label() for ref in record.in_use) or 'nothing'}",
        f"- Licence {record.licence}; quantisation {record.quantisation}",
        f"- Intended use: {record.intended_use}",
        "",
        *_table(("File", "Bytes", "SHA-256"), [(f.name, str(f.size_bytes), f"`{f.sha256}`") for f in record.files]),
    ]


def _made_of(record: PromotionRecord) -> list[str]:
    lines = ["## What it was made of", "", f"- {record.source}"]
    if record.origin is not None:
        base = record.origin.base.label() if record.origin.base is not None else "the reference base of the plugin"
        recipe = ", ".join(f"{key}={value}" for key, value in record.origin.recipe.items()) or "as the plugin has it"
        spent = record.spent
        lines += [
            f"- Run {record.origin.run_id} from {base}; recipe: {recipe}",
            f"- The run took {spent.seconds / 3600:.2f} h, {spent.kwh:.3f} kWh and {spent.pf_days:.2g} PF-days",
        ]
    if record.dataset is None:
        return [*lines, ""]
    data, lineage = record.dataset, record.dataset.lineage
    left_out = ", ".join(f"{one.count} {one.what}s ({one.reason.value})" for one in lineage.left_out) or "nothing"
    sources = ", ".join(f"{count} images of {source}" for source, count in lineage.images.items()) or "not recorded"
    return [
        *lines,
        f"- Dataset {data.dataset_id}, digest `{data.digest}`: {sources}",
        f"- Reviews: {len(lineage.reviews)}; folders: {len(lineage.folders)}; grown from: "
        f"{', '.join(lineage.parents) or 'no earlier dataset'}",
        f"- Left out: {left_out}",
        "",
        *_table(
            ("Part", "Images", "Patients"),
            [(part, str(count), str(data.patients.get(part, 0))) for part, count in data.images.items()],
        ),
    ]


def _tests(report: GateReport | None) -> list[str]:
    lines = ["## How it was tested", ""]
    if report is None:
        return [*lines, "It was not examined.", ""]
    rules = report.rules
    lines += [
        f"Examination {report.report_id} of {_day(report.at)} on the test part of {report.dataset_id}: "
        f"**{'passed' if report.passed else 'not passed'}**.",
        "",
        *(f"- {sentence}" for sentence in (*report.reasons, *report.doubts, *report.notes)),
        f"- Rules: improvement {rules.improvement}, largest loss {rules.largest_loss:g}, in a subgroup "
        f"{rules.subgroup_loss:g}",
    ]
    if report.guard is not None:
        guard, before = report.guard, report.guard.incumbent_kept_back
        lines.append(
            f"- Guard, policy {guard.policy_name} `{guard.policy_hash[:12]}`: of {guard.examples} test images it keeps "
            f"back words about {guard.candidate_kept_back}"
            + (f", of the model in use about {before}" if before is not None else "")
            + f"; new: {len(guard.new)}"
        )
    lines.append("")
    if report.comparison is None:
        return lines
    headers = ("Test part", "Examples", "Patients", "Candidate", "In use", "Difference (95 %)")
    return [*lines, *_table(headers, list(figure_rows(report.comparison)))]


def _shadow(record: PromotionRecord) -> list[str]:
    lines = ["## In the shadow", ""]
    if record.canary is None:
        return [*lines, "It was not run on studies of the day.", ""]
    seen = record.canary
    return [
        *lines,
        f"{seen.studies} studies between {_day(seen.first_at)} and {_day(seen.last_at)}; {seen.differing} of them "
        f"would have read otherwise, the largest change of a probability is {seen.largest_change:.3f}, and of "
        f"{seen.stricter} the guard would have let less out. Nothing of it was released.",
        "",
    ]


def _decided(record: PromotionRecord) -> list[str]:
    lines = ["## Who decided", ""]
    if record.approval is None:
        lines.append("- Nobody has approved it.")
    else:
        reason = f": {record.approval.reason}" if record.approval.reason else ""
        lines.append(f"- Approved by {record.approval.name}, {_day(record.approval.at)}{reason}")
    for one in record.activations:
        kind = "made active" if one.kind == "promote" else "made active again by a rollback"
        lines.append(f"- {_day(one.at)} {kind} by {one.by}")
    return [*lines, ""]


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [headers, ["---"] * len(headers), *rows]
    return [*(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines), ""]


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
