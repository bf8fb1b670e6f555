"""Cases made by schemathesis from the API's description of itself, sent to a served control room over its sockets."""

from __future__ import annotations

import hashlib
import json
import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import known_curves
import requests
import schemathesis
from control_room import Room
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from requests.adapters import HTTPAdapter
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sqlalchemy import update
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from clinic_ai.domain import GuardAction
from clinic_ai.errors import PolicyError
from clinic_ai.heads.head import HeadKeeper
from clinic_ai.store import alerts, tables
from clinic_ai.tasks import CaseReport

ENDLESS = "/v1/events"
"""A stream has no end to wait for; ``test_server`` reads it."""
CHILDREN = ("/v1/runs/{run_id}/forecast", "/v1/files/{file_id}/comparison")
"""What starts a child of seconds if what it asks about is there: these are asked about what is not."""


FRAMING = frozenset({"content-length", "transfer-encoding", "connection", "host", "expect", "upgrade"})
"""Headers that say where a request ends, which is the transport's business."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


class _Connection(HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("clinic-ai", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


class _Pool(HTTPConnectionPool):
    def __init__(self, path: Path) -> None:
        super().__init__("clinic-ai", timeout=60)
        self._path = path

    def _new_conn(self) -> Any:
        return _Connection(self._path)


class UnixAdapter(HTTPAdapter):
    """Lets requests talk to a Unix socket."""

    def __init__(self, path: Path) -> None:
        self._unix = _Pool(path)
        super().__init__()

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> Any:
        return self._unix

    def close(self) -> None:
        self._unix.close()
        super().close()


@dataclass
class Tally:
    """How many cases were sent, by status, and what was found."""

    statuses: Counter[int] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        return sum(self.statuses.values())


def furnish(room: Room) -> dict[str, Any]:
    """Put things into a room, so that some requests find what they ask for; return how they are called."""
    study_id = room.add_study(state="DONE")
    room.add_finding(study_id)
    room.add_result(study_id)
    room.add_result(room.add_study(state="DONE"), GuardAction.HOLD)
    for state in ("RECEIVING", "UNROUTED"):
        room.add_study(state=state)
    room.quarantine_file(b"no DICOM")
    run_id = known_curves.add_run(room.database, known_curves.losses(12))
    dataset = {"dataset_id": "D-1", "plugin": "tiny", "digest": "0" * 64, "examples": []}
    with room.database.write() as connection:
        connection.execute(update(tables.datasets).values(document=json.dumps(dataset)))
        alerts.raise_alert(connection, "test", "appliance", "Something happened.", "Look at it.")
    HeadKeeper(room.home, room.database).open()  # the key that exports of the audit are signed with
    room.look()
    room.sampler.sample()
    # Cases of a policy pack take a child of seconds each; what is sent and answered is what matters here.
    room.guard.check = _checked  # type: ignore[method-assign]
    with room.client() as client:
        artefact_id = client.study(study_id).versions[0].artefacts[0].artefact_id
    return {
        "study_id": study_id,
        "run_id": run_id,
        "dataset_id": "D-1",
        "artefact_id": artefact_id,
        "alert_id": 1,
        "file_id": 1,
        "sha256": hashlib.sha256(b"x").hexdigest(),
    }


def _checked(directory: Path) -> CaseReport:
    raise PolicyError(f"{directory.name} is not tested here.")


def attack(room: Room, known: Mapping[str, Any], *, each: int, monitor: bool, number: int) -> Tally:
    """Send cases to every operation, about ``each`` that fit the description and as many that do not.

    ``number`` seeds them. On the monitor socket what changes something gets one of each kind: all are refused.
    """
    path = room.home.monitor_socket if monitor else room.home.control_socket
    tally = Tally()
    with requests.Session() as session:
        session.mount("http://", UnixAdapter(path))
        schema = schemathesis.openapi.from_dict(session.get("http://x/openapi.json").json())
        for found in schema.get_all_operations():
            operation = found.ok()
            if operation.path == ENDLESS:
                continue
            count = 1 if monitor and operation.method.upper() != "GET" else each
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                _send(session, operation, mode, known, count, number, tally)
    return tally


def _send(
    session: requests.Session,
    operation: Any,
    mode: GenerationMode,
    known: Mapping[str, Any],
    count: int,
    number: int,
    tally: Tally,
) -> None:
    wanted = operation.path_parameters
    names = [parameter.name for parameter in wanted] if wanted else []
    cases: st.SearchStrategy[Case] = operation.as_strategy(mode)
    if names and operation.path not in CHILDREN:
        there = {name: known[name] for name in names if name in known}
        cases = st.one_of(cases, operation.as_strategy(mode, path_parameters=there))

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def send(case: Case) -> None:
        for header in [name for name in case.headers if name.lower() in FRAMING]:
            del case.headers[header]  # a length that is none makes the server wait, as it has to
        answer = case.call(base_url="http://x", session=session, timeout=60)
        tally.statuses[answer.status_code] += 1
        tally.operations[operation.label] += 1
        try:
            case.validate_response(answer, checks=CHECKS)
        except (AssertionError, BaseExceptionGroup) as error:  # all of them are wanted, not the first alone
            told = error.exceptions if isinstance(error, BaseExceptionGroup) else (error,)
            tally.faults += [f"{operation.label} → {answer.status_code}: {one!r}" for one in told]

    try:
        send()
    except Unsatisfiable:
        if mode is GenerationMode.POSITIVE:
            raise
        # There is nothing about this operation that could be wrong.
