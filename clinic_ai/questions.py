"""Questions that people ask about an image: guard, engine, guard, and a record of each.

The guard sees a question before any model does, and the answer before anybody else. A question that one of its
templates answers starts no engine. Whatever fails on the way, nothing unguarded comes out.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from clinic_ai.analyses import Models, misattributed
from clinic_ai.categories import CategoryFound, categorise, with_categories
from clinic_ai.contract import LoadedModel, PluginManifest, QuestionTask
from clinic_ai.domain import (
    Analysis,
    Answer,
    AskedQuestion,
    Audience,
    GuardAction,
    GuardVerdict,
    Instance,
    QuestionDocument,
    QuestionOutcome,
    Sha256,
    Statement,
    Study,
    StudyFacts,
    StudyState,
    new_id,
)
from clinic_ai.domain.words import MAX_QUESTION
from clinic_ai.engines import Engines
from clinic_ai.errors import ChildMisbehaved, ChildRefused, ClinicError, Conflict, InputError, NotAllowed
from clinic_ai.guard.asking import QuestionVerdict
from clinic_ai.guard.client import Guard
from clinic_ai.guard.examples import fitting
from clinic_ai.guard.intents import HealthyExample, question_subject
from clinic_ai.results.evidence import subject_of
from clinic_ai.results.rendering import Material, material_of
from clinic_ai.results.statements import answer_text
from clinic_ai.routing import Routing
from clinic_ai.settings import Settings
from clinic_ai.showing import Showing, guarded_refusal
from clinic_ai.store import originals, questions, studies
from clinic_ai.store.categories import told_of
from clinic_ai.store.database import Database
from clinic_ai.tasks import GuardSubject
from clinic_ai.waiting import day, no_model

MOST_AT_ONCE = 4
"""Questions that are worked at; each keeps a thread of the control room until it is answered."""
REFUSED = "The plugin would not answer this question about this image."
"""Stands for the words of a refusal where they are not for the reader."""
_NUMBER = re.compile(r"[0-9]{1,6}")
_PREFIX = re.compile(r"[0-9a-f]{8,64}")


class Router(Protocol):
    """What questions need of execution."""

    def routing_of(self, study: Study) -> Routing:
        """Return where the present rules and claims send a study."""


@dataclass(frozen=True)
class _Asked:
    """A question that may be put: about which image of what, to which plugin."""

    question: str
    audience: Audience
    person: str
    material: Material
    category: dict[Sha256, CategoryFound]
    """Of the image, by its SHA-256; nothing if the plugin has no categories."""
    manifest: PluginManifest
    instance: Instance
    number: int
    """Of the image, counted from 1."""
    frame: int | None
    began: float


class Questions:
    """Answers questions about the images of studies. All methods may be called from any thread."""

    def __init__(
        self,
        *,
        database: Database,
        engines: Engines,
        models: Models,
        guard: Guard,
        router: Router,
        showing: Showing,
        manifests: Callable[[], Mapping[str, PluginManifest]],
        settings: Callable[[], Settings],
        examples: Callable[[], Sequence[HealthyExample]] = tuple,
        on_asked: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the rooms that questions need; ``examples`` are the pictures that may go with a template.

        ``on_asked`` is called when a question comes, so that others make way.
        """
        self._database = database
        self._engines = engines
        self._models = models
        self._guard = guard
        self._router = router
        self._showing = showing
        self._manifests = manifests
        self._settings = settings
        self._examples = examples
        self._places = threading.BoundedSemaphore(MOST_AT_ONCE)
        self._on_asked = on_asked
        self._open: set[object] = set()

    def ask(
        self,
        study_id: str,
        question: str,
        audience: Audience,
        person: str,
        *,
        image: str | None = None,
        frame: int | None = None,
    ) -> AskedQuestion:
        """Answer a question about one image of a study's newest version, and record it.

        ``image`` is its number in the study's order, counted from 1, or the first eight or more digits of its SHA-256;
        it may be left out if there is one image alone. ``frame`` counts from 0; without it the engine chooses.
        The first plugin that answers questions, of those the study goes to by the present rules, is asked.

        Raise NotFound or Conflict if the study cannot be asked about now, or everything is busy; InputError if it is
        open which image is meant or there is no such image; NotAllowed for an audience that reads no answers;
        ModelError or ChildError if the engine fails. What the engine refuses in words is an outcome.
        """
        if audience is Audience.TECHNICIAN:
            raise NotAllowed("Technicians read states, no answers.", remedy="Ask for a patient or a clinician.")
        if not self._places.acquire(blocking=False):
            raise Conflict(
                f"{MOST_AT_ONCE} questions are being answered already.", remedy="Ask again when one is answered."
            )
        mark = object()
        self._open.add(mark)
        try:
            self._on_asked()
            asked = self._admit(study_id, question, audience, person, image, frame)
            verdict = self._ask_guard(asked)
            if verdict.action is not GuardAction.ALLOW:
                return self._settled(asked, verdict)
            return self._put(asked, verdict)
        finally:
            self._open.discard(mark)
            self._places.release()

    @property
    def being_asked(self) -> bool:
        """Whether somebody waits for an answer."""
        return bool(self._open)

    def asked_of(self, study_id: str) -> list[AskedQuestion]:
        """Return the questions that were asked about a study, oldest first. Raise NotFound if there is no such."""
        with self._database.read() as connection:
            studies.get_study(connection, study_id)
            return questions.questions_of(connection, study_id)

    # ------------------------------------------------------------ before anybody is asked

    def _admit(
        self, study_id: str, question: str, audience: Audience, person: str, image: str | None, frame: int | None
    ) -> _Asked:
        began = time.time()
        with self._database.read() as connection:
            study = studies.get_study(connection, study_id)
            removed = originals.removed_at(connection, study_id)
            if study.state is StudyState.RECEIVING:
                raise Conflict(
                    f"Study {study_id} is still arriving.",
                    remedy="Wait until it is closed, or close it with `clinic-ai study close`.",
                )
            if removed is not None:
                raise Conflict(
                    f"The images of study {study_id} were removed by retention on {day(removed)}.",
                    remedy="Send or import the study once more, then ask again.",
                )
            manifest = self._plugin_for(study)
            material = material_of(connection, study_id, study.version)
            told = told_of(connection, study_id, study.version, manifest.name)
        number, instance = chosen_image(material.instances, image)
        if frame is not None and not 0 <= frame < max(1, instance.header.frames):
            count = max(1, instance.header.frames)
            raise InputError(
                "no_frame",
                f"Image {number} has {count} frame{'' if count == 1 else 's'}; there is no frame {frame + 1}.",
                remedy="Frames count from 1. Without one the plugin chooses.",
            )
        category = categorise(manifest, self._settings().category, study, (instance,), told)
        return _Asked(question, audience, person, material, category, manifest, instance, number, frame, began)

    def _plugin_for(self, study: Study) -> PluginManifest:
        manifests = self._manifests()
        for choice in self._router.routing_of(study).plugins:
            manifest = manifests.get(choice.plugin)
            if manifest is not None and "ask" in manifest.capabilities:
                return manifest
        able = sorted(name for name, manifest in manifests.items() if "ask" in manifest.capabilities)
        names = f"Those that do: {', '.join(able)}." if able else "None is installed that does."
        raise Conflict(
            f"Study {study.study_id} goes to no plugin that answers questions.",
            remedy=f"{names} `clinic-ai route explain {study.study_id}` says where it goes; a rule in clinic.toml "
            "sends such studies elsewhere.",
        )

    def _ask_guard(self, asked: _Asked) -> QuestionVerdict:
        subject = self._subject(asked)
        about = question_subject(
            _as_categorised(subject.facts, asked),
            subject.image,
            language=subject.language,
            identity=subject.identity,
            findings=subject.findings,
            example=fitting(self._examples(), subject.facts),
        )
        return self._guard.ask(about, asked.audience, asked.question)

    def _subject(self, asked: _Asked, spoken: Sequence[Analysis] = (), *, validated: bool = False) -> GuardSubject:
        """Return what the guard holds words against; ``spoken`` is said now, beside the study's analyses."""
        subject = subject_of(
            asked.material.study,
            [asked.instance],
            [*asked.material.analyses, *spoken],
            self._manifests(),
            validated=validated,
            language=self._settings().clinic.language,
        )
        # Words alone go out, no picture: what may be burnt into one keeps no answer from a patient.
        return subject.model_copy(update={"image": subject.image.model_copy(update={"burned_in": "no"})})

    def _settled(self, asked: _Asked, verdict: QuestionVerdict) -> AskedQuestion:
        """Record a question that no model is asked."""
        template = verdict.action is GuardAction.REPLACE
        document = QuestionDocument(
            released=verdict.reply,
            reason=verdict.reason,
            plugin=asked.manifest.name,
            example=verdict.example.example_id if verdict.example is not None else "",
        )
        outcome = QuestionOutcome.TEMPLATE if template else QuestionOutcome.HELD
        return self._record(asked, outcome, document, verdict.policy_hash)

    # ------------------------------------------------------------ asking the engine

    def _put(self, asked: _Asked, allowed: QuestionVerdict) -> AskedQuestion:
        """Have the engine answer; whatever comes of it is recorded, an error too before it is raised again."""
        plugin = asked.manifest.name
        try:
            answer, used = self._answer(asked, allowed.question)
        except ChildRefused as error:
            return self._refused(asked, error)
        except ClinicError as error:
            failed = QuestionDocument(reason=error.message, remedy=error.remedy, plugin=plugin)
            self._record(asked, QuestionOutcome.REFUSED, failed, self._guard.policy_hash)
            raise
        verdict = self._judged(asked, answer, used, allowed.policy_hash)
        kept = verdict.action.severity >= GuardAction.HOLD.severity
        strictest = max(verdict.decisions, key=lambda d: d.action.severity) if kept else None
        document = QuestionDocument(
            released=None if kept else verdict.released[0],
            marks=() if kept else verdict.marks,
            reason=f"{strictest.rule}: {strictest.reason}" if strictest is not None else "",
            plugin=plugin,
            models=tuple(model.ref.label() for model in used),
            frame=answer.frame,
            category=answer.category,
            adapter=answer.adapter,
            confidence=answer.confidence,
        )
        outcome = QuestionOutcome.HELD if kept else QuestionOutcome.ANSWERED
        return self._record(asked, outcome, document, verdict.policy_hash)

    def _answer(self, asked: _Asked, question: str) -> tuple[Answer, tuple[LoadedModel, ...]]:
        """Return the engine's answer and the models it is of. Raise ClinicError if there is none to be had."""
        manifest, study, settings = asked.manifest, asked.material.study, self._settings()
        refs = self._models.active(manifest.name) if manifest.needs_model else ()
        if manifest.needs_model and not refs:
            wait = no_model(manifest.name)
            raise Conflict(wait.sentence, remedy=wait.remedy)
        models = tuple(self._models.loaded(ref) for ref in refs)
        shown = self._showing.of(manifest, study, (asked.instance,))
        (image,) = with_categories(shown.images, asked.category)
        task = QuestionTask(
            job_id=new_id("Q"),
            question=question,
            audience=asked.audience,
            facts=shown.facts,
            image=image,
            frame=asked.frame,
            models=refs,
            categories=manifest.categories,
            base_answers=settings.questions.base_answers,
            answer_timeout_s=settings.questions.answer_timeout_s,
        )
        answer = self._engines.ask(manifest, models, task)
        try:
            check_answer(answer, manifest, task, models)
        except ChildMisbehaved:
            self._engines.distrust(manifest.name)
            raise
        adapter = answer.adapter
        used = tuple(m for m in models if m.manifest.base_digest is None or m.ref.slot == adapter)
        return answer, used

    def _judged(self, asked: _Asked, answer: Answer, used: Sequence[LoadedModel], policy_hash: str) -> GuardVerdict:
        """Return what the guard says of an answer by the pack that let its question through; by another it is held."""
        spoken = Analysis(
            plugin=asked.manifest.name,
            plugin_version=asked.manifest.version,
            models=tuple(model.ref for model in used),
            answers=(answer,),
        )
        validated = bool(used) and all(model.manifest.clinical_use for model in used)
        subject = self._subject(asked, (spoken,), validated=validated)
        statement = Statement(statement_id="a_1", kind="answer", text=answer_text(answer))
        return self._guard.judge(subject, asked.audience, (statement,), policy_hash=policy_hash)

    def _refused(self, asked: _Asked, error: ChildRefused) -> AskedQuestion:
        """Record what the engine refuses: its words where the guard lets them out; a patient reads a template."""
        plugin = asked.manifest.name
        if asked.audience is Audience.CLINICIAN:
            told = guarded_refusal(self._guard, error, asked.material.study)
            document = QuestionDocument(reason=told.message, remedy=told.remedy, plugin=plugin)
        else:
            statement = Statement(statement_id="r_1", kind="refusal", text=error.message[:MAX_QUESTION] or REFUSED)
            verdict = self._guard.judge(self._subject(asked), asked.audience, (statement,))
            released = verdict.released[0] if verdict.released else None
            marks = verdict.marks if released is not None else ()
            document = QuestionDocument(released=released, marks=marks, reason=REFUSED, plugin=plugin)
        return self._record(asked, QuestionOutcome.REFUSED, document, self._guard.policy_hash)

    def _record(
        self, asked: _Asked, outcome: QuestionOutcome, document: QuestionDocument, policy_hash: str
    ) -> AskedQuestion:
        made = AskedQuestion(
            question_id=new_id("Q"),
            study_id=asked.material.study.study_id,
            version=asked.material.study.version,
            audience=asked.audience,
            asked_by=asked.person,
            asked_at=asked.began,
            question=asked.question,
            outcome=outcome,
            document=document.model_copy(
                update={
                    "image": asked.number,
                    "instance_sha256": asked.instance.sha256,
                    "seconds": round(time.time() - asked.began, 3),
                }
            ),
            policy_hash=policy_hash,
        )
        with self._database.write() as connection:
            questions.add_question(connection, made)
        return made


def _as_categorised(facts: StudyFacts, asked: _Asked) -> StudyFacts:
    """Return the facts with the body parts of the image's category, as far as it is known and has any.

    A folder that is named by a category, such as ``Abodomen``, stands as body part in the header of a picture, and the
    guard would know no such part of the body.
    """
    key = next((found.category for found in asked.category.values()), "")
    category = next((category for category in asked.manifest.categories if category.key == key), None)
    return facts if category is None else facts.model_copy(update={"body_parts": category.body_parts})


def chosen_image(instances: Sequence[Instance], image: str | None) -> tuple[int, Instance]:
    """Return the image that is meant, with its number from 1 among those of the study that have pixels.

    ``image`` is that number or the beginning of a SHA-256. Raise InputError if there is no such image or several.
    """
    images = [instance for instance in instances if instance.header.is_picture]
    numbered = list(enumerate(images, start=1))
    if image is None:
        found = numbered
    elif _NUMBER.fullmatch(image):
        found = [one for one in numbered if one[0] == int(image)]
    elif _PREFIX.fullmatch(image.lower()):
        found = [one for one in numbered if one[1].sha256.startswith(image.lower())]
    else:
        found = []
    if len(found) == 1:
        return found[0]
    if not images:
        raise InputError("no_image", "The study has no image.", remedy="Nothing can be asked about it.")
    have = f"The study has {len(images)} image{'' if len(images) == 1 else 's'}"
    raise InputError(
        "several_images" if found else "no_image",
        f"{have}, and it is open which one is meant." if found else f"{have}; there is no image {image}.",
        remedy=f"Name one by its number from 1 to {len(images)}, or by eight or more digits of its SHA-256.",
    )


def check_answer(answer: Answer, manifest: PluginManifest, task: QuestionTask, models: Sequence[LoadedModel]) -> None:
    """Raise ChildMisbehaved if an answer is well formed and still no answer to this task by the models it pins."""
    image = task.image
    wrong = ""
    if answer.question != task.question:
        wrong = "it is to another question"
    elif answer.instance_sha256 != image.sha256:
        wrong = "it is about another image"
    elif claim := misattributed(answer, image, manifest, models, base_answers=task.base_answers):
        wrong = claim
    elif task.frame is not None and image.header.frames > 1 and answer.frame != task.frame:
        wrong = "it is of another frame"
    elif not answer.text.strip():
        wrong = "it has no words"
    if wrong:
        raise ChildMisbehaved(f"The {manifest.name} engine gave an answer that cannot be right: {wrong}.")
