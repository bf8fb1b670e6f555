"""What a soak sends: a steady trickle from scanners, people and programs, some of it bad; and a note of all of it.

Every action runs by its own period, in a small pool of threads, so that a slow writer holds up nobody. What went in is
noted in ``Sent`` after it went in: that is what has to be found again at the end.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from pathlib import Path

import psutil
from PIL import Image
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE

from clinic_ai.control.client import Client
from clinic_ai.home import Home
from parts.hostile import HOSTILE, junk
from parts.slices import ct_slice, sop_uid, study_uid

AE_TITLE = "SOAK"
CALLING = "SOAK_SCU"
PEER = "soak sender"
SIDE = 64
SEND_TIMES = 20
"""A sender tries this often, as a modality does, before it gives up: the receiver may be killed at any time."""
FILED_AFTER_S = 20.0
"""What went in this long ago is filed: what contradicts it or comes again is then sure to come second."""
KEPT_SCANS = 200
CHILDREN = ("parser", "engine", "guard", "renderer", "receiver")

Stored = frozenset({"STORED"})
Again = frozenset({"DUPLICATE"})
Refused = frozenset({"QUARANTINED"})
Left = frozenset({"IGNORED"})


@dataclass
class Sent:
    """All that went in. ``files`` maps a path below the inbox to the fates it may have.

    ``objects`` maps a Study Instance UID to the SOP Instance UIDs that were dropped or whose storage was answered
    with success; ``pictures`` counts PNG files, each a study; ``kills`` counts children that were killed, by kind.
    """

    files: dict[str, frozenset[str]] = field(default_factory=dict)
    objects: dict[str, set[str]] = field(default_factory=dict)
    pictures: int = 0
    answered: int = 0
    done: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)


@dataclass
class _Scan:
    """A study whose slices all went in; ``last`` are the bytes of one of them, to be sent again.

    ``sent`` says that they came over the network: what is stored then has file meta information of the receiver's
    own, and the same object from a folder is not the same file.
    """

    uid: str
    slices: int
    last: bytes
    sent: bool = False
    at: float = field(default_factory=time.monotonic)


class Traffic:
    """Sends until ``stop``; ``run`` ends when all that was begun has ended."""

    def __init__(self, home: Home, daemon: psutil.Process, port: int, seed: int) -> None:
        self._home, self._daemon, self._port, self._seed = home, daemon, port, seed
        self._dice = random.Random(seed)
        self._lock = threading.Lock()
        self._scans: list[_Scan] = []
        self._number = 0
        self._dcmsend = shutil.which("dcmsend")
        self.sent = Sent()
        self._plan: dict[Callable[[], None], float] = {
            self._study: 12,
            self._send: 15,
            self._picture: 20,
            self._again: 15,
            self._junk: 15,
            self._late: 60,
            self._hostile: 60,
            self._other_bytes: 120,
            self._link: 120,
            self._broken_off: 45,
            self._ask: 5,
            self._follow: 20,
            self._hang_up: 30,
            self._reload: 120,
            self._kill_a_child: 90,
        }

    def run(self, stop: threading.Event) -> None:
        """Act by the plan until ``stop``. Raise what an action raised: then the soak itself is broken."""
        due = {action: time.monotonic() + self._dice.uniform(0, period) for action, period in self._plan.items()}
        running: list[Future[None]] = []
        with ThreadPoolExecutor(8, thread_name_prefix="traffic") as pool:
            while not stop.is_set():
                action = min(due, key=lambda one: due[one])
                if stop.wait(max(0.0, due[action] - time.monotonic())):
                    break
                due[action] += self._plan[action] * self._dice.uniform(0.5, 1.5)
                running.append(pool.submit(self._act, action))
                running = _unfinished(running)
            for future in running:
                future.result()

    def _act(self, action: Callable[[], None]) -> None:
        action()
        with self._lock:
            self.sent.done[action.__name__.strip("_")] += 1

    # ------------------------------------------------------------ folders

    def _study(self) -> None:
        """Copy a study into a folder of its own, as scanners and people do: slowly, at once, or by renaming."""
        scan, contents = self._new_scan(self._dice.randint(2, 8))
        folder = self._home.inbox / f"scanner {self._dice.randint(1, 3)}" / f"study {self._next()}"
        folder.mkdir(parents=True)
        how = self._dice.choice(("slowly", "at once", "renamed"))
        for number, content in enumerate(contents, start=1):
            self._write(folder / f"slice {number}.dcm", content, how, Stored)
        self._note_scan(scan)

    def _write(self, path: Path, content: bytes, how: str, fates: frozenset[str]) -> None:
        self._note_file(path, fates)
        if how == "renamed":
            path.with_suffix(".part").write_bytes(content)
            path.with_suffix(".part").rename(path)
            return
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
            if how == "slowly":
                file.flush()
                time.sleep(0.2)
            file.write(content[len(content) // 2 :])

    def _drop(self, name: str, content: bytes, fates: frozenset[str]) -> None:
        self._write(self._home.inbox / name, content, "renamed", fates)

    def _picture(self) -> None:
        folder = self._home.inbox / "DX" / "CHEST"
        folder.mkdir(parents=True, exist_ok=True)
        buffer = BytesIO()
        Image.effect_noise((256, 256), 60).save(buffer, "PNG")
        self._write(folder / f"picture {self._next()}.png", buffer.getvalue(), "renamed", Stored)
        with self._lock:
            self.sent.pictures += 1

    def _again(self) -> None:
        """Let something come a second time, the way it came the first time."""
        if scan := self._old_scan():
            if scan.sent:
                self._send_again(scan)
            else:
                self._drop(f"again {self._next()}.dcm", scan.last, Again)
            self._note_scan(scan)

    def _late(self) -> None:
        """Add one slice to an earlier study; if that was closed, this makes another version of it."""
        if scan := self._old_scan():
            content = ct_slice(scan.uid, scan.slices + 1, side=SIDE, patient=scan.uid[-12:])
            self._drop(f"late {self._next()}.dcm", content, Stored)
            self._note_scan(_Scan(scan.uid, scan.slices + 1, content))

    def _other_bytes(self) -> None:
        """Drop an object that has the UID of an earlier one and other pixels."""
        if scan := self._old_scan():
            content = ct_slice(scan.uid, scan.slices, side=SIDE, patient=scan.uid[-12:])
            self._drop(f"other bytes {self._next()}.dcm", content, Refused)

    def _junk(self) -> None:
        self._drop(f"junk {self._next()}.bin", junk(self._lone_slice(), self._dice), Refused)

    def _hostile(self) -> None:
        make = self._dice.choice(HOSTILE)
        self._drop(f"{make.__name__} {self._next()}.dcm", make(self._lone_slice()), Refused)

    def _link(self) -> None:
        path = self._home.inbox / f"link {self._next()}"
        self._note_file(path, Left)
        path.symlink_to("/etc/hostname")
        time.sleep(10)
        path.unlink()

    # ------------------------------------------------------------ network

    def _send(self) -> None:
        """Send a study with dcmsend, or with pynetdicom where DCMTK is not installed."""
        scan, contents = self._new_scan(self._dice.randint(2, 8))
        if self._dcmsend:
            self._send_by_dcmtk(contents)
            with self._lock:
                self.sent.answered += scan.slices
                self.sent.objects[scan.uid] = {sop_uid(scan.uid, n) for n in range(1, scan.slices + 1)}
        else:
            self._send_until_answered(scan, contents)
        scan.sent = True
        self._note_scan(scan)

    def _broken_off(self) -> None:
        """Break an association off in the middle of a study; send what was not answered again later."""
        scan, contents = self._new_scan(5)
        answered = self._associate(scan, contents, break_at=self._dice.randint(1, 4))
        self._send_until_answered(scan, contents, answered)
        scan.sent = True
        self._note_scan(scan)

    def _send_by_dcmtk(self, contents: list[bytes]) -> None:
        assert self._dcmsend is not None
        with tempfile.TemporaryDirectory() as folder:
            for number, content in enumerate(contents):
                (Path(folder) / f"{number}.dcm").write_bytes(content)
            peer = ("-aet", CALLING, "-aec", AE_TITLE, "127.0.0.1", str(self._port))
            command = [self._dcmsend, *peer, "+sd", folder]
            for _ in range(SEND_TIMES):
                if subprocess.run(command, capture_output=True, check=False, timeout=120).returncode == 0:
                    return
                time.sleep(1)
        raise RuntimeError("dcmsend was not answered with success in spite of many attempts")

    def _send_until_answered(self, scan: _Scan, contents: list[bytes], answered: int = 0) -> None:
        for _ in range(SEND_TIMES):
            answered = self._associate(scan, contents, answered)
            if answered == scan.slices:
                return
            time.sleep(1)
        raise RuntimeError("objects were not answered with success in spite of many attempts")

    def _send_again(self, scan: _Scan) -> None:
        """Send the last slice again; if the receiver is gone just then, once less."""
        self._associate(scan, [scan.last] * scan.slices, scan.slices - 1)

    def _associate(self, scan: _Scan, contents: list[bytes], answered: int = 0, break_at: int = 0) -> int:
        """Send what is not answered yet over one association; return how many slices of the study are answered."""
        ae = AE(CALLING)
        ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        association = ae.associate("127.0.0.1", self._port, ae_title=AE_TITLE)
        while association.is_established and answered < scan.slices:
            status = association.send_c_store(dcmread(BytesIO(contents[answered])))
            if "Status" not in status or status.Status != 0:
                break
            answered += 1
            with self._lock:
                self.sent.answered += 1
                self.sent.objects.setdefault(scan.uid, set()).add(sop_uid(scan.uid, answered))
            if answered == break_at:
                association.abort()
        if association.is_established:
            association.release()
        return answered

    # ------------------------------------------------------------ people and programs

    def _ask(self) -> None:
        with Client(self._home, monitor=True) as client:
            client.status()
            found = client.studies(limit=100).studies
            if found:
                client.study(self._dice.choice(found).study_id)
            client.files(limit=100)
            client.metrics()

    def _follow(self) -> None:
        """Follow the events for a while, from the start of time now and then."""
        with Client(self._home, monitor=True) as client:
            for _ in islice(client.events(self._dice.choice((None, 0))), 5):
                pass

    def _hang_up(self) -> None:
        """Ask over a bare socket and leave without having read the answer."""
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(self._home.monitor_socket))
            path = self._dice.choice(("/v1/events", "/v1/studies", "/metrics"))
            caller.sendall(f"GET {path} HTTP/1.1\r\nHost: clinic-ai\r\n\r\n".encode())
            caller.recv(10)

    def _reload(self) -> None:
        os.kill(self._daemon.pid, signal.SIGHUP)

    def _kill_a_child(self) -> None:
        living = children_of(self._daemon)
        kinds = [kind for kind in CHILDREN if kind in living]
        if not kinds:
            return
        kind = min(kinds, key=lambda one: (self.sent.kills[one], self._dice.random()))
        try:
            living[kind][0].kill()
        except psutil.NoSuchProcess:
            return
        with self._lock:
            self.sent.kills[kind] += 1

    # ------------------------------------------------------------ notes

    def _next(self) -> int:
        with self._lock:
            self._number += 1
            return self._number

    def _new_scan(self, slices: int) -> tuple[_Scan, list[bytes]]:
        uid = study_uid("soak", self._seed, self._next())
        contents = [ct_slice(uid, number, side=SIDE, patient=uid[-12:]) for number in range(1, slices + 1)]
        return _Scan(uid, slices, contents[-1]), contents

    def _lone_slice(self) -> bytes:
        return ct_slice(study_uid("soak", self._seed, "lone", self._next()), 1, side=SIDE)

    def _note_scan(self, scan: _Scan) -> None:
        with self._lock:
            self._scans.append(scan)
            scan.at = time.monotonic()
            self.sent.objects.setdefault(scan.uid, set()).update(
                sop_uid(scan.uid, number) for number in range(1, scan.slices + 1)
            )

    def _note_file(self, path: Path, fates: frozenset[str]) -> None:
        with self._lock:
            self.sent.files[path.relative_to(self._home.inbox).as_posix()] = fates

    def _old_scan(self) -> _Scan | None:
        """Take out one of the last scans that are surely filed; None if there is none yet."""
        with self._lock:
            del self._scans[:-KEPT_SCANS]
            old = [scan for scan in self._scans if time.monotonic() - scan.at > FILED_AFTER_S]
            if not old:
                return None
            scan = self._dice.choice(old)
            self._scans.remove(scan)
            return scan


def children_of(daemon: psutil.Process) -> dict[str, list[psutil.Process]]:
    """Return the living children of a daemon by kind."""
    found: dict[str, list[psutil.Process]] = {}
    for child in daemon.children():
        try:
            module = next((word for word in child.cmdline() if word.startswith("clinic_ai.workers.")), "")
        except psutil.Error:
            continue
        if module:
            found.setdefault(module.rpartition(".")[2], []).append(child)
    return found


def _unfinished(running: list[Future[None]]) -> list[Future[None]]:
    for future in running:
        if future.done():
            future.result()
    return [future for future in running if not future.done()]
