"""Kinds of values that keys of ``clinic.toml`` take: units, the form of a text in words, and the base of tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from clinic_ai.domain import Key, Word


@dataclass(frozen=True)
class Unit:
    """Marks the unit of a key, in the plural and in words."""

    name: str


@dataclass(frozen=True)
class Form:
    """Says in words what a text must look like, with an example, for the sentence about a text that does not."""

    words: str
    example: str


Seconds = Annotated[float, Unit("seconds")]
Wait = Annotated[float, Field(ge=0, le=86400), Unit("seconds")]
Mebibytes = Annotated[int, Unit("MiB")]
Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}$"), Form("a two-letter language code", "en")]
SourceName = Annotated[
    str,
    StringConstraints(pattern=r"^\w[\w .-]{0,63}$"),
    Form("a name of letters, digits, spaces, dots, underscores and hyphens", "room 1"),
]
FolderPath = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]+$"), Form("a folder", "inbox")]
PlainText = Annotated[
    str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{0,200}$"), Form("one line of text", "IT, 4711")
]
CodeString = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Z0-9 _]{0,16}$"),
    Form("a DICOM code of at most 16 capital letters, digits, spaces and underscores", "DX"),
]
UserName = Annotated[
    str,
    StringConstraints(pattern=r"^[^\s:/,\x00-\x1f]{1,256}$"),
    Form("the name of a Unix user, as `id -un` shows it", "anna"),
]
GroupName = Annotated[str, StringConstraints(pattern=r"^[^\s:/,\x00-\x1f]{0,64}$"), Form("a Unix group", "clinic-ai")]
AETitle = Annotated[
    str,
    StringConstraints(pattern=r"^([!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?)?$"),
    Form("an AE title of at most 16 ASCII characters", "CT_ROOM_1"),
]
PeerName = Annotated[
    str,
    StringConstraints(pattern=r"^(\w[\w .-]{0,62})?$"),
    Form("a name of letters, digits, spaces, dots, underscores and hyphens", "ct room"),
]
FilePath = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]*$"), Form("a file", "")]
ConditionKey = Annotated[
    str,
    StringConstraints(pattern=r"^([a-z][a-z0-9_]{0,63})?$"),
    Form("the key of a condition, as `clinic-ai plugin list` and codes.toml have it", "pneumothorax"),
]
Minutes = Annotated[float, Field(ge=0.01, le=10080), Unit("minutes")]
Network = Annotated[
    str, StringConstraints(pattern=r"^[0-9A-Fa-f.:]+(/\d{1,3})?$"), Form("an address or a network", "192.168.7.0/24")
]
MailAddress = Annotated[
    str,
    StringConstraints(pattern=r"^([A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,255})?$"),
    Form("an e-mail address", "desk@clinic.example"),
]
PackName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"),
    Form("the name of a folder in policies/", "default"),
]
ClockTime = Annotated[
    str,
    StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$"),
    Form("a time of day from 00:00 to 23:59", "22:00"),
]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun", "holiday"]
IsoDate = Annotated[
    str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$"), Form("a date as year-month-day", "2026-12-25")
]
KilowattHours = Annotated[float, Unit("kWh")]
RecipePair = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z][a-z0-9_]*=[^\x00-\x1f]{1,200}$"),
    Form("a key of the recipe, = and its value", "epochs=10"),
]
PluginName = Annotated[Key, Form("a plugin's name of small letters, digits and underscores", "xray")]


class Section(Word):
    """Base of every table of ``clinic.toml``; its docstring becomes the comment above the table."""

    model_config = ConfigDict(allow_inf_nan=False)
