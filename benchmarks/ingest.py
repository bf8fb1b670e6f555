"""Slices per second from a drop folder into closed studies, beside what the disk alone can do.

    python benchmarks/ingest.py [--slices 1000] [--directory DIR]

CT slices of 512 × 512 at 16 bit are made first. Three rates are then measured on the same file system:

- write + fsync: the same bytes written to new files, each synced: what any receiver has to do at least
- rename + fsync: files moved to another folder, each synced: what taking from a drop folder has to do at least
- ingest: settled files through Intake, to the commit that stores them: claim, sync, SHA-256, header, ledger,
  object store, study

The ratios say how much of the floor the appliance reaches; they travel between machines, the rates do not.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import structlog
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from clinic_ai.domain import Fate
from clinic_ai.home import init_home
from clinic_ai.ingest.intake import Intake
from clinic_ai.processes import Crew
from clinic_ai.settings import IngestSettings, Settings
from clinic_ai.store import ledger
from clinic_ai.store.database import Database
from clinic_ai.store.objects import ObjectStore, fsync_directory

SIDE = 512
PER_STUDY = 250


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=1000)
    parser.add_argument("--directory", type=Path, default=None, help="where to work; the disk to be measured")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        root = Path(name)
        contents = list(_slices(options.slices))
        size = sum(map(len, contents)) / len(contents)
        write = options.slices / _write_and_sync(root / "write", contents)
        rename = options.slices / _rename_and_sync(root / "from", root / "to", contents)
        ingest = options.slices / _ingest(root / "home", contents)
    print(f"{options.slices} CT slices of {size / 1e6:.2f} MB, {os.cpu_count()} cores")
    print(f"write + fsync   {write:7.0f}/s")
    print(f"rename + fsync  {rename:7.0f}/s")
    print(
        f"ingest          {ingest:7.0f}/s   ratio to write + fsync {ingest / write:.2f}, "
        f"to rename + fsync {ingest / rename:.2f}"
    )


def _slices(count: int) -> Iterator[bytes]:
    """Yield slices as a scanner would name and order them; pixels are random, as a disk should not compress them."""
    noise = random.Random(7)
    for index in range(count):
        study = generate_uid(entropy_srcs=["benchmark", str(index // PER_STUDY)])
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"{study[:50]}.{index}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_ = Dataset()
        slice_.file_meta = meta
        slice_.SOPClassUID = CTImageStorage
        slice_.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID = study, f"{study[:50]}.1"
        slice_.PatientID, slice_.PatientName = f"BENCH-{index // PER_STUDY}", "PHANTOM^Benchmark"
        slice_.Modality, slice_.BodyPartExamined, slice_.Manufacturer = "CT", "CHEST", "clinic-ai"
        slice_.SeriesNumber, slice_.InstanceNumber = 1, index % PER_STUDY + 1
        slice_.ImagePositionPatient = [-250.0, -250.0, float(index)]
        slice_.Rows = slice_.Columns = SIDE
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 1
        slice_.PixelData = noise.randbytes(SIDE * SIDE * 2)
        buffer = pydicom.filebase.DicomBytesIO()
        slice_.save_as(buffer, enforce_file_format=True)
        yield buffer.getvalue()


@contextmanager
def _stopwatch() -> Iterator[list[float]]:
    seconds: list[float] = []
    start = time.perf_counter()
    yield seconds
    seconds.append(time.perf_counter() - start)


def _write_and_sync(folder: Path, contents: Iterable[bytes]) -> float:
    folder.mkdir()
    with _stopwatch() as seconds:
        for index, content in enumerate(contents):
            with (folder / str(index)).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        fsync_directory(folder)
    return seconds[0]


def _rename_and_sync(source: Path, target: Path, contents: Iterable[bytes]) -> float:
    source.mkdir()
    target.mkdir()
    names = _drop(source, contents)
    with _stopwatch() as seconds:
        for name in names:
            (source / name).rename(target / name)
            descriptor = os.open(target / name, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        fsync_directory(target)
    return seconds[0]


def _drop(folder: Path, contents: Iterable[bytes]) -> list[str]:
    names = []
    for index, content in enumerate(contents):
        (folder / f"slice{index:06d}.dcm").write_bytes(content)
        names.append(f"slice{index:06d}.dcm")
    return names


def _ingest(root: Path, contents: list[bytes]) -> float:
    home = init_home(root)
    settings = Settings(ingest=IngestSettings(settle_s=0.05))
    database, crew = Database(home.database), Crew()
    database.open()
    intake = Intake(
        home=home,
        settings=lambda: settings,
        database=database,
        objects=ObjectStore(home.objects),
        crew=crew,
        on_closed=lambda: None,
    )
    try:
        intake.recover()
        _drop(home.inbox, contents)
        intake.cycle()  # the first look: nothing has come to rest yet
        time.sleep(0.1)
        with _stopwatch() as seconds:
            intake.cycle()
        with database.read() as connection:
            stored = ledger.counts(connection)[Fate.STORED]
        if stored != len(contents):
            raise SystemExit(f"only {stored} of {len(contents)} slices were stored")
    finally:
        intake.close()
        crew.close()
        database.close()
    return seconds[0]


if __name__ == "__main__":
    main()
