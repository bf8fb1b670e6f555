"""Which study an arrival belongs to, by what the store has already; ``assemble`` says what becomes of it there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection

from clinic_ai.domain import Fate, FileDecision, PatientIdentity
from clinic_ai.ingest import assemble
from clinic_ai.ingest.assemble import Arrival, Known, Sorted
from clinic_ai.ingest.identifiers import key_for_patient, with_own_uids
from clinic_ai.store import ledger
from clinic_ai.store.groups import find_group, key_of_nameless, known_hashes, known_uids
from clinic_ai.store.ledger import Outcome


def grouped(connection: Connection, arrivals: Sequence[Arrival]) -> dict[str, list[Arrival]]:
    """Return the arrivals by grouping key, under UIDs of ours where they have none.

    Another patient's objects join the study that a person made of such ones before; else they stay, as a conflict.
    """
    groups: dict[str, list[Arrival]] = {}
    for key, members in assemble.group(arrivals).items():
        if assemble.nameless(members[0].header):  # then all are, as the key says the same of them
            keys = [key_of_nameless(connection, key, arrival.sha256) for arrival in members]
        else:
            keys = _by_patient(connection, key, members)
        for its_key, arrival in zip(keys, members, strict=True):
            header = with_own_uids(arrival.header, its_key, arrival.sha256)
            groups.setdefault(its_key, []).append(replace(arrival, header=header))
    return groups


def _by_patient(connection: Connection, key: str, members: Sequence[Arrival]) -> list[str]:
    """Return for each arrival ``key``, or the key of the study for its patient alone."""
    group = find_group(connection, key)
    identity = group.identity if group else PatientIdentity()
    apart: dict[str, bool] = {}
    keys = []
    for arrival in members:
        its = arrival.header.identity
        own = key_for_patient(key, its.patient_id or repr(its.model_dump(exclude={"accession_number"})))
        own_study = arrival.decision is FileDecision.OWN_STUDY
        if not own_study and assemble.other_patient(identity, its):
            if own not in apart:
                apart[own] = find_group(connection, own) is not None
            own_study = apart[own]
        keys.append(own if own_study else key)
    return keys


def known(connection: Connection, key: str, members: Sequence[Arrival]) -> Known:
    """Return what the store has of the study with this key, as far as it concerns these arrivals."""
    group = find_group(connection, key)
    if group is None:
        return Known()
    hashes = known_hashes(connection, group.study_id, [arrival.sha256 for arrival in members])
    named = [arrival.header.sop_instance_uid for arrival in members if arrival.header.sop_instance_uid]
    uids = known_uids(connection, group.study_id, named)
    return Known(frozenset(hashes), frozenset(uids), group.identity)


def waiting_already(connection: Connection, groups: Mapping[str, Sorted]) -> dict[int, tuple[str, str]]:
    """Return which files wait for a person's decision in the quarantine already, byte by byte, and what to say.

    Senders repeat what they are not sure of, night by night; one copy is enough to decide about.
    """
    found = {}
    for key, sorted_out in groups.items():
        group = find_group(connection, key) if sorted_out.conflicts else None
        if group is None:
            continue
        there = {row.sha256: row.file_id for row in ledger.undecided(connection, group.study_id)}
        for arrival, _ in sorted_out.conflicts:
            if arrival.sha256 in there:
                said = (
                    f"Exactly these bytes wait for a decision in quarantine already, as file {there[arrival.sha256]}."
                )
                found[arrival.file_id] = (assemble.IN_QUARANTINE, said)
    return found


def note_not_kept(connection: Connection, groups: Mapping[str, Sorted], reasons: Mapping[int, tuple[str, str]]) -> None:
    """Decide the fate of files that say again what a study has or a person is to decide about."""
    for key, found in groups.items():
        numbers = [arrival.file_id for arrival, _ in found.conflicts if arrival.file_id in reasons]
        group = find_group(connection, key) if numbers else None
        if group is not None:
            outcomes = [Outcome(n, Fate.DUPLICATE, *reasons[n], study_id=group.study_id) for n in numbers]
            ledger.decide(connection, outcomes)


ALIKE = (
    assemble.SAME_OBJECT,
    "The study has this object already. Only what the sender wrote before the data set (preamble, file meta "
    "information) is different, and is not kept.",
)
