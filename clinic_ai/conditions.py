"""Conditions that a clinic adds to a plugin: files ``conditions/<plugin>/<anything>.toml`` of the home directory.

Each file describes one condition (``ConditionInfo``): its key in the table of codes, and the body parts and views it is
judged on. The plugin then takes models for it. A file of a condition that the plugin has already describes it anew.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError

from clinic_ai.contract import ConditionInfo, PluginManifest
from clinic_ai.plugins import PluginCatalogue, PluginProblem

FOLDER = "conditions"
_MOST_BYTES = 64 * 1024


def add_conditions(catalogue: PluginCatalogue, folder: Path, known: Collection[str]) -> None:
    """Add the conditions below ``folder`` to the manifests; ``known`` are the keys of the table of codes.

    A file that cannot be used is a problem of the catalogue that says what to mend; the others count.
    """
    for path in _files(folder):
        plugin = path.parent.name
        try:
            manifest = _manifest(catalogue, plugin)
            catalogue.manifests[plugin] = _with(manifest, _read(path, known))
        except ValueError as error:
            sentence = f"The condition in {path} is not used: {error}"
            catalogue.problems.append(PluginProblem(plugin, sentence))


def _manifest(catalogue: PluginCatalogue, plugin: str) -> PluginManifest:
    manifest = catalogue.manifests.get(plugin)
    if manifest is None:
        near = get_close_matches(plugin, catalogue.manifests, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(catalogue.manifests))}"
        raise ValueError(f"no plugin is named {plugin}; {hint}")
    return manifest


def _files(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(path for path in folder.glob("*/*.toml") if path.is_file())
    except OSError:
        return  # a home without the folder, or one that may not be read: nothing was added


def _read(path: Path, known: Collection[str]) -> ConditionInfo:
    """Read one file. Raise ValueError in words that say what to mend."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES // 1024} KiB")
        found = ConditionInfo.model_validate(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"it is no TOML: {error}") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors())
        raise ValueError(wrong) from error
    if found.code not in known:
        near = get_close_matches(found.code, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"the table of codes has no {found.code!r}{hint}")
    return found


def _with(manifest: PluginManifest, condition: ConditionInfo) -> PluginManifest:
    others = tuple(known for known in manifest.conditions if known.code != condition.code)
    return manifest.model_copy(update={"conditions": (*others, condition)})
