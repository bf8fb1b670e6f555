"""Detectors that plugins add: found by ``plugin.name`` when a pack names one; no other plugin is ever loaded for it."""

from __future__ import annotations

import re
from importlib.metadata import entry_points

import pluggy

from clinic_ai import hookspecs
from clinic_ai.guard.detectors import Detector

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


def plugin_detector(name: str) -> type[Detector]:
    """Return the detector that ``plugin.name`` stands for. Raise ValueError, in words, if there is none."""
    plugin, _, own = name.partition(".")
    points = [point for point in entry_points(group=hookspecs.GROUP) if point.name == plugin]
    if not points:
        raise ValueError(f"the detector {name!r} belongs to the plugin {plugin!r}, which is not installed")
    try:
        manager = pluggy.PluginManager(hookspecs.GROUP)
        manager.add_hookspecs(hookspecs)
        manager.register(points[0].load(), name=plugin)
        manager.check_pending()
        answers = manager.hook.guard_detectors()
    except Exception as error:  # boundary to foreign code: whatever a plugin raises refuses the pack in words
        raise ValueError(f"the plugin {plugin!r} cannot be asked for its detectors: {type(error).__name__}") from error
    found = answers[0].get(own) if answers and isinstance(answers[0], dict) else None
    if not _NAME.fullmatch(own) or not (isinstance(found, type) and issubclass(found, Detector)):
        raise ValueError(f"the plugin {plugin!r} has no detector {own!r}")
    return found
