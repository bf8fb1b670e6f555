"""``clinic-ai train evaluate``: the figures of a model on the test part of a frozen dataset, as one table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from clinic_ai.cli.options import HomeOption, JsonOption, home_of, order_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clinic_ai.control.evaluation_views import EvaluationView


def evaluate_model(
    plugin: Annotated[str, typer.Argument(metavar="PLUGIN", help="Name of the plugin.")],
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Name of the model; else the one in use.")
    ] = None,
    version: Annotated[str | None, typer.Argument(metavar="[VERSION]", help="Version of the model.")] = None,
    dataset: Annotated[
        str, typer.Option(metavar="ID", help="Frozen dataset, as `dataset list` shows it; else the newest.")
    ] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a model on the test patients of a frozen dataset, and print every figure its plugin measures.

    Nothing is changed and nothing is promoted. A dataset whose test patients the model was trained on is refused.
    """
    from clinic_ai.cli.offline import benching
    from clinic_ai.cli.output import print_json, say
    from clinic_ai.control.evaluation_views import EvaluateOrder

    if (name is None) != (version is None):
        raise typer.BadParameter("A model is named by its name and its version.", param_hint="VERSION")
    order = order_of(EvaluateOrder, plugin=plugin, name=name, version=version, dataset_id=dataset or None)
    with benching(home_of(home)) as desk:
        if not as_json:
            say("Evaluating; this takes minutes.")
        found = desk.evaluate_model(order)
    if as_json:
        print_json(found)
    else:
        _tell(found)


def _tell(found: EvaluationView) -> None:
    from clinic_ai.cli.output import say, table

    scores = found.scores
    examples = f"{scores.examples} example{'' if scores.examples == 1 else 's'}"
    say(f"{found.model.label()} on {examples} of the {scores.split} part of {found.dataset_id}:")
    table(("task", "of", "figure", "value", "95 % interval"), _rows(found), empty="The plugin measures nothing.")


def _rows(found: EvaluationView) -> Iterator[tuple[str, ...]]:
    """Yield a row for each figure; a key is ``figure``, ``task.figure`` or ``task.of.figure``."""
    from clinic_ai.contract import FIGURES

    for key, value in found.scores.values.items():
        *where, figure = key.split(".")
        task, of = where[0] if where else "", " ".join(where[1:]).replace("_", " ")
        interval = found.scores.intervals.get(key)
        words = "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
        yield task, of, FIGURES.get(figure, figure.replace("_", " ")), f"{value:.3f}", words
