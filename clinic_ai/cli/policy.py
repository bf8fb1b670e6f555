"""``clinic-ai policy``: what may be said. Needs no daemon: a pack is read and tested in a child of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clinic_ai.cli.options import HomeOption, JsonOption, example, group
from clinic_ai.cli.packs import find_pack, packs_in

if TYPE_CHECKING:
    from clinic_ai.guard.client import Guard
    from clinic_ai.tasks import CaseReport, PackDescription

_LISTED = 12
"""So many cases are named; of more only the number is told."""
policy = group("policy", "The policy pack: what may be said, to whom.")
PackArgument = Annotated[
    Path | None, typer.Argument(metavar="[PACK]", help="The pack, by name or folder; else the one of clinic.toml.")
]


@policy.command("list", epilog=example("policy list our-clinic"))
def list_rules(directory: PackArgument = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the rules of a pack: what each prevents, for whom, and what it does."""
    from clinic_ai.cli.output import print_json, say, table

    pack = find_pack(directory, home)
    described = describe(pack)
    if as_json:
        print_json(described)
        return
    table(
        ("RULE", "DOES", "FOR", "ROW", "PREVENTS"),
        [
            (r.rule, r.action.value, "".join(a.value[0].upper() for a in r.audiences), str(r.row or "-"), r.hazard)
            for r in described.rules
        ],
        empty="No rule.",
    )
    say(
        "FOR: C clinicians, P patients, T technicians. ROW: the hazard's row of the table in docs/guard.md, - for none."
    )
    lists = ", ".join(f"{name} ({number})" for name, number in sorted(described.terms.items()))
    say(f"Word lists: {lists}.")
    say(f"Languages: {', '.join(described.languages)}.")
    beside = [name for name in packs_in(pack.resolve().parent) if name != pack.resolve().name]
    if beside:
        say(f"Packs beside it: {', '.join(beside)}.")


@policy.command("test", epilog=example("policy test our-clinic"))
def run_cases(directory: PackArgument = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Load a pack and run its cases. Exit code 1 if it would be refused."""
    from clinic_ai.cli.output import Exit, print_json, say

    report = check_pack(find_pack(directory, home))
    failures = [outcome for outcome in report.outcomes if not outcome.passed]
    if as_json:
        print_json(report)
    else:
        for problem in report.problems:
            say(f"{problem}.")
        for case in failures:
            say(f"{case.failure}.")
        good = "would load" if not failures and not report.problems else "would be refused"
        others = f", and there {_counted(len(report.problems))}" if report.problems else ""
        say(
            f"Pack {report.pack.name} {report.pack.version} {good}: {len(report.pack.rules)} rules, "
            f"{len(report.outcomes) - len(failures)} of {len(report.outcomes)} cases pass{others}."
        )
    if failures or report.problems:
        raise typer.Exit(Exit.FAILED)


@policy.command("check", epilog=example("policy check our-clinic"))
def show_coverage(directory: PackArgument = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Read a pack and show how well its cases cover each rule. Exit code 1 if a rule lacks a kind of case."""
    from clinic_ai.cli.output import Exit, print_json, say, table

    described = describe(find_pack(directory, home))
    bare = [r.rule for r in described.rules if not (r.firing and r.non_firing and r.mutations)]
    if as_json:
        print_json(described)
    else:
        table(
            ("RULE", "CASES", "FIRES ON"),
            [
                (
                    r.rule,
                    f"{r.firing}+{r.non_firing}+{r.mutations}",
                    _listed([described.cases[n - 1] for n in r.fires_on]),
                )
                for r in described.rules
            ],
            empty="No rule.",
        )
        say("CASES: firing + non-firing + mutations. FIRES ON: any cases of the pack, by number in their file.")
        for name in bare:
            say(f"Rule {name} lacks a kind of case: add one with kind firing, non_firing and mutation to cases.toml.")
        say(
            f"Pack {described.pack.name}: {len(described.rules)} rules, {described.pack.cases} cases. "
            "`clinic-ai policy test` runs them."
        )
    if bare:
        raise typer.Exit(Exit.FAILED)


@policy.command("diff", epilog=example("policy diff default our-clinic"))
def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The pack to compare with.")],
    new: Annotated[Path | None, typer.Argument(metavar="[NEW]", help="The changed pack; else the one in use.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what one pack changes of another, and which of their texts would fare otherwise."""
    from clinic_ai.cli.output import print_json, say

    before, after = find_pack(old, home), find_pack(new, home)
    with _guard(before) as guard:
        difference = guard.compare(before, after)
    if as_json:
        print_json(difference)
        return
    for change in difference.changes:
        say(f"{change.where}: {change.what}")
    for outcome in difference.outcomes:
        say(f"Text {outcome.where}: {outcome.what}")
    say(f"{len(difference.changes)} changes; {len(difference.outcomes)} of {difference.cases} texts fare otherwise.")


def _listed(cases: list[str]) -> str:
    """Return cases by file and number, or how many there are; ``cases`` are such as ``cases.toml 4``."""
    if len(cases) > _LISTED:
        return f"{len(cases)} cases"
    numbers: dict[str, list[str]] = {}
    for case in cases:
        file, _, number = case.rpartition(" ")
        numbers.setdefault(file, []).append(number)
    return "; ".join(f"{file} {', '.join(found)}" for file, found in numbers.items()) or "none"


def _counted(others: int) -> str:
    return "is 1 other problem" if others == 1 else f"are {others} other problems"


def check_pack(directory: Path) -> CaseReport:
    """Run the cases of a pack in a child. Raise PolicyError if it cannot be read."""
    with _guard(directory) as guard:
        return guard.check(directory)


def describe(directory: Path) -> PackDescription:
    """Return the rules of a pack with their coverage, from a child. Raise PolicyError if it cannot be read."""
    with _guard(directory) as guard:
        return guard.describe(directory)


@contextmanager
def _guard(directory: Path) -> Iterator[Guard]:
    from clinic_ai.guard.client import Guard
    from clinic_ai.processes import Crew

    crew = Crew()
    guard = Guard(crew, directory)
    try:
        yield guard
    finally:
        guard.close()
        crew.close()
