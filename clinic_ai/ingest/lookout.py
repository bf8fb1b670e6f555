"""Looks at the inboxes: which of them are there, and what in them has come to rest.

Each inbox has a thread of its own that touches its files (``arms``), and is known by the file system it was on when it
was last seen (``mounts``): while another one lies there, the inbox is offline, nothing is taken from it, and nothing is
forgotten. It comes back by itself.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from re import Pattern
from typing import TypeVar

import structlog

from clinic_ai.arms import Arm, Beat, Errand, done
from clinic_ai.domain import Fate
from clinic_ai.errors import Conflict, NotFound
from clinic_ai.ingest import watch
from clinic_ai.ingest.mounts import FSTAB, FileSystem, file_system_of, missing_mount
from clinic_ai.ingest.posts import ElsewhereError, Found, InboxState, Post, state_of
from clinic_ai.ingest.troubles import (
    HELD_OPEN,
    HELD_OPEN_REMEDY,
    ODD,
    ODD_REMEDY,
    Trouble,
    looked_after,
    moved,
    silent,
    unreadable,
)
from clinic_ai.ingest.watch import Entry, Inbox, Look, Watch
from clinic_ai.store import alerts, audit, ledger, mounts
from clinic_ai.store.database import Database
from clinic_ai.store.ledger import Outcome, Sighting

log = structlog.get_logger()

PATIENCE_S = 5.0
"""How long a pass waits for one inbox before it goes on with the others."""
SILENCE_S = 30.0
"""An inbox whose thread has not got on for this long does not answer."""
HOLD_S, LONGEST_HOLD_S = 1.0, 30.0
"""Pause before a file is tried again that somebody had open for writing; it grows with how long they have."""
HELD_TOO_LONG_S = 600.0
"""After this long people are told that a file is held open, and studies no longer wait for it."""
TRY_AGAIN_S = 60.0
"""Pause before a file is tried again that could not be taken: a right may be granted."""
IDLE_SHARE = 9
"""A look that took a second of processor time is followed by this many without one."""
LONGEST_REST_S = 60.0

T = TypeVar("T")

_NOTHING = watch.ignore_pattern(())


class Lookout:
    """Owns the looks at all inboxes. One thread calls it, but for ``states`` and ``accept``, which any may."""

    def __init__(
        self,
        *,
        home: Path,
        database: Database,
        inboxes: Callable[[], Sequence[Inbox]],
        ignore: Callable[[], Pattern[str]],
        wake: Callable[[], None],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the rooms it works with; ``on_change`` is called after a round in which one of ``states`` changed."""
        self._home = Path(os.path.realpath(home))
        self._database = database
        self._inboxes = inboxes
        self._ignore = ignore
        self._wake = wake
        self._on_change = on_change
        self._told: list[InboxState] = []
        self._posts: dict[tuple[str, Path], Post] = {}  # a peer of the network may have the name of an inbox

    # ------------------------------------------------------------ looking

    def rounds(self) -> Iterator[tuple[Entry, ...]]:
        """Look at every inbox, the most urgent first; yield of each the files that have come to rest.

        An inbox that takes long is passed over, and its look collected by a later call.
        """
        posts = self._follow_settings()
        for post in posts:
            self._begin(post)
        for post in posts:
            look = self._collect(post)
            if look is not None:
                self._note_odd(post, look.odd)
                self._forget_held(post)
                yield look.rested
        states = self.states()
        if states != self._told:
            self._told = states
            self._on_change()

    def send(self, inbox: Inbox, work: Callable[[Beat], T]) -> Errand[T]:
        """Let the thread of an inbox do something to its files; its next look is when that has ended."""
        return done(work) if inbox.whole else self._posts[_key(inbox)].arm.give(work)

    def busy(self, inbox: Inbox) -> bool:
        """Return whether the thread of an inbox has not come back."""
        return self._posts[_key(inbox)].arm.busy

    def reachable(self) -> list[Inbox]:
        """Return the inboxes that are there now. For the start, before the first look."""
        posts = [post for post in self._follow_settings() if not post.inbox.whole]
        errands = [(post, post.arm.give(partial(self._where, post.inbox, post.known))) for post in posts]
        until = time.monotonic() + PATIENCE_S
        there = [post.inbox for post in self._posts.values() if post.inbox.whole]
        return there + [post.inbox for post, errand in errands if errand.wait(until) and _went_well(errand)]

    def close(self) -> None:
        """End the threads that come back."""
        for post in self._posts.values():
            post.arm.close()

    def _follow_settings(self) -> list[Post]:
        """Return the posts of all inboxes there are now, in their order."""
        posts = {}
        for inbox in self._inboxes():
            post = self._posts.get(_key(inbox))
            if post is None:
                post = Post(inbox, Arm(f"inbox {inbox.source}", self._wake))
                post.known = self._remembered(inbox)
            post.inbox = inbox
            posts[_key(inbox)] = post
        for key in self._posts.keys() - posts.keys():
            self._retire(self._posts[key])
        self._posts = posts
        return list(posts.values())

    def _retire(self, post: Post) -> None:
        post.arm.close()
        if post.alerted:
            self._withdraw(post, "inbox_offline")
        if post.held_alerted:
            self._withdraw(post, "inbox_held_open")

    def _remembered(self, inbox: Inbox) -> FileSystem | None:
        if inbox.whole:
            return None
        with self._database.read() as connection:
            row = mounts.remembered(connection, inbox.source)
        # A path that was changed in clinic.toml was meant.
        return None if row is None or row.path != str(inbox.root) else FileSystem.model_validate_json(row.file_system)

    def _begin(self, post: Post) -> None:
        now = time.monotonic()
        if post.looking is not None or post.arm.busy or now < post.not_before:
            return
        if post.trouble is not None:
            post.known = self._remembered(post.inbox)  # a person may have accepted another one
        work = partial(self._look, post.inbox, post.watch, post.known)
        post.looking = done(work) if post.inbox.whole else post.arm.give(work)

    def _look(self, inbox: Inbox, seen: Watch, known: FileSystem | None, beat: Beat) -> Found:
        """Make one look; in the thread of the inbox."""
        if inbox.whole:
            return Found(seen.look(inbox, watch.look(inbox, _NOTHING), time.monotonic()), None)
        root = os.open(inbox.root, watch.FOLDER)
        try:
            file_system = self._judge(root, inbox, known)
            here = replace(inbox, device=os.fstat(root).st_dev)
            return Found(seen.look(here, watch.look(here, self._ignore(), root, beat), time.monotonic()), file_system)
        finally:
            os.close(root)

    def _where(self, inbox: Inbox, known: FileSystem | None, beat: Beat) -> None:  # noqa: ARG002 - it is one step
        root = os.open(inbox.root, watch.FOLDER)
        try:
            self._judge(root, inbox, known)
        finally:
            os.close(root)

    def _judge(self, root: int, inbox: Inbox, known: FileSystem | None) -> FileSystem:
        found = file_system_of(root, self._home)
        if known is not None and not known.same(found):
            raise ElsewhereError(found)
        if known is None and FSTAB.is_file():
            missing = missing_mount(os.path.realpath(inbox.root), found, FSTAB.read_text("utf-8", "surrogateescape"))
            if missing:
                raise ElsewhereError(found, missing)
        return found

    def _collect(self, post: Post) -> Look | None:
        """Return what a look found, None if there is none or it has not ended."""
        errand = post.looking
        if errand is None or not errand.wait(errand.started_at + PATIENCE_S):
            self._listen(post)
            return None
        post.looking = None
        post.not_before = time.monotonic() + min(IDLE_SHARE * errand.cpu_s, LONGEST_REST_S)
        try:
            found = errand.result()
        except ElsewhereError as error:
            self._elsewhere(post, error)
            return None
        except OSError as error:
            if not post.inbox.whole:  # such a folder is removed when nothing lies in it any more
                self._offline(post, unreadable(post.inbox, error))
            return None
        post.looked_at, post.look = errand.started_at, found.look
        self._online(post, found.file_system)
        return found.look

    # ------------------------------------------------------------ online and offline

    def _listen(self, post: Post) -> None:
        """Call an inbox offline whose thread does not come back."""
        errand = post.arm.errand
        if errand is not None and not errand.ended and time.monotonic() - errand.beat_at > SILENCE_S:
            self._offline(post, silent(post.inbox, post.known))

    def _elsewhere(self, post: Post, error: ElsewhereError) -> None:
        source, found = post.inbox.source, error.found
        post.found = found
        if post.known is not None and found.covers(post.known):
            with self._database.read() as connection:
                unused = not mounts.ever_delivered(connection, source)
            if unused:  # it was set up first and mounted later
                self._remember(post, found, by="clinic-ai")
                post.known = found
                return
        self._offline(post, moved(post.inbox, post.known, found, error.missing))

    def _offline(self, post: Post, trouble: Trouble) -> None:
        if trouble == post.trouble:
            return
        post.trouble = trouble
        if trouble.code not in {"other_file_system", "not_mounted"}:
            post.found = None
        log.warning("inbox.offline", source=post.inbox.source, code=trouble.code)
        with self._database.write() as connection:
            alerts.raise_alert(
                connection,
                "inbox_offline",
                post.inbox.source,
                trouble.sentence,
                trouble.remedy + looked_after(post.inbox),
            )
        post.alerted = True

    def _online(self, post: Post, found: FileSystem | None) -> None:
        if found is not None and found != post.known:
            self._remember(post, found)
            post.known = found
        if post.trouble is not None:
            log.info("inbox.online", source=post.inbox.source)
        post.trouble, post.found = None, None
        if post.alerted is not False and not post.inbox.whole:  # also an alert left open when the daemon ended
            post.alerted = False
            self._withdraw(post, "inbox_offline")

    def _remember(self, post: Post, found: FileSystem, *, by: str = "") -> None:
        with self._database.write() as connection:
            mounts.remember(
                connection,
                post.inbox.source,
                path=str(post.inbox.root),
                device=found.device,
                file_system=found.model_dump_json(),
            )
            if by:
                details = {"before": "" if post.known is None else post.known.words, "now": found.words}
                audit.record(connection, actor=by, action="inbox.accepted", subject=post.inbox.source, details=details)

    def _withdraw(self, post: Post, code: str) -> None:
        with self._database.write() as connection:
            alerts.withdraw(connection, code, post.inbox.source)

    def accept(self, name: str, words: str, by: str) -> str:
        """Take the file system that lies there now as that of an inbox, in the name of a person; return a sentence.

        ``words`` is how it was shown to the person. Raise NotFound, or Conflict if the inbox is not offline for that
        reason or something else lies there by now.
        """
        post = next((post for post in list(self._posts.values()) if post.serves(name)), None)
        if post is None:
            raise NotFound(f"There is no inbox {name}.", remedy="`clinic-ai inbox list` shows the inboxes there are.")
        found = post.found
        if found is None:
            raise Conflict(
                f"Nothing is to be accepted for the inbox {name}; no other file system lies there.",
                remedy="`clinic-ai inbox list` says how it stands.",
            )
        if found.words != words:
            raise Conflict(
                f"By now {found.words} lies at {post.inbox.root}.", remedy="Look again, and accept that if it is meant."
            )
        self._remember(post, found, by=by)  # what the next look goes by, for the inbox is offline until then
        self._wake()
        return f"The inbox {name} is now {found.words}; what lies there is taken."

    # ------------------------------------------------------------ files that were not taken

    def taken(self, entries: Iterable[Entry]) -> None:
        """Forget files that are in the spool or gone."""
        for entry in entries:
            post = self._posts.get(_key(entry.inbox))
            if post is not None:
                post.watch.forget([entry])
                post.held.pop(entry.raw_name, None)

    def refused(self, entries: Iterable[Entry]) -> None:
        """Leave files alone for a while that cannot be taken."""
        for entry in entries:
            if (post := self._posts.get(_key(entry.inbox))) is not None:
                post.watch.leave_alone(entry, time.monotonic() + TRY_AGAIN_S)

    def held_open(self, entries: Iterable[Entry]) -> None:
        """Let files wait that somebody has open for writing; tell people if that goes on."""
        now = time.monotonic()
        overdue: dict[tuple[str, Path], list[Entry]] = {}
        for entry in entries:
            post = self._posts.get(_key(entry.inbox))
            if post is None:
                continue
            held_s = now - post.held.setdefault(entry.raw_name, now)
            if held_s < HELD_TOO_LONG_S:
                post.watch.hold(entry, now + min(max(HOLD_S, held_s / 4), LONGEST_HOLD_S))
            else:
                post.watch.leave_alone(entry, now + TRY_AGAIN_S)
                overdue.setdefault(_key(entry.inbox), []).append(entry)
        for key, files in overdue.items():
            self._tell_of_held(self._posts[key], files)

    def _tell_of_held(self, post: Post, files: Sequence[Entry]) -> None:
        post.held_alerted = True
        with self._database.write() as connection:
            for entry in files:
                if not ledger.ignored_before(connection, sighting(entry)):
                    ledger.ignore(connection, sighting(entry), "held_open", HELD_OPEN, HELD_OPEN_REMEDY)
            number = len(post.held)
            alerts.raise_alert(
                connection,
                "inbox_held_open",
                post.inbox.source,
                f"In the inbox {post.inbox.source} {number} file{' is' if number == 1 else 's are'} held open by the "
                f"sender for more than {HELD_TOO_LONG_S / 60:.0f} minutes, and not taken.",
                "`clinic-ai file list --fate IGNORED` names them. Let the sender close them; they are then taken."
                + looked_after(post.inbox),
            )

    def _forget_held(self, post: Post) -> None:
        post.held = {name: since for name, since in post.held.items() if post.watch.knows(name)}
        if post.held_alerted and not post.held:
            post.held_alerted = False
            self._withdraw(post, "inbox_held_open")

    def _note_odd(self, post: Post, entries: Sequence[Entry]) -> None:
        """Note, once each, what is no regular file; it is never opened."""
        if not entries:
            return
        with self._database.write() as connection:
            new = [entry for entry in entries if not ledger.ignored_before(connection, sighting(entry))]
            numbers = ledger.begin_claims(connection, [sighting(entry) for entry in new])
            told = [(number, entry.odd) for number, entry in zip(numbers, new, strict=True)]
            ledger.decide(connection, [Outcome(n, Fate.IGNORED, odd, ODD[odd], ODD_REMEDY[odd]) for n, odd in told])
        for entry in entries:
            post.watch.leave_alone(entry, math.inf)

    # ------------------------------------------------------------ what others ask

    def newest_at(self) -> float | None:
        """Return when the newest file came that waits in an inbox that is there, UTC seconds; None if none does."""
        there = [post.look.newest_at for post in list(self._posts.values()) if len(post.watch) and post.trouble is None]
        return max((newest_at for newest_at in there if newest_at > -math.inf), default=None)

    def seen_until(self, source: str) -> float:
        """Return the monotonic time until which all that came to an inbox was seen and has come to rest.

        Infinity for what is no folder of others, where nothing lies that was not taken at once.
        """
        return min(
            (min(post.watch.oldest(), post.looked_at) for post in self._posts.values() if post.serves(source)),
            default=math.inf,
        )

    def next_look_in(self) -> float:
        """Return the seconds after which another look may bring something, infinity if nothing is known to wait."""
        pause, now = math.inf, time.monotonic()
        for post in self._posts.values():
            if post.look.cut or (len(post.watch) and not post.inbox.whole):
                settle_s = 0.0 if post.look.cut else post.inbox.settle_s / 2
                pause = min(pause, max(0.05, settle_s, post.not_before - now))
        return pause

    def hinted_roots(self) -> list[Path]:
        """Return the inboxes whose kernel tells of new files: those that are there, and not on another machine."""
        return [
            post.inbox.root
            for post in self._posts.values()
            if post.trouble is None and post.known is not None and not post.known.network
        ]

    def states(self) -> list[InboxState]:
        """Return how the inboxes of clinic.toml stand."""
        return [state_of(post) for post in list(self._posts.values()) if not post.inbox.whole]


def sighting(entry: Entry) -> Sighting:
    """Return what the ledger notes of a file in an inbox."""
    return Sighting(entry.inbox.source, entry.name, entry.raw_name, entry.size_bytes, entry.mtime_ns)


def _key(inbox: Inbox) -> tuple[str, Path]:
    return inbox.source, inbox.root


def _went_well(errand: Errand[None]) -> bool:
    try:
        errand.result()
    except (OSError, ElsewhereError):
        return False
    return True
