"""Reads what a clinic adds to plugins by files ``<kind>/<plugin>/<anything>.toml`` of the home directory.

Each file describes one thing, such as a condition or a category. A file that cannot be used is a problem of the
catalogue that says what to mend; the others count, and the plugin works on.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from clinic_ai.contract import PluginManifest
from clinic_ai.domain import Word
from clinic_ai.plugins import PluginCatalogue, PluginProblem

W = TypeVar("W", bound=Word)
_MOST_BYTES = 64 * 1024


def add_all(
    catalogue: PluginCatalogue,
    folder: Path,
    noun: str,
    shape: type[W],
    add: Callable[[PluginManifest, W], PluginManifest],
) -> None:
    """Read every file below ``folder`` as a ``shape`` and let ``add`` put it into the manifest of its plugin.

    ``noun`` is what people call such a thing. ``add`` raises ValueError, in words that say what to mend, if it cannot.
    """
    for path in _files(folder):
        plugin = path.parent.name
        try:
            manifest = _manifest(catalogue, plugin)
            catalogue.manifests[plugin] = add(manifest, _read(path, shape))
        except ValueError as error:
            catalogue.problems.append(PluginProblem(plugin, f"The {noun} in {path} is not used: {error}"))


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


def _read(path: Path, shape: type[W]) -> W:
    """Read one file. Raise ValueError in words that say what to mend."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES // 1024} KiB")
        return shape.model_validate(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"it is no TOML: {error}") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors())
        raise ValueError(wrong) from error
