"""What the control API takes to change models."""

from __future__ import annotations

from clinic_ai.control.views import Line, Order, PlainPath
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
    """Take back the newest promotion of this slot."""

    plugin: Key
    slot: Key = "main"
