"""Released text is made in one place, so that nothing unguarded can be passed off as guarded."""

from __future__ import annotations

import ast
from pathlib import Path

import clinic_ai

ROOT = Path(clinic_ai.__file__).parent
CONSTRUCTORS = {"model_validate", "model_validate_json", "model_construct", "model_copy", "parse_obj"}


def calls() -> list[tuple[str, str, str]]:
    """Return (file, class, how) of every call that could make a Released or a GuardVerdict."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            function = node.func
            name = path.relative_to(ROOT).as_posix()
            if isinstance(function, ast.Name | ast.Attribute):
                last = function.id if isinstance(function, ast.Name) else function.attr
                if last in {"Released", "GuardVerdict"}:
                    found.append((name, last, "()"))
                if last in CONSTRUCTORS and isinstance(function, ast.Attribute):
                    owner = ast.unparse(function.value).rpartition(".")[2]
                    if owner in {"Released", "GuardVerdict"}:
                        found.append((name, owner, last))
    return found


def test_only_the_engine_makes_released_text() -> None:
    assert [where for where, what, _ in calls() if what == "Released"] == ["guard/engine.py"]


def test_verdicts_are_made_by_the_guard_and_read_back_by_the_store() -> None:
    made = {where for where, what, how in calls() if what == "GuardVerdict" and how == "()"}
    assert made == {"guard/engine.py", "guard/client.py"}  # the client's releases nothing
    read = {where for where, what, how in calls() if what == "GuardVerdict" and how != "()"}
    assert all(where.startswith("store/") for where in read)


def test_the_clients_own_verdict_releases_nothing() -> None:
    tree = ast.parse((ROOT / "guard" / "client.py").read_text())
    made = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "GuardVerdict"]
    released = [ast.unparse(k.value) for call in made for k in call.keywords if k.arg == "released"]
    assert released == ["()"] * len(made) != []
