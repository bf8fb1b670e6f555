"""``clinic-ai train``: training runs. With a daemon they run there, without one in this terminal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clinic_ai.cli.evaluating import evaluate_model
from clinic_ai.cli.options import HomeOption, JsonOption, client_of, example, group, home_of, order_of

if TYPE_CHECKING:
    from clinic_ai.cli.offline import Training
    from clinic_ai.control.training_views import CheckView
    from clinic_ai.control.views import RunRow
    from clinic_ai.home import Home

train = group("train", "Training runs: start, follow, stop, resume.")

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Id of the run, as `train list` shows it.")]
FolderArgument = Annotated[
    Path | None, typer.Argument(metavar="[DIR]", help="Labelled images; else labels/PLUGIN of the home.")
]
FromOption = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="SOURCES",
        help="What is learned: reviews (signed, with consent), labels (a folder), or reviews,labels.",
    ),
]
CategoryOption = Annotated[
    str, typer.Option(help="Where a plugin learns answers: what they are about; else the folder's name says it.")
]
NowOption = Annotated[bool, typer.Option("--now", help="Do not wait for a training window.")]
_POLL_S = 1.0
LASTING = {"window", "night_energy", "year_energy", "year_compute", "year_money"}
"""Reasons to wait that last for hours."""


@train.command("run", epilog=example("train run xray /srv/labelled-chest --set epochs=5"))
def run(
    plugin: Annotated[str, typer.Argument(metavar="PLUGIN", help="Plugin that learns.")],
    dataset: FolderArgument = None,
    sources: FromOption = "labels",
    category: CategoryOption = "",
    condition: Annotated[
        str, typer.Option(help="What to learn, as `plugin conditions` lists it; else the only one that is labelled.")
    ] = "",
    tier: Annotated[str, typer.Option(help="fast or intensive, where the plugin has both.")] = "",
    setting: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Recipe of the run.")] = None,
    now: NowOption = False,
    detach: Annotated[bool, typer.Option("--detach", help="With a daemon: do not wait for the end.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a plugin on labelled images, or on what people signed, and follow the run to its end.

    What comes of it is a candidate: nothing is in use before `clinic-ai model promote`. Ctrl-C leaves a run of the
    daemon alone; without a daemon it pauses the run. Where clinic.toml has training windows, it waits for one.
    """
    from clinic_ai.cli.offline import training
    from clinic_ai.cli.output import Exit, say
    from clinic_ai.control.training_views import RunOrder

    place = home_of(home)
    named = (("category", category), ("condition", condition), ("tier", tier))
    chosen = {key: value for key, value in named if value}
    recipe = {**dict(map(pair_of, setting or [])), **chosen}
    asked = _asked(sources, dataset, place, plugin)
    order = order_of(RunOrder, plugin=plugin, **asked, recipe=recipe, at_once=now)
    with training(place) as desk:
        row = desk.start_run(order)
        notes = row.dataset_notes
        if not as_json:
            for note in notes:
                say(note)
        if not (detach and desk.outlives_us):
            row = _follow(desk, row.run_id, as_json=as_json).model_copy(update={"dataset_notes": notes})
    _tell(row, as_json, place)
    if row.state == "FAILED":
        raise typer.Exit(Exit.FAILED)


@train.command("check", epilog=example("train check ultrasound /srv/labels/Femur"))
def check(
    plugin: Annotated[str, typer.Argument(metavar="PLUGIN", help="Plugin that would learn.")],
    dataset: FolderArgument = None,
    sources: FromOption = "labels",
    category: CategoryOption = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a run would learn, and everything that is wrong with the labels; nothing is started.

    Exit code 1: there are problems, and `train run` would refuse the folder.
    """
    from clinic_ai.cli.offline import training
    from clinic_ai.cli.output import Exit, print_json
    from clinic_ai.control.training_views import CheckOrder

    place = home_of(home)
    asked = _asked(sources, dataset, place, plugin)
    order = order_of(CheckOrder, plugin=plugin, **asked, category=category)
    with training(place) as desk:
        found = desk.check_labels(order)
    if as_json:
        print_json(found)
    else:
        _tell_check(found)
    if found.problems:
        raise typer.Exit(Exit.FAILED)


train.command("evaluate", epilog=example("train evaluate xray chest-fast 1.0"))(evaluate_model)


@train.command("sheet", epilog=example("train sheet ultrasound femur /srv/labels/femur/labels.xlsx"))
def sheet(
    plugin: Annotated[str, typer.Argument(metavar="PLUGIN", help="Plugin that will learn.")],
    category: Annotated[str, typer.Argument(metavar="CATEGORY", help="What the images are of.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The new .xlsx, in the folder of the images.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write an empty sheet to fill in: the questions of a category as headers, a row for each image beside it."""
    from clinic_ai.cli.offline import absolute, write_sheet
    from clinic_ai.cli.output import print_done

    print_done(write_sheet(home_of(home), plugin, category, Path(absolute(file))), as_json=as_json)


@train.command("list", epilog=example("train list"))
def list_runs(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List all training runs, newest first."""
    from clinic_ai.cli.offline import training
    from clinic_ai.cli.output import age, print_json, table

    with training(home_of(home)) as desk:
        rows = desk.runs()
    if as_json:
        print_json(rows)
        return
    now = time.time()
    body = ((r.run_id, r.plugin, r.state, age(now - r.created_at), _where(r)) for r in rows)
    table(("run", "plugin", "state", "age", "where it stands"), body, empty="No training runs.")


@train.command("stop", epilog=example("train stop R-20261121-7F3K9QXB"))
def stop(run_id: RunArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Stop a run; it writes a checkpoint first, so that it can be resumed."""
    from clinic_ai.cli.offline import training
    from clinic_ai.cli.output import print_done

    with training(home_of(home)) as desk:
        print_done(desk.stop_run(run_id), as_json=as_json)


@train.command("pause", epilog=example("train pause R-20261121-7F3K9QXB"))
def pause(run_id: RunArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Pause a run of the daemon; its process is gone afterwards."""
    from clinic_ai.cli.output import print_done

    with client_of(home) as client:
        print_done(client.pause_run(run_id), as_json=as_json)


@train.command("resume", epilog=example("train resume R-20261121-7F3K9QXB"))
def resume(
    run_id: RunArgument,
    now: NowOption = False,
    detach: Annotated[bool, typer.Option("--detach", help="With a daemon: do not wait for the end.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go on with a paused, stopped or failed run from its newest checkpoint, and follow it to its end."""
    from clinic_ai.cli.offline import training
    from clinic_ai.cli.output import Exit

    place = home_of(home)
    with training(place) as desk:
        desk.resume_run(run_id, at_once=now)
        row = desk.run(run_id) if detach and desk.outlives_us else _follow(desk, run_id, as_json=as_json)
    _tell(row, as_json, place)
    if row.state == "FAILED":
        raise typer.Exit(Exit.FAILED)


# ---------------------------------------------------------------- helpers


def _follow(desk: Training, run_id: str, *, as_json: bool) -> RunRow:
    """Show progress until the run is over or the person has seen enough; return where it stands.

    One of the daemon is left alone where it waits for hours, for a window or another night.
    """
    from clinic_ai.cli.following import follower

    try:
        with follower(document=as_json) as shown:
            planned = desk.run(run_id).plan is not None  # a resumed run has told it before
            while (row := desk.run(run_id)).state == "RUNNING" or row.goes_on:
                if desk.outlives_us and row.pause_code in LASTING:
                    break
                if row.plan is not None and not planned:
                    planned = True
                    shown.note(_plan(row.plan))
                shown.show(row)
                time.sleep(_POLL_S)
    except KeyboardInterrupt:
        if desk.outlives_us:
            typer.echo(f"The daemon goes on with {run_id}; `clinic-ai train list` shows it.", err=True)
        else:
            desk.pause_run(run_id)
        return desk.run(run_id)
    return row


def _tell_check(found: CheckView) -> None:
    from clinic_ai.cli.output import say, table

    about = f" about {found.category}" if found.category else ""
    images = f"{found.images} labelled image{'' if found.images == 1 else 's'}"
    pairs = f" with {found.pairs} pairs of question and answer{about}" if found.category else ""
    say(f"{found.directory}: {images}{pairs}." if found.images else f"{found.directory}:")
    for line in (*found.parts, *found.notes):
        say(line)
    if found.questions:
        rows = ((str(asked.images), str(asked.answers), asked.question) for asked in found.questions)
        table(("images", "different answers", "question"), rows, empty="")
    for line in found.problems:
        say(line)
    counted = f"{len(found.problems)} problem{'' if len(found.problems) == 1 else 's'}"
    say(f"{counted}; nothing would be trained." if found.problems else "No problems: `clinic-ai train run` takes it.")


def _plan(plan: dict[str, Any]) -> str:
    from clinic_ai.cli.output import age

    took = f"It takes at most about {age(plan['seconds'])} and {plan['memory_mb']} MiB of memory."
    return " ".join([took, *plan["notes"]])


def _tell(row: RunRow, as_json: bool, home: Home) -> None:
    from clinic_ai.cli.output import print_json, say

    if as_json:
        print_json(row)
        return
    say(f"Training run {row.run_id} is {row.state}. {_where(row)}")
    for note in (row.result or {}).get("notes", ()):
        say(note)
    candidate = (row.result or {}).get("candidate")
    if candidate:
        say(f"What it measured is in {home.runs / row.run_id}.")
        words = f"{candidate['plugin']} {candidate['name']} {candidate['version']}"
        say(f"Candidate {words}; `clinic-ai model record {words}` shows how it compares with the model in use.")


def _where(row: RunRow) -> str:
    from clinic_ai.cli.following import words_of

    if row.error:
        return row.error
    scores = (row.result or {}).get("scores")
    if scores:
        return ", ".join(f"{name} {value:.3f}" for name, value in scores["values"].items())
    return words_of(row.progress)


def _asked(sources: str, dataset: Path | None, home: Home, plugin: str) -> dict[str, object]:
    """Return what an order says of its labels. Raise typer.BadParameter if the options contradict each other."""
    from clinic_ai.cli.offline import absolute

    named = tuple(dict.fromkeys(word.strip() for word in sources.split(",") if word.strip()))
    if not named or not set(named) <= {"reviews", "labels"}:
        raise typer.BadParameter(f"{sources!r} is not reviews, labels or reviews,labels.", param_hint="--from")
    if dataset is not None and "labels" not in named:
        raise typer.BadParameter("A folder was named, but --from does not name labels.", param_hint="--from")
    if named == ("labels",):
        dataset = dataset or home.labels / plugin
    return {"dataset": None if dataset is None else absolute(dataset), "sources": named}


def pair_of(text: str) -> tuple[str, float | int | str | bool]:
    """Return key and value of a setting of a recipe. Raise BadParameter if it is none."""
    from clinic_ai.settings.training import recipe_value

    key, found, value = text.partition("=")
    if not found or not key:
        raise typer.BadParameter(f"{text!r} is not KEY=VALUE, such as epochs=5.", param_hint="--set")
    return key, recipe_value(value)
