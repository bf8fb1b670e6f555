"""Every promise a plugin can make (pluggy); no logic.

A plugin is a distribution with an entry point in the group ``clinic_ai`` that names a module. The module
implements the hooks below with ``@hookimpl``. Hooks are called one plugin at a time: in pluggy one
raising implementation would discard the answers of all others.

Life cycle: ``describe_plugin`` at start of the daemon, and again on SIGHUP. Nothing else of a plugin runs
in the daemon; its engine and trainer (see ``contract``) run in children, its detectors in the guard's.
"""

from __future__ import annotations

from collections.abc import Mapping

import pluggy

from clinic_ai.contract import PluginManifest

GROUP = "clinic_ai"

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def describe_plugin() -> PluginManifest:
    """Return what this plugin is and claims. Must be light: no numpy, torch, pydicom or onnxruntime."""
    raise AssertionError("a specification is not called")  # pragma: no cover


@hookspec
def guard_detectors() -> Mapping[str, type]:
    """Return detectors for policy packs by name: subclasses of ``clinic_ai.guard.detectors.Detector``.

    Called in the guard's child, when a pack names one as ``plugin.name``. A detector must be a pure function; one that
    raises or hangs holds the report.
    """
    raise AssertionError("a specification is not called")  # pragma: no cover
