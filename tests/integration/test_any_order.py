"""Any order, interleaving, duplication and splitting of what arrives gives the same studies, on a real SQLite.

Each example is filed twice into one home, under study UIDs of its own: in order and in one go, and then as drawn.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from header_site import HeaderSite, slice_header
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clinic_ai.domain import InstanceHeader, PatientIdentity, StudyState
from clinic_ai.ingest.completeness import assess
from clinic_ai.store import audit, studies

LONG = 3600.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeaderSite]:
    made = HeaderSite(tmp_path_factory.mktemp("site") / "h", quiet_period_s=LONG)
    yield made
    with made.database.read() as connection:
        assert audit.first_break(connection) is None
    made.close()


@st.composite
def scans(draw: st.DrawFn, study: int) -> list[dict[str, Any]]:
    """Draw the instances of one study: which fields of their headers differ from ``slice_header``."""
    numbers = draw(st.sets(st.tuples(st.integers(1, 3), st.integers(0, 9)), min_size=1, max_size=8))
    who = {"patient_id": f"P{study}", "patient_name": f"Doe^{study}", "accession_number": f"A{study}"}
    # Right, too high, or not said; one that is too low closes a study early, which depends on what came first.
    announced = draw(st.sampled_from([None, len(numbers), len(numbers) + 3]))
    drawn = []
    for series, number in sorted(numbers):
        said = {field: value for field, value in who.items() if draw(st.booleans())}
        said["patient_name"] = draw(st.sampled_from(["", who["patient_name"], who["patient_name"].upper()]))
        drawn.append(
            {
                "series_instance_uid": f".{series}",
                "series_number": series,
                "instance_number": draw(st.sampled_from([number, None])),
                "sop_instance_uid": f".{series}.{number}",
                "identity": said,
                "study_description": draw(st.sampled_from(["", "Chest", "CHEST CT"])),
                "modality": draw(st.sampled_from(["CT", "SR"])),
                "requested_procedure_priority": draw(st.sampled_from(["", "ROUTINE", "STAT", "LOW"])),
                "number_of_study_related_instances": draw(st.sampled_from([announced, None])) if drawn else announced,
            }
        )
    return drawn


def header(uid: str, fields: dict[str, Any]) -> InstanceHeader:
    salted = {key: f"{uid}{value}" if key.endswith("_uid") else value for key, value in fields.items()}
    return slice_header(uid, 1, **{**salted, "identity": PatientIdentity(**fields["identity"])})


_salt = itertools.count(1)


def file(site: HeaderSite, every: Sequence[list[dict[str, Any]]], batches: Sequence[Sequence[tuple[int, int]]]) -> Any:
    """File batches of (study, instance); return what is known of each study at the end."""
    salt = next(_salt)
    folder = site.home.path / "given"
    folder.mkdir(exist_ok=True)
    for number, batch in enumerate(batches):
        paths = []
        for place, (study, instance) in enumerate(batch):
            paths.append(folder / f"{salt}-{number}-{place}")
            paths[-1].write_text(header(f"1.2.{salt}.{study}", every[study][instance]).model_dump_json())
        site.intake.take(paths, "inbox")
        site.intake.closing.close_due(time.monotonic(), lambda _: float("inf"))
        for path in paths:
            path.unlink()
    site.intake.flush()
    return [known(site, f"1.2.{salt}.{study}") for study in range(len(every))]


def known(site: HeaderSite, uid: str) -> dict[str, Any]:
    """Return all that may not depend on how a study came."""
    with site.database.read() as connection:
        (study,) = [found for found in studies.list_studies(connection, limit=10**6) if found.study_instance_uid == uid]
        instances = studies.instances_of(connection, study.study_id, study.version)
    assert study.state is StudyState.CLOSED
    return {
        "version": study.version,
        "instances": [instance.header.sop_instance_uid.removeprefix(uid) for instance in instances],
        "identity": study.identity,
        "facts": study.facts,
        "priority": (study.priority, study.urgency),
        "closed": (study.close_code, study.closed_reason),
    }


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_the_studies_are_the_same_however_they_come(site: HeaderSite, data: st.DataObject) -> None:
    every = [data.draw(scans(study)) for study in range(data.draw(st.integers(1, 3)))]
    in_order = [(study, instance) for study, drawn in enumerate(every) for instance in range(len(drawn))]
    again = data.draw(st.lists(st.sampled_from(in_order), max_size=6))
    shuffled = data.draw(st.permutations([*in_order, *again]))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(shuffled)), max_size=4)))
    batches = [shuffled[start:end] for start, end in itertools.pairwise([0, *cuts, len(shuffled)]) if start < end]
    assert file(site, every, batches) == file(site, every, [in_order])


def test_no_way_of_closing_it_changes_what_a_study_is_in_the_end(site: HeaderSite, tmp_path: Path) -> None:
    """Closed too early again and again, by a person, it ends with all instances, in a version that says so."""
    uid = f"1.2.{next(_salt)}.0"
    paths = []
    for number in range(1, 6):
        paths.append(tmp_path / str(number))
        paths[-1].write_text(slice_header(uid, number).model_dump_json())
        site.intake.take([paths[-1]], "inbox")
        with site.database.read() as connection:
            (study,) = studies.studies_in(connection, StudyState.RECEIVING)
            assert assess(studies.instances_of(connection, study.study_id, study.version)).tally.instances == number
        site.intake.closing.close(study.study_id, "anna")
    found = known(site, uid)
    assert (found["version"], len(found["instances"])) == (5, 5)
    site.intake.take(paths, "inbox")
    assert known(site, uid) == found
