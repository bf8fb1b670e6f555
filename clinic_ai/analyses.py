"""Runs the analysis jobs: a job directory, the plugin's warm engine, and a hard look at what comes back."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection

from clinic_ai.categories import CategoryFound, categorise, with_categories
from clinic_ai.contract import (
    AnalysisTask,
    LoadedModel,
    PluginManifest,
    TaskImage,
    VolumeInfo,
    memory_needed,
)
from clinic_ai.critical.matching import hits
from clinic_ai.deidentification import Deidentifier
from clinic_ai.domain import (
    Analysis,
    Answer,
    Instance,
    Job,
    JobKind,
    ModelRef,
    Sha256,
    SliceRef,
    StoredFile,
    Study,
    WaitReason,
)
from clinic_ai.engines import Engines
from clinic_ai.errors import ChildMisbehaved, ChildRefused, ModelError, PluginError
from clinic_ai.guard.client import Guard
from clinic_ai.ingest.geometry import NoVolume, regular_volume
from clinic_ai.ingest.stacks import Stack, stacks_of
from clinic_ai.processes import open_produced
from clinic_ai.settings import CategoryRule, CriticalSettings, QuestionSettings
from clinic_ai.showing import Showing, Shown, guarded_refusal
from clinic_ai.store import jobs, studies
from clinic_ai.store.categories import Told, told_of
from clinic_ai.store.critical import raise_alerts
from clinic_ai.store.database import Database
from clinic_ai.store.objects import ObjectStore
from clinic_ai.waiting import bad_model, no_model, no_plugin

MAX_PRODUCED_BYTES = 512 << 20
"""Largest file a child may hand over."""
MAX_PRODUCED_FILES = 1000


class Models(Protocol):
    """What analyses need of the model registry."""

    def active(self, plugin: str) -> tuple[ModelRef, ...]:
        """Return the active models of a plugin, one per slot."""

    def loaded(self, ref: ModelRef) -> LoadedModel:
        """Return the verified directory of a model. Raise ModelError if its files are not what they were."""


@dataclass(frozen=True)
class Prepared:
    """A study version as an engine of one plugin is asked about it."""

    manifest: PluginManifest
    study: Study
    instances: tuple[Instance, ...]
    shown: Shown
    categories: Mapping[Sha256, CategoryFound]
    questions: QuestionSettings

    def task(self, job_id: str, models: tuple[ModelRef, ...], directory: Path) -> AnalysisTask:
        """Return what an engine with these models is asked; its files go into ``directory``."""
        return AnalysisTask(
            job_id=job_id,
            facts=self.shown.facts,
            images=with_categories(self.shown.images, self.categories),
            output_directory=str(directory),
            models=models,
            volumes=volumes_of(self.shown.instances),
            conditions=self.manifest.conditions,
            categories=self.manifest.categories,
            base_answers=self.questions.base_answers,
            answer_timeout_s=self.questions.answer_timeout_s,
        )

    def completed(self, analysis: Analysis) -> Analysis:
        """Return an engine's analysis with what is said in its name."""
        return analysis.model_copy(
            update={
                "answers": saying_which_image(analysis.answers, self.instances),
                "refusals": (*analysis.refusals, *self.shown.refusals),
                "remarks": (*analysis.remarks, *self.shown.remarks),
            }
        )


class Tasks:
    """Makes what engines are asked about studies."""

    def __init__(
        self,
        database: Database,
        showing: Showing,
        rules: Callable[[], Sequence[CategoryRule]],
        questions: Callable[[], QuestionSettings],
    ) -> None:
        self._database = database
        self._showing = showing
        self._rules = rules
        self._questions = questions

    def prepare(self, manifest: PluginManifest, study_id: str, version: int) -> Prepared:
        """Return a study version as the engine of a plugin is asked about it.

        Raise NotFound, InputError if nothing of it can be shown, ChildError or HomeError if copies cannot be made now.
        """
        with self._database.read() as connection:
            study = studies.get_study(connection, study_id, version)
            instances = studies.instances_of(connection, study_id, version)
            told = told_of(connection, study_id, version, manifest.name) if manifest.categories else Told()
        return Prepared(
            manifest=manifest,
            study=study,
            instances=instances,
            categories=categorise(manifest, self._rules(), study, instances, told),
            questions=self._questions(),
            shown=self._showing.of(manifest, study, instances),
        )


class AnalyseRunner:
    """Does the jobs of kind ``analyse``."""

    kind = JobKind.ANALYSE

    def __init__(
        self,
        *,
        database: Database,
        objects: ObjectStore,
        job_directories: Path,
        engines: Engines,
        models: Models,
        manifests: Callable[[], Mapping[str, PluginManifest]],
        guard: Guard,
        policy_hash: Callable[[], str],
        deidentifier: Deidentifier,
        critical: Callable[[], Sequence[CriticalSettings]] = tuple,
        rules: Callable[[], Sequence[CategoryRule]] = tuple,
        questions: Callable[[], QuestionSettings] = QuestionSettings,
    ) -> None:
        self._database = database
        self._objects = objects
        self._directories = job_directories
        self._engines = engines
        self._models = models
        self._manifests = manifests
        self._guard = guard
        self._policy_hash = policy_hash
        self.tasks = Tasks(database, Showing(objects, deidentifier), rules, questions)
        self._critical = critical

    def obstacles(self, plugins: Collection[str], at_work: Collection[str]) -> Mapping[str, WaitReason]:
        """Return the plugins that cannot work beside those ``at_work``, and why."""
        manifests = self._manifests()
        beside_mb = sum(self._need_mb(manifests[plugin]) for plugin in at_work if plugin in manifests)
        found = {}
        for plugin in plugins:
            manifest = manifests.get(plugin)
            wait = no_plugin(plugin) if manifest is None else self._obstacle(manifest, beside_mb)
            if wait is not None:
                found[plugin] = wait
        return found

    def _obstacle(self, manifest: PluginManifest, beside_mb: int) -> WaitReason | None:
        try:
            models = self._active(manifest)
        except ModelError as error:
            return bad_model(manifest.name, error.message)
        if manifest.needs_model and not models:
            return no_model(manifest.name)
        return self._engines.obstacle(manifest, models, beside_mb=beside_mb)

    def _need_mb(self, manifest: PluginManifest) -> int:
        try:
            models = self._active(manifest)
        except ModelError:  # its own job says so; it needs no memory for what it cannot load
            models = ()
        return memory_needed(manifest, (model.manifest for model in models))

    def _active(self, manifest: PluginManifest) -> tuple[LoadedModel, ...]:
        """Return the active models of a plugin that needs any. Raise ModelError if the files of one are damaged."""
        if not manifest.needs_model:
            return ()
        return tuple(self._models.loaded(ref) for ref in self._models.active(manifest.name))

    def pin(self, plugin: str) -> tuple[tuple[ModelRef, ...], str]:
        """Return the plugin's active models and the active policy."""
        return self._models.active(plugin), self._policy_hash()

    def run(self, job: Job) -> Callable[[Connection], None]:
        """Analyse the study version of the job. Raise ClinicError if that fails."""
        manifest = self._manifests().get(job.plugin)
        if manifest is None:
            raise PluginError(f"The plugin {job.plugin} is not installed any more.", remedy="Install it again.")
        prepared = self.tasks.prepare(manifest, job.study_id, job.version)
        with JobDirectory(self._directories, job.job_id) as directory:
            task = prepared.task(job.job_id, job.models, directory)
            models = tuple(self._models.loaded(ref) for ref in job.models)
            try:
                analysis = self._engines.analyse(manifest, models, task)
            except ChildRefused as error:
                raise guarded_refusal(self._guard, error, prepared.study) from None
            try:
                check_analysis(analysis, manifest, task, models)
                named = [(f.name, f.media_type) for f in analysis.files]
                files = adopt(self._objects, directory, named)
            except ChildMisbehaved:
                self._engines.distrust(job.plugin)
                raise
        analysis = prepared.completed(analysis)
        found = hits(self._critical(), analysis)

        def commit(connection: Connection) -> None:
            jobs.save_analysis(connection, job, analysis, files)
            # With the result or not at all: nobody reads, renders or sends it before the alert is on record.
            raise_alerts(connection, job.job_id, job.study_id, job.version, found, time.time())

        return commit


def saying_which_image(answers: Iterable[Answer], instances: Iterable[Instance]) -> tuple[Answer, ...]:
    """Return the answers with a note of which image each is about, where a study has several.

    It stands among the words, for these go where no structure does: two answers to one question must not be mixed up.
    """
    images = [instance.sha256 for instance in instances if instance.header.is_picture]
    if len(images) < 2:
        return tuple(answers)
    notes = {sha256: f"It is about image {number} of {len(images)}." for number, sha256 in enumerate(images, start=1)}
    return tuple(
        answer.model_copy(update={"notes": (notes[answer.instance_sha256], *answer.notes)})
        if answer.instance_sha256 in notes
        else answer
        for answer in answers
    )


def volumes_of(instances: Iterable[Instance]) -> tuple[VolumeInfo, ...]:
    """Return the stacks of slices that an engine is told of: two or more whose places are known, no scouts."""
    stacks = (stack for stack in stacks_of(instances) if stack.placed and not stack.scout and len(stack.planes) > 1)
    return tuple(map(_volume, stacks))


def _volume(stack: Stack) -> VolumeInfo:
    uid = stack.series_instance_uid
    slices = tuple(SliceRef(sha256=plane.sha256, frame=plane.frame) for plane in stack.planes)
    found = regular_volume(stack)
    if isinstance(found, NoVolume):
        return VolumeInfo(series_instance_uid=uid, slices=slices, reason=found.sentence)
    return VolumeInfo(
        series_instance_uid=uid,
        slices=slices,
        spacing=found.spacing,
        origin=found.origin,
        directions=found.directions,
    )


class JobDirectory:
    """An empty directory for one attempt of one job, gone afterwards."""

    def __init__(self, parent: Path, job_id: str) -> None:
        self._path = parent / job_id

    def __enter__(self) -> Path:
        shutil.rmtree(self._path, ignore_errors=True)
        self._path.mkdir(parents=True, mode=0o700)
        return self._path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)


def sweep_job_directories(parent: Path) -> None:
    """Remove what attempts left that a crash or a power cut ended; call it while no job runs."""
    for leftover in parent.glob("*"):
        shutil.rmtree(leftover, ignore_errors=True)


def adopt(objects: ObjectStore, directory: Path, named: Iterable[tuple[str, str]]) -> tuple[StoredFile, ...]:
    """Copy the files a child named, as (name, media type), into the object store, following no link.

    Raise ChildMisbehaved if one of them is not a plain file in ``directory``.
    """
    adopted = []
    for name, media_type in named:
        descriptor = open_produced(directory, name, max_bytes=MAX_PRODUCED_BYTES)
        try:
            sha256, size = objects.write_descriptor(descriptor)
        finally:
            os.close(descriptor)
        adopted.append(StoredFile(name=name, sha256=sha256, size_bytes=size, media_type=media_type))
    return tuple(adopted)


def check_analysis(
    analysis: Analysis, manifest: PluginManifest, task: AnalysisTask, models: Sequence[LoadedModel]
) -> None:
    """Raise ChildMisbehaved if an answer is well formed and still not an answer to this task by these models."""
    validated = [(code, figures) for model in models for code, figures in model.manifest.validation.items()]
    images = {image.sha256: image for image in task.images}
    conditions = {condition.code for condition in manifest.conditions}
    declared = {*manifest.questions, *(question for c in task.categories for question in c.questions)}
    slots = {"", *(ref.slot for ref in task.models)}

    def wrong_claim(answer: Answer) -> str:
        image = images.get(answer.instance_sha256 or "")
        return misattributed(answer, image, manifest, models, base_answers=task.base_answers)

    wrong = ""
    if (analysis.plugin, analysis.plugin_version) != (manifest.name, manifest.version):
        wrong = "it speaks for another plugin or version"
    elif analysis.models != task.models:
        wrong = "it used other models than the job pinned"
    elif any(finding.instance_sha256 not in images for finding in analysis.findings):
        wrong = "a finding is about an image that is not in the study"
    elif any(finding.condition not in conditions for finding in analysis.findings):
        wrong = "a finding is about a condition the plugin does not declare"
    elif any(f.validation is not None and (f.condition, f.validation) not in validated for f in analysis.findings):
        wrong = "a finding names figures of validation that its models do not have"
    elif any(answer.instance_sha256 not in {None, *images} for answer in analysis.answers):
        wrong = "an answer is about an image that is not in the study"
    elif any(answer.question not in declared for answer in analysis.answers):
        wrong = "an answer is to a question that the plugin does not declare"
    elif any(answer.adapter not in slots for answer in analysis.answers):
        wrong = "an answer is by a model that the job does not pin"
    elif claims := [claim for claim in map(wrong_claim, analysis.answers) if claim]:
        wrong = f"of an answer, {claims[0]}"
    else:
        others = chain(_wrong_files(analysis), _wrong_outlines(analysis, task), _wrong_report(analysis, conditions))
        wrong = next(others, "")
    if wrong:
        raise ChildMisbehaved(f"The {manifest.name} engine gave an answer that cannot be right: {wrong}.")


def _wrong_files(analysis: Analysis) -> Iterator[str]:
    names = [file.name for file in analysis.files]
    if len(set(names)) != len(names) or len(names) > MAX_PRODUCED_FILES:
        yield "its list of files is not usable"
    if any(finding.heatmap is not None and finding.heatmap not in names for finding in analysis.findings):
        yield "a finding names a heat map that is not among its files"


def _wrong_outlines(analysis: Analysis, task: AnalysisTask) -> Iterator[str]:
    """Yield what cannot be right of the segmentations: they name files, images and segments that others rely on."""
    frames = {image.sha256: max(1, image.header.frames) for image in task.images}
    masks = {file.name for file in analysis.files if file.role == "mask"}
    slots = {"", *(ref.slot for ref in task.models)}
    declared = {finding.condition for finding in analysis.findings}
    used = [segmentation.file for segmentation in analysis.segmentations]
    if len(set(used)) != len(used):
        yield "two segmentations name one file"
    for segmentation in analysis.segmentations:
        places = [(ref.sha256, ref.frame) for ref in segmentation.slices]
        named = [(segment.role, segment.name) for segment in segmentation.segments]
        if segmentation.file not in masks:
            yield "a segmentation names a file of masks that is not among its files"
        if any(frame >= frames.get(sha256, 0) for sha256, frame in places):
            yield "a segmentation lies on an image or frame that is not in the study"
        if len(set(places)) != len(places):
            yield "a segmentation lies twice on one slice"
        if [segment.number for segment in segmentation.segments] != list(range(1, len(named) + 1)):
            yield "the segments of a segmentation are not numbered one after the other"
        if len(set(named)) != len(named):
            yield "a segmentation has a segment twice"
        if any(role == "finding" and name not in declared for role, name in named):
            yield "a segmentation shows a condition that no finding speaks of"
        if any(segment.model not in slots for segment in segmentation.segments):
            yield "a segment is by a model that the job does not pin"


def _wrong_report(analysis: Analysis, conditions: Collection[str]) -> Iterator[str]:
    """Yield what cannot be right of the written report: what its sentences rest on has to be there."""
    for sentence in analysis.report:
        if any(not 0 <= place < len(analysis.findings) for place in sentence.findings):
            yield "a sentence of its report rests on a finding that is not there"
        if any(not 0 <= place < len(analysis.masks) for place in sentence.masks):
            yield "a sentence of its report rests on a mask that is not there"
        if not set(sentence.conditions) <= set(conditions):
            yield "a sentence of its report is about a condition the plugin does not declare"


def misattributed(
    answer: Answer,
    image: TaskImage | None,
    manifest: PluginManifest,
    models: Sequence[LoadedModel],
    *,
    base_answers: bool,
) -> str:
    """Return what cannot be right of the frame, the category and the model that an answer names, empty if nothing.

    None of these goes through the guard, and result.json holds them: they are words of the task or no words. ``image``
    is the one the answer is about, None if it is about the study.
    """
    if image is None:
        return "it names a category without an image" if answer.category else ""
    adapters = {model.ref.slot for model in models if model.manifest.base_digest is not None}
    expected = image.category if image.category in adapters else ""
    if answer.frame is not None and not answer.frame < max(1, image.header.frames):
        return "it is of a frame that the image does not have"
    if answer.category != image.category:
        return "it is for another category"
    if answer.adapter not in ({expected} if manifest.categories else {"", *adapters}):
        return "it is not by the model that the task pins for the category"
    if manifest.categories and not expected and not base_answers:
        return "the base answered, which the clinic does not let it"
    return ""
