"""The audit as DICOM audit trail messages (PS3.15 section A.5), one XML document on each line."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from xml.etree import ElementTree as ET

from clinic_ai.errors import NotFound
from clinic_ai.heads.exporting import WITHHELD, Pseudonyms, entries, parsed, pseudonyms
from clinic_ai.store import studies
from clinic_ai.store.audit import Entry
from clinic_ai.store.database import Database

DCM = "DCM"
OURS = "99CLINICAI"


@dataclass(frozen=True)
class Code:
    """A coded value of PS3.16 or of our own."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class Event:
    """Which message an action becomes: event, its type, action code, outcome, and what it is about."""

    identity: Code
    types: tuple[Code, ...]
    action: str
    about: str  # "study" | "alert" | "log" | ""
    outcome: str = "0"


ACTIVITY = Code("110100", DCM, "Application Activity")
LOG_USED = Code("110101", DCM, "Audit Log Used")
ACCESSED = Code("110103", DCM, "DICOM Instances Accessed")
TRANSFERRED = Code("110104", DCM, "DICOM Instances Transferred")
DELETED = Code("110105", DCM, "DICOM Study Deleted")
EXPORT = Code("110106", DCM, "Export")
ALERT = Code("110113", DCM, "Security Alert")
START = Code("110120", DCM, "Application Start")
STOP = Code("110121", DCM, "Application Stop")
CONFIGURED = Code("110129", DCM, "Security Configuration")
SOFTWARE = Code("110131", DCM, "Software Configuration")
RESTRICTED = Code("110132", DCM, "Use of Restricted Function")

EVENTS: Mapping[str, Event] = {
    "daemon.started": Event(ACTIVITY, (START,), "E", ""),
    "daemon.stopped": Event(ACTIVITY, (STOP,), "E", ""),
    "study.receive": Event(TRANSFERRED, (), "C", "study"),
    "analysis.stored": Event(ACCESSED, (), "R", "study"),
    "study.question": Event(ACCESSED, (), "R", "study"),
    "delivery.sent": Event(EXPORT, (), "R", "study"),
    "study.exported": Event(EXPORT, (), "R", "study"),
    "study.exported_deidentified": Event(EXPORT, (), "R", "study"),
    "study.originals_removed": Event(DELETED, (), "D", "study"),
    "audit.exported": Event(LOG_USED, (), "R", "log"),
    "access.refused": Event(ALERT, (RESTRICTED,), "E", "alert", outcome="4"),
    "settings.reloaded": Event(ALERT, (CONFIGURED,), "E", "alert"),
    "model.imported": Event(ALERT, (SOFTWARE,), "E", "alert"),
    "model.promoted": Event(ALERT, (SOFTWARE,), "E", "alert"),
    "model.rolled_back": Event(ALERT, (SOFTWARE,), "E", "alert"),
}
PREFIXES: Mapping[str, Event] = {
    "artefact.": Event(ACCESSED, (), "C", "study"),
    "review.": Event(ACCESSED, (), "U", "study"),
    "critical.": Event(ACCESSED, (), "C", "study"),
    "alert.raised": Event(ALERT, (Code("alert", OURS, "Alert of the appliance"),), "E", "alert", outcome="4"),
    "alert.acknowledged": Event(ALERT, (Code("acknowledged", OURS, "Alert acknowledged"),), "E", "alert"),
}
_APPLICATION = Code("110150", DCM, "Application")
_SOURCE = Code("110153", DCM, "Source Role ID")
_DESTINATION = Code("110152", DCM, "Destination Role ID")
_STUDY_UID = Code("110180", DCM, "Study Instance UID")
_OUR_STUDY = Code("study", OURS, "Study number of the appliance")
_PATIENT = Code("2", "RFC-3881", "Patient Number")
_NODE = Code("110182", DCM, "Node ID")
_URI = Code("12", "RFC-3881", "URI")


def event_of(action: str) -> Event | None:
    """Return which message an action becomes; None: the standard has none for it."""
    found = EVENTS.get(action)
    return found or next((event for prefix, event in PREFIXES.items() if action.startswith(prefix)), None)


def messages(database: Database, site: str, *, names: bool) -> Iterator[bytes]:
    """Yield a message for each row of the log that the standard knows an event for; ``site`` names the clinic."""
    hidden = None if names else pseudonyms(database)

    @lru_cache(maxsize=4096)
    def study(study_id: str) -> tuple[str, str] | None:
        with database.read() as connection:
            try:
                found = studies.get_study(connection, study_id)
            except NotFound:
                return None
        return (found.study_instance_uid, found.identity.patient_id) if names else (study_id, found.pseudonym)

    for entry in entries(database):
        event = event_of(entry.action)
        if event is not None:
            message = _message(entry, event, site, hidden, study)
            if message is not None:
                yield ET.tostring(message, encoding="utf-8", xml_declaration=False) + b"\n"


def _message(
    entry: Entry,
    event: Event,
    site: str,
    hidden: Pseudonyms | None,
    study: Callable[[str], tuple[str, str] | None],
) -> ET.Element | None:
    of_study = study(entry.subject) if event.about == "study" else None
    if event.about == "study" and of_study is None:
        return None
    root = ET.Element("AuditMessage")
    at = datetime.fromtimestamp(entry.at, UTC).isoformat(timespec="milliseconds")
    identification = ET.SubElement(
        root,
        "EventIdentification",
        EventActionCode=event.action,
        EventDateTime=at,
        EventOutcomeIndicator=event.outcome,
    )
    _coded(identification, "EventID", event.identity)
    for kind in event.types:
        _coded(identification, "EventTypeCode", kind)
    _participants(root, entry, event, hidden)
    source = ET.SubElement(root, "AuditSourceIdentification", AuditSourceID="clinic-ai")
    if site:
        source.set("AuditEnterpriseSiteID", " ".join(site.split()))
    ET.SubElement(source, "AuditSourceTypeCode", {"csd-code": "4"})
    if of_study is not None:
        _study(root, entry, *of_study, named=hidden is None)
    elif event.about:
        _resource(root, entry, event, hidden)
    return root


def _participants(root: ET.Element, entry: Entry, event: Event, hidden: Pseudonyms | None) -> None:
    actor = entry.actor if hidden is None else hidden.person(entry.actor)
    roles: dict[Code, tuple[str, bool]]
    if event.identity is TRANSFERRED:
        roles = {_SOURCE: ("outside", True), _DESTINATION: ("clinic-ai", False)}
    elif event.identity is EXPORT:
        roles = {_SOURCE: (actor, True), _DESTINATION: ("outside", False)}
    else:
        roles = {_APPLICATION: (actor, True)}
    for role, (user, requests) in roles.items():
        participant = ET.SubElement(
            root, "ActiveParticipant", UserID=user, UserIsRequestor="true" if requests else "false"
        )
        _coded(participant, "RoleIDCode", role)


def _study(root: ET.Element, entry: Entry, number: str, patient: str, *, named: bool) -> None:
    item = _object(root, number, "2", "3", _STUDY_UID if named else _OUR_STUDY, entry.subject)
    _detail(item, "action", entry.action)
    _detail(item, "row", str(entry.seq))
    _object(root, patient or WITHHELD, "1", "1", _PATIENT, patient or WITHHELD)


def _resource(root: ET.Element, entry: Entry, event: Event, hidden: Pseudonyms | None) -> None:
    if event.about == "log":
        _object(root, "clinic-ai:audit", "2", "13", _URI, "Security Audit Log")
        return
    subject = entry.subject if hidden is None else hidden.subject(entry.subject)
    details = parsed(entry.details) if hidden is None else hidden.details(parsed(entry.details))
    item = _object(root, "clinic-ai", "2", "13", _NODE, subject)
    _detail(item, "Alert Description", f"{entry.action} {subject}")
    for key, value in sorted(details.items()):
        _detail(item, key, str(value))


def _object(root: ET.Element, number: str, kind: str, role: str, code: Code, name: str) -> ET.Element:
    item = ET.SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=number,
        ParticipantObjectTypeCode=kind,
        ParticipantObjectTypeCodeRole=role,
    )
    _coded(item, "ParticipantObjectIDTypeCode", code)
    ET.SubElement(item, "ParticipantObjectName").text = _clean(name)
    return item


def _detail(item: ET.Element, kind: str, value: str) -> None:
    encoded = base64.b64encode(value.encode()).decode()
    ET.SubElement(item, "ParticipantObjectDetail", type=kind, value=encoded)


def _coded(parent: ET.Element, name: str, code: Code) -> None:
    attributes = {"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning}
    ET.SubElement(parent, name, attributes)


def _clean(text: str) -> str:
    return "".join(character if character.isprintable() else "�" for character in text)
