"""The pages say what is true: links lead somewhere, commands exist, every promise to plugins is explained."""

from __future__ import annotations

import functools
import inspect
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer.main

from clinic_ai import benching, contract, describing, hookspecs
from clinic_ai.cli.verbs import app

ROOT = Path(__file__).parents[2]
SYSTEM_ROOTS = {"bin", "dev", "etc", "media", "opt", "proc", "run", "srv", "sys", "tmp", "usr", "var"}
"""First folders of absolute paths a page may name: those that every machine has."""
API = {"v1"}
FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = [ROOT / line for line in listed.stdout.splitlines()]
    return [path for path in found if path.is_file()] or sorted(ROOT.glob("docs/*.md"))


PAGES = pages()
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]+`", "", FENCE.sub("", text))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# ---------------------------------------------------------------- plugins


def promises() -> list[str]:
    hooks = [
        name for name, member in inspect.getmembers(hookspecs, inspect.isfunction) if hasattr(member, "clinic_ai_spec")
    ]
    methods = [
        name
        for protocol in (contract.Engine, contract.Trainer, benching.Bencher, describing.Describer, describing.Fitter)
        for name, _ in inspect.getmembers(protocol, inspect.isfunction)
        if not name.startswith("_")
    ]
    return hooks + methods


def test_the_promises_are_found() -> None:
    assert {"describe_plugin", "load", "use", "analyse", "ask", "close", "plan", "train", "evaluate"} <= set(promises())


@pytest.mark.parametrize("promise", promises())
def test_every_promise_to_plugins_is_explained(promise: str) -> None:
    page = (ROOT / "docs" / "writing-a-plugin.md").read_text()

    assert re.search(rf"`{promise}\(|def {promise}\(", page)


@pytest.mark.parametrize("key", sorted(contract.PluginManifest.model_fields))
def test_every_key_of_the_manifest_is_explained(key: str) -> None:
    assert f"| `{key}` |" in (ROOT / "docs" / "writing-a-plugin.md").read_text()


# ---------------------------------------------------------------- links


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        linked = (page.parent / place).resolve() if place else page
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            broken.append(target)

    assert broken == []


def test_every_page_is_listed() -> None:
    listed = set(re.findall(r"\]\(([^)#\s]+)\)", (ROOT / "docs" / "README.md").read_text()))

    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"} - listed == set()


# ---------------------------------------------------------------- commands


def quoted_commands() -> Iterator[tuple[str, str]]:
    """Yield page and command for every ``clinic-ai …`` in code on a page, continued lines joined."""
    for page in PAGES:
        text = page.read_text()
        spans = re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
        indented = re.findall(r"^(?: {4}|\t)(.+)$", FENCE.sub("", text), re.MULTILINE)
        lines = [line for block in FENCE.findall(text) for line in block.replace("\\\n", " ").splitlines()]
        for line in [*spans, *indented, *lines]:
            found = re.match(r"\s*(?:\$ |sudo )?(clinic-ai(?: .*)?)$", line)
            # A line such as "clinic-ai  0.1.0, up for 3 h" in a picture of a screen is no command.
            if found and not found[1].startswith("clinic-ai  ") and "●" not in line:
                yield page.relative_to(ROOT).as_posix(), found[1]


def words_of(command: str) -> list[str]:
    """Split a command as a shell would, up to a comment, a pipe or what stands for any further words."""
    plain = re.split(r"\s#\s|\s[|;&>]|…", command)[0]
    return shlex.split(plain)[1:]


@functools.cache
def whole_command() -> Any:
    """Return the command line with all its verbs; to build it takes a while."""
    return typer.main.get_command(app)


def misuse(words: list[str]) -> str:
    """Return what the command line would not understand of these words, or nothing."""
    command: Any = whole_command()
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        verb = words.pop(0)
        if verb.isupper():
            return ""  # stands for any verb
        if verb not in command.commands:
            return f"no verb {verb}"
        command = command.commands[verb]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    options = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    unknown = options - known - {"--help"}
    return f"no option {', '.join(sorted(unknown))}" if unknown else ""


def test_every_command_on_a_page_is_one() -> None:
    commands = list(quoted_commands())
    wrong = [(page, command, problem) for page, command in commands if (problem := misuse(words_of(command)))]

    assert len(commands) > 30
    assert wrong == []


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("clinic-ai frobnicate", "no verb frobnicate"),
        ("clinic-ai study shw S-1", "no verb shw"),
        ("clinic-ai study show S-1 --jsn", "no option --jsn"),
        ("clinic-ai study show S-1 --json # comment --nonsense", ""),
    ],
)
def test_a_command_that_is_none_is_noticed(command: str, problem: str) -> None:
    assert misuse(words_of(command)) == problem


def test_every_verb_is_on_the_page_of_the_command_line() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    command: Any = typer.main.get_command(app)
    missing = [
        f"{name} {sub}".strip()
        for name, verb in command.commands.items()
        for sub in getattr(verb, "commands", {"": None})
        if not verb.hidden and not re.search(rf"`{name}\b[^|]*\b{sub}", page)
    ]

    assert missing == []


# ---------------------------------------------------------------- the rest


@each_page
def test_no_page_names_a_path_of_somebodys_machine(page: Path) -> None:
    paths = re.findall(r"(?<![\w.~)*}>\]])/([A-Za-z0-9_-]+)/[\w.-]", re.sub(r"[a-z]+://\S+", "", page.read_text()))

    assert set(paths) - SYSTEM_ROOTS - API == set()


def test_the_schema_of_results_is_a_schema() -> None:
    schema = json.loads((ROOT / "docs" / "result.schema.json").read_text())

    jsonschema.validators.validator_for(schema).check_schema(schema)
