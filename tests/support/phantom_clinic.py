"""A clinic of phantoms: its patients come to one of two scanners, and a clinician reviews what the software said.

Who is in which part of the split follows from a key of the home. So that a few dozen patients are enough for figures
with an interval, the hospital numbers are chosen: as many of each part come as ``PATIENTS`` says, the first patient of
a part with the same films in every home.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness import Daemon, rows, wait_until

from clinic_ai.control.review_client import ReviewClient
from clinic_ai.control.review_views import AcceptReview, AmendReview, ReviewView
from clinic_ai.domain import Presence
from clinic_ai.domain.reviews import Correction
from clinic_ai.home import Home
from clinic_ai.store.database import Database
from clinic_ai.store.meta import patient_key, site_key
from clinic_ai.training.splits import split_of
from clinic_ai_xray.phantom_clinic import Scanner, write_film

PATIENTS: Mapping[tuple[Scanner, str], int] = {
    ("sharp", "train"): 16,
    ("sharp", "validation"): 6,
    ("sharp", "test"): 24,
    ("soft", "train"): 8,
    ("soft", "validation"): 4,
    ("soft", "test"): 6,
}
"""By scanner and part of the split; every other one is ill."""
FILMS = 3
"""Films of one study: one visit of a patient."""
SIGNER = "Dr. Ada Example"
_SEXES, _AGES = "FM", ("052Y", "071Y")


@dataclass(frozen=True)
class Patient:
    """One phantom and its only study."""

    patient_id: str
    scanner: Scanner
    split: str
    ill: bool
    sex: str
    age: str
    study: int
    """Seed of its study; its films have those that begin with ``FILMS`` times this."""

    def draw(self, folder: Path) -> list[Path]:
        """Write its films into a folder; return their places."""
        places = []
        for seed in range(self.study * FILMS, (self.study + 1) * FILMS):
            places.append(folder / f"{seed}.dcm")
            write_film(
                places[-1],
                self.scanner,
                seed=seed,
                ill=self.ill,
                patient=self.patient_id,
                study=self.study,
                sex=self.sex,
                age=self.age,
            )
        return places


def patients_of(home: Home) -> dict[str, Patient]:
    """Return the patients that come to a home, by their hospital number."""
    database = Database(home.database)
    database.open()
    with database.write() as connection:
        key = site_key(connection)
    database.close()
    waiting = {part: list(range(count)) for part, count in PATIENTS.items()}
    first = dict(zip(PATIENTS, itertools.accumulate(PATIENTS.values(), initial=0), strict=False))
    found: dict[str, Patient] = {}
    for number in itertools.count():
        patient_id = f"P{number}"
        split = split_of(key, "xray", patient_key(key, patient_id))
        part = next((part for part, left in waiting.items() if left and part[1] == split), None)
        if part is not None:
            place = waiting[part].pop(0)
            found[patient_id] = Patient(
                patient_id=patient_id,
                scanner=part[0],
                split=split,
                ill=place % 2 == 1,
                sex=_SEXES[place // 2 % 2],
                age=_AGES[place // 4 % 2],
                study=first[part] + place,
            )
        if not any(waiting.values()):
            return found
    raise AssertionError  # the numbers do not end


Opinion = Callable[[ReviewView, Patient], bool | None]
"""Whether the clinician sees pneumonia in a study; None leaves it unreviewed."""


def review(home: Home, daemon: Daemon, patients: Mapping[str, Patient], opinion: Opinion) -> int:
    """Sign the newest result of each patient's study with an opinion, for models to learn from; return how many."""
    newest = rows(
        home,
        "SELECT artefact_id FROM artefacts WHERE state IN ('PRELIMINARY', 'FINAL') ORDER BY created_at, artefact_id",
    )
    signed = 0
    with ReviewClient(home) as client:
        for row in newest:
            view = client.review(row["artefact_id"], SIGNER, deciding=True)
            patient = patients.get(view.subject.patient_id)
            present = None if patient is None else opinion(view, patient)
            if present is None:
                continue
            _sign(client, view, present=present)
            signed += 1
    wait_until(lambda: at_rest(home), "the end of all jobs")
    return signed


def _sign(client: ReviewClient, view: ReviewView, *, present: bool) -> None:
    artefact_id = view.row.artefact_id
    if present and view.row.state == "PRELIMINARY" and calls(view) == {Presence.PRESENT}:
        client.accept(artefact_id, AcceptReview(digest=view.digest, reviewer=SIGNER, consent=True))
        return
    correction = Correction(condition="pneumonia", presence=Presence.PRESENT if present else Presence.ABSENT)
    client.amend(artefact_id, AmendReview(digest=view.digest, reviewer=SIGNER, consent=True, corrections=(correction,)))


def calls(view: ReviewView) -> set[Presence]:
    """Return what the software says of the films of a study."""
    return {finding.presence for finding in view.findings}


def at_rest(home: Home) -> bool:
    """Return whether no study waits for anything any more."""
    return not rows(home, "SELECT 1 FROM jobs WHERE state IN ('QUEUED', 'LEASED') LIMIT 1") and not rows(
        home, "SELECT 1 FROM deliveries WHERE state = 'PENDING' LIMIT 1"
    )
