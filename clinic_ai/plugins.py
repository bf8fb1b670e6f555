"""Finds plugins by their entry point in the group ``clinic_ai``; reads manifests, never loads engines."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

import pluggy
from pydantic import ValidationError

from clinic_ai import hookspecs
from clinic_ai.contract import PluginManifest


class PluginProblem:
    """A plugin that is installed and cannot be used, and why; the others work."""

    def __init__(self, name: str, sentence: str) -> None:
        self.name = name
        self.sentence = sentence


class PluginCatalogue:
    """The manifests of all usable plugins by name, and the problems of the others."""

    def __init__(self, manifests: dict[str, PluginManifest], problems: list[PluginProblem]) -> None:
        self.manifests = manifests
        self.problems = problems


def find_plugins() -> PluginCatalogue:
    """Ask every installed plugin to describe itself, each on its own."""
    manifests: dict[str, PluginManifest] = {}
    problems: list[PluginProblem] = []
    for point in sorted(entry_points(group=hookspecs.GROUP), key=lambda p: p.name):
        try:
            manifest = _describe(point)
        except Exception as error:  # noqa: BLE001 - boundary to foreign code: one bad plugin must not stop the rest
            what = "its manifest is invalid" if isinstance(error, ValidationError) else type(error).__name__
            problems.append(PluginProblem(point.name, f"Plugin {point.name} cannot be used: {what}: {error}"))
            continue
        if manifest.name in manifests:
            problems.append(PluginProblem(point.name, f"Two plugins are named {manifest.name}; the second is ignored."))
            continue
        manifests[manifest.name] = manifest
    return PluginCatalogue(manifests, problems)


def _describe(point: EntryPoint) -> PluginManifest:
    module: ModuleType = point.load()
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(module, name=point.name)
    manager.check_pending()
    answers: list[PluginManifest] = manager.hook.describe_plugin()
    if len(answers) != 1:
        raise LookupError("it does not implement describe_plugin")
    return PluginManifest.model_validate(answers[0])
