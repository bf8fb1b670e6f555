"""What each process loads, seen from inside: a fresh interpreter imports it and lists ``sys.modules``.

The contracts of import-linter read the source; this catches what they cannot see, such as a library that
imports another one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from clinic_ai.hookspecs import GROUP

HEAVY = {
    "PIL",
    "bitsandbytes",
    "gdcm",
    "highdicom",
    "matplotlib",
    "numpy",
    "onnx",
    "onnxruntime",
    "openpyxl",
    "pandas",
    "peft",
    "pydicom",
    "pynetdicom",
    "re2",
    "safetensors",
    "scipy",
    "sklearn",
    "tokenizers",
    "torch",
    "transformers",
    "typst",
}
"""What the daemon never loads: it decodes no pixel and runs no model."""
SERVER = {"alembic", "fastapi", "sqlalchemy", "uvicorn"}

PLUGINS = sorted(point.value for point in entry_points(group=GROUP))


def loaded_by(code: str) -> set[str]:
    """Return the full names of all modules a fresh interpreter has after running ``code``."""
    script = f"{code}\nimport json, sys\nprint('\\n@' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.rpartition("@")[2]))


def libraries(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def children(modules: set[str]) -> set[str]:
    return {name for name in modules if name.startswith(("clinic_ai.workers.", "clinic_ai.ml."))}


def test_the_daemon_loads_nothing_heavy_and_no_code_of_children() -> None:
    modules = loaded_by("import clinic_ai.daemon")

    assert libraries(modules) & HEAVY == set()
    assert children(modules) == set()
    assert libraries(modules) >= {"sqlalchemy", "fastapi"}  # the look at sys.modules does see what is there


def test_finding_the_plugins_loads_nothing_heavy() -> None:
    found = "from clinic_ai.plugins import find_plugins\nassert not find_plugins().problems"
    modules = loaded_by(f"import clinic_ai.daemon\n{found}")

    assert libraries(modules) & HEAVY == set()
    assert {value.partition(".")[0] for value in PLUGINS} <= libraries(modules)


@pytest.mark.parametrize("module", PLUGINS)
def test_the_light_half_of_a_plugin_is_light(module: str) -> None:
    modules = loaded_by(f"import {module}")

    assert libraries(modules) & (HEAVY | SERVER) == set()
    assert children(modules) == set()


def test_help_loads_neither_the_server_nor_anything_heavy() -> None:
    modules = loaded_by(
        "import sys\n"
        "sys.argv = ['clinic-ai', '--help']\n"
        "from clinic_ai.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0"
    )

    assert libraries(modules) & (HEAVY | SERVER | {"textual", "pydantic"}) == set()
    assert "clinic_ai.cli.verbs" in modules


def test_the_client_loads_neither_the_server_nor_anything_heavy() -> None:
    modules = loaded_by("import clinic_ai.control.client")

    assert libraries(modules) & (HEAVY | SERVER) == set()


def test_the_terminal_screen_draws_and_knows_no_database() -> None:
    modules = loaded_by(
        "import importlib, pkgutil, clinic_ai.tui\n"
        "for found in pkgutil.walk_packages(clinic_ai.tui.__path__, 'clinic_ai.tui.'):\n"
        "    importlib.import_module(found.name)"
    )

    assert libraries(modules) & (HEAVY | SERVER) == set()
    assert not {name for name in modules if name.startswith("clinic_ai.store")}
