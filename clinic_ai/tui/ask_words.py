"""Questions about an image and what became of them, as styled text: the verdict stands before the answer."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from rich.text import Text

from clinic_ai.control.category_views import CategoryRow
from clinic_ai.control.question_views import AskedView
from clinic_ai.control.views import PluginsView, StudyView, VersionView
from clinic_ai.domain import QuestionOutcome
from clinic_ai.tui.review_words import percent

VERDICTS = {
    QuestionOutcome.ANSWERED: ("✓ ANSWERED", "bold green", "a model answered, and the guard let it out"),
    QuestionOutcome.TEMPLATE: ("≡ TEMPLATE", "bold cyan", "the guard answered by its policy pack; no model was asked"),
    QuestionOutcome.HELD: ("‖ HELD", "bold yellow", "the guard keeps the question or the answer back"),
    QuestionOutcome.REFUSED: ("✗ REFUSED", "bold red", "the plugin would not or could not answer"),
}
"""Sign with word, colour and meaning of what became of a question."""


def asked_text(asked: Sequence[AskedView]) -> Text:
    """Return questions with their answers, the newest first."""
    text = Text()
    for one in reversed(asked):
        text.append(time.strftime("%Y-%m-%d %H:%M:%S ", time.localtime(one.asked_at)), style="bright_black")
        text.append(f"{one.asked_by}, for a {one.audience}, {_about(one)}\n", style="bright_black")
        text.append(f"{one.question}\n", style="bold")
        sign, colour, meaning = VERDICTS[one.outcome]
        text.append(sign, style=colour)
        text.append(f": {meaning}\n")
        if one.reason:
            text.append(f"  why: {one.reason}\n")
        if one.remedy:
            text.append(f"  what to do: {one.remedy}\n")
        if one.text:
            text.append(f"{one.text}\n", style="not bold")
        for note in one.annotations:
            text.append(f"  note: {note}\n", style="bright_black")
        for mark in one.marks:
            text.append(f"  mark: {mark}\n", style="bright_black")
        if one.example:
            text.append(f"  with the picture of the healthy example {one.example}\n", style="bright_black")
        text.append(f"  {_who_answered(one)}\n\n", style="bright_black")
    text.rstrip()
    return text


def study_text(study: StudyView) -> Text:
    """Return on one line which study questions are about."""
    newest = study.versions[0]
    facts = newest.study.facts
    what = " ".join(filter(None, ("/".join(facts.modalities), "/".join(facts.body_parts))))
    categories = ", ".join(dict.fromkeys(image.label for image in newest.categories if image.label))
    images = f"{newest.instances} image{'' if newest.instances == 1 else 's'}"
    parts = (study.study_id, newest.study.pseudonym, what, images, categories)
    return Text(", ".join(filter(None, parts)), no_wrap=True, overflow="ellipsis")


def offered(study: StudyView, categories: Iterable[CategoryRow], plugins: PluginsView) -> tuple[str, ...]:
    """Return the standard questions about a study: of its images' categories if these are known, and of its plugins."""
    newest: VersionView = study.versions[0]
    known = {(image.plugin, image.category) for image in newest.categories if image.category}
    at_work = {job.plugin for job in newest.jobs if job.plugin}
    asking = {plugin.name: plugin for plugin in plugins.plugins if "ask" in plugin.capabilities}
    questions: dict[str, None] = {}
    for row in categories:
        if (row.plugin, row.category) in known or (not known and row.plugin in at_work):
            questions |= dict.fromkeys(row.questions)
    for name, plugin in asking.items():
        if name in at_work or not at_work:
            questions |= dict.fromkeys(plugin.questions)
    return tuple(questions)


def _about(one: AskedView) -> str:
    frame = f", frame {one.frame}" if one.frame is not None else ""
    category = f" ({one.category})" if one.category else ""
    return f"image {one.image}{frame}{category}"


def _who_answered(one: AskedView) -> str:
    if not one.models:
        return "no model answered"
    who = f"adapter {one.adapter}" if one.adapter else "base model, no adapter"
    sure = "not known" if one.confidence is None else f"{percent(one.confidence)} %"
    return f"by {who} ({', '.join(one.models)}); probability of being right: {sure}; took {one.seconds:.1f} s"
