"""What is said when a mistake of this program ends the terminal: where it lies, and nothing of what it held."""

from __future__ import annotations

import traceback
from pathlib import Path

from rich.text import Text
from textual.worker import WorkerFailed

_PLACES = 3
_OURS = Path(__file__).parent.parent


def fault_text(error: BaseException | None) -> Text:
    """Return the sentence about a mistake. Its message and its variables may be about a patient: they are left out."""
    if isinstance(error, WorkerFailed):
        error = error.error
    kind = type(error).__name__
    frames = traceback.extract_tb(None if error is None else error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(_OURS)] or list(frames)
    places = ", ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in ours[-_PLACES:])
    return Text(
        f"A mistake of the program ended the terminal: {kind} at {places or 'an unknown place'}.\n"
        "The appliance goes on. Please report this line; `clinic-ai tui` opens the terminal again."
    )
