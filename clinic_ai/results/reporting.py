"""Runs the report jobs: statements → guard → renderer → artefact, and a delivery if everything may go out."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from sqlalchemy import Connection

from clinic_ai.analyses import Models
from clinic_ai.contract import PluginManifest
from clinic_ai.domain import (
    ArtefactState,
    Audience,
    GuardAction,
    GuardVerdict,
    Job,
    JobKind,
    ModelRef,
    Statement,
    StoredFile,
    WaitReason,
)
from clinic_ai.errors import ChildDied, ClinicError, ModelError, PolicyError
from clinic_ai.guard.client import Guard
from clinic_ai.processes import Crew
from clinic_ai.results.evidence import subject_of
from clinic_ai.results.rendering import Material, Press, material_of
from clinic_ai.results.statements import statements_of
from clinic_ai.settings import Settings
from clinic_ai.store import alerts, artefacts, jobs, studies
from clinic_ai.store.database import Database
from clinic_ai.store.objects import ObjectStore
from clinic_ai.waiting import held, no_policy

OUTBOX = "outbox"
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


def unavailable(verdict: GuardVerdict) -> bool:
    """Return whether a verdict stands for a guard that did not answer."""
    return any(decision.rule == UNAVAILABLE for decision in verdict.decisions)


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
        self._guard = guard
        self._models = models
        self._settings = settings
        self._crew = crew
        self._tried_at = float("-inf")
        self._no_policy = no_policy("none was loaded yet.")
        self.press = Press(objects=objects, job_directories=job_directories, crew=crew, settings=settings)

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
            material = material_of(connection, job.study_id, job.version)
        verdict = self.judged(job, material, statements_of(material.analyses))
        files: tuple[StoredFile, ...] = ()
        if verdict.action.severity < GuardAction.HOLD.severity:
            files = self.press.render(job, material, verdict)

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

    def judged(
        self, job: Job, material: Material, statements: Sequence[Statement], signed_by: str = ""
    ) -> GuardVerdict:
        """Return the verdict of the pack the job is pinned to.

        Raise ChildDied while another attempt may find the guard well, PolicyChanged if another pack is in force.
        """
        if policy_hash(self._guard) != job.policy_hash:
            raise PolicyChanged("The policy pack was replaced while the report was prepared.")
        verdict = self.judge(material, statements, signed_by, policy_hash=job.policy_hash or None)
        if unavailable(verdict) and (job.attempt < self._settings().execution.max_attempts or self._crew.closed):
            # Nothing was released; another attempt may find the guard well. The last one records the hold, unless
            # it is we who, stopping, ended the guard.
            raise ChildDied("The guard did not answer, so nothing was released.")
        return verdict

    def judge(
        self,
        material: Material,
        statements: Sequence[Statement],
        signed_by: str = "",
        *,
        policy_hash: str | None = None,
    ) -> GuardVerdict:
        """Return what the guard says now of these statements, as words of ``signed_by`` if a person is named."""
        used = [ref for analysis in material.analyses for ref in analysis.models]
        subject = subject_of(
            material.study,
            material.instances,
            material.analyses,
            self._manifests(),
            validated=bool(used) and all(self._validated(ref) for ref in used),
            language=self._settings().clinic.language,
        )
        if signed_by:
            subject = subject.model_copy(update={"signed_by": signed_by, "own_words": True})
        return self._guard.judge(subject, Audience.CLINICIAN, tuple(statements), policy_hash=policy_hash)

    def _validated(self, ref: ModelRef) -> bool:
        try:
            return self._models.loaded(ref).manifest.clinical_use
        except ModelError:
            return False  # nothing is known of it any more
