"""What two models would say of test images, put to the guard as the words of a study are.

For a plugin that judges conditions an engine of its own analyses a sample of the images; for one that answers, the
answers are those its trainer's child gave. Nothing of it is stored or shown: what counts is what the guard keeps back.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clinic_ai.analyses import check_analysis
from clinic_ai.confinement import Confinement
from clinic_ai.contract import (
    AnalysisTask,
    Dataset,
    Device,
    EngineLoad,
    Example,
    LoadedModel,
    PluginManifest,
    Ready,
    TaskImage,
    memory_needed,
)
from clinic_ai.domain import (
    Analysis,
    Answer,
    Audience,
    GuardAction,
    GuardVerdict,
    Instance,
    InstanceHeader,
    Statement,
    Study,
    StudyState,
)
from clinic_ai.engines import LOAD_TIMEOUT_S
from clinic_ai.errors import ChildDied, ChildRefused, ClinicError
from clinic_ai.gating import GuardOutcome, NewFailure, Said
from clinic_ai.guard.client import Guard
from clinic_ai.ingest.facts import facts_of
from clinic_ai.ingest.headers import HeaderReader
from clinic_ai.processes import Child, ChildSpec, Crew, computing_on
from clinic_ai.results.evidence import subject_of
from clinic_ai.results.reporting import unavailable
from clinic_ai.results.statements import answer_text, statements_of
from clinic_ai.settings import Settings

MOST_IMAGES = 60
"""Test images whose words the guard hears, evenly drawn."""
NICE = 10
_PREFIX = ".words-"
_MIB = 1 << 20


class Interrupted(ClinicError):
    """Somebody wants the examination to end; it begins anew when the run goes on."""


@dataclass(frozen=True)
class Watch:
    """Who watches over an examination: is told of every child, and says whether to stop."""

    at_work: Callable[[Child], None] = lambda _: None
    stop: Callable[[], bool] = lambda: False

    def begin(self, child: Child) -> None:
        """Tell of a child that was started. Raise Interrupted if it was wished to stop before anybody knew of it."""
        self.at_work(child)
        self.check()

    def check(self) -> None:
        """Raise Interrupted if the examination should end."""
        if self.stop():
            raise Interrupted("The examination of the candidate was interrupted.")


@dataclass(frozen=True)
class Speakers:
    """The models that speak where the candidate is in use, and those that speak now; none if nothing is in use."""

    candidate: tuple[LoadedModel, ...]
    incumbent: tuple[LoadedModel, ...] = ()


Kept = Mapping[str, tuple[str, str]]
"""Of each statement that the guard keeps back, by its id: rule and reason."""


class Words:
    """Puts the words of candidates to the guard."""

    def __init__(self, folder: Path, crew: Crew, guard: Guard, settings: Callable[[], Settings]) -> None:
        self._folder = folder
        self._crew = crew
        self._guard = guard
        self._settings = settings

    def judged(
        self, manifest: PluginManifest, dataset: Dataset, speakers: Speakers, said: Sequence[Said], watch: Watch
    ) -> GuardOutcome:
        """Return what the guard makes of the words of both.

        Raise Interrupted if ``watch`` says so, ChildError if the guard or an engine does not answer.
        """
        examples = _sample(dataset)
        headers = self._headers(examples)
        shown = [example for example in examples if example.sha256 in headers]
        if manifest.labels == "answers":
            both = self._answered(manifest, dataset, shown, headers, speakers, said, watch)
        else:
            both = self._analysed(manifest, shown, headers, speakers, watch)
        pack = self._guard.pack
        new, before, after = [], 0, 0
        for sha256, candidate, incumbent in both:
            after += bool(candidate)
            before += bool(incumbent)
            fresh = [key for key in candidate if incumbent is None or key not in incumbent]
            if fresh:
                rule, reason = candidate[fresh[0]]
                new.append(NewFailure(sha256=sha256, rule=rule, reason=reason))
        return GuardOutcome(
            examples=len(shown),
            candidate_kept_back=after,
            incumbent_kept_back=before if speakers.incumbent else None,
            new=tuple(new),
            policy_hash=self._guard.policy_hash,
            policy_name=pack.name if pack is not None else "",
        )

    def _headers(self, examples: Sequence[Example]) -> dict[str, InstanceHeader]:
        reader = HeaderReader(self._crew)
        try:
            files = reader.read([Path(example.path) for example in examples], self._settings().ingest)
        finally:
            reader.close()
        return {e.sha256: f.header for e, f in zip(examples, files, strict=True) if f.header is not None}

    # ------------------------------------------------------------ answers

    def _answered(
        self,
        manifest: PluginManifest,
        dataset: Dataset,
        shown: Sequence[Example],
        headers: Mapping[str, InstanceHeader],
        speakers: Speakers,
        said: Sequence[Said],
        watch: Watch,
    ) -> Iterator[tuple[str, Kept, Kept | None]]:
        places = next((c.body_parts for c in manifest.categories if c.key == dataset.category), ())
        for example in shown:
            watch.check()
            asked = [one for one in said if one.sha256 == example.sha256]
            texts = [[(one.question, one.candidate) for one in asked], [(one.question, one.incumbent) for one in asked]]
            heard: list[Kept] = []
            for models, pairs in zip((speakers.candidate, speakers.incumbent), texts, strict=True):
                spoken = _spoken(manifest, models, pairs)
                statements = tuple(
                    Statement(statement_id=f"a_{number}", kind="answer", text=answer_text(Answer(question=q, text=t)))
                    for number, (q, t) in enumerate(pairs, start=1)
                    if t.strip()
                )
                header = headers[example.sha256]
                study = _study(example, header)
                facts = study.facts.model_copy(update={"body_parts": places or study.facts.body_parts})
                study = study.model_copy(update={"facts": facts})
                heard.append(self._kept(manifest, study, _instance(example, header), spoken, statements, models))
            yield example.sha256, heard[0], heard[1] if speakers.incumbent else None

    # ------------------------------------------------------------ findings

    def _analysed(
        self,
        manifest: PluginManifest,
        shown: Sequence[Example],
        headers: Mapping[str, InstanceHeader],
        speakers: Speakers,
        watch: Watch,
    ) -> Iterator[tuple[str, Kept, Kept | None]]:
        candidate = self._all_analysed(manifest, shown, headers, speakers.candidate, watch)
        incumbent = (
            self._all_analysed(manifest, shown, headers, speakers.incumbent, watch) if speakers.incumbent else {}
        )
        for example in shown:
            yield example.sha256, candidate[example.sha256], incumbent.get(example.sha256)

    def _all_analysed(
        self,
        manifest: PluginManifest,
        shown: Sequence[Example],
        headers: Mapping[str, InstanceHeader],
        models: tuple[LoadedModel, ...],
        watch: Watch,
    ) -> dict[str, Kept]:
        """Have an engine with these models analyse each image as a study of its own; return what the guard keeps."""
        need_mb = memory_needed(manifest, (model.manifest for model in models))
        found: dict[str, Kept] = {}
        with self._scratch() as folder:
            child = self._crew.start(engine_spec(manifest, need_mb, "examination"))
            try:
                watch.begin(child)
                device = Device(threads=self._settings().training.threads, memory_mb=need_mb)
                load = EngineLoad(engine=manifest.engine, models=models, device=device)
                child.call("load", load, Ready, timeout_s=LOAD_TIMEOUT_S)
                for example in shown:
                    watch.check()
                    header = headers[example.sha256]
                    analysis = _analysis(child, manifest, example, header, models, folder)
                    study, instance = _study(example, header), _instance(example, header)
                    statements = statements_of((analysis,))
                    found[example.sha256] = self._kept(manifest, study, instance, analysis, statements, models)
            finally:
                child.kill()
        return found

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """Give an empty folder for what engines write, gone afterwards."""
        for leftover in self._folder.glob(f"{_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        folder = self._folder.absolute() / f"{_PREFIX}{secrets.token_hex(8)}"
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # ------------------------------------------------------------ the guard

    def _kept(
        self,
        manifest: PluginManifest,
        study: Study,
        instance: Instance,
        analysis: Analysis,
        statements: tuple[Statement, ...],
        models: Sequence[LoadedModel],
    ) -> Kept:
        """Return what the guard keeps back of the words about one image, by the pack in force."""
        if not statements:
            return {}
        subject = subject_of(
            study,
            (instance,),
            (analysis,),
            {manifest.name: manifest},
            validated=bool(models) and all(model.manifest.clinical_use for model in models),
            language=self._settings().clinic.language,
        )
        return kept_back(self._guard.judge(subject, Audience.CLINICIAN, statements))


def kept_back(verdict: GuardVerdict) -> Kept:
    """Return what the guard does not let out as it was said, by statement. Raise ChildDied if it did not answer.

    What it takes words out of or says in words of its own counts too: a model should not have said that.
    """
    if unavailable(verdict):
        raise ChildDied(
            f"The guard did not answer, so nobody knows what it makes of the words: {verdict.decisions[0].reason}",
            remedy="Look at `clinic-ai doctor`; when the guard runs again, try again.",
        )
    return {
        decision.statement_id: (decision.rule, decision.reason)
        for decision in verdict.decisions
        if decision.action.severity >= GuardAction.REDACT.severity
    }


def _analysis(
    child: Child,
    manifest: PluginManifest,
    example: Example,
    header: InstanceHeader,
    models: tuple[LoadedModel, ...],
    folder: Path,
) -> Analysis:
    """Return what the engine says of one image; of one it refuses altogether, nothing."""
    image = TaskImage(path=example.path, sha256=example.sha256, header=header)
    place = folder / example.sha256
    place.mkdir()
    refs = tuple(model.ref for model in models)
    task = AnalysisTask(
        job_id=f"examination-{example.sha256[:12]}",
        facts=_study(example, header).facts,
        images=(image,),
        output_directory=str(place),
        models=refs,
        conditions=manifest.conditions,
        categories=manifest.categories,
    )
    try:
        analysis = child.call("analyse", task, Analysis, timeout_s=manifest.timeout_s)
    except ChildRefused:
        return Analysis(plugin=manifest.name, plugin_version=manifest.version, models=refs)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    check_analysis(analysis, manifest, task, models)
    return analysis


def _spoken(manifest: PluginManifest, models: Sequence[LoadedModel], pairs: Sequence[tuple[str, str]]) -> Analysis:
    return Analysis(
        plugin=manifest.name,
        plugin_version=manifest.version,
        models=tuple(model.ref for model in models),
        answers=tuple(Answer(question=question, text=text) for question, text in pairs if text.strip()),
    )


def _sample(dataset: Dataset) -> list[Example]:
    """Return test examples, one of each image, evenly drawn where there are many."""
    test = list({example.sha256: example for example in dataset.examples if example.split == "test"}.values())
    return test[:: max(1, -(-len(test) // MOST_IMAGES))]


def _study(example: Example, header: InstanceHeader) -> Study:
    """Return a study of this image alone; it is nowhere stored, and nobody is its patient."""
    now = time.time()
    return Study(
        study_id=f"test-{example.sha256[:12]}",
        state=StudyState.ROUTED,
        study_instance_uid="",
        pseudonym="",
        source="",
        facts=facts_of([header], ""),
        opened_at=now,
        last_instance_at=now,
    )


def _instance(example: Example, header: InstanceHeader) -> Instance:
    return Instance(sha256=example.sha256, size_bytes=0, header=header)


def engine_spec(manifest: PluginManifest, need_mb: int, purpose: str) -> ChildSpec:
    """Return what to start for an engine that works beside the one in use, behind everything else."""
    return ChildSpec(
        kind="engine",
        name=f"{manifest.name} {purpose}",
        confinement=Confinement(data=(2 * need_mb + 512) * _MIB, file_size=1 << 30, nice=NICE),
        environment=computing_on(1),
    )
