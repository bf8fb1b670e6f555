"""A model in words: what it is for, how it did, and how it stands beside the one in use."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from clinic_ai.control.shelf_views import ShelfModel, ShelfView, SlotView
from clinic_ai.domain import ValidationFigures
from clinic_ai.tui.measures import heading, line, moment, size

SIGNS = {
    "ACTIVE": ("●", "bold green"),
    "CANDIDATE": ("?", "bold yellow"),
    "IMPORTED": ("○", "cyan"),
    "RETIRED": ("–", "dim"),
    "REJECTED": ("✗", "red"),
}
"""Sign and colour of each state of a model."""
MEANINGS = {
    "ACTIVE": "in use",
    "CANDIDATE": "waits for a decision",
    "IMPORTED": "here, and never in use",
    "RETIRED": "was in use",
    "REJECTED": "not to be used",
}
_ORDER = tuple(SIGNS)
_NAME = 19


def state_text(state: str) -> Text:
    """Return the state of a model with its sign."""
    sign, style = SIGNS.get(state, ("?", ""))
    return Text(f"{sign} {state}", style=style, no_wrap=True)


def key_of(model: ShelfModel) -> str:
    """Return what names a row: plugin, name and version."""
    return f"{model.plugin}/{model.name}/{model.version}"


def in_order(models: Sequence[ShelfModel]) -> list[ShelfModel]:
    """Return models by plugin and slot, those in use first, then candidates, each the newest first."""

    def place(model: ShelfModel) -> tuple[str, str, int, float]:
        rank = _ORDER.index(model.state) if model.state in _ORDER else len(_ORDER)
        return model.plugin, model.slot, rank, -model.imported_at

    return sorted(models, key=place)


def use_words(model: ShelfModel) -> str:
    """Return in one or two words what a model may be used for."""
    if model.reference:
        return "reference"
    return "clinical" if model.clinical_use else "no clinic"


def matches(model: ShelfModel, words: str) -> bool:
    """Return whether every word is found in what stands on a model."""
    parts = (model.plugin, model.slot, model.name, model.version, model.state, model.tier, *model.conditions)
    text = " ".join(parts).casefold()
    return all(word in text for word in words.casefold().split())


def model_text(model: ShelfModel, shelf: ShelfView, now: float, width: int) -> Text:
    """Return all that everybody may know of a model, and how it stands beside the one in use in its slot."""
    text = Text()
    text.append_text(state_text(model.state))
    text.append(f"  {model.name} {model.version}", style="bold")
    text.append(f"  {MEANINGS.get(model.state, '')}\n", style="not bold")
    if model.reference:
        text.append("! Reference model, not for clinical use: it shows that everything works.\n", style="bold yellow")
    elif not model.clinical_use:
        text.append("! Not for clinical use.\n", style="bold yellow")
    if model.examined:
        passed = model.examined == "passed"
        text.append(
            "✓ It passed its examination" if passed else "✗ It did not pass its examination",
            style="green" if passed else "bold red",
        )
        text.append(f", approved by {model.approved_by}.\n" if model.approved_by else ".\n", style="not bold")
    line(text, "For", f"{model.plugin}, slot {model.slot}: {', '.join(model.conditions) or 'answers to questions'}")
    line(text, "Tier", _tier(model, shelf))
    line(text, "Use", f"clinical {_yes(model.clinical_use)}, commercial {_yes(model.commercial_use)}; {model.licence}")
    _validation(text, model.validation)
    _slot(text, model, shelf, width)
    line(text, "Intended use", model.intended_use)
    line(text, "Source", model.source)
    line(text, "Base", model.base)
    quantised = "" if model.quantisation == "none" else f", quantised {model.quantisation}"
    line(text, "Files", f"{size(model.size_bytes)}{quantised}, digest {model.digest[:12]}")
    line(text, "Here since", f"{moment(model.imported_at, now)}, by {model.imported_by}")
    return text


def _tier(model: ShelfModel, shelf: ShelfView) -> str:
    """Return the tier of a model, and which tiers are in use for what it judges."""
    said = model.tier or "none named"
    for condition in model.conditions[:1]:
        there = sorted(
            {
                m.tier
                for m in shelf.models
                if m.state == "ACTIVE" and m.plugin == model.plugin and condition in m.conditions
            }
            - {""}
        )
        both = "both, fast and intensive" if {"fast", "intensive"} <= set(there) else ", ".join(there) or "none"
        said += f"; in use for {condition}: {both}"
    return said


def _yes(permitted: bool) -> str:
    return "yes" if permitted else "no"


def _validation(text: Text, figures: dict[str, ValidationFigures]) -> None:
    heading(text, "Validation, with 95 % intervals")
    if not figures:
        text.append("Its manifest has no figures.\n", style="not bold")
    for condition, found in figures.items():
        parts = [f"AUROC {_figure(found.auroc, found.auroc_low, found.auroc_high)}"]
        if found.sensitivity is not None:
            parts.append(f"sensitivity {_figure(found.sensitivity, found.sensitivity_low, found.sensitivity_high)}")
        if found.specificity is not None:
            parts.append(f"specificity {_figure(found.specificity, found.specificity_low, found.specificity_high)}")
        text.append(f"{condition}: ", style="bold")
        text.append(", ".join(parts), style="not bold")
        text.append(f"; {found.positives} with and {found.negatives} without, {found.dataset}\n", style="dim")


def _figure(value: float, low: float | None, high: float | None) -> str:
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} ({low:.3f}…{high:.3f})"


# ---------------------------------------------------------------- beside the one in use


def _slot(text: Text, model: ShelfModel, shelf: ShelfView, width: int) -> None:
    slot = slot_of(shelf, model)
    if slot is None:
        return
    heading(text, f"Slot {model.slot}")
    line(text, "In use", slot.active or "nothing")
    line(text, "A rollback leads to", slot.before or "nothing: no model was active there before")
    active = next(
        (m for m in shelf.models if (m.plugin, m.slot, m.state) == (model.plugin, model.slot, "ACTIVE")), None
    )
    if active is None or active == model:
        return
    column = max((width - _NAME) // 2, 14)
    text.append(f"{'':<{_NAME}}{'this one':<{column}}in use\n", style="dim")
    for name, this, other in _compared(model, active):
        sign = " " if this == other else "≠"
        text.append(f"{sign} {name:<{_NAME - 2}}", style="dim")
        text.append(f"{_cut(this, column):<{column}}{_cut(other, column)}\n", style="not bold")


def _compared(model: ShelfModel, active: ShelfModel) -> list[tuple[str, str, str]]:
    rows = [
        ("model", f"{model.name} {model.version}", f"{active.name} {active.version}"),
        ("tier", model.tier or "-", active.tier or "-"),
        ("licence", model.licence, active.licence),
        ("clinical use", _yes(model.clinical_use), _yes(active.clinical_use)),
        ("commercial use", _yes(model.commercial_use), _yes(active.commercial_use)),
        ("size", size(model.size_bytes), size(active.size_bytes)),
    ]
    for condition in dict.fromkeys((*model.validation, *active.validation)):
        this, other = model.validation.get(condition), active.validation.get(condition)
        rows.append((_cut(f"AUROC {condition}", _NAME - 1), _auroc(this), _auroc(other)))
    return rows


def _auroc(found: ValidationFigures | None) -> str:
    return "-" if found is None else _figure(found.auroc, found.auroc_low, found.auroc_high)


def _cut(words: str, width: int) -> str:
    return words if len(words) < width else f"{words[: width - 2]}…"


def slot_of(shelf: ShelfView, model: ShelfModel) -> SlotView | None:
    """Return the slot a model is for, None if the shelf has none."""
    return next((s for s in shelf.slots if (s.plugin, s.slot) == (model.plugin, model.slot)), None)
