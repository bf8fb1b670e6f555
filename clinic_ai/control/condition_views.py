"""What the command line tells of the conditions that plugins judge."""

from __future__ import annotations

from clinic_ai.control.views import View


class ConditionRow(View):
    """What a plugin can judge, on which images, and the active models for it."""

    plugin: str
    condition: str
    body_parts: tuple[str, ...]
    views: tuple[str, ...]
    critical: int
    models: tuple[str, ...]
