"""Inboxes on real mounts, in a mount namespace of this process.

Usage: unshare -Urm python mounted_inbox.py SCENARIO FOLDER; ends with 0 if all is as it should be.
"""

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from intake_site import Site
from PIL import Image

from clinic_ai.domain import Fate
from clinic_ai.errors import Conflict, NotFound
from clinic_ai.ingest import lookout
from clinic_ai.ingest.posts import InboxState
from clinic_ai.settings import InboxSettings
from clinic_ai.store import alerts
from clinic_ai.store.changes import after

QUICK = 0.2


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def umount(place: Path) -> None:
    subprocess.run(["umount", str(place)], check=True)


class Nas:
    """A share of a file server: mounted at a folder, and taken away with all that lies in it."""

    def __init__(self, place: Path, source: str = "nas") -> None:
        place.mkdir()
        mount("-t", "tmpfs", source, place)
        self.scans = place / "scans"
        self.scans.mkdir()

    def mount_at(self, place: Path) -> None:
        mount("--bind", self.scans, place)


def picture(place: Path, shade: int) -> None:
    Image.new("L", (8, 8), shade).save(place)


def state(site: Site, name: str = "inbox") -> InboxState:
    return next(state for state in site.intake.lookout.states() if state.name == name)


def open_alerts(site: Site) -> list[tuple[str, str]]:
    with site.database.read() as connection:
        return [(alert.code, alert.sentence) for alert in alerts.open_alerts(connection)]


def cycle_until(site: Site, done: Callable[[], bool]) -> None:
    site.cycle_until(done, timeout_s=30)


def stored(site: Site) -> int:
    return site.fates().get(Fate.STORED, 0)


def unmounted(folder: Path) -> None:
    """The share goes away and comes back: offline meanwhile, nothing taken from below, nothing forgotten."""
    nas = Nas(folder / "nas")
    site = Site(folder / "home")
    inbox = site.home.inbox
    nas.mount_at(inbox)
    picture(inbox / "1.png", 1)
    cycle_until(site, lambda: stored(site) == 1)
    assert state(site).file_system == "/scans of nas (tmpfs)", state(site)

    picture(inbox / "2.png", 2)
    umount(inbox)
    picture(inbox / "below.png", 3)
    cycle_until(site, lambda: not state(site).online)
    for _ in range(5):
        time.sleep(site.settings.ingest.settle_s)
        site.intake.cycle()
    assert site.fates() == {Fate.STORED: 1}, site.fates()
    assert (inbox / "below.png").exists()
    ((code, sentence),) = open_alerts(site)
    assert code == "inbox_offline", code
    assert "/scans of nas (tmpfs)" in sentence, sentence
    assert "the disk of the home" in sentence, sentence

    nas.mount_at(inbox)
    cycle_until(site, lambda: stored(site) == 2)
    assert state(site).online
    assert open_alerts(site) == []
    site.close()


def restarted(folder: Path) -> None:
    """The share is gone when the daemon starts: what was being taken lies where it lay, and is not given up."""
    nas = Nas(folder / "nas")
    site = Site(folder / "home")
    inbox = site.home.inbox
    nas.mount_at(inbox)
    picture(inbox / "1.png", 1)
    rested = first_rested(site)
    with site.database.write() as connection:
        from clinic_ai.store import ledger

        ledger.begin_claims(connection, [lookout.sighting(entry) for entry in rested])  # and then the power fails
    site.close()
    umount(inbox)

    site = Site(folder / "home")
    site.intake.cycle()
    assert site.fates() == {}, site.fates()
    assert not state(site).online
    nas.mount_at(inbox)
    cycle_until(site, lambda: site.fates() == {Fate.STORED: 1})
    site.close()


def first_rested(site: Site) -> tuple[lookout.Entry, ...]:
    while True:
        for rested in site.intake.lookout.rounds():
            if rested:
                return rested
        time.sleep(site.settings.ingest.settle_s)


def unmounted_between(folder: Path) -> None:
    """The share goes away after the look and before the files are taken: nobody says that they vanished."""
    nas = Nas(folder / "nas")
    site = Site(folder / "home")
    inbox = site.home.inbox
    nas.mount_at(inbox)
    picture(inbox / "1.png", 1)
    rested = first_rested(site)
    umount(inbox)
    site.intake._taking.take(rested)
    assert site.fates() == {}, site.fates()
    nas.mount_at(inbox)
    cycle_until(site, lambda: site.fates() == {Fate.STORED: 1})
    site.close()


def mounted_over(folder: Path) -> None:
    """Another disk is mounted over an inbox that was in use: a person has to accept it."""
    site = Site(folder / "home")
    inbox = site.home.inbox
    picture(inbox / "1.png", 1)
    cycle_until(site, lambda: stored(site) == 1)
    mount("-t", "tmpfs", "stick", inbox)
    picture(inbox / "2.png", 2)
    cycle_until(site, lambda: not state(site).online)
    assert stored(site) == 1
    words = state(site).file_system
    assert words == "stick (tmpfs)", words
    for name, shown, error in (("other", words, NotFound), ("inbox", "another (tmpfs)", Conflict)):
        try:
            site.intake.lookout.accept(name, shown, "anna")
        except error:
            continue
        raise AssertionError(name)
    site.intake.lookout.accept("inbox", words, "anna")
    cycle_until(site, lambda: stored(site) == 2)
    with site.database.read() as connection:
        assert "inbox.accepted" in [change.action for change in after(connection, 0, limit=1000)]
    try:
        site.intake.lookout.accept("inbox", words, "anna")
    except Conflict:
        pass
    else:
        raise AssertionError("there was nothing to accept")
    site.close()


def mounted_late(folder: Path) -> None:
    """An inbox that was seen before its share was mounted, and gave nothing, follows the share by itself."""
    nas = Nas(folder / "nas")
    site = Site(folder / "home")
    inbox = site.home.inbox
    site.intake.cycle()
    assert state(site).file_system.startswith("the disk of the home"), state(site)
    nas.mount_at(inbox)
    picture(inbox / "1.png", 1)
    cycle_until(site, lambda: stored(site) == 1)
    assert state(site).file_system == "/scans of nas (tmpfs)"
    assert open_alerts(site) == []
    umount(inbox)
    cycle_until(site, lambda: not state(site).online)
    site.close()


def named_in_fstab(folder: Path) -> None:
    """An inbox that is seen for the first time while its share is not mounted, which fstab says it should be."""
    nas = Nas(folder / "nas")
    site = Site(folder / "home")
    inbox = site.home.inbox
    fstab = folder / "fstab"
    fstab.write_text(f"//nas/scans {inbox} cifs ro 0 0\n")
    lookout.FSTAB = fstab
    picture(inbox / "below.png", 3)
    cycle_until(site, lambda: not state(site).online)
    assert site.fates() == {}
    assert "//nas/scans (cifs) belongs at" in state(site).sentence, state(site)
    nas.mount_at(inbox)
    picture(inbox / "1.png", 1)
    cycle_until(site, lambda: stored(site) == 1)
    site.close()


def another_path(folder: Path) -> None:
    """A path that was changed in clinic.toml was meant."""
    nas = Nas(folder / "nas")
    site = Site(folder / "home")
    picture(site.home.inbox / "1.png", 1)
    cycle_until(site, lambda: stored(site) == 1)
    picture(nas.scans / "2.png", 2)
    site.settings = site.settings.model_copy(update={"inbox": (InboxSettings(path=str(nas.scans)),)})
    cycle_until(site, lambda: stored(site) == 2)
    assert open_alerts(site) == []
    site.close()


def hung(folder: Path) -> None:
    """A file server that answers nothing: the other inbox goes on, and a restart is not held up."""
    lookout.PATIENCE_S = QUICK
    lookout.SILENCE_S = 2 * QUICK
    server = os.open("/dev/fuse", os.O_RDWR)  # and nobody ever reads from it
    share = folder / "share"
    share.mkdir()
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"nas", os.fsencode(share), b"fuse", 0, options) != 0:
        print("mount:", os.strerror(ctypes.get_errno()), file=sys.stderr)
        sys.exit(32)
    site = Site(folder / "home")
    both = (InboxSettings(name="nas", path=str(share), priority=10), InboxSettings(name="inbox", path="inbox"))
    site.settings = site.settings.model_copy(update={"inbox": both})
    picture(site.home.inbox / "1.png", 1)
    cycle_until(site, lambda: stored(site) == 1)
    cycle_until(site, lambda: not state(site, "nas").online)
    assert "does not answer" in state(site, "nas").sentence
    threads = len(os.listdir("/proc/self/task"))
    for _ in range(5):
        site.intake.cycle()
    assert len(os.listdir("/proc/self/task")) == threads  # it is asked no second time while it is away

    again = Site(folder / "home")
    again.settings = site.settings
    again.intake.recover()
    picture(site.home.inbox / "2.png", 2)
    cycle_until(again, lambda: stored(again) == 2)
    again.close()

    os.close(server)  # the server is given up: whoever waited gets an error
    cycle_until(site, lambda: "cannot be read" in state(site, "nas").sentence)
    libc.umount2(os.fsencode(share), 2)
    picture(share / "3.png", 3)
    site.intake.cycle()
    site.close()


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
