"""``clinic-ai disk``: what fills the disk, what may be removed, and whether what is stored is whole."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Annotated

import typer

from clinic_ai.cli.options import HomeOption, JsonOption, MonitorOption, client_of, example

if TYPE_CHECKING:
    from clinic_ai.control.disk_views import DiskView, FaultRow, RemovalRow

disk = typer.Typer(
    name="disk",
    help="What fills the disk, what may be removed, and whether what is stored is whole.",
    epilog=example("disk --plan"),
    invoke_without_command=True,
    rich_markup_mode=None,
    add_completion=False,
)

SLICES = 256
"""Parts the object store is verified in."""
_WHY = {"age": "older than retention.originals_days", "free_space": "the disk is filling", "quota": "beyond its quota"}


@disk.callback()
def show(
    context: typer.Context,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what retention would remove now; nothing is removed.")
    ] = False,
    home: HomeOption = None,
    monitor: MonitorOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what takes how much room, and what waits for room. Exit code 1 if something waits or is over its quota."""
    if context.invoked_subcommand is not None:
        return
    from clinic_ai.cli.output import Exit, print_json

    with client_of(home, monitor=monitor) as client:
        view = client.disk()
        removals = client.retention_plan() if plan else ()
    if as_json:
        planned = {"plan": [row.model_dump(mode="json") for row in removals]} if plan else {}
        print_json(view.model_dump(mode="json") | planned)
    else:
        _print_disk(view)
        if plan:
            _print_plan(removals)
    if view.waiting or any(0 < row.quota_bytes < row.size_bytes for row in view.classes):
        raise typer.Exit(Exit.FAILED)


@disk.command("verify", epilog=example("disk verify --share 5"))
def verify(
    share: Annotated[
        float, typer.Option(min=0.4, max=100.0, metavar="PERCENT", help="Verify about this part, chosen at random.")
    ] = 100.0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read stored scans and results and compare each with its hash. Exit code 1 if one is missing or damaged."""
    from clinic_ai.cli.output import Exit, print_json, say, size

    chosen = sorted(random.sample(range(SLICES), max(1, round(SLICES * share / 100))))
    slices = [f"{number:02x}" for number in chosen]
    objects, read = 0, 0
    faults: list[FaultRow] = []
    with client_of(home) as client:
        while slices:
            found = client.verify_objects(slices)
            objects, read = objects + found.objects, read + found.size_bytes
            faults += found.faults
            slices = slices[found.slices :]
    if as_json:
        print_json({"objects": objects, "size_bytes": read, "faults": faults})
    else:
        for fault in faults:
            say(f"{fault.sentence} {fault.remedy}")
        wrong = f"{len(faults)} are missing or damaged" if faults else "all are as they were stored"
        say(f"{objects} objects, {size(read)}: {wrong}.")
    if faults:
        raise typer.Exit(Exit.FAILED)


def _print_disk(view: DiskView) -> None:
    from clinic_ai.cli.output import moment, say, size, styled, table

    for system in view.file_systems:
        names = ", ".join(system.names)
        line = f"{names}: {size(system.free_bytes)} of {size(system.total_bytes)} free at {system.path}"
        say(styled(f"{line}, less than the reserve", "bad") if system.short else line)
    say(f"The reserve is {size(view.reserve_bytes)}; what comes in never takes it.")
    if view.waiting:
        say(styled(view.waiting, "bad"))
    say()
    rows = (
        (
            row.name,
            size(row.size_bytes),
            str(row.files),
            size(row.quota_bytes) if row.quota_bytes else "",
            moment(row.oldest_at),
        )
        for row in view.classes
    )
    over = {row.name for row in view.classes if 0 < row.quota_bytes < row.size_bytes}
    table(
        ("what", "takes", "files", "quota", "oldest"),
        rows,
        empty="Nothing.",
        style=lambda row: "bad" if row[0] in over else "",
    )
    say()
    if view.counted_at is None:
        say("It is being counted; these figures are not complete yet.")
    else:
        say(f"Counted at {moment(view.counted_at)}.")
    if view.studies_without_originals:
        say(f"Retention removed the originals of {view.studies_without_originals} studies; their results are kept.")


def _print_plan(removals: tuple[RemovalRow, ...]) -> None:
    from clinic_ai.cli.output import moment, say, size, table

    say()
    rows = (
        (row.study_id, moment(row.delivered_at), str(row.objects), size(row.frees_bytes), _WHY[row.why])
        for row in removals
    )
    table(("study", "delivered", "objects", "frees", "because"), rows, empty="Retention would remove nothing now.")
    if removals:
        say(f"That would free {size(sum(row.frees_bytes for row in removals))}.")
