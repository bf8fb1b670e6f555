"""What the control API takes to change models."""

from __future__ import annotations

from clinic_ai.control.views import Line, LongLine, Order, PlainPath
from clinic_ai.domain import Key


class ModelImport(Order):
    """Import the model directory at this absolute path of the daemon's machine."""

    directory: PlainPath


class ModelChoice(Order):
    """One model of the registry."""

    plugin: Key
    name: Line
    version: Line


class ModelRollback(Order):
    """Take back the newest promotion of this slot; refused if another model than ``retires`` is in use by then.

    ``retires`` is name and version as they are shown; None takes back whatever is in use.
    """

    plugin: Key
    slot: Key = "main"
    retires: LongLine | None = None
