"""The job table on a real database, with runners that do as they are told."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from sqlalchemy import Connection

from clinic_ai.contract import Condition, PluginManifest
from clinic_ai.domain import (
    Analysis,
    Audience,
    CloseCode,
    GuardAction,
    GuardVerdict,
    Job,
    JobKind,
    ModelRef,
    PatientIdentity,
    StudyFacts,
    StudyState,
    WaitReason,
)
from clinic_ai.execution import Execution
from clinic_ai.lanes import Wake
from clinic_ai.settings import Settings
from clinic_ai.settings.model import ExecutionSettings
from clinic_ai.store import artefacts, jobs, studies
from clinic_ai.store.database import Database

MODEL = ModelRef(plugin="echo", name="m", version="1", digest="a" * 64)
CT = PluginManifest(
    name="echo", version="1", summary="s", engine="a:B", claims=(Condition(modality=("CT",)),), needs_model=False
)


class Work:
    """A runner that does as it is told."""

    def __init__(self, kind: JobKind) -> None:
        self.kind = kind
        self.wait: dict[str, WaitReason] = {}
        self.failures: list[Exception] = []
        self.ran: list[Job] = []
        self.beside: list[set[str]] = []
        self.during: Callable[[], None] = lambda: None

    def obstacles(self, plugins: Collection[str], at_work: Collection[str]) -> Mapping[str, WaitReason]:
        self.beside.append(set(at_work))
        return {p: self.wait[p] for p in plugins if p in self.wait}

    def pin(self, plugin: str) -> tuple[tuple[ModelRef, ...], str]:
        return (MODEL,), "b" * 64

    def run(self, job: Job) -> Callable[[Connection], None]:
        self.ran.append(job)
        self.during()
        if self.failures:
            raise self.failures.pop(0)

        def commit(connection: Connection) -> None:
            if self.kind is JobKind.ANALYSE:
                answer = Analysis(plugin=job.plugin, plugin_version="1", models=job.models)
                jobs.save_analysis(connection, job, answer, ())
            else:
                verdict = GuardVerdict(
                    audience=Audience.CLINICIAN,
                    action=GuardAction.ALLOW,
                    decisions=(),
                    released=(),
                    policy_hash="b" * 64,
                    policy_name="p",
                )
                artefacts.add_artefact(connection, job, verdict)
                studies.move_study(connection, job.study_id, job.version, "finish", actor="test", wait=None)

        return commit


class Stage:
    def __init__(self, path: Path) -> None:
        self.database = Database(path)
        self.database.open()
        self.analyse, self.report = Work(JobKind.ANALYSE), Work(JobKind.REPORT)
        self.settings = Settings(execution=ExecutionSettings(max_attempts=3, backoff_s=(0.0,)))
        self.manifests = {"echo": CT}
        self.execution = self.boot("first boot")

    def boot(self, owner: str) -> Execution:
        return Execution(
            database=self.database,
            settings=lambda: self.settings,
            manifests=lambda: self.manifests,
            runners=(self.analyse, self.report),
            owner=owner,
            wake=Wake(),
        )

    def close_study(self, modality: str = "CT", priority: int = 0) -> str:
        facts = StudyFacts(modalities=(modality,), slices=1)
        with self.database.write() as connection:
            study_id = studies.open_study(
                connection,
                grouping_key=f"1.2.{time.monotonic_ns()}",
                study_instance_uid="1.2",
                pseudonym="P-A",
                patient_key="k",
                source="inbox",
                facts=facts,
                identity=PatientIdentity(),
                priority=priority,
            )
            studies.close_version(
                connection, study_id, 1, facts=facts, code=CloseCode.QUIET, reason="a test", actor="test"
            )
        return study_id

    def work(self) -> None:
        """Do everything that can be done now."""
        while any([self.execution.route_closed(), *[self.execution.step(kind) for kind in JobKind]]):
            pass

    def state(self, study_id: str) -> StudyState:
        with self.database.read() as connection:
            return studies.get_study(connection, study_id).state

    def wait(self, study_id: str) -> str:
        with self.database.read() as connection:
            wait = studies.get_study(connection, study_id).wait
        return "" if wait is None else wait.code

    def jobs(self, study_id: str, version: int = 1) -> list[Job]:
        with self.database.read() as connection:
            return jobs.jobs_of(connection, study_id, version)
