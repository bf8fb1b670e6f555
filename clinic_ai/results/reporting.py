"""Runs the report jobs: statements → guard → renderer → artefact, and a delivery if everything may go out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from sqlalchemy import Connection

from clinic_ai import __version__
from clinic_ai.analyses import JobDirectory, Models, adopt
from clinic_ai.confinement import Confinement
from clinic_ai.contract import PluginManifest
from clinic_ai.domain import (
    Analysis,
    ArtefactState,
    Audience,
    GuardAction,
    GuardVerdict,
    Instance,
    Job,
    JobKind,
    ModelRef,
    ProducedFile,
    StoredFile,
    Study,
    WaitReason,
)
from clinic_ai.errors import ChildDied, ChildError, ChildRefused, ClinicError, ModelError, PolicyError
from clinic_ai.guard.client import Guard
from clinic_ai.ingest.identifiers import remarks_of
from clinic_ai.processes import Child, ChildSpec, Crew
from clinic_ai.results.document import result_document
from clinic_ai.results.evidence import subject_of
from clinic_ai.results.statements import findings_of, statements_of
from clinic_ai.settings import Settings
from clinic_ai.store import alerts, artefacts, jobs, studies
from clinic_ai.store.database import Database
from clinic_ai.store.objects import ObjectStore
from clinic_ai.tasks import RenderImage, RenderResult, RenderTask
from clinic_ai.waiting import held, no_policy

RENDER_TIMEOUT_S = 120.0
RENDERER_MEMORY_BYTES = 3 << 30
OUTBOX = "outbox"
RESULT_NAME = "result.json"
POLICY_RETRY_S = 5.0
"""Pause between attempts to load the policy pack when none is in force."""
UNAVAILABLE = "guard.unavailable"
"""Rule name of the verdict that stands for a guard that did not answer."""


class PolicyChanged(ClinicError):
    """The policy pack was replaced between lease and judgement; the next lease pins the new one."""

    retryable = True


def policy_hash(guard: Guard) -> str:
    """Return the digest of the pack in force, empty if there is none: then everything is held."""
    return guard.pack.digest if guard.pack is not None else ""


class Renderer:
    """The warm renderer child, started when it is needed and again when it died."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._child: Child | None = None
        self._lock = threading.Lock()

    def render(self, task: RenderTask) -> RenderResult:
        """Render one study version. Raise ChildError if the child dies, hangs, misbehaves or refuses."""
        with self._lock:
            child = self._child
            if child is None or not child.alive:
                limits = Confinement(data=RENDERER_MEMORY_BYTES, file_size=1 << 30)
                child = self._child = self._crew.start(ChildSpec(kind="renderer", name="renderer", confinement=limits))
            return child.call("render", task, RenderResult, timeout_s=RENDER_TIMEOUT_S)

    def distrust(self) -> None:
        """Kill the child because of what it answered; the next task gets a new one."""
        with self._lock:
            if self._child is not None:
                self._child.kill()
                self._child = None

    def end_if_idle(self, idle_s: float) -> None:
        """End the child if nobody used it for ``idle_s`` seconds; one at work is left alone."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._child is not None and time.monotonic() - self._child.last_used > idle_s:
                self._end()
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._child is not None:
            self._child.close(grace_s=1.0)
            self._child = None


class ReportRunner:
    """Does the jobs of kind ``report``."""

    kind = JobKind.REPORT

    def __init__(
        self,
        *,
        database: Database,
        objects: ObjectStore,
        job_directories: Path,
        crew: Crew,
        guard: Guard,
        models: Models,
        settings: Callable[[], Settings],
        manifests: Callable[[], Mapping[str, PluginManifest]],
    ) -> None:
        self._manifests = manifests
        self._database = database
        self._objects = objects
        self._directories = job_directories
        self._guard = guard
        self._models = models
        self._settings = settings
        self._crew = crew
        self._tried_at = float("-inf")
        self._no_policy = no_policy("none was loaded yet.")
        self.renderer = Renderer(crew)

    def obstacles(self, plugins: Collection[str], at_work: Collection[str]) -> Mapping[str, WaitReason]:
        """Return why reports wait: only a missing policy pack keeps them."""
        del at_work
        if self._guard.pack is not None:
            return {}
        now = time.monotonic()
        if now - self._tried_at > POLICY_RETRY_S:
            self._tried_at = now
            try:
                self._guard.load()
            except PolicyError as error:
                self._no_policy = no_policy(error.message)
            else:
                with self._database.write() as connection:
                    alerts.withdraw(connection, "policy_rejected", "appliance")
                return {}
        return dict.fromkeys(plugins, self._no_policy)

    def pin(self, plugin: str) -> tuple[tuple[ModelRef, ...], str]:
        """Return the active policy; the models are those of the analyses."""
        del plugin
        return (), policy_hash(self._guard)

    def run(self, job: Job) -> Callable[[Connection], None]:
        """Guard, render and store the result of a study version. Raise ClinicError if that fails."""
        with self._database.read() as connection:
            study = studies.get_study(connection, job.study_id, job.version)
            instances = studies.instances_of(connection, job.study_id, job.version)
            remarks = remarks_of(instances, studies.count_replaced(connection, job.study_id, job.version))
            analysed = jobs.analyses_of(connection, job.study_id, job.version)
            made = {
                (analysis.plugin, file.name): file
                for job_id, analysis in analysed
                for file in jobs.files_of(connection, job_id)
            }
        analyses = [analysis for _, analysis in analysed]
        verdict = self._judge(job, study, instances, analyses)
        files: tuple[StoredFile, ...] = ()
        if verdict.action.severity < GuardAction.HOLD.severity:
            files = self._render(job, study, instances, remarks, analyses, made, verdict)

        def commit(connection: Connection) -> None:
            jobs.save_files(connection, job.job_id, files)
            artefact_id, state = artefacts.add_artefact(connection, job, verdict)
            if state is ArtefactState.PRELIMINARY:
                artefacts.add_delivery(connection, artefact_id, OUTBOX)
                return
            strictest = max(verdict.decisions, key=lambda d: d.action.severity)
            wait = held(strictest.rule, strictest.reason)
            studies.move_study(connection, job.study_id, job.version, "finish", actor="guard", wait=wait)

        return commit

    def _judge(
        self, job: Job, study: Study, instances: Sequence[Instance], analyses: Sequence[Analysis]
    ) -> GuardVerdict:
        used = [ref for analysis in analyses for ref in analysis.models]
        subject = subject_of(
            study,
            instances,
            analyses,
            self._manifests(),
            validated=bool(used) and all(self._validated(ref) for ref in used),
            language=self._settings().clinic.language,
        )
        in_force = policy_hash(self._guard)
        if in_force != job.policy_hash:
            raise PolicyChanged("The policy pack was replaced while the report was prepared.")
        verdict = self._guard.judge(
            subject, Audience.CLINICIAN, statements_of(analyses), policy_hash=job.policy_hash or None
        )
        unavailable = any(decision.rule == UNAVAILABLE for decision in verdict.decisions)
        if unavailable and (job.attempt < self._settings().execution.max_attempts or self._crew.closed):
            # Nothing was released; another attempt may find the guard well. The last one records the hold, unless
            # it is we who, stopping, ended the guard.
            raise ChildDied("The guard did not answer, so nothing was released.")
        return verdict

    def _validated(self, ref: ModelRef) -> bool:
        try:
            return self._models.loaded(ref).manifest.clinical_use
        except ModelError:
            return False  # nothing is known of it any more

    def _render(
        self,
        job: Job,
        study: Study,
        instances: Sequence[Instance],
        remarks: tuple[str, ...],
        analyses: Sequence[Analysis],
        made: Mapping[tuple[str, str], StoredFile],
        verdict: GuardVerdict,
    ) -> tuple[StoredFile, ...]:
        settings = self._settings()
        with JobDirectory(self._directories, job.job_id) as directory:
            task = RenderTask(
                study_id=study.study_id,
                version=study.version,
                study_instance_uid=study.study_instance_uid,
                close_code=study.close_code,
                closed_reason=study.closed_reason,
                remarks=remarks,
                source=study.source,
                facts=study.facts,
                identity=study.identity,
                received_at=study.opened_at,
                created_at=job.created_at,  # not now: the same version rendered again must give the same objects
                images=tuple(self._image(instance, analyses, made) for instance in instances),
                findings=findings_of(analyses),
                verdict=verdict,
                models=tuple(ref for analysis in analyses for ref in analysis.models),
                plugin_labels=tuple(f"{analysis.plugin} {analysis.plugin_version}" for analysis in analyses),
                institution=settings.results.institution or settings.clinic.name,
                language=settings.clinic.language,
                output_directory=str(directory),
                software=f"clinic-ai {__version__}",
                decode=job.attempt < settings.execution.max_attempts or settings.execution.max_attempts == 1,
            )
            try:
                answer = self.renderer.render(task)
                files = adopt(self._objects, directory, [(f.name, f.media_type) for f in answer.files])
            except ChildRefused:
                raise
            except ChildError:
                self.renderer.distrust()
                raise
        document = result_document(task, files=files, omissions=answer.omissions)
        sha256, size = self._objects.write_bytes(document)
        result = StoredFile(name=RESULT_NAME, sha256=sha256, size_bytes=size, media_type="application/json")
        return (result, *files)

    def _image(
        self, instance: Instance, analyses: Sequence[Analysis], made: Mapping[tuple[str, str], StoredFile]
    ) -> RenderImage:
        path = str(self._objects.path(instance.sha256))
        found = heatmap_of(instance.sha256, analyses, made)
        if found is None:
            return RenderImage(path=path, sha256=instance.sha256, header=instance.header)
        shown, stored = found
        return RenderImage(
            path=path,
            sha256=instance.sha256,
            header=instance.header,
            heatmap_path=str(self._objects.path(stored.sha256)),
            heatmap_caption=shown.caption,
            extent=shown.extent,
        )


def heatmap_of(
    instance_sha256: str, analyses: Sequence[Analysis], made: Mapping[tuple[str, str], StoredFile]
) -> tuple[ProducedFile, StoredFile] | None:
    """Return the first heat map that a finding shows on an instance; ``made`` is by plugin and name of the file.

    By plugin too, for two of them may use one name, and a map must never stand beside another plugin's finding.
    """
    for analysis in analyses:
        names = {finding.heatmap for finding in analysis.findings if finding.instance_sha256 == instance_sha256}
        for file in analysis.files:
            stored = made.get((analysis.plugin, file.name))
            if file.role == "heatmap" and file.name in names and stored is not None:
                return file, stored
    return None
