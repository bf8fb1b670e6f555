"""Candidates in the shadow: they judge today's studies beside the model in use, and nothing of it goes anywhere.

No artefact, no delivery, no critical alert and no words of it are made: what is stored is what would have been said
otherwise. A shadow runs in a child of its own and ends at once where a study waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from clinic_ai.analyses import JobDirectory, Prepared, Tasks, check_analysis
from clinic_ai.contract import Device, EngineLoad, LoadedModel, PluginManifest, Ready, memory_needed
from clinic_ai.domain import Analysis, Audience, GuardVerdict, ModelState, new_id
from clinic_ai.engines import LOAD_TIMEOUT_S
from clinic_ai.errors import ChildError, ClinicError, Conflict, ModelError, NotFound
from clinic_ai.guard.client import Guard
from clinic_ai.processes import Child, Crew
from clinic_ai.promoting import CanaryResult, Shadow, ShadowDocument, ShadowFinding
from clinic_ai.results.evidence import subject_of
from clinic_ai.results.reporting import unavailable
from clinic_ai.results.statements import statements_of
from clinic_ai.settings import Settings
from clinic_ai.store import models as store
from clinic_ai.store import shadows
from clinic_ai.store.database import Database
from clinic_ai.training.registry import Registry
from clinic_ai.training.spoken import engine_spec

PATIENCE_S = 600.0
"""How long a canary waits, in all, for studies that come first; then it ends with what it has."""
LOOK_EVERY_S = 0.25
_MIB = 1 << 20


@dataclass
class _Round:
    """One canary: its models and its child, while it has one."""

    manifest: PluginManifest
    candidate: LoadedModel
    models: tuple[LoadedModel, ...]
    patient_until: float
    child: Child | None = None
    done: list[Shadow] = field(default_factory=list)
    why_not: dict[str, str] = field(default_factory=dict)

    def bury(self) -> None:
        """End the child, if there is one, and with it its memory."""
        if self.child is not None:
            self.child.kill()
            self.child = None


class Canary:
    """Runs one candidate at a time on studies that were analysed lately."""

    def __init__(
        self,
        *,
        directories: Path,
        database: Database,
        registry: Registry,
        manifests: Callable[[], Mapping[str, PluginManifest]],
        tasks: Tasks,
        crew: Crew,
        guard: Guard,
        settings: Callable[[], Settings],
        waiting: Callable[[], bool],
    ) -> None:
        self._directories = directories
        self._database = database
        self._registry = registry
        self._manifests = manifests
        self._tasks = tasks
        self._crew = crew
        self._guard = guard
        self._settings = settings
        self._waiting = waiting
        self._alone = threading.Lock()

    def run(self, plugin: str, name: str, version: str, *, hours: float, most: int) -> CanaryResult:
        """Run a candidate on at most ``most`` studies that were analysed in the last ``hours``; return what differs.

        Raise NotFound, Conflict if it is no candidate, another canary runs or memory is short, ModelError if its
        files are damaged or its engine does not take it.
        """
        manifest, candidate = self._candidate(plugin, name, version)
        if not self._alone.acquire(blocking=False):
            raise Conflict("Another candidate runs in the shadow.", remedy="Try again when that is over.")
        try:
            models = self._registry.with_candidate(candidate)
            self._refuse_without_memory(manifest, models)
            with self._database.read() as connection:
                wanted = shadows.analysed_since(connection, plugin, time.time() - hours * 3600, most)
            shift = _Round(manifest, candidate, models, time.monotonic() + PATIENCE_S)
            sentence = ""
            try:
                for number, (study_id, study_version, before) in enumerate(wanted):
                    if not self._shadow(shift, study_id, study_version, before):
                        sentence = f"Studies waited all the time; {len(wanted) - number} of {len(wanted)} were left."
                        break
            finally:
                shift.bury()
        finally:
            self._alone.release()
        return CanaryResult(
            plugin=plugin,
            name=name,
            version=version,
            shadows=tuple(shift.done),
            why_not=shift.why_not,
            sentence=sentence,
        )

    # ------------------------------------------------------------ before

    def _candidate(self, plugin: str, name: str, version: str) -> tuple[PluginManifest, LoadedModel]:
        manifest = self._manifests().get(plugin)
        if manifest is None:
            raise NotFound(f"There is no plugin {plugin}.", remedy="`clinic-ai plugin list` shows the installed ones.")
        with self._database.read() as connection:
            model = store.get_model(connection, plugin, name, version)
        if model.state not in {ModelState.CANDIDATE, ModelState.IMPORTED}:
            raise Conflict(
                f"The model {plugin}/{name}/{version} is {model.state.value}; only what is not in use yet runs in the "
                "shadow.",
                remedy="`clinic-ai model list` shows the candidates.",
            )
        return manifest, self._registry.loaded(model.ref)

    def _refuse_without_memory(self, manifest: PluginManifest, models: tuple[LoadedModel, ...]) -> None:
        need_mb = memory_needed(manifest, (model.manifest for model in models))
        spare_mb = self._settings().training.budget.free_memory_mb
        free_mb = psutil.virtual_memory().available // _MIB
        if need_mb + spare_mb > free_mb:
            raise Conflict(
                f"A second engine of {manifest.name} needs {need_mb} MiB, {spare_mb} MiB have to stay free "
                f"(training.budget.free_memory_mb), and {free_mb} MiB are free.",
                remedy="Try again when less is at work.",
            )

    # ------------------------------------------------------------ one study

    def _shadow(self, shift: _Round, study_id: str, version: int, before: Analysis) -> bool:
        """Run on one study and store what differs; False if studies that come first left no time for it."""
        while self._wait_for_quiet(shift):
            try:
                shadow = self._run_on(shift, study_id, version, before)
            except ChildError as error:
                shift.bury()
                if self._crew.closed:
                    return False
                if self._waiting():
                    continue  # it was ended for a study that waits, and begins anew
                shift.why_not[study_id] = error.message
            except ModelError:
                raise
            except ClinicError as error:
                shift.why_not[study_id] = error.message
            else:
                shift.done.append(shadow)
            return True
        return False

    def _wait_for_quiet(self, shift: _Round) -> bool:
        """Return whether nobody waits, after some patience; while somebody does, no child keeps memory."""
        while self._waiting():
            shift.bury()
            if self._crew.closed or time.monotonic() >= shift.patient_until:
                return False
            time.sleep(LOOK_EVERY_S)
        return True

    def _run_on(self, shift: _Round, study_id: str, version: int, before: Analysis) -> Shadow:
        prepared = self._tasks.prepare(shift.manifest, study_id, version)
        began = time.monotonic()
        refs = tuple(model.ref for model in shift.models)
        with self._yielding(shift) as child, JobDirectory(self._directories, f"shadow-{study_id}") as directory:
            task = prepared.task(new_id("W"), refs, directory)
            analysis = child.call("analyse", task, Analysis, timeout_s=shift.manifest.timeout_s)
        check_analysis(analysis, shift.manifest, task, shift.models)
        after = prepared.completed(analysis)
        verdicts = [self._verdict(prepared, one) for one in (before, after)]
        document = compared(before, after, *verdicts).model_copy(update={"seconds": round(time.monotonic() - began, 3)})
        ref = shift.candidate.ref
        shadow = Shadow(
            shadow_id=new_id("W"),
            plugin=ref.plugin,
            name=ref.name,
            version=ref.version,
            digest=ref.digest,
            study_id=study_id,
            study_version=version,
            document=document,
            at=time.time(),
        )
        with self._database.write() as connection:
            shadows.add_shadow(connection, shadow)
        return shadow

    @contextmanager
    def _yielding(self, shift: _Round) -> Iterator[Child]:
        """Give the child, with its models loaded; it is killed as soon as a study waits."""
        over = threading.Event()

        def watch(child: Child) -> None:
            while not over.wait(LOOK_EVERY_S):
                if self._waiting():
                    child.kill()
                    return

        fresh = shift.child is None
        if shift.child is None:
            need_mb = memory_needed(shift.manifest, (model.manifest for model in shift.models))
            shift.child = self._crew.start(engine_spec(shift.manifest, need_mb, "shadow"))
        watcher = threading.Thread(target=watch, args=(shift.child,), name="canary", daemon=True)
        watcher.start()
        try:
            if fresh:
                device = Device(threads=1, memory_mb=memory_needed(shift.manifest, (m.manifest for m in shift.models)))
                load = EngineLoad(engine=shift.manifest.engine, models=shift.models, device=device)
                shift.child.call("load", load, Ready, timeout_s=LOAD_TIMEOUT_S)
            yield shift.child
        finally:
            over.set()
            watcher.join()

    def _verdict(self, prepared: Prepared, analysis: Analysis) -> GuardVerdict:
        """Return what the guard says of an analysis by the pack in force. Raise ChildError if it does not answer."""
        validated = bool(analysis.models)
        for ref in analysis.models:
            try:
                validated = validated and self._registry.loaded(ref).manifest.clinical_use
            except ClinicError:
                validated = False  # nothing is known of it any more
        subject = subject_of(
            prepared.study,
            prepared.instances,
            (analysis,),
            {prepared.manifest.name: prepared.manifest},
            validated=validated,
            language=self._settings().clinic.language,
        )
        verdict = self._guard.judge(subject, Audience.CLINICIAN, statements_of((analysis,)))
        if unavailable(verdict):
            raise Conflict("The guard did not answer.", remedy="Look at `clinic-ai doctor`, then try again.")
        return verdict


def compared(before: Analysis, after: Analysis, verdict: GuardVerdict, shadow_verdict: GuardVerdict) -> ShadowDocument:
    """Return what sets two analyses of a study apart, and what the guard made of either."""
    was = {(f.condition, f.instance_sha256): f for f in before.findings}
    now = {(f.condition, f.instance_sha256): f for f in after.findings}
    findings = []
    for condition, sha256 in dict.fromkeys((*was, *now)):
        one, other = was.get((condition, sha256)), now.get((condition, sha256))
        findings.append(
            ShadowFinding(
                condition=condition,
                sha256=sha256,
                before=one.presence if one else None,
                after=other.presence if other else None,
                probability_before=one.probability if one else None,
                probability_after=other.probability if other else None,
            )
        )
    said = {(a.instance_sha256, a.frame, a.question): a.text for a in before.answers}
    says = {(a.instance_sha256, a.frame, a.question): a.text for a in after.answers}
    rules = {decision.rule for decision in verdict.decisions}
    return ShadowDocument(
        findings=tuple(findings),
        answers=len({*said, *says}),
        answers_changed=sum(said.get(key) != says.get(key) for key in {*said, *says}),
        refusals_before=len(before.refusals),
        refusals_after=len(after.refusals),
        guard_before=verdict.action,
        guard_after=shadow_verdict.action,
        rules_after=tuple(sorted({decision.rule for decision in shadow_verdict.decisions} - rules)),
        models_before=tuple(ref.label() for ref in before.models),
    )
