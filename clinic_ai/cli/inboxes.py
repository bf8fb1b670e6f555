"""``clinic-ai inbox``: how the watched folders stand, and which file system belongs to each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from clinic_ai.cli.options import HomeOption, JsonOption, example, folder_client_of, group

if TYPE_CHECKING:
    from clinic_ai.control.views import InboxRow

inbox = group("inbox", "The watched folders: are they there, and what waits in them.")


@inbox.command("list", epilog=example("inbox list"))
def list_inboxes(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show each inbox: where it is, on which file system, what waits in it, who looks after it.

    Exit code 1 if one of them is offline.
    """
    from clinic_ai.cli.output import Exit, print_json

    with folder_client_of(home) as client:
        rows = client.inboxes()
    if as_json:
        print_json(list(rows))
    else:
        for row in rows:
            _print(row)
    if not all(row.online for row in rows):
        raise typer.Exit(Exit.FAILED)


@inbox.command("accept", epilog=example("inbox accept nas"))
def accept(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the inbox, as `inbox list` shows it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take the file system that lies at an inbox now as its own: a new share or disk, and not a missing mount."""
    from clinic_ai.cli.output import print_done, say
    from clinic_ai.errors import NotFound

    with folder_client_of(home) as client:
        row = next((row for row in client.inboxes() if row.name == name), None)
        if row is None:
            raise NotFound(f"There is no inbox {name}.", remedy="`clinic-ai inbox list` shows the inboxes there are.")
        if not yes and not row.online and row.file_system:
            say(row.sentence)
            typer.confirm(f"Is {row.file_system} what belongs at {row.path} from now on?", abort=True)
        print_done(client.accept_inbox(name, row.file_system or "nothing"), as_json=as_json)


def _print(row: InboxRow) -> None:
    from clinic_ai.cli.output import age, fields, say, styled

    oldest = "" if row.oldest_at is None else f", the oldest for {age(time.time() - row.oldest_at)}"
    files = f"{row.waiting} file{'' if row.waiting == 1 else 's'}"
    state = styled("online", "good") if row.online else styled("offline", "bad")
    fields(
        (
            ("inbox", styled(row.name, "strong")),
            ("path", row.path),
            ("file system", row.file_system),
            ("state", f"{state}. {row.sentence}" if row.sentence else state),
            ("what to do", row.remedy),
            ("waiting", f"{files}{oldest}"),
            ("complete after", f"{row.quiet_s:g} s of quiet"),
            ("owner", row.owner),
        )
    )
    say()
