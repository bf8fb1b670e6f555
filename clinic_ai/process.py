"""``clinic-ai process``: files through the whole path without a daemon, in a home of its own that is removed after.

The same rooms do the work as in the daemon; only the sockets are missing. The files themselves are copied and
never touched.
"""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from clinic_ai.domain import (
    Artefact,
    ArtefactState,
    CategoryInfo,
    Job,
    JobState,
    Study,
    StudyState,
    categories_named,
)
from clinic_ai.errors import InputError
from clinic_ai.home import Home, init_home, lock_home
from clinic_ai.settings import (
    CategoryRule,
    DiskSettings,
    NotifySettings,
    QuotaSettings,
    RetentionSettings,
    Settings,
    load_settings,
)
from clinic_ai.settings.model import InboxSettings
from clinic_ai.store import artefacts, jobs, ledger, studies

if TYPE_CHECKING:
    from clinic_ai.appliance import Appliance
    from clinic_ai.plugins import PluginCatalogue

NEEDS_A_PERSON = {"no_plugin", "no_model", "bad_model", "no_memory", "no_policy", "engine_crashing", "undelivered"}
"""Reasons to wait that no amount of waiting removes in a run of its own."""
_ENDED = {StudyState.DONE, StudyState.UNROUTED, StudyState.FAILED, StudyState.SUPERSEDED}
_NEVER_S = 86400.0
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}
_FOLDER_WORDS = {
    "modality": {
        "DX": {"dx", "xray", "xrays", "radiograph", "radiographs", "cxr"},
        "CR": {"cr"},
        "US": {"us", "ultrasound", "sono", "sonography"},
        "CT": {"ct"},
        "MR": {"mr", "mri"},
    },
    "body_part": {"CHEST": {"chest", "thorax", "cxr", "lung", "lungs"}, "ABDOMEN": {"abdomen"}, "HEAD": {"head"}},
}


@dataclass(frozen=True)
class FileFate:
    """What became of one file."""

    path: Path
    fate: str
    reason: str = ""
    remedy: str = ""
    study_id: str = ""


@dataclass(frozen=True)
class StudyEnd:
    """How one study ended; ``place`` is the folder of its results."""

    study: Study
    jobs: tuple[Job, ...]
    artefact: Artefact | None

    @property
    def delivered(self) -> bool:
        """Whether a result went out."""
        return self.artefact is not None and self.artefact.state is ArtefactState.PRELIMINARY and bool(self.place)

    @property
    def place(self) -> str:
        """Folder of the results, empty if there are none."""
        if self.artefact is None:
            return ""
        return next((d.place for d in self.artefact.deliveries if d.place), "")

    @property
    def marks(self) -> tuple[str, ...]:
        """Sentences that stand wherever the result is shown."""
        return self.artefact.verdict.marks if self.delivered and self.artefact is not None else ()

    @property
    def sentence(self) -> str:
        """Say in words how it ended."""
        if self.delivered and self.artefact is not None:
            return " ".join(" ".join((r.text, *r.annotations)) for r in self.artefact.verdict.released)
        if self.study.wait is not None:
            return self.study.wait.sentence
        return next((job.error for job in self.jobs if job.state is JobState.FAILED), "")


@dataclass
class Outcome:
    """Everything that became of the files of one call."""

    files: list[FileFate] = field(default_factory=list)
    studies: list[StudyEnd] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every file is part of a study whose result went out."""
        good = {end.study.study_id for end in self.studies if end.delivered}
        return bool(self.files) and all(file.study_id in good for file in self.files)


def process(
    paths: Sequence[Path],
    *,
    output: Path | None = None,
    modality: str = "",
    body_part: str = "",
    settings: Path | None = None,
    models: Sequence[Path] = (),
    category: str = "",
    as_json: bool = False,
) -> int:
    """Run files and folders through the whole path and print what became of each; return the exit status.

    ``modality`` and ``body_part`` (DICOM terms) say what PNG and JPEG files show; without them the words of
    their folders do (``…/chest_xray/…`` is a DX of the CHEST). ``category`` is said of all files, as by a first
    ``[[category]]`` rule; without it a folder says it that is called like one (``…/femur/…``). ``settings`` is a
    clinic.toml whose routing, guard and results sections apply; ``models`` are model directories to use instead of
    the reference models. Results go to ``output`` (default ``clinic-ai-results``). Raise ClinicError if nothing can
    be done at all.
    """
    sources = find_files(paths)
    target = (output or Path("clinic-ai-results")).absolute()
    target.mkdir(parents=True, exist_ok=True)
    with _ended_in_order():
        outcome = run_files(
            sources,
            target,
            modality=modality,
            body_part=body_part,
            settings=settings,
            models=models,
            category=category,
        )
    print_outcome(outcome, as_json=as_json)
    return 0 if outcome.complete else 1


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let SIGTERM end us as Ctrl-C does, so that no copy of a patient's images stays behind."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def find_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files named and those below the folders named. Raise InputError if one is not there."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.is_file() and not p.is_symlink())
        elif path.is_file():
            found.append(path)
        else:
            raise InputError("no_file", f"There is no file {path}.", remedy="Check the path.")
    if not found:
        raise InputError("no_file", "There is no file below the folders given.", remedy="Name files or folders.")
    return found


def guess_hints(path: Path) -> tuple[str, str]:
    """Return modality and body part of an image file by the words of the folders it lies in, nearest first."""
    guessed = {"modality": "", "body_part": ""}
    for folder in path.absolute().parents:
        words = set(folder.name.lower().replace("-ray", "ray").replace("-", "_").replace(" ", "_").split("_"))
        for what, terms in _FOLDER_WORDS.items():
            if not guessed[what]:
                guessed[what] = next((term for term, names in terms.items() if words & names), "")
    return guessed["modality"], guessed["body_part"]


def run_files(
    sources: Sequence[Path],
    target: Path,
    *,
    modality: str,
    body_part: str,
    settings: Path | None,
    models: Sequence[Path],
    category: str = "",
) -> Outcome:
    """Process files in a home of their own; results go to ``target``.

    Raise InputError if ``category`` is none, ClinicError if that home cannot work.
    """
    from clinic_ai.appliance import Appliance
    from clinic_ai.logs import configure
    from clinic_ai.plugins import find_plugins

    configure("error", "console")
    with tempfile.TemporaryDirectory(prefix="clinic-ai-") as folder:
        home = init_home(Path(folder) / "home", sockets=False)
        catalogue = find_plugins()
        every = [one for manifest in catalogue.manifests.values() for one in manifest.categories]
        own = _own_settings(load_settings(settings or home.clinic_toml), target)
        if category:
            own = own.model_copy(update={"category": (*_rules(category, catalogue), *own.category)})
        with lock_home(home):
            appliance = Appliance(home, own, catalogue)
            try:
                appliance.open()
                for model in models:
                    ref = appliance.registry.import_directory(model, "clinic-ai process")
                    appliance.registry.promote(ref.plugin, ref.name, ref.version, "clinic-ai process")
                names = _copy_in(home, sources, modality, body_part, every)
                appliance.start()
                _wait(appliance, len(names))
                return _outcome(appliance, names)
            finally:
                appliance.stop(grace_s=0.0)


def _own_settings(base: Settings, target: Path) -> Settings:
    """Return settings for a run of its own: a study is complete when all that was given has been read."""
    ingest = base.ingest.model_copy(
        update={"rescan_s": 0.2, "settle_s": 0.05, "quiet_period_s": _NEVER_S, "adaptive_quiet": False}
    )
    results = base.results.model_copy(update={"outbox": str(target)})
    inbox = (InboxSettings(name="process", path="inbox", settle_s=0.05),)
    network = base.network.model_copy(update={"enabled": False})
    # Its home is removed afterwards: nothing in it is to be kept, and nothing has to be kept free for later.
    # Whoever runs it reads the result; nobody could acknowledge a notice of a home that is gone.
    notify = {"notify": NotifySettings()}
    disk = {"disk": DiskSettings(reserve_mb=0), "retention": RetentionSettings(), "quota": QuotaSettings()}
    return base.model_copy(
        update={"ingest": ingest, "results": results, "inbox": inbox, "network": network, **disk, **notify}
    )


def _rules(category: str, catalogue: PluginCatalogue) -> list[CategoryRule]:
    """Return rules that say a category of all studies. Raise InputError if no plugin has it, or one has two."""
    found = []
    for manifest in catalogue.manifests.values():
        meant = categories_named(category, manifest.categories)
        if len(meant) > 1:
            remedy = f"Write {' or '.join(one.key for one in meant)}."
            raise InputError("category", f"“{category}” is more than one category.", remedy=remedy)
        found += [CategoryRule(plugin=manifest.name, category=one.key) for one in meant]
    if not found:
        remedy = "`clinic-ai plugin categories` lists those there are."
        raise InputError("category", f"“{category}” is no category of a plugin.", remedy=remedy)
    return found


def category_folder(path: Path, categories: Sequence[CategoryInfo]) -> str:
    """Return the name of the nearest folder that is called like a category, empty if there is none.

    Only folders that were named with the file count, and the one it lies in: further up are those of the machine.
    """
    folders = [path.absolute().parent.name, *reversed(path.parent.parts)]
    return next((folder for folder in folders if categories_named(folder, categories)), "")


def _copy_in(
    home: Home, sources: Sequence[Path], modality: str, body_part: str, categories: Sequence[CategoryInfo]
) -> dict[str, Path]:
    """Copy the files into the inbox, each in a folder of its own name; return the sources by their names there."""
    names: dict[str, Path] = {}
    staging = home.path / "staging"
    for number, source in enumerate(sources, start=1):
        guessed_modality, guessed_part = guess_hints(source)
        folders = [modality or guessed_modality, body_part or guessed_part]
        image = source.suffix.lower() in _IMAGE_SUFFIXES
        # DICOM files keep their folders together: a series without UIDs is grouped by the folder it came in.
        place = Path(*filter(None, folders)) if image else Path(_folder_number(names, source))
        place /= category_folder(source, categories)
        name = (place / f"{number:06d}{source.suffix.lower() if image else ''}").as_posix()
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, staging / name)
        names[name] = source
    for entry in sorted(staging.iterdir()):
        entry.rename(home.inbox / entry.name)
    return names


def _folder_number(names: dict[str, Path], source: Path) -> str:
    for name, other in names.items():
        if other.parent == source.parent and other.suffix.lower() not in _IMAGE_SUFFIXES:
            return name.split("/", maxsplit=1)[0]
    return f"folder-{len(names) + 1}"


def _wait(appliance: Appliance, count: int) -> None:
    """Wait until every file's fate is decided and every study has ended or waits for a person."""
    while True:
        seen = appliance.wake.count()
        with appliance.database.read() as connection:
            decided = sum(n for fate, n in ledger.counts(connection).items() if not fate.pending)
            living = [s for state in set(StudyState) - _ENDED for s in studies.studies_in(connection, state)]
            stuck = all(_needs_a_person(s, jobs.jobs_of(connection, s.study_id, s.version)) for s in living)
        if decided >= count and any(study.state is StudyState.RECEIVING for study in living):
            appliance.intake.flush()
            continue
        if decided >= count and stuck:
            return
        appliance.wake.wait(seen, 0.2)


def _needs_a_person(study: Study, work: Iterable[Job]) -> bool:
    """Return whether nothing of a study will go on by itself: one of its plugins may wait while another works."""
    waits = [job.wait for job in work if job.state in {JobState.QUEUED, JobState.LEASED}] or [study.wait]
    return all(wait is not None and wait.code in NEEDS_A_PERSON for wait in waits)


def _outcome(appliance: Appliance, names: dict[str, Path]) -> Outcome:
    outcome = Outcome()
    with appliance.database.read() as connection:
        for entry in ledger.list_files(connection, limit=len(names) + 1000):
            source = names.get(entry.name)
            if source is not None:
                outcome.files.append(
                    FileFate(source, entry.fate.value, entry.reason, entry.remedy, entry.study_id or "")
                )
        for study_id in dict.fromkeys(file.study_id for file in outcome.files if file.study_id):
            study = studies.get_study(connection, study_id)
            made = artefacts.artefacts_of(connection, study_id, study.version)
            work = tuple(jobs.jobs_of(connection, study_id, study.version))
            outcome.studies.append(StudyEnd(study, work, made[-1] if made else None))
    order = {path: number for number, path in enumerate(names.values())}
    outcome.files.sort(key=lambda file: order[file.path])
    return outcome


# ---------------------------------------------------------------- printing


def print_outcome(outcome: Outcome, *, as_json: bool) -> None:
    """Print what became of each file, as JSON for machines or as text for people."""
    if as_json:
        print(json.dumps(as_document(outcome), indent=2))  # noqa: T201 - this is what the command is for
        return
    for line in as_lines(outcome):
        print(line)  # noqa: T201


def as_document(outcome: Outcome) -> dict[str, object]:
    """Return the outcome as a JSON document; ``result`` is the path of each study's result.json."""
    return {
        "files": [
            {
                "path": str(file.path),
                "fate": file.fate,
                "reason": file.reason,
                "remedy": file.remedy,
                "study_id": file.study_id,
            }
            for file in outcome.files
        ],
        "studies": [
            {
                "study_id": end.study.study_id,
                "state": end.study.state.value,
                "modalities": list(end.study.facts.modalities),
                "closed_code": end.study.close_code.value if end.study.close_code else "",
                "closed_reason": end.study.closed_reason,
                "wait": end.study.wait.model_dump() if end.study.wait else None,
                "plugins": sorted({job.plugin for job in end.jobs if job.plugin}),
                "guard": end.artefact.verdict.action.value if end.artefact else None,
                "statements": [r.text for r in end.artefact.verdict.released] if end.artefact else [],
                "marks": list(end.marks),
                "result": f"{end.place}/result.json" if end.place else None,
                "files": sorted(str(p) for p in Path(end.place).iterdir()) if end.place else [],
            }
            for end in outcome.studies
        ],
    }


def as_lines(outcome: Outcome) -> Iterable[str]:
    """Yield the outcome in lines for people: studies first, then the files no study came of."""
    by_study: dict[str, list[FileFate]] = {}
    for file in outcome.files:
        by_study.setdefault(file.study_id, []).append(file)
    for end in outcome.studies:
        files = by_study.get(end.study.study_id, [])
        names = files[0].path.name + (f" and {len(files) - 1} more" if len(files) > 1 else "")
        what = "/".join(end.study.facts.modalities) or "?"
        yield f"{names}  [{what}]  {end.study.state.value}  {end.study.study_id}"
        yield f"    {end.sentence}"
        if end.marks:
            yield f"    {' '.join(end.marks)}"
        if end.study.wait is not None and end.study.wait.remedy:
            yield f"    → {end.study.wait.remedy}"
        if end.place:
            yield f"    {end.place}"
    for file in by_study.get("", []):
        yield f"{file.path.name}  {file.fate}"
        yield f"    {file.reason}"
        if file.remedy:
            yield f"    → {file.remedy}"
    done = sum(end.delivered for end in outcome.studies)
    yield (
        f"{len(outcome.files)} files, {len(outcome.studies)} studies, {done} results; "
        f"{sum(not f.study_id for f in outcome.files)} files in no study."
    )
