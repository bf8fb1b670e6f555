"""A home that listens: real receiver child, real intake with its parser child, real database; no daemon."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from intake_site import Site
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import CTImageStorage
from scans import write_ct_slice

from clinic_ai.domain import Alert
from clinic_ai.ingest.receiving import Receiver
from clinic_ai.processes import Child
from clinic_ai.settings import DiskSettings, NetworkSettings, PeerSettings
from clinic_ai.store import alerts

OURS = "CLINIC_AI"
PEER = PeerSettings(name="ct room", ae_title="CT_ROOM", host="127.0.0.1")
_DCMSEND = shutil.which("dcmsend")
needs_dcmtk = pytest.mark.skipif(_DCMSEND is None, reason="DCMTK (dcmsend, storescu, echoscu) is not installed")


def dcmtk(program: str) -> str:
    """Return the path of a DCMTK program; pynetdicom has others of the same names."""
    assert _DCMSEND is not None
    return str(Path(_DCMSEND).with_name(program))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class ReceivingRoom(Site):
    """A site whose receiver and intake run in threads, as in the daemon; ``network`` are keys of ``[network]``."""

    def __init__(self, path: Path, *, ingest: dict[str, object] | None = None, **network: object) -> None:
        super().__init__(path, **(ingest or {}))
        self.port = free_port()
        quick = {"enabled": True, "bind": "127.0.0.1", "port": self.port, "peer": (PEER,)}
        self.follow({**quick, **network})
        self.receiver = Receiver(
            home=self.home,
            settings=lambda: self.settings,
            database=self.database,
            crew=self.crew,
            on_received=self.intake.wake,
            room=self.intake.room,
        )
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._attend),
            threading.Thread(target=self.intake.run, args=(self._stop,)),
        ]
        for thread in self._threads:
            thread.start()

    def follow(self, network: dict[str, object]) -> None:
        """Change ``[network]``, and ``reserve_mb`` of ``[disk]``, as a reload would."""
        disk = DiskSettings(reserve_mb=network.pop("reserve_mb", 1))
        before = self.settings.network.model_dump() | {"peer": self.settings.network.peer}
        fresh = NetworkSettings.model_validate({**before, **network})
        self.settings = self.settings.model_copy(update={"network": fresh, "disk": disk})

    def _attend(self) -> None:
        while not self._stop.is_set():
            if not self.receiver.step():
                self._stop.wait(0.05)

    def listening(self) -> ReceivingRoom:
        self.wait(lambda: self.receiver.view().listening, "listening")
        return self

    def wait(self, done: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
        """Wait for something that no event announces; fail the test if it does not come true."""
        deadline = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > deadline:
                pytest.fail(f"{what} did not happen: {self.receiver.view()}, {self.fates()}, {self.alerts()}")
            time.sleep(0.02)

    def pids(self) -> set[int]:
        """Return the process ids of the living receivers: one, or none while it is started again."""
        return {child.pid for child in self.crew.living() if child.spec.kind == "receiver"}

    def child(self) -> Child:
        """Return the living receiver child."""
        (child,) = (child for child in self.crew.living() if child.spec.kind == "receiver")
        return child

    def alerts(self) -> dict[str, Alert]:
        with self.database.read() as connection:
            return {alert.code: alert for alert in alerts.open_alerts(connection)}

    def audited(self, action: str) -> list[dict[str, object]]:
        """Return the details of all audit rows with this action."""
        with self.database.read() as connection:
            rows = connection.exec_driver_sql("SELECT subject, details FROM audit WHERE action = ?", (action,))
            return [{"subject": subject, **json.loads(details)} for subject, details in rows]

    def arriving(self) -> list[Path]:
        """Return what lies in the folder of received files, whole or not."""
        return [place for place in self.home.incoming.rglob("*") if place.is_file()]

    def names(self) -> Counter[str]:
        """Count the stored files by their source."""
        return Counter(row.source for row in self.files())

    def instances(self) -> Counter[tuple[str, str]]:
        """Count the stored instances by study and SOP Instance UID; each has to be there once."""
        with self.database.read() as connection:
            rows = connection.exec_driver_sql("SELECT study_id, sop_instance_uid FROM instances")
            return Counter((str(study), str(uid)) for study, uid in rows)

    def kept(self) -> list[Path]:
        """Return the files of the object store."""
        return [place for place in self.home.objects.rglob("*") if place.is_file()]

    def __enter__(self) -> ReceivingRoom:
        return self.listening()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.receiver.close()
        super().close()


# ---------------------------------------------------------------- what is sent


def slices(folder: Path, count: int, *, seed: int = 1, side: int = 64) -> list[Path]:
    """Write the slices of one study of one patient."""
    folder.mkdir(parents=True, exist_ok=True)
    study = generate_uid(entropy_srcs=["receiver", str(seed)])
    paths = [folder / f"{number:03d}.dcm" for number in range(count)]
    for number, path in enumerate(paths):
        write_ct_slice(path, seed=seed, study=study, instance=number + 1, side=side)
    return paths


def data_set(path: Path) -> bytes:
    """Return the bytes of a file after its file meta information."""
    return path.read_bytes()[132 + 12 + dcmread(path).file_meta.FileMetaInformationGroupLength :]


# ---------------------------------------------------------------- senders


def dcmsend(port: int, files: Sequence[Path]) -> subprocess.Popen[bytes]:
    """Begin to send files as our peer does."""
    return _begin([dcmtk("dcmsend"), "-aet", PEER.ae_title, "-aec", OURS, "127.0.0.1", str(port), *map(str, files)])


def storescu(port: int, files: Sequence[Path], *options: str) -> subprocess.Popen[bytes]:
    """Begin to send files by the other program of DCMTK."""
    command = [dcmtk("storescu"), *options, "-aet", PEER.ae_title, "-aec", OURS]
    return _begin([*command, "127.0.0.1", str(port), *map(str, files)])


def gdcmscu(port: int, files: Sequence[Path]) -> subprocess.Popen[bytes]:
    """Begin to send files by the program of GDCM."""
    titles = ["--aetitle", PEER.ae_title, "--call", OURS]
    return _begin(["gdcmscu", "--store", *titles, "127.0.0.1", str(port), *map(str, files)])


def _begin(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def echo(port: int, *options: str, title: str = PEER.ae_title) -> subprocess.CompletedProcess[str]:
    """Let DCMTK's echoscu call."""
    command = [dcmtk("echoscu"), *options, "-aet", title, "-aec", OURS, "127.0.0.1", str(port)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def associate(port: int, title: str = PEER.ae_title) -> Association:
    """Begin an association of pynetdicom for CT images; it may not have been let in."""
    ae = AE(title)
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port, ae_title=OURS)
    # Where the machine is busy, a second thread of pynetdicom 3.0.4 takes answers away from the one that waits for
    # them, which then waits for half a minute. Only the one that waits asks with block=True.
    dimse, get = association.dimse, association.dimse.get_msg
    dimse.get_msg = lambda block=False: get(block=True) if block else (None, None)  # type: ignore[method-assign]
    return association


def store(port: int, datasets: Iterable[Dataset], title: str = PEER.ae_title) -> list[int]:
    """Send datasets over one association; return the answers until it broke, none if it was not let in."""
    association = associate(port, title)
    answers = []
    for dataset in datasets:
        status = association.send_c_store(dataset) if association.is_established else Dataset()
        if "Status" not in status:
            break
        answers.append(int(status.Status))
    if association.is_established:
        association.release()
    return answers


def interrupted(datasets: Sequence[Dataset], at: int, by: Callable[[], object]) -> Iterator[Dataset]:
    """Yield datasets, and call ``by`` before the one with this index."""
    for number, dataset in enumerate(datasets):
        if number == at:
            by()
        yield dataset


def read(paths: Sequence[Path]) -> list[Dataset]:
    return [dcmread(path) for path in paths]
