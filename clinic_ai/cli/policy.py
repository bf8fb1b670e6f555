"""``clinic-ai policy``: what may be said. Needs no daemon: a pack is tested in a child of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clinic_ai.cli.options import HomeOption, JsonOption, example, group, home_of

if TYPE_CHECKING:
    from clinic_ai.tasks import CaseReport

policy = group("policy", "The policy pack: what may be said, to whom.")


@policy.command("test", epilog=example("policy test policies/our-clinic"))
def run_cases(
    directory: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="The pack; else the one that clinic.toml names.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Load a pack and run its cases. Exit code 1 if it would be refused."""
    from clinic_ai.cli.output import Exit, print_json, say

    report = check_pack(directory or _configured(home))
    failures = [outcome for outcome in report.outcomes if not outcome.passed]
    if as_json:
        print_json(report)
    else:
        for problem in report.problems:
            say(problem)
        for case in failures:
            say(f"Case {case.number} of rule {case.rule} ({case.kind}): {case.sentence}")
        good = "would load" if not failures and not report.problems else "would be refused"
        say(
            f"Pack {report.pack.name} {report.pack.version} {good}: {len(report.pack.rules)} rules, "
            f"{len(report.outcomes) - len(failures)} of {len(report.outcomes)} cases pass."
        )
    if failures or report.problems:
        raise typer.Exit(Exit.FAILED)


def check_pack(directory: Path) -> CaseReport:
    """Run the cases of a pack in a child. Raise PolicyError if it cannot be read."""
    from clinic_ai.guard.client import Guard
    from clinic_ai.processes import Crew

    crew = Crew()
    guard = Guard(crew, directory)
    try:
        return guard.check(directory)
    finally:
        guard.close()
        crew.close()


def _configured(home: Path | None) -> Path:
    from clinic_ai.settings import load_settings

    place = home_of(home)
    return place.policies / load_settings(place.clinic_toml).guard.pack
