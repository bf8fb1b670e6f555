"""Turns views into styled text. Colour never says anything that a sign or word does not say too."""

from __future__ import annotations

from rich.text import Text

from clinic_ai.control.views import StudyRow
from clinic_ai.domain import StudyState

SIGNS: dict[StudyState, tuple[str, str]] = {
    StudyState.RECEIVING: ("↓", "cyan"),
    StudyState.CLOSED: ("○", "cyan"),
    StudyState.ROUTED: ("▶", "blue"),
    StudyState.UNROUTED: ("?", "yellow"),
    StudyState.DONE: ("✓", "green"),
    StudyState.FAILED: ("✗", "red"),
    StudyState.SUPERSEDED: ("–", "bright_black"),
}
"""Sign and colour of each state."""

HELD = "held"
"""Code of the WaitReason of a study whose result the guard held."""

MEANINGS: dict[StudyState, str] = {
    StudyState.RECEIVING: "images are still arriving",
    StudyState.CLOSED: "complete, about to be routed",
    StudyState.ROUTED: "in work, or waiting for its turn",
    StudyState.UNROUTED: "no rule and no plugin takes it",
    StudyState.DONE: "finished",
    StudyState.FAILED: "given up; retry when the cause is gone",
    StudyState.SUPERSEDED: "a newer version replaced it",
}

WAITS: dict[str, str] = {
    "receiving": "Its files are arriving. Nothing is needed.",
    "receiving_more": "An image seems to be missing. Nothing is needed; or close the study to go on without.",
    "no_rule": "No rule and no plugin takes it. Add a rule to clinic.toml, reload, then retry.",
    "originals_removed": "Some of its images were removed by age. Send the whole study again.",
    "no_plugin": "A rule wants a plugin that is not there. Install it, or change the rule and re-route.",
    "no_model": "The plugin has no model in use. Import one and promote it: screen Models.",
    "bad_model": "The files of the model are damaged. Restore them, or roll back: screen Models.",
    "engine_crashing": "The plugin died too often and rests. See the log; roll back a model that is new.",
    "retry_later": "An attempt failed. The next comes by itself; retry tries at once.",
    "no_memory": "The model is larger than execution.memory_mb in clinic.toml. Raise it.",
    "memory_in_use": "Other models use the memory just now. Nothing is needed.",
    "no_policy": "No policy pack is in force, so nothing may go out. Correct the pack and reload.",
    "held": "The guard held the result. A clinician accepts, amends or rejects it: screen Review.",
    "not_signed": "The signed report could not be made. Review it once more: screen Review.",
    "failed": "Every attempt failed. Retry when the cause, which stands beside it, is gone.",
    "undelivered": "The result could not be delivered; it is tried again. Check the target.",
}
"""What each code of a WaitReason means and what to do, in a line; the study itself says it in full."""


_SHORT = {"originals_removed": "images removed"}
"""Reasons that would not fit into a column in their own words."""


def short_reason(code: str) -> str:
    """Return the code of a WaitReason in a word or two, the same in the queue and in the help."""
    return _SHORT.get(code, code.replace("_", " "))


def state_text(state: StudyState) -> Text:
    """Return a state with its sign."""
    sign, colour = SIGNS[state]
    return Text(f"{sign} {state.value}", style=colour, no_wrap=True)


def stand_text(row: StudyRow) -> Text:
    """Return where a study stands: its state, or that its result is held."""
    if held(row):
        return Text("‖ HELD", style="bold yellow", no_wrap=True)
    return state_text(row.state)


def held(row: StudyRow) -> bool:
    """Return whether the guard held the result of a study."""
    return row.state is StudyState.DONE and row.wait is not None and row.wait.code == HELD


def age(seconds: float) -> str:
    """Return a length of time in one unit, such as ``3 min``."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0) // 5 * 5:.0f} s"  # in steps of five: a number that changes each second draws the eye


def modality(row: StudyRow) -> str:
    """Return the modalities of a study."""
    return "/".join(row.facts.modalities) or "?"
