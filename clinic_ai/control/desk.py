"""What people may ask about studies, files and the machine: services in, views out; the HTTP routes only translate."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable

import psutil

from clinic_ai import __version__
from clinic_ai.control.category_desk import categories_shown
from clinic_ai.control.explain import route_view
from clinic_ai.control.pages import RunPage
from clinic_ai.control.paging import no_such_row
from clinic_ai.control.people import Person
from clinic_ai.control.services import Services
from clinic_ai.control.views import (
    ArtefactRow,
    ChildRow,
    DecisionRow,
    DeliveryRow,
    EngineRow,
    FileRow,
    InboxRow,
    ModelRow,
    NetworkRow,
    PaceRow,
    PluginsView,
    PolicyView,
    ProducedRow,
    Role,
    RouteView,
    RunRow,
    StackRow,
    StatusView,
    StudyPage,
    StudyRow,
    StudyView,
    VersionView,
)
from clinic_ai.domain import Artefact, ArtefactState, Instance, Job, ModelState, Study, StudyState
from clinic_ai.ingest.geometry import measure
from clinic_ai.ingest.geometry_words import line_of
from clinic_ai.ingest.identifiers import remarks_of
from clinic_ai.ingest.posts import InboxState
from clinic_ai.ingest.stacks import stacks_of
from clinic_ai.ingest.urgency import sentence
from clinic_ai.processes import Child
from clinic_ai.store import alerts, artefacts, jobs, ledger, studies
from clinic_ai.store.critical import CODE as CRITICAL
from clinic_ai.waiting import addressed

_READABLE = frozenset({ArtefactState.PRELIMINARY, ArtefactState.FINAL})
"""States in which released text may be read here; held text is for review alone."""
MAX_ALERTS = 50
"""Alerts that the status holds; the others it counts."""
_MAX_NUMBER = 2**63 - 1
"""Largest number the database compares."""


# ---------------------------------------------------------------- the machine


def status(services: Services, person: Person, *, may_change: bool) -> StatusView:
    """Return everything at a glance, as this person may see it."""
    settings = services.settings()
    with services.database.read() as connection:
        found_studies = studies.counts(connection)
        found_jobs = jobs.counts(connection)
        found_files = ledger.counts(connection)
        found_artefacts = artefacts.counts(connection)
        shown = alerts.open_alerts(connection, MAX_ALERTS)
        open_alerts, critical = alerts.count_open(connection)
    return StatusView(
        version=__version__,
        clinic=settings.clinic.name,
        home=str(services.home.path),
        now=time.time(),
        started_at=services.started_at,
        person=person.name,
        role=person.role,
        may_change=may_change,
        studies={state.value: number for state, number in found_studies.items()},
        jobs=found_jobs,
        files={fate.value: number for fate, number in found_files.items()},
        artefacts=found_artefacts,
        engines=tuple(EngineRow.model_validate(engine) for engine in services.engines.views()),
        children=children(services),
        daemon_resident_bytes=psutil.Process().memory_info().rss,
        disk_free_bytes=shutil.disk_usage(services.home.path).free,
        alerts=tuple(shown),
        more_alerts=open_alerts - len(shown),
        more_critical=critical - sum(alert.code == CRITICAL for alert in shown),
        inboxes=inboxes(services),
        network=NetworkRow.model_validate(services.receiver.view()),
        paces=_paces(services),
        policy=policy(services),
        models=tuple(model for model in models(services) if model.state == ModelState.ACTIVE.value),
        plugins=tuple(sorted(services.catalogue.manifests)),
        plugin_problems=tuple(problem.sentence for problem in services.catalogue.problems),
        runs=tuple(RunRow.model_validate(run) for run in services.runs.living()),
    )


def runs(services: Services, limit: int, before: str | None) -> RunPage:
    """Return one page of training runs, newest first. Raise NotFound."""
    found = services.runs.list_runs(limit, before)
    rows = tuple(RunRow.model_validate(run) for run in found)
    return RunPage(runs=rows, next_before=rows[-1].run_id if len(rows) == limit else None)


def _paces(services: Services) -> tuple[PaceRow, ...]:
    settings = services.settings()
    senders = [peer.name for peer in settings.network.peer] if settings.network.enabled else []
    found = services.closing.paces([*(inbox.name for inbox in settings.inbox), *senders])
    return tuple(map(PaceRow.model_validate, found))


def plugins(services: Services) -> PluginsView:
    """Return the usable plugins and the problems of the others."""
    manifests = services.catalogue.manifests
    return PluginsView(
        plugins=tuple(manifests[name] for name in sorted(manifests)),
        problems=tuple(problem.sentence for problem in services.catalogue.problems),
    )


def policy(services: Services) -> PolicyView:
    """Return the pack in force."""
    pack = services.guard.pack
    return PolicyView(pack=pack, problem="" if pack else "No policy pack is in force; every result is held.")


def models(services: Services) -> tuple[ModelRow, ...]:
    """Return all models of the registry."""
    return tuple(ModelRow.model_validate(model) for model in services.registry.list_models())


def children(services: Services) -> tuple[ChildRow, ...]:
    """Return the living children, the oldest first."""
    return tuple(_child(child) for child in services.crew.living())


def _child(child: Child) -> ChildRow:
    return ChildRow(
        name=child.spec.name,
        pid=child.pid,
        resident_bytes=child.resident_bytes(),
        age_s=max(0.0, time.monotonic() - child.started_at),
        busy=child.busy,
    )


def inboxes(services: Services) -> tuple[InboxRow, ...]:
    """Return how the inboxes stand, as ingest found them; nothing here touches a share that may not answer."""
    return tuple(_inbox(services, state) for state in services.inboxes.states())


def _inbox(services: Services, state: InboxState) -> InboxRow:
    row = InboxRow.model_validate(state).model_copy(update={"quiet_s": services.closing.quiet_s(state.name)})
    short = services.disk.waiting(state.name) if state.online else None
    if short is None:
        return row
    return row.model_copy(update={"sentence": f"Waiting for disk space. {short.sentence}", "remedy": short.remedy})


# ---------------------------------------------------------------- studies and files


def list_studies(services: Services, states: Iterable[StudyState] | None, limit: int, before: str | None) -> StudyPage:
    """Return one page of studies, newest first. Raise NotFound if ``before`` is no place of the list."""
    place = None if before is None else _place(before)
    with services.database.read() as connection:
        found = studies.list_studies(connection, states=states, limit=limit, before=place)
    last = found[-1] if len(found) == limit else None
    return StudyPage(
        studies=tuple(map(study_row, found)),
        next_before=None if last is None else f"{last.opened_at}~{last.study_id}~{last.version}",
    )


def _place(words: str) -> studies.Place:
    opened_at, _, rest = words.partition("~")
    study_id, _, version = rest.partition("~")
    try:
        place = float(opened_at), study_id, int(version)
    except ValueError:
        raise no_such_row() from None
    if not 0 < place[2] <= _MAX_NUMBER:
        raise no_such_row()
    return place


def get_study(services: Services, study_id: str, person: Person, *, readonly: bool) -> StudyView:
    """Return a study with its history; what it shows to clinicians alone, and not on a readonly socket.

    Raise NotFound.
    """
    content = person.role.covers(Role.CLINICIAN) and not readonly
    categories = categories_shown(services, _newest(services, study_id))
    with services.database.read() as connection:
        found = studies.versions_of(connection, study_id)
        newest = studies.instances_of(connection, study_id, found[-1].version)
        replaced = studies.count_replaced(connection, study_id, found[-1].version)
        versions = [
            VersionView(
                study=study_row(study),
                instances=studies.count_instances(connection, study_id, study.version),
                jobs=tuple(map(_job, jobs.jobs_of(connection, study_id, study.version))),
                artefacts=tuple(
                    _artefact(artefact, content=content)
                    for artefact in artefacts.artefacts_of(connection, study_id, study.version)
                ),
                stacks=_stacks(newest) if study is found[-1] else (),
                categories=categories if study is found[-1] else (),
                remarks=remarks_of(newest, replaced) if study is found[-1] else (),
            )
            for study in reversed(found)
        ]
        files = ledger.list_files(connection, study_id=study_id, limit=1000)
    return StudyView(
        study_id=study_id,
        content=content,
        versions=tuple(versions),
        files=tuple(FileRow.model_validate(file) for file in files),
    )


def _stacks(instances: Iterable[Instance]) -> tuple[StackRow, ...]:
    return tuple(
        StackRow(
            series_number=found.stack.planes[0].header.series_number,
            line=line_of(found),
            images=found.stack.images,
            regular=found.regular,
            spacing_mm=found.spacing.median if found.spacing else None,
            remarks=tuple(remark.sentence for remark in found.remarks),
        )
        for found in map(measure, stacks_of(instances))
    )


def study_row(study: Study) -> StudyRow:
    """Return a study version as people see it."""
    row = StudyRow.model_validate(study).model_copy(update={"priority_reason": sentence(study.urgency)})
    return row if row.wait is None else row.model_copy(update={"wait": addressed(row.wait, row.study_id)})


def _job(job: Job) -> Job:
    return job if job.wait is None else job.model_copy(update={"wait": addressed(job.wait, job.study_id)})


def explain(services: Services, study_id: str) -> RouteView:
    """Return where the present rules send a study, and why. Raise NotFound."""
    study = _newest(services, study_id)
    return route_view(study.facts, services.execution.routing_of(study))


def _newest(services: Services, study_id: str) -> Study:
    with services.database.read() as connection:
        return studies.get_study(connection, study_id)


def _artefact(artefact: Artefact, *, content: bool) -> ArtefactRow:
    verdict = artefact.verdict
    readable = content and artefact.state in _READABLE
    return ArtefactRow(
        artefact_id=artefact.artefact_id,
        audience=artefact.audience.value,
        state=artefact.state.value,
        action=verdict.action.value,
        policy_name=verdict.policy_name,
        policy_hash=verdict.policy_hash,
        decisions=tuple(DecisionRow(rule=d.rule, action=d.action.value, reason=d.reason) for d in verdict.decisions),
        files=tuple(ProducedRow.model_validate(file) for file in artefact.files),
        deliveries=tuple(DeliveryRow.model_validate(delivery) for delivery in artefact.deliveries),
        signed_by=artefact.signed_by,
        created_at=artefact.created_at,
        released=verdict.released if readable else None,
        marks=verdict.marks if readable else (),
    )
