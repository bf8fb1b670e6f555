"""Senders that write in place, in bursts, by rename, or hold the file open: what is stored is what they wrote."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from intake_site import Site
from PIL import Image
from writers import Writer

from clinic_ai.domain import Fate
from clinic_ai.ingest import lookout, spool, watch
from clinic_ai.ingest.leases import Lease, lease_holds
from clinic_ai.ingest.spool import Spool, Taken
from clinic_ai.ingest.watch import Entry, Inbox
from clinic_ai.store import alerts


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "h")
    yield site
    site.close()


@pytest.fixture
def picture() -> bytes:
    made = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(made, "PNG")
    return made.getvalue()


def look_often(site: Site) -> None:
    """Make passes for several times as long as a file needs to come to rest."""
    until = time.monotonic() + 6 * site.settings.ingest.settle_s
    while time.monotonic() < until:
        site.intake.cycle()


def stored(site: Site) -> list[str | None]:
    return [row.sha256 for row in site.files() if row.fate is Fate.STORED]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_that_its_sender_holds_open_is_not_taken_before_it_is_closed(site: Site, picture: bytes) -> None:
    with Writer(site.home.inbox / "a.png") as sender:
        sender.do("open")
        sender.write(picture[:-100])
        look_often(site)
        assert (site.files(), os.listdir(site.home.inbox)) == ([], ["a.png"])
        sender.write(picture[-100:])  # the rest, long after the file had come to rest
        look_often(site)
        assert site.files() == []
        sender.do("close")
        site.settle(1)
    assert stored(site) == [sha256(picture)]


def test_a_file_that_is_mapped_for_writing_is_not_taken(site: Site, picture: bytes) -> None:
    with Writer(site.home.inbox / "a.png") as sender:
        sender.do("open")
        sender.do("close")
        sender.do("map", picture.hex())
        look_often(site)
        assert site.files() == []
        sender.do("finish", picture[-1:].hex())
        site.settle(1)
    assert stored(site) == [sha256(picture)]


def test_a_linked_file_that_is_held_open_is_not_copied_either(site: Site, picture: bytes, tmp_path: Path) -> None:
    with Writer(site.home.inbox / "a.png") as sender:
        sender.do("open")
        sender.write(picture)
        os.link(site.home.inbox / "a.png", tmp_path / "kept.png")
        look_often(site)
        assert site.files() == []
        sender.do("close")
        site.settle(1)
    assert stored(site) == [sha256(picture)]


def test_bursts_and_renames_give_one_whole_file(site: Site, picture: bytes) -> None:
    with Writer(site.home.inbox / "a.png.part") as sender:
        for start in range(0, len(picture), 1000):
            sender.do("open")
            sender.write(picture[start : start + 1000])
            sender.do("close")
            site.intake.cycle()
        look_often(site)
        assert site.files() == []  # clinic.toml says not to look at *.part
        sender.do("rename", "a.png")
        site.settle(1)
    assert stored(site) == [sha256(picture)]


def test_people_are_told_of_a_file_that_is_held_open_for_long_and_it_is_taken_in_the_end(
    site: Site, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "HELD_TOO_LONG_S", 0.0)
    monkeypatch.setattr(lookout, "TRY_AGAIN_S", 0.0)
    owner = site.settings.inbox[0].model_copy(update={"owner": "Radiology desk, 4711"})
    site.settings = site.settings.model_copy(update={"inbox": (owner,)})

    def open_alerts() -> list[tuple[str, str]]:
        with site.database.read() as connection:
            return [(alert.code, alert.remedy) for alert in alerts.open_alerts(connection)]

    with Writer(site.home.inbox / "a.png") as sender:
        sender.do("open")
        sender.write(picture)
        site.cycle_until(lambda: bool(open_alerts()))
        look_often(site)
        ((code, remedy),) = open_alerts()
        assert code == "inbox_held_open"
        assert "Radiology desk, 4711 looks after it." in remedy
        assert [(row.fate, row.reason_code) for row in site.files()] == [(Fate.IGNORED, "held_open")]
    site.cycle_until(lambda: stored(site) == [sha256(picture)])
    site.cycle_until(lambda: not open_alerts())


def taken(place: Path, name: str, beat: Callable[[], None] = lambda: None, **changes: int) -> Taken:
    inbox = Inbox("inbox", place / "inbox", settle_s=0.0)
    (entry,) = [entry for entry in watch.look(inbox, watch.ignore_pattern(())) if entry.name == name]
    values: dict[str, Any] = {field: getattr(entry, field) for field in Entry.__slots__}
    (result,) = Spool(place / "spool").take([(1, Entry(**values | changes))], beat)
    return result


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "inbox").mkdir()
    (tmp_path / "spool").mkdir()
    (tmp_path / "inbox" / "a").write_bytes(b"x" * 3_000_000)
    return tmp_path


def test_a_file_that_changed_after_the_look_is_not_taken(place: Path) -> None:
    assert taken(place, "a", size_bytes=5) is Taken.CHANGED
    assert taken(place, "a", mtime_ns=5) is Taken.CHANGED
    assert os.listdir(place / "spool") == []


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can become another user")
@pytest.mark.parametrize(("capability", "answer"), [("+lease", "granted"), ("-lease", "not_possible")])
def test_of_a_file_of_somebody_else_only_the_capability_of_the_unit_tells(
    tmp_path: Path, capability: str, answer: str
) -> None:
    script = (
        "import os, sys; from clinic_ai.ingest.leases import take_lease;"
        "print(take_lease(os.open('/proc/self/fd/0', os.O_RDONLY)).value)"
    )
    caps = [f"--inh-caps=-all,{capability}", f"--ambient-caps=-all,{capability}"]
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "a").chmod(0o644)
    with (tmp_path / "a").open("rb") as file:
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *caps, sys.executable, "-c", script],
            stdin=file,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd="/",
            env={"PYTHONPATH": str(Path(__file__).parents[2])},
        )
    if "ermission" in done.stderr:
        pytest.skip("another user cannot reach the package here")
    assert done.stdout.strip() == answer, done.stderr


@pytest.fixture
def share(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a file system where nobody can have a lease, as on a network share."""
    monkeypatch.setattr(spool, "take_lease", lambda _: Lease.NOT_POSSIBLE)
    return place


def test_where_there_are_no_leases_a_file_is_copied(share: Path) -> None:
    assert taken(share, "a") is Taken.TAKEN
    assert (share / "spool" / "1").read_bytes() == b"x" * 3_000_000
    assert os.listdir(share / "inbox") == []


def test_a_file_that_is_written_to_while_it_is_copied_is_not_taken(share: Path) -> None:
    def write_more() -> None:
        with (share / "inbox" / "a").open("ab") as file:
            file.write(b"y")

    assert taken(share, "a", beat=write_more) is Taken.CHANGED
    assert os.listdir(share / "spool") == []
    assert (share / "inbox" / "a").stat().st_size > 3_000_000


def test_a_file_that_cannot_be_removed_leaves_no_copy_behind(share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlink = os.unlink

    def refuse(path: Any, *, dir_fd: int | None = None) -> None:
        if dir_fd is not None:
            raise PermissionError(13, "not yours")
        unlink(path)

    monkeypatch.setattr(os, "unlink", refuse)
    assert taken(share, "a") is Taken.REFUSED
    monkeypatch.undo()
    assert os.listdir(share / "spool") == []
    assert os.listdir(share / "inbox") == ["a"]


@pytest.mark.parametrize("error", [errno.EIO, errno.ETIMEDOUT, errno.ENOENT])
def test_a_copy_is_kept_when_the_share_removed_the_file_and_said_that_it_could_not(
    share: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """As NFS does if the answer of the server is lost."""
    _break_unlink(monkeypatch, error, removes=True)
    assert taken(share, "a") is Taken.TAKEN
    assert (share / "spool" / "1").read_bytes() == b"x" * 3_000_000
    assert os.listdir(share / "inbox") == []


@pytest.mark.parametrize(("error", "result"), [(errno.EIO, Taken.REFUSED), (errno.ETIMEDOUT, Taken.OFFLINE)])
def test_no_copy_is_kept_of_a_file_that_is_there_yet(
    share: Path, monkeypatch: pytest.MonkeyPatch, error: int, result: Taken
) -> None:
    _break_unlink(monkeypatch, error, removes=False)
    assert taken(share, "a") is result
    assert os.listdir(share / "spool") == []
    assert os.listdir(share / "inbox") == ["a"]


def _break_unlink(monkeypatch: pytest.MonkeyPatch, error: int, *, removes: bool) -> None:
    unlink = os.unlink

    def fail(path: Any, *, dir_fd: int | None = None) -> None:
        if removes or dir_fd is None:
            unlink(path, dir_fd=dir_fd)
        if dir_fd is not None:
            raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "unlink", fail)


def _swap_before_rename(monkeypatch: pytest.MonkeyPatch, swap: Callable[[], object]) -> None:
    """Let something happen between the last look at a file and its renaming."""
    rename, swaps = os.rename, []

    def late(source: Any, target: Any, **folders: int) -> None:
        if not swaps:
            swaps.append(swap())
        rename(source, target, **folders)

    monkeypatch.setattr(os, "rename", late)


def test_a_file_that_took_the_place_of_the_one_looked_at_is_put_back(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Writer(place / "inbox" / "b") as sender:
        sender.do("open")
        sender.write(b"half of the nex")
        _swap_before_rename(monkeypatch, lambda: (place / "inbox" / "b").replace(place / "inbox" / "a"))
        assert taken(place, "a") is Taken.CHANGED
        sender.write(b"t one")
        sender.do("close")
    assert os.listdir(place / "spool") == []
    assert (place / "inbox" / "a").read_bytes() == b"half of the next one"


def test_a_folder_that_took_the_place_of_a_file_is_put_back(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def swap() -> None:
        (place / "inbox" / "a").unlink()
        (place / "inbox" / "a").mkdir()
        (place / "inbox" / "a" / "inner").write_bytes(b"y")

    _swap_before_rename(monkeypatch, swap)
    assert taken(place, "a") is Taken.GONE
    assert os.listdir(place / "spool") == []
    assert (place / "inbox" / "a" / "inner").read_bytes() == b"y"


def test_what_came_in_and_cannot_be_given_back_is_taken(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(spool, "lease_holds", lambda _: False)  # somebody begins to write while it is renamed
    monkeypatch.setattr(os, "link", full)
    assert taken(place, "a") is Taken.TAKEN
    assert (place / "spool" / "1").stat().st_size == 3_000_000


def test_a_sender_that_opens_a_file_while_it_is_renamed_gets_it_back(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename
    with Writer(place / "inbox" / "a") as sender:

        def rename_late(source: Any, target: Any, *, src_dir_fd: int | None = None) -> None:
            sender.begin("open")  # it finds the file and then waits, for we have a lease on it
            watched = os.open(place / "inbox" / "a", os.O_RDONLY)
            while own_lease_holds():
                time.sleep(0.01)
            os.close(watched)
            rename(source, target, src_dir_fd=src_dir_fd)

        def own_lease_holds() -> bool:
            leased = [int(number) for number in os.listdir("/proc/self/fd")]
            return any(_leased(number) for number in leased)

        monkeypatch.setattr(os, "rename", rename_late)
        assert taken(place, "a") is Taken.HELD_OPEN
        monkeypatch.undo()
        sender.wait()
        sender.write(b"y")
        sender.do("close")
    assert os.listdir(place / "spool") == []
    assert taken(place, "a") is Taken.TAKEN
    assert (place / "spool" / "1").read_bytes() == b"x" * 3_000_000 + b"y"


def _leased(descriptor: int) -> bool:
    try:
        return lease_holds(descriptor)
    except OSError:
        return False
