"""The report for people: one page of A4 as PDF/A-2b and PDF/UA-1, set by typst.

Everything that is not layout reaches typst as one JSON value and is placed as strings, never as markup, so no
name or sentence can change the page or run code. Fonts are the ones inside the typst wheel.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import typst

from clinic_ai.domain import SECTION_HEADINGS
from clinic_ai.errors import ClinicError
from clinic_ai.ml import report_text as words
from clinic_ai.ml.key_slices import KeySlice
from clinic_ai.ml.pictures import Picture
from clinic_ai.results.codes import finding_code
from clinic_ai.results.statements import parted
from clinic_ai.tasks import RenderTask

_PROBE = b"""#set document(title: "probe")
#set text(font: ("Libertinus Serif", "New Computer Modern"))
#sys.inputs.text"""
_MISSING = "□"
_UNDRAWABLE = re.compile(r'the text `(".*")` could not be displayed', re.DOTALL)
_CODE_POINT = re.compile(r"\\u\{([0-9a-fA-F]+)\}")
_MAX_PROBES = 40
_LONG_RUN = re.compile(r"\S{36}(?=\S)")


@dataclass(frozen=True)
class Panel:
    """One image in the report: its pictures, or the sentence that stands in their place."""

    title: str
    scan: Picture | None
    overlay: Picture | None = None
    overlay_title: str = ""
    sentence: str = ""


@dataclass(frozen=True)
class Pictures:
    """All that the report shows: images, how many ``more`` there are, and slices with the outlines of findings."""

    panels: tuple[Panel, ...] = ()
    more: int = 0
    key_slices: tuple[KeySlice, ...] = ()


def write_pdf(task: RenderTask, pictures: Pictures, directory: Path) -> None:
    """Write ``report.pdf``; the files of ``pictures`` lie in ``directory``.

    Raise ClinicError if typst cannot set the page even with plain characters.
    """
    page = _mapped(_page(task, pictures), _breakable)
    moment = task.created_at if task.sign_off is None else task.sign_off.at
    missing = _characters_without_glyph(json.dumps(page, ensure_ascii=False), directory)
    if missing:
        page = _mapped(page, lambda text: "".join(_MISSING if c in missing else c for c in text))
        page["notes"] = [*page["notes"], words.GLYPHS_REPLACED]
    try:
        pdf = _compile(page, directory, moment)
    except typst.TypstError as error:
        if _UNDRAWABLE.search(str(error)) is None:
            raise ClinicError("The report page could not be set.", remedy="This is a defect: report it.") from error
        page = json.loads(re.sub(r"[^\x00-\x7f]", "?", json.dumps(page, ensure_ascii=False)))
        pdf = _compile(page, directory, moment)
    (directory / "report.pdf").write_bytes(pdf)


# ---------------------------------------------------------------- what stands on the page


def _page(task: RenderTask, pictures: Pictures) -> dict[str, Any]:
    verdict = task.verdict
    answered = {origin.statement_id for origin in task.answers}
    answers = list(_answers(task))
    return {
        "institution": words.printable(task.institution, 120) or "Institution not set",
        "status": words.status_line(task.sign_off),
        "final": task.sign_off is not None,
        "machine": words.origin_line(task.sign_off),
        "marks": [words.printable(mark, 500) for mark in verdict.marks],
        "study": f"{task.study_id} · version {task.version}",
        "language": task.language if re.fullmatch(r"[a-z]{2,3}", task.language) else "en",
        "patient": _patient(task),
        "exam": _exam(task),
        "panels": [asdict(panel) for panel in pictures.panels],
        "more": pictures.more,
        "key_slices": [asdict(one) for one in pictures.key_slices],
        "outline_note": words.OUTLINE_NOTE if pictures.key_slices else "",
        "heatmap_note": words.HEATMAP_NOTE if any(panel.overlay for panel in pictures.panels) else "",
        "numbers": words.shows_numbers(verdict),
        "findings": list(_findings(task)),
        "no_findings": words.no_findings_line(task.findings, verdict),
        "answers": answers,
        "statements": [
            {"text": words.printable(r.text, 4000), "annotations": _annotations(r.annotations)}
            for r in parted(task.findings, verdict).others
            if r.statement_id not in answered
        ],
        "report": list(_report(task)),
        "guard": words.guard_lines(verdict),
        "made_with": [
            ["Plugin", ", ".join(words.printable(label) for label in task.plugin_labels) or "none"],
            ["Model", "; ".join(words.model_line(model) for model in task.models) or "none"],
            ["Policy", words.policy_line(verdict)],
        ],
        "notes": [words.printable(remark, 500) for remark in task.remarks],
        "software": words.printable(task.software),
        "date": words.utc(task.created_at),
    }


def _patient(task: RenderTask) -> list[list[str]]:
    who = task.identity
    rows = [
        ("Patient", words.person_name(who.patient_name)),
        ("Patient ID", words.printable(who.patient_id, 64)),
        ("Born", words.date(who.birth_date)),
        ("Sex", words.printable(who.sex, 16)),
        ("Accession", words.printable(who.accession_number, 64)),
    ]
    return [[name, value or "–"] for name, value in rows]


def _exam(task: RenderTask) -> list[list[str]]:
    facts, sign = task.facts, task.sign_off
    rows = [
        ("Modality", words.printable(", ".join(facts.modalities))),
        ("Body part", words.printable(", ".join(facts.body_parts))),
        ("Received", words.utc(task.received_at)),
        ("Reported", words.utc(task.created_at)),
        *([("Signed", f"{words.printable(sign.name, 100)}, {words.utc(sign.at)}")] if sign else []),
        ("Closed because", words.printable(task.closed_reason)),
    ]
    return [[name, value or "–"] for name, value in rows]


def _findings(task: RenderTask) -> Iterator[dict[str, Any]]:
    for finding, released in parted(task.findings, task.verdict).findings:
        yield {
            "label": finding_code(finding.condition).label,
            "text": words.printable(released.text, 4000),
            "annotations": _annotations(released.annotations),
            "probability": words.percent(finding.probability),
            "threshold": words.percent(finding.threshold),
            "standing": words.standing(finding),
            "correction": words.correction(finding, task.sign_off),
            "auroc": words.auroc(finding.validation),
            "point": words.operating_point(finding.validation),
        }


def _report(task: RenderTask) -> Iterator[dict[str, Any]]:
    """Yield the sections of the written report with their sentences."""
    for section, said in parted(task.findings, task.verdict).report:
        yield {
            "heading": SECTION_HEADINGS[section],
            "sentences": [
                {"text": words.printable(r.text, 4000), "annotations": _annotations(r.annotations)} for r in said
            ],
        }


def _answers(task: RenderTask) -> Iterator[dict[str, Any]]:
    """Yield the released answers, those about one image one after the other."""
    origins = {origin.statement_id: origin for origin in task.answers}
    numbers = task.image_numbers()
    said = [r for r in parted(task.findings, task.verdict).others if r.statement_id in origins]
    for released in sorted(said, key=lambda r: numbers.get(origins[r.statement_id].instance_sha256 or "", 0)):
        origin = origins[released.statement_id]
        number = numbers.get(origin.instance_sha256 or "")
        about = [f"Image {number}" if number else "", "" if origin.frame is None else f"frame {origin.frame + 1}"]
        question = words.printable(origin.question, 4000)
        text = words.printable(released.text, 4000)
        begun = bool(question) and text.startswith(f"{question} ")
        yield {
            "about": ", ".join(filter(None, about)),
            "question": question if begun else "",  # else the guard or a person put it in other words
            "text": text.removeprefix(question).lstrip() if begun else text,
            "annotations": _annotations(released.annotations),
            "confidence": "unknown" if origin.confidence is None else words.percent(origin.confidence),
        }


def _annotations(annotations: tuple[str, ...]) -> list[str]:
    return [words.printable(annotation, 500) for annotation in annotations]


# ---------------------------------------------------------------- setting it


@cache
def _template() -> bytes:
    return resources.files("clinic_ai.ml").joinpath("report.typ").read_bytes()


def _compile(page: dict[str, Any], directory: Path, created_at: float) -> bytes:
    # Typst's root is the job directory: nothing outside it can become part of a page.
    return _typst(_template(), {"page": json.dumps(page)}, directory, int(created_at))


def _typst(source: bytes, inputs: dict[str, str], root: Path, timestamp: int) -> bytes:
    compiler = typst.Compiler(root=root, ignore_system_fonts=True, sys_inputs=inputs)
    pdf = compiler.compile(source, format="pdf", pdf_standards=["a-2b", "ua-1"], timestamp=timestamp)
    if not isinstance(pdf, bytes):
        raise TypeError("typst answered something else than one PDF")
    return pdf


def _characters_without_glyph(text: str, directory: Path) -> set[str]:
    """Return the characters of ``text`` that no font of the wheel can draw, found by setting them alone."""
    left = {character for character in text if ord(character) > 0x7E}
    missing: set[str] = set()
    for _ in range(_MAX_PROBES):
        try:
            _typst(_PROBE, {"text": " ".join(sorted(left))}, directory, 0)
        except typst.TypstError as error:
            named = _named_in(str(error)) & left
            if not named:
                break
            missing |= named
            left -= named
        else:
            return missing
    return missing | left  # so many are missing that the rest is not worth a try each


def _named_in(message: str) -> set[str]:
    found = _UNDRAWABLE.search(message)
    if found is None:
        return set()
    text = _CODE_POINT.sub(lambda match: f"\\U{int(match[1], 16):08x}", found[1])
    try:
        return set(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return set(text)


def _breakable(text: str) -> str:
    """Return ``text`` with places to break in runs that are wider than a column; they take no room themselves."""
    return _LONG_RUN.sub("\\g<0>\u200b", text)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """Return ``value``, JSON-like, with every string changed; keys stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_mapped(item, change) for item in value]
    return value
