"""A home on small disks that fill up: real file systems, in a mount namespace of this process.

Usage: unshare -Urm python small_disk.py SCENARIO FOLDER; ends with 0 if all is as it should be.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from harness import QUICK, Daemon, rows, wait_until
from intake_site import Site
from PIL import Image
from receiving_room import PEER, free_port, read, slices, store

from clinic_ai.control.client import Client
from clinic_ai.disk.keeper import Keeper
from clinic_ai.disk.room import MIB, free_bytes
from clinic_ai.domain import Fate
from clinic_ai.errors import HomeError
from clinic_ai.home import Home, init_home
from clinic_ai.settings import InboxSettings
from clinic_ai.settings.model import DiskSettings, QuotaSettings
from clinic_ai.store import alerts

SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700


def mount_small(place: Path, size_mb: int) -> None:
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "small", str(place)], check=True)


def fill(place: Path, leave_mb: int) -> Path:
    """Take all the room there is but ``leave_mb``; return the file that takes it."""
    ballast = place / "ballast"
    with ballast.open("ab") as out:
        size = ballast.stat().st_size + free_bytes(place) - leave_mb * MIB
        os.posix_fallocate(out.fileno(), 0, size)
    return ballast


def fill_up(place: Path) -> Path:
    """Take all the room there is."""
    ballast = fill(place, 1)
    with ballast.open("ab", buffering=0) as out:
        try:
            while True:
                out.write(b"x" * 4096)
        except OSError:
            return ballast


def picture(place: Path, shade: int, side: int = 16) -> None:
    """Write an image that takes a byte for each pixel."""
    Image.new("L", (side, side), shade).save(place, "PNG", compress_level=0)


def open_alerts(home: Home) -> set[str]:
    return {row["code"] for row in rows(home, "SELECT code FROM alerts WHERE acknowledged_at IS NULL")}


def stored(home: Home) -> int:
    return int(rows(home, "SELECT count(*) n FROM files WHERE fate = 'STORED'")[0]["n"])


def verb(home: Home, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "clinic_ai", *words, "--home", str(home.path)], capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def a_daemon(folder: Path) -> None:
    """Below the reserve everything waits, on a full disk too, and goes on when there is room."""
    mount_small(folder / "disk", 700)
    home, port = init_home(folder / "disk" / "h"), free_port()
    home.clinic_toml.write_text(
        f"{QUICK}\n[disk]\nreserve_mb = 100\n[network]\nenabled = true\nbind = '127.0.0.1'\nport = {port}\n"
        f"[[network.peer]]\nname = '{PEER.name}'\nae_title = '{PEER.ae_title}'\n"
    )
    datasets = read(slices(folder / "ct", 4))
    daemon = Daemon(home)
    try:
        daemon.wait_for("network.listening")
        assert store(port, datasets[:1]) == [SUCCESS]
        wait_until(lambda: stored(home) == 1, "the first slice stored")

        ballast = fill(home.path, leave_mb=60)
        picture(home.inbox / "one.png", 1)
        assert store(port, datasets[1:2]) == [OUT_OF_RESOURCES]
        wait_until(lambda: "disk_reserve" in open_alerts(home), "the alert")
        (said,) = rows(home, "SELECT sentence, remedy FROM alerts WHERE code = 'disk_reserve'")
        assert "less than the reserve of 100 MiB" in said["sentence"]
        assert "Free " in said["remedy"]
        with Client(home) as client:
            (inbox,) = client.status().inboxes
            assert inbox.online
            assert inbox.sentence.startswith("Waiting for disk space."), inbox
            assert "clinic_ai_disk_waiting 1.0" in client.metrics()
        assert verb(home, "disk")[0] == 1
        wait_until(lambda: stored(home) == 1 and (home.inbox / "one.png").exists(), "the file waiting")

        fill_up(home.path)
        with Client(home) as client:
            assert client.status().alerts
        assert daemon.process.poll() is None

        ballast.unlink()
        picture(home.inbox / "two.png", 2)
        wait_until(lambda: stored(home) == 3, "what waited stored")
        wait_until(lambda: open_alerts(home).isdisjoint({"disk_reserve", "ingest_stopped"}), "the alert withdrawn")
        assert [*home.inbox.iterdir()] == []
        # The receiver hears a moment later than the inboxes that there is room; a sender tries again until then.
        wait_until(lambda: store(port, datasets[1:]) == [SUCCESS] * 3, "all received")
        wait_until(lambda: stored(home) == 6, "all stored")
        with Client(home) as client:
            assert client.disk().waiting == ""
        assert daemon.stop() == 0
    finally:
        if daemon.process.poll() is None:
            daemon.kill()


def from_another_disk(folder: Path) -> None:
    """A file that has to be copied counts with its size; one that is too large holds up no other."""
    mount_small(folder / "disk", 120)
    mount_small(folder / "share", 40)
    site = Site(folder / "disk" / "h")
    inbox = InboxSettings(name="share", path=str(folder / "share"), settle_s=0.05)
    site.settings = site.settings.model_copy(update={"inbox": (inbox,), "disk": DiskSettings(reserve_mb=100)})
    large, small = folder / "share" / "a-large.png", folder / "share" / "small.png"
    picture(large, 1, side=5000)
    assert free_bytes(site.home.state) - large.stat().st_size < 100 * MIB
    picture(small, 2)

    said: set[str] = set()

    def passes(done: Callable[[], bool]) -> None:
        def one() -> bool:
            try:
                site.intake.cycle()
            except HomeError as error:
                said.add(error.message)
            return done()

        wait_until(one, "the file stored")

    passes(lambda: site.fates() == {Fate.STORED: 1})
    assert [*(folder / "share").iterdir()] == [large]
    assert all("too little beside its reserve" in sentence for sentence in said)
    assert said
    ballast = fill(site.home.path, leave_mb=90)
    picture(small, 3)
    for _ in range(5):
        site.intake.cycle()  # below the reserve nothing is even tried
    assert small.exists()
    assert site.fates() == {Fate.STORED: 1}
    ballast.unlink()
    site.settings = site.settings.model_copy(update={"disk": DiskSettings(reserve_mb=10)})
    passes(lambda: site.fates() == {Fate.STORED: 3})
    site.close()


def disks_of_their_own(folder: Path) -> None:
    """Outbox and quarantine are judged by themselves, and only who fills the quarantine waits for it."""
    mount_small(folder / "disk", 300)
    home = init_home(folder / "disk" / "h")
    mount_small(home.outbox, 20)
    mount_small(home.quarantine, 20)
    site = Site(home.path)
    good, bad = home.path / "good", home.path / "bad"
    good.mkdir()
    bad.mkdir()
    inboxes = tuple(InboxSettings(name=place.name, path=str(place), settle_s=0.05) for place in (good, bad))
    site.settings = site.settings.model_copy(update={"inbox": inboxes, "disk": DiskSettings(reserve_mb=10)})
    keeper = Keeper(
        home=home,
        settings=lambda: site.settings,
        database=site.database,
        objects=site.objects,
        room=site.intake.room,
        on_room=lambda: None,
        step_s=0.0,
    )

    def said() -> set[tuple[str, str]]:
        keeper.step()
        with site.database.read() as connection:
            return {(alert.code, alert.subject) for alert in alerts.open_alerts(connection)}

    assert said() == set()
    (home.outbox / "result").write_bytes(b"x" * (12 * MIB))
    assert ("disk_reserve", "outbox") in said()
    picture(good / "one.png", 1)
    site.settle(1)
    assert site.fates() == {Fate.STORED: 1}

    (bad / "rubbish.dcm").write_bytes(b"no scan" * (2 * MIB))
    site.cycle_until(lambda: site.fates() == {Fate.STORED: 1, Fate.QUARANTINED: 1})
    assert ("disk_reserve", "quarantine") in said()
    (bad / "more.dcm").write_bytes(b"no scan")
    picture(good / "two.png", 2)
    site.cycle_until(lambda: site.fates() == {Fate.STORED: 2, Fate.QUARANTINED: 1})
    for _ in range(5):
        site.intake.cycle()
    assert (bad / "more.dcm").exists()
    (home.outbox / "result").unlink()
    assert ("disk_reserve", "outbox") not in said()
    site.settings = site.settings.model_copy(
        update={"disk": DiskSettings(reserve_mb=1), "quota": QuotaSettings(quarantine_mb=100)}
    )
    assert ("disk_reserve", "quarantine") not in said()
    site.cycle_until(lambda: site.fates() == {Fate.STORED: 2, Fate.QUARANTINED: 2})
    site.close()


if __name__ == "__main__":
    {"a_daemon": a_daemon, "from_another_disk": from_another_disk, "disks_of_their_own": disks_of_their_own}[
        sys.argv[1]
    ](Path(sys.argv[2]))
