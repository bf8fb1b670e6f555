"""Objects per second over C-STORE, beside the least that any receiver in Python has to do.

    python benchmarks/receive.py [--slices 600] [--directory DIR]

CT slices of 512 × 512 at 16 bit are sent by DCMTK's dcmsend, by 1 association and by 8 at a time, to:

- bare: pynetdicom with a handler that writes each object, syncs it and answers success
- receiver: the appliance's receiver child alone
- appliance: receiver and ingest together, as in the daemon; "answered" is when the senders were done, "stored" when
  the last object was hashed, parsed and committed as part of a study

The ratios to bare travel between machines, the rates do not. All senders and receivers share the machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from ingest import _slices

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
MAX_PDU = 131072
ASSOCIATIONS = (1, 8)
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=600)
    parser.add_argument("--directory", type=Path, default=None, help="where to work; the disk to be measured")
    options = parser.parse_args()
    if not shutil.which("dcmsend"):
        raise SystemExit("This benchmark sends with dcmsend of DCMTK, which is not installed.")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        root = Path(name)
        files = []
        for index, content in enumerate(_slices(options.slices)):
            files.append(root / f"{index:05d}.dcm")
            files[-1].write_bytes(content)
        print(f"{len(files)} CT slices of {files[0].stat().st_size / 1e6:.2f} MB, {os.cpu_count()} cores")
        for count in ASSOCIATIONS:
            place = root / str(count)
            bare = _bare(place / "bare", files, count)
            receiver = _receiver(place / "receiver", files, count)
            answered, stored = _appliance(place / "appliance", files, count)
            print(f"{count} association{'s' if count > 1 else ''}")
            print(f"  bare                 {bare:6.0f}/s")
            for what, rate in (
                ("receiver", receiver),
                ("appliance, answered", answered),
                ("appliance, stored", stored),
            ):
                print(f"  {what:20} {rate:6.0f}/s   ratio {rate / bare:.2f}")


def _send(files: list[Path], count: int) -> float:
    """Send by ``count`` associations at once; return the seconds."""
    command = ["dcmsend", "-aet", "BENCH_SCU", "-aec", "BENCH", "--max-send-pdu", str(MAX_PDU), "127.0.0.1", str(PORT)]
    start = time.perf_counter()
    senders = [subprocess.Popen([*command, *map(str, files[part::count])]) for part in range(count)]
    codes = [sender.wait() for sender in senders]
    if any(codes):
        raise SystemExit("a sender failed")
    return time.perf_counter() - start


def _bare(folder: Path, files: list[Path], count: int) -> float:
    folder.mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", BARE, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        server.stdout.readline()
        seconds = _send(files, count)
        server.communicate()
    return len(files) / seconds


@contextmanager
def _listening(root: Path, intake: bool) -> Iterator[tuple[Home, Database]]:
    """Run the receiver, and with ``intake`` ingest beside it, until the end of the block."""
    root.parent.mkdir(exist_ok=True)
    home = init_home(root)
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
        yield home, database
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        receiver.close()
        taking.close()
        crew.close()
        database.close()


def _receiver(root: Path, files: list[Path], count: int) -> float:
    with _listening(root, intake=False) as (home, _):
        seconds = _send(files, count)
        arrived = len(list((home.incoming / "bench").iterdir()))
    if arrived != len(files):
        raise SystemExit(f"only {arrived} of {len(files)} objects are there")
    return len(files) / seconds


def _appliance(root: Path, files: list[Path], count: int) -> tuple[float, float]:
    with _listening(root, intake=True) as (_, database):
        start = time.perf_counter()
        answered = _send(files, count)
        while True:
            with database.read() as connection:
                fates = ledger.counts(connection)
            if fates[Fate.STORED] == len(files):
                break
            if fates[Fate.QUARANTINED] or fates[Fate.DUPLICATE]:
                raise SystemExit(f"not all objects were stored: {fates}")
            time.sleep(0.02)
        stored = time.perf_counter() - start
    return len(files) / answered, len(files) / stored


if __name__ == "__main__":
    main()
