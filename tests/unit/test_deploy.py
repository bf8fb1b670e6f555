"""The shell scripts: well formed, and refusing what they cannot do before they change anything."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = [*sorted((ROOT / "deploy").glob("*.sh")), ROOT / ".ci" / "run"]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_understands_it(script: Path) -> None:
    done = run("bash", "-n", script)

    assert (done.returncode, done.stderr) == (0, "")
    assert os.access(script, os.X_OK)


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    done = run("shellcheck", script)

    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", ["install.sh", "bundle.sh"])
def test_help_explains_and_does_nothing(name: str) -> None:
    done = run(ROOT / "deploy" / name, "--help")

    assert done.returncode == 0
    assert f"deploy/{name}" in done.stdout
    assert not done.stderr


def test_an_unknown_option_is_refused() -> None:
    done = run(ROOT / "deploy" / "install.sh", "--force")

    assert done.returncode == 2
    assert "There is no option --force" in done.stderr


def test_a_folder_with_something_in_it_is_no_place_for_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()

    done = run(ROOT / "deploy" / "bundle.sh", tmp_path)

    assert done.returncode == 1
    assert "is not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def names_of(requirements: Iterable[str]) -> set[str]:
    found = (re.match(r"[A-Za-z0-9._-]+", line) for line in requirements)
    return {match[0].lower().replace("_", "-") for match in found if match}


def test_everything_is_pinned_that_the_packages_ask_for() -> None:
    constraints = (ROOT / "deploy" / "constraints.txt").read_text().splitlines()
    asked: set[str] = set()
    for project in [ROOT / "pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml")]:
        table = tomllib.loads(project.read_text())["project"]
        extras = table.get("optional-dependencies", {}).values()
        asked |= names_of(itertools.chain(table.get("dependencies", []), *extras))
    ours = {name for name in asked if name.startswith("clinic-ai")}

    assert len(asked) > 20
    assert asked - ours - names_of(line for line in constraints if "==" in line) == set()
