"""What is said of an inbox that is not there, and of what lies in one and is not taken."""

from __future__ import annotations

from dataclasses import dataclass

from clinic_ai.ingest.mounts import FSTAB, FileSystem
from clinic_ai.ingest.watch import MAX_DEPTH, Inbox

ODD = {
    "link": "It is a symbolic link; links are never followed.",
    "special": "It is a pipe, socket or device and not a file; it was not opened.",
    "too_deep": f"It lies more than {MAX_DEPTH} folders deep; such folders are not looked into.",
    "closed": "The appliance may not look at it; if it is a folder, what lies in it is not seen.",
}
ODD_REMEDY = {
    "link": "Put the file itself into the inbox.",
    "special": "Remove it from the inbox.",
    "too_deep": "Move the folder further up.",
    "closed": "Let the group of the appliance read, write and enter the folder; what lies there is then taken.",
}
HELD_OPEN = "The sender holds it open for writing; it may not be whole."
HELD_OPEN_REMEDY = "Let the sender close it, or end the program that holds it; it is then taken."


@dataclass(frozen=True)
class Trouble:
    """Why an inbox is offline, and what a person can do."""

    code: str
    sentence: str
    remedy: str


def looked_after(inbox: Inbox) -> str:
    """Return the end of a remedy: who looks after the inbox, if clinic.toml says so."""
    return f" {inbox.owner} looks after it." if inbox.owner else ""


def unreadable(inbox: Inbox, error: OSError) -> Trouble:
    """Say that its folder cannot be read."""
    return Trouble(
        "unreadable",
        f"The inbox {inbox.source} cannot be read: {error.strerror}.",
        "Check that its folder exists, is mounted, and may be read and written by the appliance.",
    )


def silent(inbox: Inbox, known: FileSystem | None) -> Trouble:
    """Say that a look at it does not come back."""
    where = f"{inbox.root}" if known is None else f"{known.words} at {inbox.root}"
    return Trouble(
        "silent",
        f"The inbox {inbox.source} does not answer: {where} lets whoever looks at it wait without an end. Nothing is "
        "taken from it, and nothing is forgotten.",
        "Look whether its server and the network to it work; it goes on by itself.",
    )


def moved(inbox: Inbox, known: FileSystem | None, found: FileSystem, missing: str) -> Trouble:
    """Say that another file system lies there than the ``known`` one, or that ``missing`` was not mounted yet."""
    if known is None:
        return Trouble(
            "not_mounted",
            f"The inbox {inbox.source} is not mounted: by {FSTAB}, {missing} belongs at {inbox.root}, and there "
            f"is {found.words}. Nothing is taken from it.",
            f"Mount it; it goes on by itself. If what is there is meant, say `clinic-ai inbox accept {inbox.source}`.",
        )
    return Trouble(
        "other_file_system",
        f"The inbox {inbox.source} is not what it was: {known.words} belongs at {inbox.root}, and there is "
        f"{found.words}. Nothing is taken from it, and nothing is forgotten.",
        "Mount what belongs there; it goes on by itself. If the change is meant, say "
        f"`clinic-ai inbox accept {inbox.source}`.",
    )
