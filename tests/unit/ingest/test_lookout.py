"""Looks at inboxes: what is said of one that is not there, and how often looks and tries are made."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clinic_ai.ingest import lookout
from clinic_ai.ingest.lookout import Lookout
from clinic_ai.ingest.watch import Entry, Inbox, ignore_pattern
from clinic_ai.store import alerts, ledger
from clinic_ai.store.database import Database


class Post:
    """A lookout over the inboxes of a list."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self.database = Database(folder / "clinic.db")
        self.database.open()
        self.inboxes: list[Inbox] = []
        self.lookout = self.start()

    def start(self) -> Lookout:
        return Lookout(
            home=self.home,
            database=self.database,
            inboxes=lambda: self.inboxes,
            ignore=lambda: ignore_pattern(()),
            wake=lambda: None,
        )

    def look(self) -> list[Entry]:
        return [entry for rested in self.lookout.rounds() for entry in rested]

    def alerts(self) -> list[str]:
        with self.database.read() as connection:
            return [alert.subject for alert in alerts.open_alerts(connection)]


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    post = Post(tmp_path)
    yield post
    post.lookout.close()
    post.database.close()


def test_an_inbox_without_a_folder_is_offline_and_a_folder_of_our_own_is_just_gone(post: Post) -> None:
    post.inboxes = [
        Inbox("room 1", post.home / "gone", settle_s=0.0),
        Inbox("peer", post.home / "gone too", settle_s=0.0, whole=True),
    ]
    assert post.look() == []
    assert post.alerts() == ["room 1"]
    (state,) = post.lookout.states()
    assert (state.name, state.online) == ("room 1", False)
    assert post.lookout.seen_until("room 1") == float("-inf")  # what lies there, nobody knows
    assert post.lookout.seen_until("peer") == float("inf")


def test_an_alert_goes_with_its_inbox_and_after_a_restart(post: Post) -> None:
    post.inboxes = [Inbox("room 1", post.home / "gone", settle_s=0.0)]
    post.look()
    post.inboxes = []
    post.look()
    assert post.alerts() == []
    post.inboxes = [Inbox("room 1", post.home / "gone", settle_s=0.0)]
    post.look()
    assert post.alerts() == ["room 1"]
    (post.home / "gone").mkdir()
    post.lookout.close()
    post.lookout = post.start()
    post.look()
    assert post.alerts() == []
    assert [inbox.source for inbox in post.lookout.reachable()] == ["room 1"]


def test_what_lies_in_an_inbox_that_is_offline_is_not_on_its_way(post: Post) -> None:
    place = post.home / "share"
    place.mkdir()
    (place / "a").write_bytes(b"x")
    post.inboxes = [Inbox("room 1", place, settle_s=0.0)]
    post.look()
    assert post.lookout.newest_at() is not None
    place.rename(post.home / "unplugged")
    while post.alerts() != ["room 1"]:  # after a look comes a rest of nine times as long
        post.look()
    assert post.lookout.newest_at() is None
    (post.home / "unplugged").rename(place)
    while post.lookout.newest_at() is None:
        post.look()


def test_what_is_no_file_is_noted_once(post: Post) -> None:
    os.symlink("/etc/passwd", post.home / "link")
    post.inboxes = [Inbox("room 1", post.home, settle_s=0.0)]
    for _ in range(3):
        assert post.look() == []
    post.lookout.close()
    post.lookout = post.start()
    post.look()
    with post.database.read() as connection:
        ((code, name),) = [(row.reason_code, row.name) for row in ledger.list_files(connection)]
    assert (code, name) == ("link", "link")


def test_a_look_that_took_much_is_followed_by_a_rest(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "IDLE_SHARE", 1e9)
    monkeypatch.setattr(lookout, "LONGEST_REST_S", 1e9)
    post.inboxes = [Inbox("room 1", post.home, settle_s=0.0)]
    (post.home / "a").write_bytes(b"x")
    first = post.look()
    assert [entry.name for entry in first] == ["a"]
    seen = post.lookout.seen_until("room 1")
    assert post.look() == []
    assert post.lookout.seen_until("room 1") == seen  # nothing is known of what came since
    assert post.lookout.next_look_in() > 3600


def test_a_file_that_is_held_open_is_tried_less_and_less_often(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    post.inboxes = [Inbox("room 1", post.home, settle_s=0.0)]
    (post.home / "a").write_bytes(b"x")
    (entry,) = post.look()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    post.lookout.held_open([entry])
    assert post.look() == []
    monkeypatch.setattr(time, "monotonic", lambda: now + lookout.HOLD_S)
    assert post.look() == [entry]
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    post.lookout.held_open([entry])
    monkeypatch.setattr(time, "monotonic", lambda: now + 60 + 14)
    assert post.look() == []
    monkeypatch.setattr(time, "monotonic", lambda: now + 60 + 15)
    assert post.look() == [entry]
