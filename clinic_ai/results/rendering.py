"""Renders what the guard released: the task for the renderer child, its answer, and ``result.json``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from clinic_ai import __version__
from clinic_ai.analyses import JobDirectory, adopt
from clinic_ai.confinement import Confinement
from clinic_ai.domain import Analysis, Finding, GuardVerdict, Instance, Job, ProducedFile, StoredFile, Study
from clinic_ai.domain.reviews import SignOff
from clinic_ai.errors import ChildError, ChildRefused
from clinic_ai.ingest.identifiers import remarks_of
from clinic_ai.processes import ChildSpec, Crew
from clinic_ai.results.document import result_document
from clinic_ai.results.statements import findings_of, origins_of
from clinic_ai.settings import Settings
from clinic_ai.store import jobs, studies
from clinic_ai.store.objects import ObjectStore
from clinic_ai.tasks import Outlines, RenderImage, RenderResult, RenderTask, StoredSegmentation
from clinic_ai.warm_child import WarmChild

RENDER_TIMEOUT_S = 120.0
RENDERER_MEMORY_BYTES = 3 << 30
RESULT_NAME = "result.json"


@dataclass(frozen=True)
class Material:
    """What a report of one study version is made of. ``made`` is by plugin and name of the file.

    ``reported_at`` (UTC seconds) is when the software reported first, 0.0 before that.
    """

    study: Study
    instances: Sequence[Instance]
    remarks: tuple[str, ...]
    analyses: Sequence[Analysis]
    made: Mapping[tuple[str, str], StoredFile]
    findings: tuple[Finding, ...]
    reported_at: float = 0.0


def material_of(connection: Connection, study_id: str, version: int) -> Material:
    """Return what a report of a study version is made of. Raise NotFound."""
    instances = studies.instances_of(connection, study_id, version)
    analysed = jobs.analyses_of(connection, study_id, version)
    analyses = [analysis for _, analysis in analysed]
    return Material(
        study=studies.get_study(connection, study_id, version),
        instances=instances,
        remarks=remarks_of(instances, studies.count_replaced(connection, study_id, version)),
        analyses=analyses,
        made={
            (analysis.plugin, file.name): file
            for job_id, analysis in analysed
            for file in jobs.files_of(connection, job_id)
        },
        findings=findings_of(analyses),
    )


def renderer_of(crew: Crew) -> WarmChild:
    """Return the warm renderer child, which is started when it is needed."""
    limits = Confinement(data=RENDERER_MEMORY_BYTES, file_size=1 << 30)
    return WarmChild(crew, ChildSpec(kind="renderer", name="renderer", confinement=limits))


class Press:
    """Renders study versions, one after the other."""

    def __init__(
        self, *, objects: ObjectStore, job_directories: Path, crew: Crew, settings: Callable[[], Settings]
    ) -> None:
        self._objects = objects
        self._directories = job_directories
        self._settings = settings
        self.renderer = renderer_of(crew)

    def render(
        self, job: Job, material: Material, verdict: GuardVerdict, sign_off: SignOff | None = None
    ) -> tuple[StoredFile, ...]:
        """Render what the guard released and store the files. Raise ChildError if the renderer cannot."""
        with JobDirectory(self._directories, job.job_id) as directory:
            task = self._task(job, material, verdict, sign_off, directory)
            files, omissions = self._rendered(task, directory)
        document = result_document(task, files=files, omissions=omissions)
        sha256, size = self._objects.write_bytes(document)
        result = StoredFile(name=RESULT_NAME, sha256=sha256, size_bytes=size, media_type="application/json")
        return (result, *files)

    def _task(
        self, job: Job, material: Material, verdict: GuardVerdict, sign_off: SignOff | None, directory: Path
    ) -> RenderTask:
        """Return what the renderer is to make in ``directory``."""
        study, analyses = material.study, material.analyses
        settings = self._settings()
        return RenderTask(
            study_id=study.study_id,
            version=study.version,
            study_instance_uid=study.study_instance_uid,
            close_code=study.close_code,
            closed_reason=study.closed_reason,
            remarks=material.remarks,
            source=study.source,
            facts=study.facts,
            identity=study.identity,
            received_at=study.opened_at,
            created_at=material.reported_at or job.created_at,  # not now: rendered again, the objects must be the same
            images=tuple(self._image(instance, material) for instance in material.instances),
            findings=material.findings,
            verdict=verdict,
            models=tuple(ref for analysis in analyses for ref in analysis.models),
            plugin_labels=tuple(f"{analysis.plugin} {analysis.plugin_version}" for analysis in analyses),
            institution=settings.results.institution or settings.clinic.name,
            language=settings.clinic.language,
            output_directory=str(directory),
            answers=origins_of(analyses),
            outlines=tuple(self._outlines(material)),
            sign_off=sign_off,
            software=f"clinic-ai {__version__}",
            decode=job.attempt < settings.execution.max_attempts or settings.execution.max_attempts == 1,
        )

    def _rendered(self, task: RenderTask, directory: Path) -> tuple[tuple[StoredFile, ...], tuple[str, ...]]:
        """Return the files that the renderer made, stored, and what it says it could not make. Raise ChildError."""
        try:
            with self.renderer.at_work() as child:
                answer = child.call("render", task, RenderResult, timeout_s=RENDER_TIMEOUT_S)
            files = adopt(self._objects, directory, [(f.name, f.media_type) for f in answer.files])
        except ChildRefused:
            raise
        except ChildError:
            self.renderer.distrust()
            raise
        return files, answer.omissions

    def _outlines(self, material: Material) -> Iterator[Outlines]:
        """Yield what each analysis outlined; the renderer takes of it what the released findings speak of."""
        first = 0
        for analysis in material.analyses:
            places = tuple(range(first, first + len(analysis.findings)))
            first += len(analysis.findings)
            stored = tuple(
                StoredSegmentation(path=str(self._objects.path(file.sha256)), segmentation=segmentation)
                for segmentation in analysis.segmentations
                if (file := material.made.get((analysis.plugin, segmentation.file))) is not None
            )
            if analysis.masks or stored:
                yield Outlines(plugin=analysis.plugin, findings=places, masks=analysis.masks, segmentations=stored)

    def _image(self, instance: Instance, material: Material) -> RenderImage:
        path = str(self._objects.path(instance.sha256))
        found = heatmap_of(instance.sha256, material.analyses, material.made)
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
