"""Closed studies become jobs, jobs are leased, run, retried and reaped; every move is one transaction.

What a job does is its runner's business (``analyses``, ``results.reporting``). Here is only the table: which job
comes next, what it pins, what a failure costs, and what follows when the last one of a study is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import structlog
from sqlalchemy import Connection

from clinic_ai.contract import PluginManifest
from clinic_ai.domain import Job, JobKind, JobState, ModelRef, Study, StudyState, WaitReason
from clinic_ai.errors import ChildError, ClinicError, Conflict, HomeError, InputError
from clinic_ai.lanes import Lane, Wake
from clinic_ai.routing import Routing, route
from clinic_ai.settings import Settings
from clinic_ai.store import alerts, artefacts, jobs, studies
from clinic_ai.store.database import Database
from clinic_ai.waiting import backing_off, failed, no_rule

log = structlog.get_logger()

MAX_INTERRUPTIONS = 50
"""How often the appliance may die during one job before the job is given up as its likely cause."""

Commit = Callable[[Connection], None]
"""What a runner wants stored in the transaction that marks its job as done."""


class Runner(Protocol):
    """Does the jobs of one kind."""

    kind: JobKind

    def obstacles(self, plugins: Collection[str]) -> Mapping[str, WaitReason]:
        """Return, of these plugins, those whose jobs cannot start now, and why."""

    def busy(self) -> Collection[str]:
        """Return the plugins that can take no further job before the present one ends."""

    def pin(self, plugin: str) -> tuple[tuple[ModelRef, ...], str]:
        """Return the models and the policy hash a job leased now has to use."""

    def run(self, job: Job) -> Commit:
        """Do the job. Raise ClinicError if it cannot be done; ``retryable`` says whether another attempt may help."""


class Execution:
    """The lanes that work through the job table."""

    def __init__(
        self,
        *,
        database: Database,
        settings: Callable[[], Settings],
        manifests: Callable[[], Mapping[str, PluginManifest]],
        runners: Collection[Runner],
        owner: str,
        wake: Wake,
    ) -> None:
        self._database = database
        self._settings = settings
        self._manifests = manifests
        self._runners = {runner.kind: runner for runner in runners}
        self._owner = owner
        self._stopping = False
        self.wake = wake
        parallel = settings().execution.max_parallel_jobs
        steps = [("routing", self.route_closed)]
        steps += [(f"analyse {n}", lambda: self.step(JobKind.ANALYSE)) for n in range(1, parallel + 1)]
        steps += [("report", lambda: self.step(JobKind.REPORT))]
        self._lanes = [Lane(name, step, wake) for name, step in steps]

    def recover(self) -> None:
        """Return to the queue what a daemon that died had leased."""
        with self._database.write() as connection:
            for job in jobs.reap(connection, self._owner, MAX_INTERRUPTIONS):
                self._after_failure(connection, job, failed(job.error))

    def start(self) -> None:
        """Start all lanes."""
        for lane in self._lanes:
            lane.start()

    def stop(self, grace_s: float, kill: Callable[[], None]) -> None:
        """Let running jobs finish for ``grace_s``; then ``kill`` their children and re-queue them."""
        self._stopping = True
        for lane in self._lanes:
            lane.ask_to_stop()
        deadline = time.monotonic() + grace_s
        if not all(lane.join(max(0.0, deadline - time.monotonic())) for lane in self._lanes):
            kill()
            for lane in self._lanes:
                lane.join(10.0)

    # ------------------------------------------------------------ routing

    def route_closed(self) -> bool:
        """Route every closed study; return whether there was one."""
        with self._database.read() as connection:
            closed = studies.studies_in(connection, StudyState.CLOSED)
        for study in closed:
            routing = self.routing_of(study)
            with self._database.write() as connection:
                self._route(connection, study, routing)
            self.wake()
        return bool(closed)

    def routing_of(self, study: Study) -> Routing:
        """Return where the present rules and claims send a study, with the explanation."""
        rules = self._settings().routing
        return route(study.facts, rules.rule, self._manifests(), mode=rules.mode, use_claims=rules.use_claims)

    def _route(self, connection: Connection, study: Study, routing: Routing) -> None:
        present = studies.get_study(connection, study.study_id, study.version)
        if present.state is not StudyState.CLOSED:
            return  # a newer version superseded it meanwhile
        artefacts.supersede_before(connection, study.study_id, study.version)
        for version in range(1, study.version):
            jobs.cancel_open(connection, study.study_id, version)
        # A plugin that a rule names and nobody installed gets its job too: it waits, and says for what.
        chosen = (*routing.plugins, *routing.missing)
        if not chosen:
            studies.move_study(connection, study.study_id, study.version, "no_rule", actor="clinic-ai", wait=no_rule())
            return
        studies.move_study(connection, study.study_id, study.version, "route", actor="clinic-ai", wait=None)
        for choice in chosen:
            jobs.add_job(
                connection,
                kind=JobKind.ANALYSE,
                study_id=study.study_id,
                version=study.version,
                plugin=choice.plugin,
                rule=choice.rule,
                priority=study.priority + choice.priority,
            )

    # ------------------------------------------------------------ one job

    def step(self, kind: JobKind) -> bool:
        """Lease and run one job of this kind; return whether there was one."""
        if self._stopping:
            return False
        job = self._lease(self._runners[kind])
        if job is None:
            return False
        try:
            commit = self._runners[kind].run(job)
        except ClinicError as error:
            self._fail(job, error)
        else:
            self._finish(job, commit)
        self.wake()
        return True

    def _lease(self, runner: Runner) -> Job | None:
        with self._database.read() as connection:
            plugins = jobs.waiting_plugins(connection, runner.kind)
        if not plugins:
            return None
        obstacles = runner.obstacles(plugins)
        self._say_why(plugins, obstacles)
        busy = runner.busy()
        plugins = [p for p in plugins if p not in obstacles and p not in busy]
        with self._database.read() as connection:
            if jobs.next_due(connection, runner.kind, time.time(), plugins) is None:
                return None
        with self._database.write() as connection:
            job = jobs.next_due(connection, runner.kind, time.time(), plugins)
            if job is None:
                return None
            models, policy_hash = runner.pin(job.plugin)
            studies.set_wait(connection, job.study_id, job.version, None)
            return jobs.lease(connection, job, self._owner, models, policy_hash)

    def _say_why(self, plugins: Collection[str], obstacles: Mapping[str, WaitReason]) -> None:
        with self._database.read() as connection:
            news = [p for p in plugins if jobs.waits_otherwise(connection, p, obstacles.get(p))]
        if not news:
            return
        with self._database.write() as connection:
            for plugin in news:
                wait = obstacles.get(plugin)
                for study_id, version in jobs.set_wait(connection, plugin, wait):
                    studies.set_wait(connection, study_id, version, wait)

    def _finish(self, job: Job, commit: Commit) -> None:
        with self._database.write() as connection:
            study = studies.get_study(connection, job.study_id, job.version)
            jobs.succeed(connection, job.job_id)
            if study.state is StudyState.SUPERSEDED:
                return  # late instances made a newer version; this result must not go out
            commit(connection)
            if job.kind is JobKind.ANALYSE:
                self._after_analysis(connection, job, study.priority)
        log.info("job.done", job=job.job_id, study=job.study_id, kind=job.kind.value, plugin=job.plugin)

    def _fail(self, job: Job, error: ClinicError) -> None:
        settings = self._settings().execution
        log.warning(
            "job.failed",
            job=job.job_id,
            study=job.study_id,
            plugin=job.plugin,
            attempt=job.attempt,
            error=error.message,
        )
        with self._database.write() as connection:
            if self._stopping and isinstance(error, ChildError):
                jobs.give_back(connection, job.job_id)
                return
            # A full disk is nobody's fault and passes: such a job waits for as long as it takes.
            patient = isinstance(error, HomeError)
            if patient or (error.retryable and job.attempt < settings.max_attempts):
                pauses = settings.backoff_s or (1.0,)
                pause = pauses[min(job.attempt, len(pauses)) - 1]
                wait = backing_off(job.attempt, pause, error.message)
                jobs.retry_later(connection, job.job_id, error.message, time.time() + pause, wait)
                studies.set_wait(connection, job.study_id, job.version, wait)
                return
            jobs.give_up(connection, job.job_id, error.message)
            self._after_failure(
                connection, job, failed(error.message, error.remedy), expected=isinstance(error, InputError)
            )

    # ------------------------------------------------------------ what follows

    def _after_analysis(self, connection: Connection, job: Job, priority: int) -> None:
        """Queue the report once the last analysis of the study is over and at least one succeeded."""
        siblings = [j for j in jobs.jobs_of(connection, job.study_id, job.version) if j.kind is JobKind.ANALYSE]
        if any(j.state in {JobState.QUEUED, JobState.LEASED} for j in siblings):
            return
        if any(j.state is JobState.DONE for j in siblings):
            jobs.add_job(connection, kind=JobKind.REPORT, study_id=job.study_id, version=job.version, priority=priority)

    def _after_failure(self, connection: Connection, job: Job, wait: WaitReason, *, expected: bool = False) -> None:
        study = studies.get_study(connection, job.study_id, job.version)
        if study.state is not StudyState.ROUTED:
            return
        if not expected:
            alerts.raise_alert(connection, "job_failed", job.study_id, wait.sentence, wait.remedy)
        siblings = jobs.jobs_of(connection, job.study_id, job.version)
        if any(j.state in {JobState.QUEUED, JobState.LEASED} for j in siblings):
            return
        if job.kind is JobKind.ANALYSE and any(
            j.state is JobState.DONE and j.kind is JobKind.ANALYSE for j in siblings
        ):
            self._after_analysis(connection, job, study.priority)
            return
        studies.move_study(connection, job.study_id, job.version, "fail", actor="clinic-ai", wait=wait)

    # ------------------------------------------------------------ what people ask for

    def retry(self, study_id: str, actor: str) -> str:
        """Try a study again, by the rules as they are now; return in words what will happen.

        A study that waits is hurried, one that failed or found no rule is routed anew, and one that is done
        becomes a new version whose result supersedes the old one. Raise Conflict if it is still arriving.
        """
        with self._database.write() as connection:
            study = studies.get_study(connection, study_id)
            if study.state is StudyState.RECEIVING:
                raise Conflict(f"Study {study_id} is still arriving.", remedy="Wait until it closes.")
            if study.state is StudyState.ROUTED:
                jobs.hurry(connection, study_id, study.version)
                studies.set_wait(connection, study_id, study.version, None)
                said = f"Study {study_id} is in work; whatever of it waited is tried at once."
            elif study.state is StudyState.DONE:
                version = studies.open_next_version(connection, study_id)
                reason = f"analysed again because {actor} asked for it"
                studies.close_version(connection, study_id, version, facts=study.facts, reason=reason, actor=actor)
                said = (
                    f"Study {study_id} is analysed again as version {version}; version {study.version} is superseded."
                )
            else:
                studies.move_study(connection, study_id, study.version, "reroute", actor=actor, wait=None)
                said = f"Study {study_id} is routed again by the rules as they are now."
            alerts.withdraw(connection, "job_failed", study_id)
        self.wake()
        return said

    def reroute(self, study_id: str, actor: str) -> str:
        """Route a study again even if it is in work; its queued jobs are cancelled. Raise Conflict if one runs."""
        with self._database.write() as connection:
            study = studies.get_study(connection, study_id)
            if study.state is StudyState.ROUTED:
                open_jobs = jobs.jobs_of(connection, study_id, study.version)
                if any(j.state is JobState.LEASED for j in open_jobs):
                    raise Conflict(
                        f"A job of study {study_id} is running just now.", remedy="Try again when it has ended."
                    )
                jobs.cancel_open(connection, study_id, study.version)
                studies.move_study(connection, study_id, study.version, "fail", actor=actor, wait=None)
        return self.retry(study_id, actor)
