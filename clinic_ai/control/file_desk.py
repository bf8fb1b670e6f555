"""What people may ask about files and decide about quarantined ones: services in, views out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clinic_ai.control.file_views import (
    AcceptOrder,
    ChoiceView,
    ComparisonView,
    DecidedView,
    DiscardOrder,
    FileView,
    SideView,
)
from clinic_ai.control.people import Person
from clinic_ai.control.services import Services
from clinic_ai.control.views import FilePage, FileRow
from clinic_ai.domain import Fate, FileDecision, Instance
from clinic_ai.errors import ClinicError
from clinic_ai.ingest import undecided
from clinic_ai.ingest.assemble import NOT_KEPT
from clinic_ai.ingest.decisions import OPTIONS
from clinic_ai.ingest.quarantine import Quarantine
from clinic_ai.store import ledger
from clinic_ai.store.ledger import LedgerEntry

_MEANINGS = {
    FileDecision.AGAIN: "it is judged again, as if it had just arrived",
    FileDecision.REPLACE: "it takes the place of the stored object; the study gets a new version, and the earlier one "
    "stays as it was",
    FileDecision.BOTH: "both belong to the study; this one is known by a UID of the appliance's own",
    FileDecision.OWN_STUDY: "it goes into a study of its own, with all files of that patient",
}


def list_files(
    services: Services,
    fates: Iterable[Fate] | None,
    study_id: str | None,
    source: str | None,
    limit: int,
    before: int | None,
) -> FilePage:
    """Return one page of the ledger, newest first."""
    with services.database.read() as connection:
        found = ledger.list_files(connection, fates=fates, study_id=study_id, source=source, limit=limit, before=before)
    return FilePage(
        files=tuple(FileRow.model_validate(file) for file in found),
        next_before=found[-1].file_id if len(found) == limit else None,
    )


def get_file(services: Services, file_id: int) -> FileView:
    """Return one file, where its bytes lie and how it may be accepted. Raise NotFound."""
    with services.database.read() as connection:
        entry = ledger.get_file(connection, file_id)
    waits = entry.fate is Fate.QUARANTINED
    return FileView(
        file=FileRow.model_validate(entry),
        place=_place(services, entry),
        choices=tuple(map(_choice, undecided.choices_of(entry.reason_code))) if waits else (),
        conflict=waits and entry.reason_code in undecided.CONFLICTS and entry.study_id is not None,
    )


def compare(services: Services, file_id: int) -> ComparisonView:
    """Return how a quarantined file differs from what it contradicts; see ``ingest.comparison``."""
    found = services.comparer.compare(file_id)
    return ComparisonView(
        arrived=_side(found.arrived),
        stored=None if found.stored is None else _side(found.stored),
        differing=found.differing,
        pixels=found.pixels.value,
        sentence=found.sentence,
    )


def accept(services: Services, order: AcceptOrder, person: Person) -> DecidedView:
    """Let files out of the quarantine. Raise NotFound or Conflict."""
    _check_named(order.files, order.study)
    decided = services.decisions.accept(order.files, order.study, order.decision, person.name)
    return DecidedView(sentence=f"{_files(decided)} accepted: {_MEANINGS[order.decision]}.", files=tuple(decided))


def discard(services: Services, order: DiscardOrder, person: Person) -> DecidedView:
    """Remove the bytes of quarantined files. Raise NotFound or Conflict."""
    _check_named(order.files, order.study)
    decided = services.decisions.discard(order.files, order.study, order.reason, person.name)
    return DecidedView(sentence=f"{_files(decided)} discarded; the bytes are removed.", files=tuple(decided))


def _check_named(files: Sequence[int], study: str | None) -> None:
    if not files and study is None:
        raise ClinicError("No file is named.", remedy="Give numbers of files, or the study they contradict.")


def _files(numbers: Sequence[int]) -> str:
    return f"File {numbers[0]} is" if len(numbers) == 1 else f"{len(numbers)} files are"


def _choice(decision: FileDecision) -> ChoiceView:
    return ChoiceView(decision=decision, option=OPTIONS[decision], meaning=_MEANINGS[decision])


def _place(services: Services, entry: LedgerEntry) -> str:
    """Return where the bytes of a file lie, below the home; empty if they are not the appliance's."""
    home = services.home
    quarantine = Quarantine(home.quarantine)
    if entry.fate is Fate.QUARANTINED and quarantine.holds(entry.file_id, entry.seen_at):
        return str(quarantine.file(entry.file_id, entry.seen_at))
    if entry.fate in {Fate.STORED, Fate.DUPLICATE} and entry.sha256 and entry.reason_code not in NOT_KEPT:
        return str(home.objects / entry.sha256[:2] / entry.sha256[2:])
    return ""


def _side(instance: Instance) -> SideView:
    header = instance.header
    return SideView(
        sha256=instance.sha256,
        size_bytes=instance.size_bytes,
        kind=header.sop_class_name,
        modality=header.modality,
        study_date=header.study_date,
        study_description=header.study_description,
        series_number=header.series_number,
        series_description=header.series_description,
        instance_number=header.instance_number,
        rows=header.rows,
        columns=header.columns,
        frames=header.frames,
    )
