"""``clinic-ai model fit``: which configuration of a plugin's networks fits a machine, with the arithmetic shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from clinic_ai.cli.options import HomeOption, JsonOption, home_of

if TYPE_CHECKING:
    from clinic_ai.describing import FitResult, Fitting, NeedTerm

_WHERE = {"cpu": "the processor", "cuda": "a GPU"}


def model_fit(
    plugin: Annotated[str, typer.Argument(metavar="PLUGIN", help="Name of the plugin.")],
    memory: Annotated[int | None, typer.Option(metavar="MIB", min=0, help="Memory of another machine.")] = None,
    gpu_memory: Annotated[int | None, typer.Option(metavar="MIB", min=0, help="Memory of its GPU; 0: none.")] = None,
    cpus: Annotated[int | None, typer.Option(metavar="N", min=1, help="Its processor cores.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which configuration of a plugin's networks fits this machine, or one that you think of buying.

    What each needs is shown term by term: to judge one study, and to learn. What is not said of another machine is as
    in this one. Nothing is loaded and nothing changed.
    """
    from clinic_ai.cli.offline import fit_machine
    from clinic_ai.cli.output import print_json

    found = fit_machine(home_of(home), plugin, memory_mb=memory, gpu_memory_mb=gpu_memory, cpus=cpus)
    if as_json:
        print_json(found)
    else:
        _tell(found)


def _tell(found: FitResult) -> None:
    from clinic_ai.cli.output import say

    for one in found.fittings:
        _tell_one(one)
    say(f"Choose {found.chosen}." if found.chosen else "None of them fits this machine.")
    for note in found.notes:
        say(note)


def _tell_one(one: Fitting) -> None:
    from clinic_ai.cli.output import say, size, table

    say(f"{one.name}: {one.summary}.")
    judging, learning = _by_name(one.judging), _by_name(one.learning)
    rows = [
        (what, size(judging[what]) if what in judging else "", size(learning[what]) if what in learning else "")
        for what in dict.fromkeys([*judging, *learning])
    ]
    rows.append(("in all", size(sum(judging.values())), size(sum(learning.values()))))
    table((f"memory of {_WHERE[one.where]}", "to judge", "to learn"), rows, empty="", wide=0)
    say(one.sentence)
    say()


def _by_name(terms: tuple[NeedTerm, ...]) -> dict[str, int]:
    return {term.what: term.size_bytes for term in terms}
