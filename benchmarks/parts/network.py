"""Receivers of C-STORE to be measured beside each other, and the sender that is the same for all: DCMTK's dcmsend."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from clinic_ai.domain import Fate
from clinic_ai.home import Home, init_home
from clinic_ai.ingest.intake import Intake
from clinic_ai.ingest.receiving import Receiver
from clinic_ai.processes import Crew
from clinic_ai.settings import IngestSettings, NetworkSettings, PeerSettings, Settings
from clinic_ai.store import ledger
from clinic_ai.store.database import Database
from clinic_ai.store.objects import ObjectStore

PORT = 11119
_DCMTK_STORESCP = "/usr/bin/storescp"
"""By its whole path: pynetdicom brings a program of the same name."""
_ORTHANC = shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "Orthanc"
MAX_PDU = 131072
WARM_UP = 8
"""Objects sent before each measurement: the start of processes and their imports are not measured."""
BARE = f"""
import os, sys, uuid
from pathlib import Path
from pynetdicom import AE, AllStoragePresentationContexts, _config, evt

_config.LOG_HANDLER_LEVEL = "none"

def store(event):
    with (Path(sys.argv[1]) / uuid.uuid4().hex).open("xb") as file:
        file.write(event.encoded_dataset())
        file.flush()
        os.fsync(file.fileno())
    return 0x0000

ae = AE("BENCH")
ae.maximum_pdu_size = {MAX_PDU}
ae.maximum_associations = 100
ae.supported_contexts = AllStoragePresentationContexts
server = ae.start_server(("127.0.0.1", {PORT}), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
print("ready", flush=True)
sys.stdin.read()
server.shutdown()
"""


@dataclass(frozen=True)
class Run:
    """Seconds until the senders were done and until all was kept, and CPU seconds of the receiving side."""

    answered: float
    stored: float
    cpu: float


def _send(files: list[Path], count: int) -> None:
    """Send by ``count`` associations at once."""
    command = ["dcmsend", "-aet", "BENCH_SCU", "-aec", "BENCH", "--max-send-pdu", str(MAX_PDU), "127.0.0.1", str(PORT)]
    senders = [subprocess.Popen([*command, *map(str, files[part::count])]) for part in range(count)]
    codes = [sender.wait() for sender in senders]
    if any(codes):
        raise SystemExit("a sender failed")


def _measure(files: list[Path], count: int, cpu: Callable[[], float], kept: Callable[[int], bool]) -> Run:
    """Send everything; ``kept`` says whether so many objects are where they have to be."""

    def wait(objects: int) -> None:
        while not kept(objects):
            time.sleep(0.02)

    _send(files[:WARM_UP], 1)
    wait(WARM_UP)
    used, start = cpu(), time.perf_counter()
    _send(files[WARM_UP:], count)
    answered = time.perf_counter() - start
    wait(len(files))
    return Run(answered, time.perf_counter() - start, cpu() - used)


def _count(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir())


def _cpu(*processes: psutil.Process) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(time.user + time.system for time in times)


def bare(folder: Path, files: list[Path], count: int) -> Run:
    """Measure pynetdicom with a handler that writes, syncs and answers; the least a receiver in Python has to do."""
    with subprocess.Popen(
        [sys.executable, "-c", BARE, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        server.stdout.readline()
        process = psutil.Process(server.pid)
        run = _measure(files, count, lambda: _cpu(process), lambda objects: _count(folder) == objects)
        server.communicate()
    return run


@contextmanager
def _listening(root: Path, intake: bool) -> Iterator[tuple[Home, Database, Crew]]:
    """Run the receiver, and with ``intake`` ingest beside it, until the end of the block."""
    home = init_home(root / "h")
    peer = PeerSettings(name="bench", ae_title="BENCH_SCU")
    network = NetworkSettings(
        enabled=True, ae_title="BENCH", bind="127.0.0.1", port=PORT, max_pdu=MAX_PDU, peer=(peer,)
    )
    settings = Settings(network=network, ingest=IngestSettings(quiet_period_s=60))
    database, crew, stop = Database(home.database), Crew(), threading.Event()
    database.open()
    taking = Intake(
        home=home,
        settings=lambda: settings,
        database=database,
        objects=ObjectStore(home.objects),
        crew=crew,
        on_closed=lambda: None,
    )
    taking.recover()
    receiver = Receiver(home=home, settings=lambda: settings, database=database, crew=crew, on_received=taking.wake)

    def attend() -> None:
        while not stop.is_set():
            receiver.step()

    threads = [threading.Thread(target=attend)]
    if intake:
        threads.append(threading.Thread(target=taking.run, args=(stop,)))
    for thread in threads:
        thread.start()
    while not receiver.view().listening:
        time.sleep(0.05)
    try:
        yield home, database, crew
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        receiver.close()
        taking.close()
        crew.close()
        database.close()


def _ours(crew: Crew) -> float:
    return _cpu(psutil.Process(), *(psutil.Process(child.pid) for child in crew.living()))


def receiver(root: Path, files: list[Path], count: int) -> Run:
    """Measure the appliance's receiver alone, to the synced file in its folder."""
    with _listening(root, intake=False) as (home, _, crew):
        folder = home.incoming / "bench"
        return _measure(files, count, lambda: _ours(crew), lambda objects: _count(folder) == objects)


def appliance(root: Path, files: list[Path], count: int) -> Run:
    """Measure receiver and ingest together, to the commit that stores the object as part of a study."""
    with _listening(root, intake=True) as (_, database, crew):

        def stored(objects: int) -> bool:
            with database.read() as connection:
                fates = ledger.counts(connection)
            if fates[Fate.QUARANTINED] or fates[Fate.DUPLICATE]:
                raise SystemExit(f"not all objects were stored: {fates}")
            return fates[Fate.STORED] == objects

        return _measure(files, count, lambda: _ours(crew), stored)


# ---------------------------------------------------------------- peers


def storescp(root: Path, files: list[Path], count: int) -> Run:
    """Measure DCMTK's storescp, a process for each association. It writes and does not sync."""
    folder = root / "objects"
    folder.mkdir()
    command = [_DCMTK_STORESCP, "--fork", "-pdu", str(MAX_PDU), "-aet", "BENCH", "-od", str(folder), str(PORT)]
    # Without TCP_NODELAY it waits 40 ms for an acknowledgement with each object, and takes 21 a second.
    with _peer(command, {"TCP_NODELAY": "1"}) as process:
        return _measure(files, count, lambda: _family(process), lambda objects: _count(folder) == objects)


def orthanc(root: Path, files: list[Path], count: int) -> Run:
    """Measure Orthanc with SQLite: it syncs each file, and its index as far as SQLite's NORMAL does."""
    settings = {
        "StorageDirectory": str(root / "storage"),
        "IndexDirectory": str(root / "storage"),
        "DicomServerEnabled": True,
        "DicomAet": "BENCH",
        "DicomPort": PORT,
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowStore": True,
        "MaximumPduLength": MAX_PDU,
        "HttpServerEnabled": False,
        "SyncStorageArea": True,
        "StorageCompression": False,
        "StableAge": 60,
    }
    (root / "orthanc.json").write_text(json.dumps(settings))
    with _peer([_ORTHANC, str(root / "orthanc.json")]) as process:
        # It answers when file and index are written, so that what is answered is kept.
        return _measure(files, count, lambda: _family(process), lambda objects: objects > 0)


def missing(*kinds: Callable[[Path, list[Path], int], Run]) -> list[str]:
    """Return the programs that these need and that are not installed."""
    needed = {storescp: _DCMTK_STORESCP, orthanc: _ORTHANC}
    found = {kind.__name__: needed.get(kind, "dcmsend") for kind in kinds}
    return [name for name, program in found.items() if shutil.which(program) is None]


@contextmanager
def _peer(command: list[str], environment: dict[str, str] | None = None) -> Iterator[psutil.Popen]:
    """Run a program until the end of the block; the block begins when it accepts connections."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = psutil.Popen(command, env={**os.environ, **(environment or {})}, **quiet)
    try:
        while not _accepts():
            if process.poll() is not None:
                raise SystemExit(f"{command[0]} did not start; run it by hand to see why.")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait()


def _accepts() -> bool:
    try:
        socket.create_connection(("127.0.0.1", PORT), timeout=1).close()
    except OSError:
        return False
    return True


def _family(process: psutil.Process) -> float:
    """Return the CPU seconds of a process and of its children, those that ended included."""
    times = process.cpu_times()
    living = sum(_cpu(child) for child in process.children())
    return float(times.user + times.system + times.children_user + times.children_system + living)
