"""A person's question about an image: guard, engine, guard, and a record of what became of it.

The guard hears a question before any engine does. What it answers from a template, or keeps back, starts no engine.
What an engine answers is one statement, judged for the audience that asked; what is held is not stored in any words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clinic_ai.analyses import Models, in_released_words
from clinic_ai.categories import categorise, with_categories
from clinic_ai.contract import LoadedModel, PluginManifest, QuestionTask
from clinic_ai.deidentification import Deidentifier
from clinic_ai.domain import (
    Answer,
    Asked,
    AskedDocument,
    AskOutcome,
    Audience,
    GuardAction,
    GuardVerdict,
    Instance,
    JobKind,
    ModelRef,
    Statement,
    Study,
    StudyState,
    Word,
    new_id,
)
from clinic_ai.engines import Engines
from clinic_ai.errors import ChildError, ChildMisbehaved, ChildRefused, ClinicError, Conflict, InputError
from clinic_ai.guard.asking import QuestionVerdict
from clinic_ai.guard.client import Guard
from clinic_ai.guard.examples import FOLDER, fitting, load_examples
from clinic_ai.guard.intents import question_subject
from clinic_ai.results.evidence import image_facts, subject_of
from clinic_ai.results.rendering import Material, material_of
from clinic_ai.results.statements import answer_text
from clinic_ai.settings import Settings
from clinic_ai.showing import Showing
from clinic_ai.store import jobs, studies
from clinic_ai.store.categories import Told, told_of
from clinic_ai.store.database import Database
from clinic_ai.store.objects import ObjectStore
from clinic_ai.store.questions import add_question, questions_of
from clinic_ai.tasks import GuardSubject, PluginScope
from clinic_ai.waiting import no_model

_STATEMENT = "a_1"
_PREFIX = 6
"""Digits of a SHA-256 that name an image at least; fewer are a number."""


class Question(Word):
    """What somebody wants to know. ``image`` is its number from 1 or the beginning of its SHA-256, empty where the
    study has one only; ``frame`` counts from 1, None: the engine chooses."""

    study_id: str
    text: str
    audience: Audience
    image: str = ""
    frame: int | None = None


@dataclass(frozen=True)
class _Scene:
    """A study as it is asked about, who answers, and which images are meant."""

    material: Material
    images: tuple[Instance, ...]
    """All that have pixels, in the order of the study."""
    manifest: PluginManifest
    told: Told

    @property
    def study(self) -> Study:
        return self.material.study


class Questions:
    """Asks, on behalf of people. Safe to call from several threads."""

    def __init__(
        self,
        *,
        database: Database,
        objects: ObjectStore,
        engines: Engines,
        models: Models,
        manifests: Callable[[], Mapping[str, PluginManifest]],
        guard: Guard,
        deidentifier: Deidentifier,
        settings: Callable[[], Settings],
        home: Path,
    ) -> None:
        self._database = database
        self._objects = objects
        self._engines = engines
        self._models = models
        self._manifests = manifests
        self._guard = guard
        self._showing = Showing(objects, deidentifier)
        self._settings = settings
        self._examples = home / FOLDER

    def ask(self, question: Question, by: str) -> Asked:
        """Return what became of a question, after it was stored.

        Raise NotFound if there is no such study, Conflict if nobody can be asked about it now, InputError if it is not
        clear which image or frame is meant.
        """
        began = time.monotonic()
        scene = self._scene(question.study_id)
        meant = _meant(scene.images, question.image)
        verdict = self._guard_first(question, scene, meant)
        if verdict.action is GuardAction.ALLOW:
            outcome, document = self._ask_engine(verdict.question, question, scene, _only(meant))
        else:
            outcome, document = _without_model(verdict)
        document = document.model_copy(update={"seconds": round(time.monotonic() - began, 3)})
        asked = Asked(
            question_id=new_id("Q"),
            study_id=scene.study.study_id,
            version=scene.study.version,
            audience=question.audience,
            asked_by=by,
            asked_at=time.time(),
            question=verdict.question or question.text,
            outcome=outcome,
            document=document,
            policy_hash=verdict.policy_hash,
        )
        with self._database.write() as connection:
            add_question(connection, asked)
        return asked

    def asked_about(self, study_id: str) -> list[Asked]:
        """Return what was asked about a study, the first question first. Raise NotFound."""
        with self._database.read() as connection:
            studies.get_study(connection, study_id)
            return questions_of(connection, study_id)

    # ------------------------------------------------------------ what is asked about

    def _scene(self, study_id: str) -> _Scene:
        with self._database.read() as connection:
            study = studies.get_study(connection, study_id)
            if study.state is StudyState.RECEIVING:
                raise Conflict(
                    f"The study {study_id} is still arriving.",
                    remedy="Ask when it is complete, or close it with `clinic-ai study close`.",
                )
            material = material_of(connection, study_id, study.version)
            plugins = [j.plugin for j in jobs.jobs_of(connection, study_id, study.version) if j.kind is JobKind.ANALYSE]
            manifest = self._who_answers(study_id, plugins)
            told = told_of(connection, study_id, study.version, manifest.name) if manifest.categories else Told()
        images = tuple(i for i in material.instances if i.header.frames or i.header.rows)
        if not images:
            raise Conflict(f"The study {study_id} holds no image.", remedy="Ask about a study that shows something.")
        if not all(self._objects.has(image.sha256) for image in images):
            raise Conflict(
                f"The images of the study {study_id} were removed by retention.",
                remedy="Send them again; they are stored once more.",
            )
        return _Scene(material, images, manifest, told)

    def _who_answers(self, study_id: str, plugins: Sequence[str]) -> PluginManifest:
        manifests = self._manifests()
        able = [manifests[name] for name in plugins if name in manifests and "ask" in manifests[name].capabilities]
        if not able:
            raise Conflict(
                f"No plugin that answers questions has the study {study_id}.",
                remedy=f"`clinic-ai route explain {study_id}` says where it went and why.",
            )
        return able[0]

    # ------------------------------------------------------------ the guard, before and after

    def _guard_first(self, question: Question, scene: _Scene, meant: Sequence[Instance]) -> QuestionVerdict:
        study = scene.study
        examples, _ = load_examples(self._examples)  # what is wrong with one is an alert since the start
        subject = question_subject(
            study.facts,
            image_facts(meant),
            language=self._settings().clinic.language,
            identity=study.identity,
            findings=scene.material.findings,
            example=fitting(examples, study.facts),
        )
        return self._guard.ask(subject, question.audience, question.text)

    def _subject(self, scene: _Scene, image: Instance, models: Sequence[LoadedModel]) -> GuardSubject:
        """Return what an answer is held against: all that is known of the study, and of the models that answer."""
        material = scene.material
        subject = subject_of(
            material.study,
            [image],
            material.analyses,
            self._manifests(),
            validated=all(model.manifest.clinical_use for model in models),
            language=self._settings().clinic.language,
        )
        manifest = scene.manifest
        scope = PluginScope(plugin=manifest.name, claims=manifest.claims)
        others = tuple(known for known in subject.scopes if known.plugin != manifest.name)
        reference = subject.reference or any(model.ref.reference for model in models)
        return subject.model_copy(update={"scopes": (*others, scope), "reference": reference})

    # ------------------------------------------------------------ the engine

    def _ask_engine(
        self, text: str, question: Question, scene: _Scene, image: Instance
    ) -> tuple[AskOutcome, AskedDocument]:
        manifest = scene.manifest
        refs = self._pinned(manifest)
        models = tuple(self._models.loaded(ref) for ref in refs)
        task = self._task(text, question, scene, image, refs)
        known = AskedDocument(
            image=scene.images.index(image) + 1,
            frame=question.frame,
            category=task.image.category,
            models=tuple(ref.label() for ref in refs if ref.slot in {"base", "main", task.image.category}),
        )
        try:
            answer = self._engines.ask(manifest, models, task)
            self._check(answer, task, manifest.name)
        except ChildRefused as error:
            released = in_released_words(self._guard, error, scene.study, question.audience)
            return AskOutcome.REFUSED, known.model_copy(update=_why(released))
        except ChildError as error:
            return AskOutcome.FAILED, known.model_copy(update=_why(error))
        said = Statement(statement_id=_STATEMENT, kind="answer", text=answer_text(answer))
        verdict = self._guard.judge(self._subject(scene, image, models), question.audience, (said,))
        known = known.model_copy(
            update={
                "frame": None if answer.frame is None else answer.frame + 1,
                "adapter": answer.adapter,
                "confidence": answer.confidence,
            }
        )
        return _judged(verdict, known)

    def _pinned(self, manifest: PluginManifest) -> tuple[ModelRef, ...]:
        """Return the models that answer. Raise Conflict if the plugin needs one and has none."""
        if not manifest.needs_model:
            return ()
        refs = self._models.active(manifest.name)
        if not refs:
            wait = no_model(manifest.name)
            raise Conflict(wait.sentence, remedy=wait.remedy)
        return refs

    def _task(
        self, text: str, question: Question, scene: _Scene, image: Instance, refs: tuple[ModelRef, ...]
    ) -> QuestionTask:
        frames = max(1, image.header.frames)
        if question.frame is not None and not 1 <= question.frame <= frames:
            have = "one frame" if frames == 1 else f"{frames} frames"
            raise InputError("no_frame", f"The image has {have}; there is no frame {question.frame}.")
        settings = self._settings()
        found = categorise(scene.manifest, settings.category, scene.study, [image], scene.told)
        shown = self._showing.shown(scene.manifest, scene.study, [image])
        return QuestionTask(
            job_id=new_id("Q"),
            question=text,
            audience=question.audience,
            facts=shown.facts,
            image=with_categories(shown.images, found)[0],
            frame=None if question.frame is None else question.frame - 1,
            models=refs,
            categories=scene.manifest.categories,
            base_answers=settings.questions.base_answers,
            answer_timeout_s=settings.questions.answer_timeout_s,
        )

    def _check(self, answer: Answer, task: QuestionTask, plugin: str) -> None:
        """Distrust the engine and raise ChildMisbehaved if an answer is well formed and still not one to this task."""
        frames = max(1, task.image.header.frames)
        wrong = ""
        if answer.question != task.question:
            wrong = "it answers another question"
        elif answer.instance_sha256 not in {None, task.image.sha256}:
            wrong = "it is about another image"
        elif answer.frame is not None and (answer.frame >= frames or task.frame not in {None, answer.frame}):
            wrong = "it is about another frame"
        elif answer.category not in {"", task.image.category}:
            wrong = "it is about another category"
        elif answer.adapter and answer.adapter not in {ref.slot for ref in task.models}:
            wrong = "it comes of a model that was not pinned"
        elif not answer.text.strip():
            wrong = "it has no words"
        if wrong:
            self._engines.distrust(plugin)
            raise ChildMisbehaved(f"The engine gave an answer that cannot be right: {wrong}.")


def _meant(images: tuple[Instance, ...], name: str) -> tuple[Instance, ...]:
    """Return the image of a number or hash, all of them if none is named. Raise InputError if there is no such one."""
    if not name:
        return images
    if name.isascii() and name.isdigit() and len(name) < _PREFIX:
        found = images[int(name) - 1 : int(name)] if int(name) else ()
    else:
        found = tuple(image for image in images if len(name) >= _PREFIX and image.sha256.startswith(name.lower()))
    if len(found) != 1:
        many = "is one image" if len(images) == 1 else f"are {len(images)} images"
        raise InputError("no_image", f"The study has no image {name[:64]}; there {many}.", remedy="Give its number.")
    return found


def _only(meant: Sequence[Instance]) -> Instance:
    if len(meant) > 1:
        raise InputError(
            "which_image",
            f"The study has {len(meant)} images, and it is not said which one is meant.",
            remedy=f"Say which with --image 1 to {len(meant)}; `clinic-ai study show` has them in this order.",
        )
    return meant[0]


def _without_model(verdict: QuestionVerdict) -> tuple[AskOutcome, AskedDocument]:
    if verdict.reply is not None:
        example = verdict.example.example_id if verdict.example is not None else ""
        return AskOutcome.TEMPLATE, AskedDocument(rule=verdict.intent, answer=verdict.reply, example=example)
    remedy = "Nothing was asked. `clinic-ai doctor` says how the guard is."
    return AskOutcome.HELD, AskedDocument(rule=verdict.intent, sentence=verdict.reason, remedy=remedy)


def _judged(verdict: GuardVerdict, known: AskedDocument) -> tuple[AskOutcome, AskedDocument]:
    if verdict.action.severity < GuardAction.HOLD.severity and len(verdict.released) == 1:
        update: dict[str, object] = {"answer": verdict.released[0], "marks": verdict.marks}
        return AskOutcome.ANSWERED, known.model_copy(update=update)
    strictest = max(verdict.decisions, key=lambda d: d.action.severity)
    sentence = f"The guard kept the answer back ({strictest.rule}): {strictest.reason}"
    remedy = "Look at the image yourself, or ask in other words."
    return AskOutcome.HELD, known.model_copy(
        update={"rule": strictest.rule, "sentence": sentence, "remedy": remedy, "confidence": None}
    )


def _why(error: ClinicError) -> dict[str, object]:
    return {"sentence": error.message, "remedy": error.remedy}
