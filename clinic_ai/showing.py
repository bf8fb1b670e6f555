"""What an engine is shown of a study, as it came or as de-identified copies, and how its refusals are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clinic_ai.contract import PluginManifest, TaskImage
from clinic_ai.deidentification import BURNED_IN, Deidentifier
from clinic_ai.domain import Audience, Instance, PatientIdentity, Refusal, Statement, Study, StudyFacts
from clinic_ai.errors import ChildRefused, InputError
from clinic_ai.guard.client import Guard
from clinic_ai.store.objects import ObjectStore
from clinic_ai.tasks import GuardSubject

MAX_REFUSAL = 1000
"""Longest reason of a refusal that is passed on, in characters."""
WITHHELD = "The plugin refused the study; the guard withheld its reason."
_NOT_SHOWN = "It was not shown to the plugin, which takes de-identified images only. "


@dataclass(frozen=True)
class Shown:
    """What an engine is shown of a study, and what is said of the rest in its name."""

    facts: StudyFacts
    images: tuple[TaskImage, ...]
    instances: tuple[Instance, ...]
    refusals: tuple[Refusal, ...] = ()
    remarks: tuple[str, ...] = ()


class Showing:
    """Makes what engines are shown from what is stored."""

    def __init__(self, objects: ObjectStore, deidentifier: Deidentifier) -> None:
        self._objects = objects
        self._deidentifier = deidentifier

    def of(self, manifest: PluginManifest, study: Study, instances: Sequence[Instance]) -> Shown:
        """Return what this plugin is shown of these images: copies in their place if it asks for such.

        Raise InputError if it does and nothing is left, ChildError or HomeError if copies cannot be made now.
        """
        return self._deidentified(study, instances) if manifest.deidentified else self._as_they_are(study, instances)

    def _as_they_are(self, study: Study, instances: Sequence[Instance]) -> Shown:
        images = tuple(_image(instance, self._objects.path(instance.sha256)) for instance in instances)
        return Shown(study.facts, images, tuple(instances))

    def _deidentified(self, study: Study, instances: Sequence[Instance]) -> Shown:
        """Return copies in place of the images; what cannot be copied is refused and never shown as it is."""
        copies = self._deidentifier.copies({i.sha256: self._objects.path(i.sha256) for i in instances})
        images, kept, refusals, burned_in = [], [], [], 0
        for instance in instances:
            copy = copies[instance.sha256]
            if copy.sha256 is None or copy.header is None:
                sentence = copy.problem.sentence if copy.problem else "It has no de-identified copy."
                refusals.append(
                    Refusal(instance_sha256=instance.sha256, code="not_deidentified", sentence=_NOT_SHOWN + sentence)
                )
                continue
            anonymous = instance.model_copy(update={"header": copy.header})
            warnings = tuple(flag.sentence for flag in copy.flags)
            images.append(_image(anonymous, self._deidentifier.objects.path(copy.sha256), warnings))
            kept.append(anonymous)
            burned_in += any(flag.code == BURNED_IN for flag in copy.flags)
        if not images:
            raise InputError(
                "not_deidentified",
                f"The plugin takes de-identified images only, and none could be made: {refusals[0].sentence}"
                if refusals
                else "The study holds nothing that could be de-identified.",
                remedy="Route such studies to another plugin, or have the images sent in a form that can be read.",
            )
        remarks = (f"{burned_in} of {len(images)} de-identified images have text burnt in.",) if burned_in else ()
        return Shown(_anonymous(study.facts), tuple(images), tuple(kept), tuple(refusals), remarks)


def guarded_refusal(guard: Guard, error: ChildRefused, study: Study) -> ChildRefused:
    """Return a refusal in words that the guard released: they go to screens, alerts, audit and log."""
    subject = GuardSubject(facts=study.facts, identity=study.identity)
    said = {"r_1": error.message[:MAX_REFUSAL], "r_2": error.remedy[:MAX_REFUSAL]}
    statements = tuple(Statement(statement_id=k, kind="refusal", text=text) for k, text in said.items() if text)
    verdict = guard.judge(subject, Audience.CLINICIAN, statements)
    words = {released.statement_id: released.text for released in verdict.released}
    message, remedy = words.get("r_1", WITHHELD), words.get("r_2", "")
    return ChildRefused(error.code, message, retryable=error.retryable, remedy=remedy)


def _image(instance: Instance, path: Path, warnings: tuple[str, ...] = ()) -> TaskImage:
    # An engine needs pixels and geometry, never the patient's name.
    header = instance.header.model_copy(update={"identity": PatientIdentity()})
    return TaskImage(path=str(path), sha256=instance.sha256, header=header, warnings=warnings)


def _anonymous(facts: StudyFacts) -> StudyFacts:
    """Return facts without what people typed and what names a place."""
    return facts.model_copy(update={"source": "", "stations": (), "study_description": "", "series_descriptions": ()})
