"""A clinic of phantoms: its patients come in, and a clinician reviews what the software said.

Who is in which part of the split follows from a key of the home. So that a few dozen patients are enough for figures
with an interval, the hospital numbers are chosen: as many of each part come as ``PATIENTS`` says, the first patient of
a part with the same films in every home.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness import rows, wait_until

from clinic_ai.contract import Device
from clinic_ai.control.review_client import ReviewClient
from clinic_ai.control.review_views import AcceptReview, AmendReview, ReviewView
from clinic_ai.domain import Presence
from clinic_ai.domain.reviews import Correction
from clinic_ai.home import Home
from clinic_ai.ml.metrics import difference_interval
from clinic_ai.ml.model_files import open_model
from clinic_ai.store.database import Database
from clinic_ai.store.meta import patient_key, site_key
from clinic_ai.training.splits import split_of
from clinic_ai_xray.data import read_input
from clinic_ai_xray.phantom_clinic import PhantomPatient, Scanner, phantom_patients
from clinic_ai_xray.served import ServedModel

PATIENTS: Mapping[tuple[Scanner, str], int] = {
    ("sharp", "train"): 12,
    ("sharp", "validation"): 4,
    ("sharp", "test"): 26,
    ("soft", "train"): 6,
    ("soft", "validation"): 4,
    ("soft", "test"): 6,
}
"""By scanner and part of the split."""
FEW: Mapping[tuple[Scanner, str], int] = {("sharp", "train"): 12, ("sharp", "validation"): 4, ("sharp", "test"): 12}
"""Enough for one night that helps, at one scanner."""
_FILMS = 2
"""Films of one patient here: fewer than the clinic of the benchmark has, for the time it takes."""
_FIRST = 350
"""Number of the first patient. Of these the software says the same of all films for enough patients of either class."""
SIGNER = "Dr. Ada Example"
_FURTHER = 10_000
"""Number of the first patient who never comes to the clinic."""


@dataclass(frozen=True)
class Patient:
    """A phantom with its hospital number, and the part of the split that it is in."""

    patient_id: str
    split: str
    phantom: PhantomPatient

    def draw(self, folder: Path) -> list[Path]:
        """Write its films into a folder; return their places."""
        return self.phantom.draw(folder, self.patient_id, films=_FILMS)


def patients_of(home: Home, counts: Mapping[tuple[Scanner, str], int] = PATIENTS) -> dict[str, Patient]:
    """Return the patients that come to a home, by their hospital number; as many as ``counts`` says."""
    database = Database(home.database)
    database.open()
    with database.write() as connection:
        key = site_key(connection)
    database.close()
    firsts = itertools.accumulate(counts.values(), initial=_FIRST)
    waiting = [
        (split, phantom)
        for ((scanner, split), count), first in zip(counts.items(), firsts, strict=False)
        for phantom in phantom_patients(scanner, count, first)
    ]
    found: dict[str, Patient] = {}
    for number in itertools.count():
        patient_id = f"P{number}"
        its = split_of(key, "xray", patient_key(key, patient_id))
        place = next((place for place, (split, _) in enumerate(waiting) if split == its), None)
        if place is not None:
            found[patient_id] = Patient(patient_id, *waiting.pop(place))
        if not waiting:
            break
    return found


def further_patients(count: int) -> list[PhantomPatient]:
    """Return patients who are not among those of the clinic, three of four at the sharp scanner."""
    soft = count // 4
    return phantom_patients("sharp", count - soft, _FURTHER) + phantom_patients("soft", soft, _FURTHER + count)


def improvement(new: Path, old: Path, folder: Path, count: int = 36) -> tuple[float, float]:
    """Return the 95 % interval of the AUROC of one model less that of another, on one film of each further patient."""
    patients = further_patients(count)
    films = [phantom.draw(folder, f"F{phantom.number}", films=1)[0] for phantom in patients]
    scores = []
    for place in (new, old):
        model = ServedModel(open_model(place), Device())
        scores.append([model.judge(read_input(film, model.side)).probability for film in films])
    labels = [phantom.ill for phantom in patients]
    return difference_interval(labels, scores[0], scores[1], [str(phantom.number) for phantom in patients])


Opinion = Callable[[ReviewView, Patient], bool | None]
"""Whether a clinician sees pneumonia in a study; None leaves it as it is."""


class Clinician:
    """Reviews the studies of the patients of a home, and remembers what was signed of whom."""

    def __init__(self, home: Home, patients: Mapping[str, Patient]) -> None:
        self._home = home
        self._patients = patients
        self._signed: dict[str, bool] = {}

    def review(self, opinion: Opinion) -> int:
        """Sign what was not signed so before, for models to learn from it; return of how many studies.

        What follows from it is done when this returns.
        """
        waiting = rows(self._home, "SELECT artefact_id FROM artefacts WHERE state IN ('PRELIMINARY', 'FINAL')")
        signed = 0
        with ReviewClient(self._home) as client:
            for row in waiting:
                view = client.review(row["artefact_id"], SIGNER, deciding=True)
                patient = self._patients[view.subject.patient_id]
                present = opinion(view, patient)
                if present is None or self._signed.get(patient.patient_id) is present:
                    continue
                _sign(client, view, present=present)
                self._signed[patient.patient_id] = present
                signed += 1
        wait_until(lambda: at_rest(self._home), "the end of all jobs")
        return signed


def _sign(client: ReviewClient, view: ReviewView, *, present: bool) -> None:
    artefact_id = view.row.artefact_id
    if present and view.row.state == "PRELIMINARY" and calls(view) == {Presence.PRESENT}:
        client.accept(artefact_id, AcceptReview(digest=view.digest, reviewer=SIGNER, consent=True))
        return
    correction = Correction(condition="pneumonia", presence=Presence.PRESENT if present else Presence.ABSENT)
    order = AmendReview(digest=view.digest, reviewer=SIGNER, consent=True, corrections=(correction,))
    client.amend(artefact_id, order)


def calls(view: ReviewView) -> set[Presence]:
    """Return what the software says of the films of a study."""
    return {finding.presence for finding in view.findings}


def at_rest(home: Home) -> bool:
    """Return whether no study waits for anything."""
    jobs = rows(home, "SELECT 1 FROM jobs WHERE state IN ('QUEUED', 'LEASED') LIMIT 1")
    return not jobs and not rows(home, "SELECT 1 FROM deliveries WHERE state = 'PENDING' LIMIT 1")
