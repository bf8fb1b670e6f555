"""``clinic-ai demo``: a fresh home, a real daemon, real scans dropped into its inbox, and what became of each.

The scans are DICOM files that ship inside pydicom, and phantoms of chests and of fetal views that the plugins draw
(they say on their face that they are phantoms), or one's own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from clinic_ai.domain import StudyState
from clinic_ai.errors import ClinicError, HomeError
from clinic_ai.home import Home, init_home
from clinic_ai.process import NEEDS_A_PERSON, find_files, guess_hints

if TYPE_CHECKING:
    from clinic_ai.control.client import Client
    from clinic_ai.control.views import FileRow, StudyView

DEFAULT_HOME = Path("demo-home")
MARKER = "made-by-clinic-ai-demo"
START_TIMEOUT_S = 60.0
PHANTOMS = 4
SHOWN_CATEGORIES = ("fetal_head", "femur", "cervix")
"""Ultrasound phantoms that go into folders of these names; nothing has been trained for the last one."""
CT_SHAPE, CT_SPACING_MM = ("72", "128", "128"), ("4.0", "2.8", "2.8")
"""Of the phantom of a chest CT: slices, rows and columns."""
SETTINGS = """\
# The demo's settings: short pauses, so that nobody waits. See docs/settings.md for every key.
[clinic]
name = "Demo clinic"

[[inbox]]
name = "inbox"
path = "inbox"
settle_s = 0.2

[ingest]
rescan_s = 0.3
quiet_period_s = 1.0

[disk]
reserve_mb = 100

[log]
format = "json"
"""
SHOWN_FILES = (
    "examples_ybr_color.dcm",  # ultrasound cine
    "examples_rgb_color.dcm",  # ultrasound still
    "examples_palette.dcm",  # ultrasound with a palette
    "examples_jpeg2k.dcm",
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_jp2klossless.dcm",
    "no_meta.dcm",
    "badVR.dcm",
    "empty_charset_LEI.dcm",
    "image_dfl.dcm",
    "rtplan.dcm",
    "test-SR.dcm",
    "waveform_ecg.dcm",
    "MR_truncated.dcm",
    "JPGExtended.dcm",
    "rtplan_truncated.dcm",
    "README.txt",
    "dicomdirtests/DICOMDIR",
)
"""Of pydicom's own test files: what a clinic sees every day, and some of the odd ones."""


@dataclass(frozen=True)
class Row:
    """One line of the closing table: the files of one study, or one file of none."""

    files: tuple[str, ...]
    fate: str
    study: str
    outcome: str
    place: str

    @property
    def label(self) -> str:
        """Return the files in few words."""
        first = self.files[0]
        if len(set(self.files)) == 1 and len(self.files) > 1:
            return f"{first} ({len(self.files)} files)"
        return first if len(self.files) == 1 else f"{first} and {len(self.files) - 1} more"


def demo(source: Path | None = None, home: Path | None = None, *, as_json: bool = False) -> int:
    """Run the demo on pydicom's files and phantoms, or on the files below ``source``; return the exit status.

    Raise ClinicError if the home cannot be made or the daemon does not start.
    """
    made = _fresh_home(home or DEFAULT_HOME)
    say = _quiet if as_json else _say
    say(f"Home: {made.path}")
    names = _stage_own(made, source) if source is not None else _stage_shipped(made)
    with _daemon(made) as client:
        say(f"The daemon runs; {len(names)} files go into {made.inbox}.")
        for entry in sorted((made.path / "staging").iterdir()):
            entry.rename(made.inbox / entry.name)
        _watch(client, len(names), live=not as_json and sys.stderr.isatty())
        rows = _rows(client, names)
    accounted = sum(len(row.files) for row in rows)
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))  # noqa: T201 - this is what the command is for
    else:
        _show(rows, made, unaccounted=len(names) - accounted)
    return 0 if accounted == len(names) else 1


def _say(text: str) -> None:
    print(text)  # noqa: T201


def _quiet(_: str) -> None:
    pass


# ---------------------------------------------------------------- setting up


def _fresh_home(path: Path) -> Home:
    """Make the demo's home, replacing only what an earlier demo made."""
    if path.exists() and any(path.iterdir()):
        if not (path / "logs" / MARKER).exists():
            raise HomeError(
                f"{path} holds files and was not made by the demo; it is left alone.",
                remedy="Name another folder: `clinic-ai demo --home DIR`.",
            )
        shutil.rmtree(path)
    home = init_home(path)
    (home.logs / MARKER).touch()
    home.clinic_toml.write_text(SETTINGS)
    return home


def _stage_shipped(home: Home) -> dict[str, str]:
    """Put pydicom's files and the phantoms into ``staging``; return what to call each in the table."""
    names = {}
    spec = find_spec("pydicom")
    if spec is None or spec.origin is None:
        raise HomeError("pydicom is not installed.", remedy="Install clinic-ai again.")
    shipped = Path(spec.origin).parent / "data" / "test_files"
    for name in SHOWN_FILES:
        if (shipped / name).is_file():
            place = f"pydicom/{name}"
            _copy(shipped / name, home.path / "staging" / place)
            names[place] = name
    series = shipped / "dicomdirtests" / "77654033" / "CT2"
    for slice_ in sorted(p for p in series.glob("*") if p.is_file()):
        place = f"pydicom/CT2/{slice_.name}"
        _copy(slice_, home.path / "staging" / place)
        names[place] = "CT series"
    return names | _stage_phantoms(home.path / "staging")


def _stage_phantoms(staging: Path) -> dict[str, str]:
    """Let the plugins draw phantoms into ``staging``; return what to call each in the table."""
    chests, drawn, volume = staging / "phantoms", staging / "US", staging / "CT"
    _draw("clinic_ai_xray.phantom", str(chests), "--count", str(PHANTOMS))
    names = {f"phantoms/{chest.name}": f"{chest.name} (chest)" for chest in sorted(chests.iterdir())}
    for category in SHOWN_CATEGORIES:
        _draw("clinic_ai_ultrasound.reference.phantoms", category, str(drawn / category), "--count", "1")
        (drawn / category / "answers.xlsx").unlink()  # that is for training, and no scan
        names |= {f"US/{category}/{picture.name}": picture.name for picture in (drawn / category).iterdir()}
    _draw("clinic_ai_ct.phantoms", str(volume), "--shape", *CT_SHAPE, "--spacing", *CT_SPACING_MM)
    names |= {str(slice_.relative_to(staging)): "chest CT" for slice_ in sorted(volume.rglob("*.dcm"))}
    return names


def _draw(module: str, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-P", "-m", module, *arguments],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )


def _stage_own(home: Home, source: Path) -> dict[str, str]:
    """Copy one's own files into ``staging``, images into folders that say what they show."""
    names = {}
    for number, path in enumerate(find_files([source]), start=1):
        image = path.suffix.lower() in {".png", ".jpg", ".jpeg"}
        folders = [part for part in guess_hints(path) if part] if image else ["scans"]
        place = "/".join([*folders, f"{number:05d}-{path.name}"])
        _copy(path, home.path / "staging" / place)
        names[place] = path.name
    return names


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


@contextmanager
def _daemon(home: Home) -> Iterator[Client]:
    """Run a real daemon on the home; end it, and see that it ended, whatever happens."""
    from clinic_ai.control.client import Client

    log = home.logs / "daemon.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "clinic_ai", "run", "--home", str(home.path)],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
        try:
            with Client(home) as client:
                _await_daemon(client, process, log)
                yield client
        finally:
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await_daemon(client: Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            client.status()
            return
        except ClinicError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise HomeError(f"The daemon did not start: {error.message}", remedy=f"{log} says why.") from error
        time.sleep(0.1)


# ---------------------------------------------------------------- watching


def _watch(client: Client, count: int, *, live: bool) -> None:
    """Wait until every file has its fate and every study has ended, showing how far it is."""
    pending = (StudyState.RECEIVING, StudyState.CLOSED, StudyState.ROUTED)
    started = time.monotonic()
    while True:
        status = client.status()
        decided = sum(n for fate, n in status.files.items() if fate not in {"CLAIMING", "CLAIMED"})
        unfinished = client.studies(states=pending, limit=1000).studies
        living = sum(study.wait is None or study.wait.code not in NEEDS_A_PERSON for study in unfinished)
        done = sum(status.studies.values()) - living
        if live:
            line = f"{decided} of {count} files decided, {done} studies done, {living} in work"
            print(f"\r{line:<70}", end="", file=sys.stderr, flush=True)  # noqa: T201
        if decided >= count and not living:
            break
        time.sleep(0.2)
    if live:
        print(f"\r{'':<70}\r", end="", file=sys.stderr)  # noqa: T201
    if not live:
        return
    print(f"Done in {time.monotonic() - started:.1f} s.", file=sys.stderr)  # noqa: T201


def _rows(client: Client, names: dict[str, str]) -> list[Row]:
    """Return one row per study, then one per file that is in none."""
    by_study: dict[str, list[FileRow]] = {}
    alone = []
    for file in sorted(client.files(limit=1000).files, key=lambda f: f.name):
        if file.fate == "STORED" and file.study_id:
            by_study.setdefault(file.study_id, []).append(file)
        else:
            alone.append(Row((names.get(file.name, file.name),), file.fate, "", file.reason, ""))
    rows = [_study_row(client.study(study_id), files, names) for study_id, files in by_study.items()]
    return sorted(rows, key=lambda row: (not row.place, row.label)) + alone


def _study_row(view: StudyView, files: Sequence[FileRow], names: dict[str, str]) -> Row:
    version = view.versions[-1]
    artefact = version.artefacts[-1] if version.artefacts else None
    place = next((d.place for d in artefact.deliveries if d.place), "") if artefact is not None else ""
    outcome = version.study.wait.sentence if version.study.wait is not None else ""
    if artefact is not None and artefact.released:
        outcome = " ".join(released.text for released in artefact.released)
    labels = tuple(names.get(file.name, file.name) for file in files)
    return Row(labels, files[0].fate, version.study.state.value, outcome, place)


def _show(rows: Sequence[Row], home: Home, *, unaccounted: int) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("File", max_width=28, overflow="fold")
    table.add_column("Fate", no_wrap=True)
    table.add_column("Study", no_wrap=True)
    table.add_column("What became of it", ratio=1, overflow="fold")
    for row in rows:
        table.add_row(row.label, row.fate, row.study, row.outcome)
    console.print()
    console.print(table)
    results = [row for row in rows if row.place]
    console.print(f"\n{len(results)} reports, all of them drafts of reference models, not for clinical use:")
    width = max((len(row.label) for row in results), default=0)
    for row in results:
        console.print(f"  {row.label:<{width}}  {_short(row.place)}/report.pdf", soft_wrap=True)
    count = sum(len(row.files) for row in rows)
    missing = f"{unaccounted} UNACCOUNTED FOR" if unaccounted else "every one accounted for"
    console.print(f"\n{count} files, {missing}.")
    console.print(f"Quarantined files, each with its reason.json: {_short(str(home.quarantine))}/", soft_wrap=True)
    command = _short(str(Path(sys.executable).with_name("clinic-ai")))
    console.print("\nTo go on with this home, in two terminals:")
    for verb in ("run", "tui"):
        console.print(f"  {command} {verb} --home {_short(str(home.path))}", soft_wrap=True)
    asked = next((row for row in results if row.label.startswith(SHOWN_CATEGORIES[0])), None)
    if asked is not None:
        console.print("and, while it runs, a question about a picture:")
        question = '"Is the whole head in view?"'
        study = Path(asked.place).parent.name
        console.print(f"  {command} study ask {study} {question} --home {_short(str(home.path))}", soft_wrap=True)


def _short(path: str) -> str:
    """Return a path below the working directory as people would type it."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
