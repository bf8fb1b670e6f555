"""Objects per second over C-STORE, beside the least that any receiver in Python has to do.

    python benchmarks/receive.py [--slices 300] [--rounds 5] [--associations 1 8] [--directory DIR]

CT slices of 512 × 512 at 16 bit are sent by DCMTK's dcmsend, by 1 association and by 8 at a time, to:

- bare: pynetdicom with a handler that writes each object, syncs it and answers success
- receiver: the appliance's receiver child alone
- appliance: receiver and ingest together, as in the daemon; "answered" is when the senders were done, "stored" when
  the last object was hashed, parsed and committed as part of a study

Each round runs all of them, every other round in the opposite order, and gives a ratio to the bare handler of that
round. Medians are printed, and of the ratio the smallest and largest too. CPU is what the receiving side used for one
object, in all its processes: less noisy than a rate where a machine is shared. The ratios travel between machines, the
rates do not. All senders and receivers share the machine.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
import structlog
from parts.slices import ct_slices

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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--associations", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--directory", type=Path, default=None, help="where to work; the disk to be measured")
    options = parser.parse_args()
    if not shutil.which("dcmsend"):
        raise SystemExit("This benchmark sends with dcmsend of DCMTK, which is not installed.")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        root = Path(name)
        files = []
        for index, content in enumerate(ct_slices(WARM_UP + options.slices)):
            files.append(root / f"{index:05d}.dcm")
            files[-1].write_bytes(content)
        print(f"{options.slices} CT slices of {files[0].stat().st_size / 1e6:.2f} MB, {os.cpu_count()} cores")
        for count in options.associations:
            rounds = [_round(root / "round", files, count, number % 2 == 1) for number in range(options.rounds)]
            _print(count, rounds, options.slices)


def _round(place: Path, files: list[Path], count: int, backwards: bool) -> dict[str, Run]:
    kinds: dict[str, Callable[[Path, list[Path], int], Run]] = {
        "bare": _bare,
        "receiver": _receiver,
        "appliance": _appliance,
    }
    runs = {}
    for kind in sorted(kinds, reverse=backwards):
        place.mkdir()
        runs[kind] = kinds[kind](place, files, count)
        shutil.rmtree(place)
        os.sync()  # what one run leaves to be written is not to slow the next one
    return runs


def _print(count: int, rounds: list[dict[str, Run]], slices: int) -> None:
    def line(what: str, kind: str, seconds: Callable[[Run], float]) -> None:
        rate = slices / median(seconds(runs[kind]) for runs in rounds)
        cpu = median(runs[kind].cpu for runs in rounds) / slices * 1e3
        text = f"  {what:20} {rate:6.0f}/s   CPU {cpu:5.2f} ms"
        if kind != "bare":
            ratios = sorted(runs["bare"].stored / seconds(runs[kind]) for runs in rounds)
            text += f"   ratio {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(text)

    print(f"{count} association{'s' if count > 1 else ''}, {len(rounds)} rounds")
    line("bare", "bare", lambda run: run.stored)
    line("receiver", "receiver", lambda run: run.stored)
    line("appliance, answered", "appliance", lambda run: run.answered)
    line("appliance, stored", "appliance", lambda run: run.stored)


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


def _bare(folder: Path, files: list[Path], count: int) -> Run:
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


def _receiver(root: Path, files: list[Path], count: int) -> Run:
    with _listening(root, intake=False) as (home, _, crew):
        folder = home.incoming / "bench"
        return _measure(files, count, lambda: _ours(crew), lambda objects: _count(folder) == objects)


def _appliance(root: Path, files: list[Path], count: int) -> Run:
    with _listening(root, intake=True) as (_, database, crew):

        def stored(objects: int) -> bool:
            with database.read() as connection:
                fates = ledger.counts(connection)
            if fates[Fate.QUARANTINED] or fates[Fate.DUPLICATE]:
                raise SystemExit(f"not all objects were stored: {fates}")
            return fates[Fate.STORED] == objects

        return _measure(files, count, lambda: _ours(crew), stored)


if __name__ == "__main__":
    main()
