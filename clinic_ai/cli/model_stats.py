"""``clinic-ai model stats``: a model by its layers, what of it trains, and the memory that training would take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from clinic_ai.cli.options import HomeOption, JsonOption, home_of

if TYPE_CHECKING:
    from clinic_ai.control.stats_views import StatsView

_PLACES = {"gpu": "the GPU", "cpu": "the memory of the processor", "disk": "the disk"}


def model_stats(
    plugin: Annotated[str, typer.Argument(metavar="PLUGIN", help="Name of the plugin.")],
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Name of the model.")] = None,
    version: Annotated[str | None, typer.Argument(metavar="[VERSION]", help="Version of the model.")] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Recipe of a run.")] = None,
    gpu_memory: Annotated[int, typer.Option(metavar="MIB", min=0, help="Memory of a GPU; 0: the processor.")] = 0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a model is made of, what trains, and what memory that takes; nothing is loaded.

    Without a name it is the model that a run by this recipe would start from. With the memory of a GPU it also says
    which weights would lie there, and which would be laid aside.
    """
    from clinic_ai.cli.offline import describing
    from clinic_ai.cli.output import print_json
    from clinic_ai.cli.training import pair_of
    from clinic_ai.control.stats_views import StatsOrder

    if (name is None) != (version is None):
        raise typer.BadParameter("A model is named by its name and its version.", param_hint="VERSION")
    recipe = dict(map(pair_of, setting or []))
    order = StatsOrder(plugin=plugin, name=name, version=version, recipe=recipe, gpu_memory_mb=gpu_memory)
    with describing(home_of(home)) as desk:
        found = desk.model_stats(order)
    if as_json:
        print_json(found)
    else:
        _tell(found)


def _tell(found: StatsView) -> None:
    from clinic_ai.cli.output import say, size, table

    stats, memory = found.stats, found.stats.memory
    say(f"{found.model.label()}: {stats.parameters:,} parameters, {stats.trained:,} numbers are trained.")
    table(
        ("layers", "how many", "parameters", "trained", "size"),
        (
            (group.name, str(group.layers), f"{group.parameters:,}", f"{group.trained:,}", size(group.size_bytes))
            for group in stats.groups
        ),
        empty="",
    )
    needs = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimiser": memory.optimiser,
        f"activations, {stats.batch} at once": memory.activations,
        "in all": memory.total,
    }
    table(("memory of training", "size"), ((what, size(taken)) for what, taken in needs.items()), empty="")
    for laid in stats.laid:
        parts = "1 part" if laid.parts == 1 else f"{laid.parts} parts"
        say(f"{parts}, {size(laid.size_bytes)} of weights, would lie in {_PLACES[laid.where]}.")
    for note in stats.notes:
        say(note)
