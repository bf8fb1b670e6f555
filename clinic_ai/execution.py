"""Closed studies become jobs, jobs are leased, run, retried and reaped; every move is one transaction.

What a job does is its runner's business (``analyses``, ``results.reporting``). Here is only the table: which job
comes next, what it pins, what a failure costs, and what follows when the last one of a study is done.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Protocol

import structlog
from sqlalchemy import Connection

from clinic_ai.contract import PluginManifest
from clinic_ai.domain import CloseCode, Job, JobKind, JobState, ModelRef, Study, StudyState, WaitReason
from clinic_ai.errors import ChildError, ChildRefused, ClinicError, Conflict, HomeError, InputError
from clinic_ai.ingest.urgency import priority_of
from clinic_ai.lanes import Lane, Wake, places
from clinic_ai.routing import Routing, route
from clinic_ai.settings import Settings
from clinic_ai.store import alerts, artefacts, categories, jobs, originals, studies
from clinic_ai.store.audit import record
from clinic_ai.store.database import Database
from clinic_ai.store.objects import is_full
from clinic_ai.waiting import backing_off, day, failed, no_rule, not_signed, originals_removed
from clinic_ai.wire import DISK_FULL

log = structlog.get_logger()

MAX_INTERRUPTIONS = 50
"""How often the appliance may die during one job before the job is given up as its likely cause."""

_NEEDS_A_PERSON = frozenset({"no_plugin", "no_model", "bad_model", "no_memory"})
"""Reasons to wait that do not pass by themselves: an alert says them too."""

_BEGUN = frozenset({JobState.LEASED, JobState.DONE, JobState.FAILED})

Commit = Callable[[Connection], None]
"""What a runner wants stored in the transaction that marks its job as done."""


class Runner(Protocol):
    """Does the jobs of one kind."""

    kind: JobKind

    def obstacles(self, plugins: Collection[str], at_work: Collection[str]) -> Mapping[str, WaitReason]:
        """Return, of these plugins, those whose jobs cannot start beside the ones ``at_work``, and why."""

    def pin(self, plugin: str) -> tuple[tuple[ModelRef, ...], str]:
        """Return the models and the policy hash a job leased now has to use."""

    def run(self, job: Job) -> Commit:
        """Do the job. Raise ClinicError if it cannot be done; ``retryable`` says whether another attempt may help."""


class Execution:
    """The lanes that work through the job table. A plugin does one job of a kind at a time."""

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
        # Choosing a job and noting who is at work are one step: else two lanes would lease for one engine.
        self._leasing = {kind: threading.Lock() for kind in self._runners}
        self._at_work: dict[JobKind, set[str]] = {kind: set() for kind in self._runners}
        self._stranded: list[str] = []
        self._stranding = threading.Lock()
        self._lanes = [
            Lane("routing", self.route_closed, wake),
            Lane("report", self._report, wake),
        ]
        self._analysing: list[Lane] = []

    def recover(self) -> None:
        """Return to the queue what a daemon that died had leased."""
        with self._database.write() as connection:
            for job in jobs.leased_by_others(connection, self._owner):
                self._take_back(connection, job)

    def start(self) -> None:
        """Start all lanes."""
        for lane in self._lanes:
            lane.start()
        self.follow_settings()

    def follow_settings(self) -> None:
        """Start the lanes that ``execution.max_parallel_jobs`` asks for by now; those beyond it find nothing to do."""
        for number in range(len(self._analysing), self._settings().execution.max_parallel_jobs):
            self._analysing.append(Lane(f"analyse {number + 1}", partial(self._analyse, number), self.wake))
            self._analysing[-1].start()

    def _analyse(self, number: int) -> bool:
        return number < self._settings().execution.max_parallel_jobs and self.step(JobKind.ANALYSE)

    def _report(self) -> bool:
        # What a person has signed goes first: somebody waits for it.
        return self.step(JobKind.SIGN) or self.step(JobKind.REPORT)

    def ask_to_stop(self) -> None:
        """Lease nothing more; what runs goes on."""
        self._stopping = True
        for lane in (*self._lanes, *self._analysing):
            lane.ask_to_stop()

    def stop(self, grace_s: float, kill: Callable[[], None]) -> None:
        """Let running jobs finish for ``grace_s``; then ``kill`` their children and re-queue them."""
        self.ask_to_stop()
        lanes = (*self._lanes, *self._analysing)
        deadline = time.monotonic() + grace_s
        if not all(lane.join(max(0.0, deadline - time.monotonic())) for lane in lanes):
            kill()
            for lane in lanes:
                lane.join(10.0)

    # ------------------------------------------------------------ routing

    def route_closed(self) -> bool:
        """Route every closed study; return whether there was one."""
        with self._database.read() as connection:
            closed = studies.studies_in(connection, StudyState.CLOSED)
        trouble: Exception | None = None
        for study in closed:
            try:
                routing = self.routing_of(study)
                with self._database.write() as connection:
                    self._route(connection, study, routing)
            except Exception as error:  # noqa: BLE001 - one study that cannot be routed must not keep the others waiting
                trouble = error
            self.wake()
        if trouble is not None:
            raise trouble
        return bool(closed)

    def routing_of(self, study: Study) -> Routing:
        """Return where the present rules and claims send a study, with the explanation."""
        rules = self._settings().routing
        return route(study.facts, rules.rule, self._manifests(), mode=rules.mode, use_claims=rules.use_claims)

    def _route(self, connection: Connection, study: Study, routing: Routing) -> None:
        present = studies.get_study(connection, study.study_id, study.version)
        if present.state is not StudyState.CLOSED:
            return  # a newer version superseded it meanwhile
        for version in range(1, study.version):
            jobs.cancel_open(connection, study.study_id, version)
        if originals.removed_at(connection, study.study_id) is not None:
            self._ask_for_originals(connection, study)
            return
        artefacts.supersede_before(connection, study.study_id, study.version)
        # A plugin that a rule names and nobody installed gets its job too: it waits, and says for what.
        chosen = (*routing.plugins, *routing.missing)
        if not chosen:
            wait = no_rule()
            studies.move_study(connection, study.study_id, study.version, "no_rule", actor="clinic-ai", wait=wait)
            log.info("study.unrouted", study=study.study_id, sentence=wait.sentence, remedy=wait.remedy)
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

    def _ask_for_originals(self, connection: Connection, study: Study) -> None:
        """Let a version wait that has images which retention removed; the result delivered before stays in force."""
        lost = originals.removed_of(connection, study.study_id)
        wait = originals_removed(lost.removed, lost.images, day(lost.at))
        studies.move_study(
            connection,
            study.study_id,
            study.version,
            "lack_originals",
            actor="clinic-ai",
            wait=wait,
            images=lost.removed,
        )
        alerts.raise_alert(connection, wait.code, study.study_id, wait.sentence, wait.remedy)
        log.warning("study.lacks_originals", study=study.study_id, sentence=wait.sentence, remedy=wait.remedy)

    # ------------------------------------------------------------ one job

    def step(self, kind: JobKind) -> bool:
        """Lease and run one job of this kind; return whether there was one."""
        if self._stopping or kind not in self._runners:
            return False
        self._return_stranded()
        job = self._lease(self._runners[kind])
        if job is None:
            return False
        try:
            self._do(job)
        except Exception:  # raised again: the lane, a thread boundary, tells of it
            with self._stranding:
                self._stranded.append(job.job_id)  # its end could not be recorded; a later step returns it
            raise
        finally:
            self._at_work[kind].discard(job.plugin)
        self.wake()
        return True

    def _do(self, job: Job) -> None:
        try:
            self._finish(job, self._runners[job.kind].run(job))
        except ClinicError as error:
            self._fail(job, error)
        except Exception as error:  # noqa: BLE001 - job boundary: what nobody foresaw costs one attempt of one job
            # Not the text of a foreign error: it may hold personal data.
            log.error("job.broke", job=job.job_id, error=type(error).__name__, at=places(error))
            self._fail(job, _in_words(error))

    def _lease(self, runner: Runner) -> Job | None:
        with self._leasing[runner.kind]:
            with self._database.read() as connection:
                plugins = jobs.waiting_plugins(connection, runner.kind)
            at_work = self._at_work[runner.kind]
            plugins = [p for p in plugins if p not in at_work]
            if not plugins:
                return None
            obstacles = runner.obstacles(plugins, frozenset(at_work))
            self._say_why(plugins, obstacles)
            job = self._lease_next(runner, [p for p in plugins if p not in obstacles])
            if job is not None:
                at_work.add(job.plugin)
            return job

    def _lease_next(self, runner: Runner, plugins: Collection[str]) -> Job | None:
        longest_s = max(self._settings().execution.backoff_s)
        with self._database.read() as connection:
            if jobs.next_due(connection, runner.kind, time.time(), plugins, longest_s=longest_s) is None:
                return None
        with self._database.write() as connection:
            job = jobs.next_due(connection, runner.kind, time.time(), plugins, longest_s=longest_s)
            if job is None:
                return None
            models, policy_hash = runner.pin(job.plugin)
            studies.set_wait(connection, job.study_id, job.version, None)
            return jobs.lease(connection, job, self._owner, models, policy_hash)

    def _return_stranded(self) -> None:
        """Return to the queue the jobs whose end could not be recorded, say because the disk was full."""
        with self._stranding:
            if not self._stranded:
                return
            with self._database.write() as connection:
                for job_id in self._stranded:
                    job = jobs.get_job(connection, job_id)
                    if job.state is JobState.LEASED:
                        self._take_back(connection, job)
            self._stranded.clear()

    def _take_back(self, connection: Connection, job: Job) -> None:
        """Return a leased job that nobody works at to the queue; give it up if that happened too often."""
        if not _wanted(connection, job):
            jobs.cancel(connection, job.job_id)
        elif job.interruptions < MAX_INTERRUPTIONS:
            jobs.give_back(connection, job.job_id)
        else:
            error = f"The appliance was interrupted {job.interruptions} times during this job."
            jobs.give_up(connection, job.job_id, error)
            self._after_failure(connection, job, failed(error))

    def _say_why(self, plugins: Collection[str], obstacles: Mapping[str, WaitReason]) -> None:
        with self._database.read() as connection:
            news = [p for p in plugins if jobs.waits_otherwise(connection, p, obstacles.get(p))]
        if not news:
            return
        with self._database.write() as connection:
            for plugin in news:
                obstacle = obstacles.get(plugin)
                for study_id, version in jobs.set_wait(connection, plugin, obstacle):
                    _say_wait(connection, study_id, version)
                if obstacle is not None and obstacle.code in _NEEDS_A_PERSON:
                    alerts.raise_alert(connection, "plugin_waits", plugin, obstacle.sentence, obstacle.remedy)
                else:
                    alerts.withdraw(connection, "plugin_waits", plugin)
        for plugin in news:
            if (obstacle := obstacles.get(plugin)) is not None:
                log.info("plugin.waits", plugin=plugin, sentence=obstacle.sentence, remedy=obstacle.remedy)

    def _finish(self, job: Job, commit: Commit) -> None:
        with self._database.write() as connection:
            study = studies.get_study(connection, job.study_id, job.version)
            jobs.succeed(connection, job.job_id)
            if study.state is StudyState.SUPERSEDED:
                return  # late instances made a newer version; this result must not go out
            commit(connection)
            if job.kind is JobKind.ANALYSE:
                self._after_analysis(connection, job)
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
            if not _wanted(connection, job):
                jobs.cancel(connection, job.job_id)
                return
            if self._stopping and (error.retryable or isinstance(error, Conflict)):
                jobs.give_back(connection, job.job_id)  # we killed its child, or refused it one
                return
            # A full disk is nobody's fault and passes: such a job waits for as long as it takes.
            patient = isinstance(error, HomeError) or (isinstance(error, ChildRefused) and error.code == DISK_FULL)
            if patient or (error.retryable and job.attempt < settings.max_attempts):
                pauses = settings.backoff_s
                pause = pauses[-1] if patient else pauses[min(job.attempt, len(pauses)) - 1]
                wait = backing_off(job.attempt, pause, error.message)
                not_before = time.time() + pause
                jobs.retry_later(connection, job.job_id, error.message, not_before, wait, counts=not patient)
                _say_wait(connection, job.study_id, job.version)
                return
            jobs.give_up(connection, job.job_id, error.message)
            self._after_failure(
                connection, job, failed(error.message, error.remedy), expected=isinstance(error, InputError)
            )

    # ------------------------------------------------------------ what follows

    def _after_analysis(self, connection: Connection, job: Job) -> None:
        """Queue the report once the last analysis of the study is over and at least one succeeded."""
        siblings = [j for j in jobs.jobs_of(connection, job.study_id, job.version) if j.kind is JobKind.ANALYSE]
        if any(j.state in {JobState.QUEUED, JobState.LEASED} for j in siblings):
            _say_wait(connection, job.study_id, job.version)
            return
        if any(j.state is JobState.DONE for j in siblings):
            # As urgent as the most urgent analysis: the rule that made it so means the result.
            urgency = max(sibling.priority for sibling in siblings)
            jobs.add_job(connection, kind=JobKind.REPORT, study_id=job.study_id, version=job.version, priority=urgency)

    def _after_failure(self, connection: Connection, job: Job, wait: WaitReason, *, expected: bool = False) -> None:
        study = studies.get_study(connection, job.study_id, job.version)
        if job.kind is JobKind.SIGN:
            # What was delivered before stays in force; the decision stays on record and can be made again.
            stuck = not_signed(wait.sentence)
            studies.set_wait(connection, job.study_id, job.version, stuck)
            alerts.raise_alert(connection, stuck.code, job.study_id, stuck.sentence, stuck.remedy)
            return
        if study.state is not StudyState.ROUTED:
            return
        if not expected:
            alerts.raise_alert(connection, "job_failed", job.study_id, wait.sentence, wait.remedy)
        siblings = jobs.jobs_of(connection, job.study_id, job.version)
        if any(j.state in {JobState.QUEUED, JobState.LEASED} for j in siblings):
            _say_wait(connection, job.study_id, job.version)
            return
        if job.kind is JobKind.ANALYSE and any(
            j.state is JobState.DONE and j.kind is JobKind.ANALYSE for j in siblings
        ):
            self._after_analysis(connection, job)
            return
        studies.move_study(connection, job.study_id, job.version, "fail", actor="clinic-ai", wait=wait)

    # ------------------------------------------------------------ what people ask for

    def retry(self, study_id: str, actor: str) -> str:
        """Try a study again, by the rules as they are now; return in words what will happen.

        A study in work is hurried, one that found no rule is routed again, and one that is done or failed becomes a
        new version, whose result supersedes the old one. Raise Conflict if it is still arriving.
        """
        with self._database.write() as connection:
            study = self._arrived(connection, study_id)
            if study.state is StudyState.ROUTED:
                jobs.hurry(connection, study_id, study.version)
                artefacts.hurry(connection, study_id, study.version)
                _say_wait(connection, study_id, study.version)
                said = f"Study {study_id} is in work; whatever of it waited is tried at once."
            else:
                said = self._again(connection, study, actor)
        self.wake()
        return said

    def reroute(self, study_id: str, actor: str) -> str:
        """Ask the rules again where a study goes, even if it is in work; return in words what will happen.

        What ran or waited of it is dropped. Raise Conflict if it is still arriving.
        """
        with self._database.write() as connection:
            said = self._again(connection, self._arrived(connection, study_id), actor)
        self.wake()
        return said

    def prioritise(self, study_id: str, priority: int, actor: str) -> str:
        """Set the priority of a study and move its jobs with it; return in words what was done.

        It stays whatever the headers of later instances say. Raise NotFound if there is no such study.
        """
        with self._database.write() as connection:
            study = studies.get_study(connection, study_id)
            urgency = study.urgency.model_copy(update={"ordered": priority, "ordered_by": actor})
            fresh = priority_of(urgency)
            studies.set_urgency(connection, study_id, study.version, urgency, fresh)
            jobs.shift_priority(connection, study_id, study.version, fresh - study.priority)
            record(
                connection,
                actor=actor,
                action="study.priority",
                subject=study_id,
                details={"version": study.version, "from": study.priority, "to": fresh},
            )
        self.wake()
        return f"Study {study_id} has priority {fresh} now, {study.priority} before; its jobs have moved with it."

    def choose_category(self, study_id: str, plugin: str, category: str, actor: str) -> str:
        """Note which category a person says the images of a study are of; empty: nobody says it any more.

        What was analysed without it becomes a new version. Return in words what was done. Raise NotFound or Conflict.
        """
        said = f"As you say, the images of study {study_id} are of the category {category}."
        if not category:
            said = f"No person's choice stands for study {study_id}; rules, folders and headers say its category."
        with self._database.write() as connection:
            study = studies.get_study(connection, study_id)
            if categories.told_of(connection, study_id, study.version, plugin).chosen == category:
                return f"{said} That was so before; nothing is changed."
            categories.choose(connection, study_id, plugin, category, by=actor)
            work = jobs.jobs_of(connection, study_id, study.version)
            if any(job.plugin == plugin and job.state in _BEGUN for job in work):
                said = f"{said} {self._again(connection, study, actor)}"
        self.wake()
        return said

    def _arrived(self, connection: Connection, study_id: str) -> Study:
        study = studies.get_study(connection, study_id)
        if study.state is StudyState.RECEIVING:
            raise Conflict(f"Study {study_id} is still arriving.", remedy="Wait until it closes.")
        return study

    def _again(self, connection: Connection, study: Study, actor: str) -> str:
        """Have a study routed. A version is routed once: what was done under other rules stays with its version."""
        study_id = study.study_id
        if (removed_at := originals.removed_at(connection, study_id)) is not None:
            raise Conflict(
                f"The originals of study {study_id} were removed by retention on {day(removed_at)}; results are kept.",
                remedy="Send the study again from where it came; then it can be analysed again.",
            )
        alerts.withdraw(connection, "job_failed", study_id)
        if study.state is StudyState.CLOSED:
            return f"Study {study_id} is about to be routed."
        if study.state is StudyState.UNROUTED:
            studies.move_study(connection, study_id, study.version, "reroute", actor=actor, wait=None)
            return f"Study {study_id} is routed again by the rules as they are now."
        version = studies.open_next_version(connection, study_id)
        reason = f"analysed again because {actor} asked for it"
        studies.close_version(
            connection, study_id, version, facts=study.facts, code=CloseCode.AGAIN, reason=reason, actor=actor
        )
        return f"Study {study_id} is analysed again as version {version}; version {study.version} is superseded."


def _wanted(connection: Connection, job: Job) -> bool:
    """Return whether anybody waits for the job's result: not if late instances or a person made a newer version.

    What a person signed was reported before, and its study may be done.
    """
    state = studies.get_study(connection, job.study_id, job.version).state
    return state is StudyState.ROUTED or (job.kind is JobKind.SIGN and state is StudyState.DONE)


def _say_wait(connection: Connection, study_id: str, version: int) -> None:
    """Let the study say what its jobs wait for; nothing while one of them runs or is about to."""
    studies.set_wait(connection, study_id, version, jobs.wait_of(connection, study_id, version))


def _in_words(error: Exception) -> ClinicError:
    """Return an error that was not raised on purpose as one that a person can act on."""
    if isinstance(error, OSError) and is_full(error):
        return HomeError("The disk is full; nothing was lost, the work waits.", remedy="Free space on that disk.")
    what = error.strerror if isinstance(error, OSError) else type(error).__name__
    return ChildError(f"An error that nobody foresaw ended the attempt ({what}).", remedy="The log says where.")
