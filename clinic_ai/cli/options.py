"""Options and helpers that all verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from clinic_ai.control.client import Client
    from clinic_ai.control.folder_client import FolderClient
    from clinic_ai.control.views import Order
    from clinic_ai.home import Home

Made = TypeVar("Made", bound="Order")

_OPTIONS = {
    "reviewer": "--as",
    "reason": "--reason",
    "statements": "--text",
    "corrections": "--finding",
    "told_to": "--told",
    "study": "--all-of",
    "image": "--image",
    "question": "QUESTION",
}
"""The option that each field of an order comes from."""

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        metavar="DIR",
        help="Home directory; else $CLINIC_AI_HOME, else /var/lib/clinic-ai.",
        readable=False,  # who may use a home is not a question of how the command was written
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
MonitorOption = Annotated[bool, typer.Option("--monitor", help="Use the socket that only reads.")]


def group(name: str, words: str) -> typer.Typer:
    """Return a group of verbs, such as ``study``."""
    return typer.Typer(name=name, help=words, no_args_is_help=True, rich_markup_mode=None, add_completion=False)


def example(line: str) -> str:
    """Return the epilogue of a verb's help."""
    return f"Example: clinic-ai {line}"


def home_of(option: Path | None) -> Home:
    """Return the home that was asked for."""
    from clinic_ai.home import resolve_home

    return resolve_home(option)


def client_of(option: Path | None, *, monitor: bool = False) -> Client:
    """Return a client of the daemon of that home."""
    from clinic_ai.control.client import Client

    return Client(home_of(option), monitor=monitor)


def folder_client_of(option: Path | None) -> FolderClient:
    """Return a client of that daemon that carries files too."""
    from clinic_ai.control.folder_client import FolderClient

    return FolderClient(home_of(option))


def order_of(kind: type[Made], **values: object) -> Made:
    """Return an order. Raise typer.BadParameter, naming the option, if a value cannot be sent."""
    from pydantic import ValidationError

    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        option = _OPTIONS.get(str(first["loc"][0]), str(first["loc"][0]))
        raise typer.BadParameter(f"{first['msg']}; nothing was decided.", param_hint=option) from None
