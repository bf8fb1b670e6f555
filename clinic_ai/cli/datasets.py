"""``clinic-ai dataset``: what was frozen to learn from. With a daemon it is asked, without one the home is opened."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from clinic_ai.cli.options import HomeOption, JsonOption, example, group, home_of

if TYPE_CHECKING:
    from clinic_ai.control.dataset_views import DatasetRow, SubgroupView

dataset = group("dataset", "Frozen datasets: what was learned from, where it comes from, whether it is whole.")

DatasetArgument = Annotated[
    str, typer.Argument(metavar="DATASET", help="Id of the dataset, as `dataset list` shows it.")
]
_PARTS = ("train", "validation", "test")


@dataset.command("list", epilog=example("dataset list"))
def list_datasets(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List all frozen datasets, newest first; images and patients count as train/validation/test."""
    from clinic_ai.cli.offline import dataset_desk
    from clinic_ai.cli.output import age, print_json, table

    with dataset_desk(home_of(home)) as desk:
        rows = desk.datasets()
    if as_json:
        print_json(rows)
        return
    now = time.time()
    body = (
        (
            row.dataset_id,
            "/".join(filter(None, (row.plugin, row.category))),
            _by_part(row.images),
            _by_part(row.patients),
            _sources(row),
            age(now - row.created_at),
            ", ".join(row.runs) or "none",
        )
        for row in rows
    )
    table(("dataset", "plugin", "images", "patients", "from", "age", "runs"), body, empty="No datasets.")


@dataset.command("show", epilog=example("dataset show D-20261121-7F3K9QXB"))
def show(dataset_id: DatasetArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show where a dataset comes from, what was left out and why, and what each part holds."""
    from clinic_ai.cli.offline import dataset_desk
    from clinic_ai.cli.output import fields, moment, print_json, say, table

    with dataset_desk(home_of(home)) as desk:
        found = desk.dataset(dataset_id)
    if as_json:
        print_json(found)
        return
    row = found.row
    fields(
        (
            ("dataset", row.dataset_id),
            ("plugin", "/".join(filter(None, (row.plugin, row.category)))),
            ("digest", row.digest),
            ("frozen", f"{moment(row.created_at)} by {row.made_by or 'an earlier version'}"),
            ("from", _sources(row)),
            *(("folder", f"{folder.path}, given by {folder.given_by}") for folder in found.folders),
            *([("reviews", ", ".join(found.review_ids))] if found.review_ids else []),
            *([("grew from", ", ".join(row.parents))] if row.parents else []),
            ("runs", ", ".join(row.runs) or "none"),
        )
    )
    for line in (*found.parts, *found.notes):
        say(line)
    if row.left_out:
        body = ((left.reason, f"{left.what}s", str(left.count)) for left in row.left_out)
        table(("left out", "what", "count"), body, empty="")
    _tell_subgroups(found.subgroups)
    if found.questions:
        asked = ((str(one.images), str(one.answers), one.question) for one in found.questions)
        table(("images", "different answers", "question"), asked, empty="")


@dataset.command("check", epilog=example("dataset check D-20261121-7F3K9QXB"))
def check(dataset_id: DatasetArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Read every image of a dataset again and say what is wrong: damage, leaks, contradictions, empty parts.

    What does not forbid to learn from it, such as a part of one patient or a rare class, is noted. Exit code 1: there
    are problems.
    """
    from clinic_ai.cli.offline import dataset_desk
    from clinic_ai.cli.output import Exit, print_json, say

    with dataset_desk(home_of(home)) as desk:
        found = desk.check_dataset(dataset_id)
    if as_json:
        print_json(found)
    else:
        for line in (*found.parts, *found.notes):
            say(line)
        _tell_subgroups(found.subgroups)
        for line in found.problems:
            say(line)
        counted = f"{len(found.problems)} problem{'' if len(found.problems) == 1 else 's'}"
        images = f"{found.images} image{'' if found.images == 1 else 's'}"
        say(f"{counted} in {dataset_id}." if found.problems else f"{dataset_id} is whole: {images}, no leak.")
    if found.problems:
        raise typer.Exit(Exit.FAILED)


def _tell_subgroups(subgroups: Sequence[SubgroupView]) -> None:
    from clinic_ai.cli.output import table

    if subgroups:
        body = (
            (group.trait, group.group or "not said", *(str(group.images.get(part, 0)) for part in _PARTS))
            for group in subgroups
        )
        table(("of", "group", *_PARTS), body, empty="")


def _by_part(counts: dict[str, int]) -> str:
    return "/".join(str(counts.get(part, 0)) for part in _PARTS)


def _sources(row: DatasetRow) -> str:
    """Return where the labels come from; datasets of earlier versions do not say it."""
    said = {"reviews": "from reviews", "labels": "from folders"}
    return ", ".join(f"{count} {said.get(key, key)}" for key, count in row.sources.items() if count) or "a folder"
