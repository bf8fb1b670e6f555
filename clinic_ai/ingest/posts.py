"""What is known of each inbox between two looks at it, and how it stands, for people."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from clinic_ai.arms import Arm, Errand
from clinic_ai.ingest.mounts import FileSystem
from clinic_ai.ingest.troubles import Trouble
from clinic_ai.ingest.watch import Inbox, Look, Watch

_NO_LOOK = Look()


@dataclass(frozen=True)
class InboxState:
    """How an inbox stands, for people. ``oldest_at`` is UTC seconds, None if nothing waits."""

    name: str
    path: str
    online: bool
    sentence: str
    remedy: str
    file_system: str
    waiting: int
    oldest_at: float | None
    owner: str


@dataclass(frozen=True)
class Found:
    """What a look found, and on which file system; None for a folder that is looked at whole."""

    look: Look
    file_system: FileSystem | None


class ElsewhereError(Exception):
    """Another file system lies where the inbox was, or none was mounted yet where one belongs."""

    def __init__(self, found: FileSystem, missing: str = "") -> None:
        super().__init__()
        self.found = found
        self.missing = missing


@dataclass
class Post:
    """What is known of one inbox."""

    inbox: Inbox
    arm: Arm
    watch: Watch = field(default_factory=Watch)
    looking: Errand[Found] | None = None
    """The look that is under way."""
    looked_at: float = -math.inf
    """When the newest whole look began, monotonic seconds."""
    not_before: float = -math.inf
    look: Look = _NO_LOOK
    known: FileSystem | None = None
    """The file system it is known by."""
    found: FileSystem | None = None
    """The one that lies there instead."""
    trouble: Trouble | None = None
    alerted: bool | None = None
    held: dict[bytes, float] = field(default_factory=dict)
    """Files that somebody has open for writing → since when, monotonic seconds."""
    held_alerted: bool = False

    def serves(self, source: str) -> bool:
        """Return whether this is the inbox of clinic.toml of this name."""
        return self.inbox.source == source and not self.inbox.whole


def state_of(post: Post) -> InboxState:
    """Return how an inbox stands, for people."""
    inbox, trouble = post.inbox, post.trouble
    known = post.known if trouble is None or post.found is None else post.found
    if trouble is not None:
        sentence = trouble.sentence
    elif post.looked_at == -math.inf:
        sentence = "It was not looked at yet."
    else:
        sentence = "Further files wait for their turn." if post.look.cut else ""
    return InboxState(
        name=inbox.source,
        path=str(inbox.root),
        online=trouble is None,
        sentence=sentence,
        remedy="" if trouble is None else trouble.remedy,
        file_system="" if known is None else known.words,
        waiting=post.look.files,
        oldest_at=None if post.look.oldest_at == math.inf else post.look.oldest_at,
        owner=inbox.owner,
    )
