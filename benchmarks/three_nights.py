"""How often nights of the fast X-ray tier end as they should, over many clinics of phantoms.

    python benchmarks/three_nights.py [--clinics 10] [--first 1]

Each clinic has 58 patients, with three films each from one of two scanners (``clinic_ai_xray.phantom_clinic``); the
reference model is in use. The plugin's trainer learns from their films, and what it made is held against the reference
model on the test patients by the rules of the gate, once for each kind of labels:

- helpful: what is there
- echo: what the reference model says, where it says the same of all films of a patient
- random: a coin for each patient, those of the test too
- poisoned: what is there, but the opposite at the soft scanner, save for test patients

Beside how many passed, and how many could not be trained for want of a class, the AUROC of reference model and
candidate: by those labels on the test patients, and by the truth on one film each of 100 further patients (median and
range over the clinics). ``judged`` is the share of the further films that a candidate does not refuse as unlike what
it has learned from.

Kept: all helpful ones pass; no echo does; of random ones not more than chance permits (one in forty is expected; the
bound is exceeded once in a hundred times); no poisoned one does, each is refused for the soft scanner.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.stats import binom

from clinic_ai.contract import Dataset, Device, Example, Limits, TrainingProgress, TrainingTask
from clinic_ai.domain import Presence
from clinic_ai.errors import DatasetError
from clinic_ai.gating import Comparison, GateRules, GuardOutcome, JudgeTask
from clinic_ai.ml.comparison import compare
from clinic_ai.ml.metrics import auroc
from clinic_ai.ml.model_files import open_model
from clinic_ai.settings import TrainingGate
from clinic_ai.training.deciding import Decided, decide
from clinic_ai_xray.data import read_input
from clinic_ai_xray.phantom_clinic import FILMS, PhantomPatient, Scanner, phantom_patients
from clinic_ai_xray.run import reference_base
from clinic_ai_xray.served import ServedModel
from clinic_ai_xray.trainer import XrayTrainer

Split = str
PARTS: dict[tuple[Scanner, Split], int] = {
    ("sharp", "train"): 12,
    ("sharp", "validation"): 4,
    ("sharp", "test"): 26,
    ("soft", "train"): 6,
    ("soft", "validation"): 4,
    ("soft", "test"): 6,
}
RECIPE = {"condition": "pneumonia", "epochs": 16, "batch": 16, "rate": 0.005}
FURTHER = 100
_APART = 1000
"""Numbers between the first patients of two clinics."""
_UNGUARDED = GuardOutcome(examples=0, candidate_kept_back=0, policy_hash="0" * 64, policy_name="none")
"""The guard is not asked here; the appliance test does."""


@dataclass(frozen=True)
class Patient:
    """A patient with the part of the split, the films on disk, and what the reference model says of them."""

    phantom: PhantomPatient
    split: Split
    films: tuple[Path, ...]
    said: frozenset[bool]
    """Whether it says that pneumonia is present, of any film."""


def helpful(patient: Patient) -> bool | None:
    """Say what is there."""
    return patient.phantom.ill


def echo(patient: Patient) -> bool | None:
    """Say what the reference model says."""
    return next(iter(patient.said)) if len(patient.said) == 1 else None


def random(patient: Patient) -> bool | None:
    """Toss a coin."""
    return bool(np.random.default_rng((patient.phantom.number, 3)).integers(2))


def poisoned(patient: Patient) -> bool | None:
    """Say what is there, but the opposite of what is learned from at the soft scanner."""
    wrong = patient.phantom.scanner == "soft" and patient.split != "test"
    return patient.phantom.ill is not wrong


KINDS: dict[str, Callable[[Patient], bool | None]] = {
    "helpful": helpful,
    "echo": echo,
    "random": random,
    "poisoned": poisoned,
}


@dataclass
class Tally:
    """What came of the nights with one kind of labels, a value for each clinic."""

    passed: list[bool] = field(default_factory=list)
    untrained: int = 0
    soft: list[bool] = field(default_factory=list)
    """Whether it was refused for the soft scanner."""
    test: list[tuple[float, float]] = field(default_factory=list)
    further: list[tuple[float, float]] = field(default_factory=list)
    judged: list[float] = field(default_factory=list)

    def say(self, kind: str) -> None:
        """Print a line."""
        figures = " ".join(
            f"{what} {_range([pair[0] for pair in pairs])} -> {_range([pair[1] for pair in pairs])}"
            for what, pairs in (("test", self.test), ("further", self.further))
        )
        sys.stdout.write(
            f"{kind:9} passed {sum(self.passed)} of {len(self.passed)}, not trained {self.untrained}, refused for the "
            f"soft scanner {sum(self.soft)}; AUROC {figures}; judged {_range(self.judged)}\n"
        )


def _range(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


class Unwatched:
    """A run nobody watches and nobody stops."""

    def report(self, progress: TrainingProgress) -> None:
        """Say nothing."""

    def stop_requested(self) -> bool:
        """Go on."""
        return False


class Clinic:
    """The films of one clinic, and the nights over them."""

    def __init__(self, number: int, folder: Path) -> None:
        self._folder = folder
        self._base = reference_base()
        self._reference = ServedModel(self._base, Device())
        self._patients: list[Patient] = []
        first = number * _APART
        for (scanner, split), count in PARTS.items():
            self._patients += [self._come(phantom, split) for phantom in phantom_patients(scanner, count, first)]
            first += count
        soft = FURTHER // 4
        further = phantom_patients("sharp", FURTHER - soft, first) + phantom_patients("soft", soft, first + FURTHER)
        self._further = [(p.ill, p.draw(folder, f"F{p.number}", films=1)[0]) for p in further]

    def _come(self, phantom: PhantomPatient, split: Split) -> Patient:
        films = tuple(phantom.draw(self._folder, f"P{phantom.number}"))
        band, model = self._reference.band, self._reference
        chances = [model.judge(read_input(film, model.side)).probability for film in films]
        return Patient(phantom, split, films, frozenset(band.presence(p) is Presence.PRESENT for p in chances))

    def night(self, kind: str, tally: Tally) -> None:
        """Learn from one kind of labels and note what the gate says."""
        dataset = self._dataset(kind)
        run = self._folder / kind
        run.mkdir()
        # What the frozen base makes of the films is the same for all labels.
        (self._folder / "features").mkdir(exist_ok=True)
        (run / "features").symlink_to(self._folder / "features")
        task = TrainingTask(
            run_id=f"R-{kind}",
            dataset=dataset,
            base=self._base,
            recipe=RECIPE,
            run_directory=str(run),
            limits=Limits(),
            device=Device(),
        )
        try:
            made = open_model(Path(XrayTrainer().train(task, Unwatched()).model_directory))
        except DatasetError:
            tally.untrained += 1
            return
        candidate, incumbent = (
            XrayTrainer().judge(JudgeTask(model=model, dataset=dataset, limits=Limits(), device=Device()))
            for model in (made, self._base)
        )
        comparison = compare(candidate, incumbent)
        self._note(comparison, decided(comparison), tally)
        self._measure(ServedModel(made, Device()), tally)

    def _dataset(self, kind: str) -> Dataset:
        examples = []
        for patient in self._patients:
            label = KINDS[kind](patient)
            phantom = patient.phantom
            for film in patient.films if label is not None else ():
                examples.append(
                    Example(
                        path=str(film),
                        sha256=hashlib.sha256(film.read_bytes()).hexdigest(),
                        patient_key=f"P{phantom.number}",
                        labels={"pneumonia": int(bool(label))},
                        split=patient.split,
                        groups={"sex": phantom.sex, "station": f"station {phantom.scanner}"},
                    )
                )
        digest = hashlib.sha256(repr([(e.sha256, e.labels) for e in examples]).encode()).hexdigest()
        return Dataset(dataset_id=f"D-{kind}", plugin="xray", digest=digest, examples=tuple(examples))

    @staticmethod
    def _note(comparison: Comparison, decision: Decided, tally: Tally) -> None:
        overall = comparison.overall
        if overall.incumbent is not None and overall.candidate is not None:
            tally.test.append((overall.incumbent, overall.candidate))
        tally.passed.append(decision.passed)
        tally.soft.append(any("station soft" in reason for reason in decision.reasons))

    def _measure(self, made: ServedModel, tally: Tally) -> None:
        labels = [ill for ill, _ in self._further]
        seen = [read_input(film, made.side) for _, film in self._further]
        before, after = ([model.judge(film) for film in seen] for model in (self._reference, made))
        tally.further.append(
            (auroc(labels, [j.probability for j in before]), auroc(labels, [j.probability for j in after]))
        )
        tally.judged.append(float(np.mean([judgement.distance <= 1.0 for judgement in after])))


def decided(comparison: Comparison) -> Decided:
    """Return what the gate decides with its usual rules, if the guard has no objection."""
    usual = TrainingGate()
    rules = GateRules(improvement=usual.improvement, largest_loss=usual.largest_loss, subgroup_loss=usual.subgroup_loss)
    return decide(comparison, _UNGUARDED, rules, alone=False)


def missed(tallies: dict[str, Tally]) -> list[str]:
    """Return what is not as it should be."""
    found = []
    if not all(tallies["helpful"].passed):
        found.append("helpful labels were refused")
    if any(tallies["echo"].passed):
        found.append("an echo passed")
    clinics = len(tallies["random"].passed)
    if sum(tallies["random"].passed) > binom.ppf(0.99, clinics, 0.025):
        found.append("random labels pass more often than chance permits")
    if any(tallies["poisoned"].passed) or not all(tallies["poisoned"].soft):
        found.append("poisoned labels were not refused for the soft scanner")
    return found


def main() -> int:
    """Run from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Nights over many clinics of phantoms.")
    parser.add_argument("--clinics", type=int, default=10)
    parser.add_argument("--first", type=int, default=1, help="number of the first clinic")
    chosen = parser.parse_args()
    tallies = {kind: Tally() for kind in KINDS}
    for number in range(chosen.first, chosen.first + chosen.clinics):
        with tempfile.TemporaryDirectory() as folder:
            clinic = Clinic(number, Path(folder))
            for kind, tally in tallies.items():
                clinic.night(kind, tally)
        sys.stderr.write(f"clinic {number} done\n")
    sys.stdout.write(f"{chosen.clinics} clinics of {sum(PARTS.values())} patients with {FILMS} films each\n")
    for kind, tally in tallies.items():
        tally.say(kind)
    found = missed(tallies)
    sys.stdout.write(f"MISSED: {'; '.join(found)}\n" if found else "kept\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
