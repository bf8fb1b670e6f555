"""The figures for Prometheus: counts, ages and sizes; no study, no patient, no text."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

import psutil
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from clinic_ai import __version__
from clinic_ai.control.services import Services
from clinic_ai.domain import ArtefactState, JobState, StudyState
from clinic_ai.store import alerts, artefacts, jobs, ledger, studies

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_OPEN = (StudyState.RECEIVING, StudyState.CLOSED, StudyState.ROUTED)


class ApplianceCollector(Collector):
    """Reads everything at the moment Prometheus asks, so that nothing is counted twice or forgotten."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterable[Metric]:
        """Yield all figures."""
        yield InfoMetricFamily("clinic_ai_build", "Version of clinic-ai.", value={"version": __version__})
        yield _one(
            "clinic_ai_uptime_seconds", "Time since the daemon started.", time.time() - self._services.started_at
        )
        yield from self._work()
        yield from self._machine()
        yield from self._network()
        yield from self._disk()
        yield from self._inboxes()

    def _work(self) -> Iterable[Metric]:
        with self._services.database.read() as connection:
            yield _by("clinic_ai_studies", "Study versions by state.", "state", studies.counts(connection))
            yield _by("clinic_ai_jobs", "Jobs by state.", "state", _all(JobState, jobs.counts(connection)))
            yield _by("clinic_ai_files", "Files ever seen, by fate.", "fate", ledger.counts(connection))
            made = _all(ArtefactState, artefacts.counts(connection))
            yield _by("clinic_ai_artefacts", "Artefacts by state.", "state", made)
            yield _one("clinic_ai_alerts_open", "Alerts nobody acknowledged.", alerts.count_open(connection)[0])
            oldest = studies.oldest(connection, _OPEN)
        age = 0.0 if oldest is None else time.time() - oldest
        yield _one("clinic_ai_oldest_open_study_seconds", "Age of the oldest study that is not finished.", age)

    def _machine(self) -> Iterable[Metric]:
        daemon = psutil.Process().memory_info().rss
        yield _one("clinic_ai_daemon_resident_bytes", "Resident memory of the daemon.", daemon)
        children: dict[str, int] = {}
        for child in self._services.crew.living():
            children[child.spec.name] = children.get(child.spec.name, 0) + child.resident_bytes()
        yield _by("clinic_ai_child_resident_bytes", "Resident memory of children, by name.", "child", children)
        loaded = 0 if self._services.guard.pack is None else 1
        yield _one("clinic_ai_policy_loaded", "1 if a policy pack is in force, 0 if everything is held.", loaded)

    def _network(self) -> Iterable[Metric]:
        network = self._services.receiver.view()
        yield _one("clinic_ai_network_listening", "1 if the receiver listens for senders.", int(network.listening))
        yield _one("clinic_ai_network_associations", "Associations open now.", network.open)
        yield _one("clinic_ai_network_objects", "Objects received since the daemon started.", network.stored)
        yield _one("clinic_ai_network_refused", "Associations refused since the daemon started.", network.refused)

    def _inboxes(self) -> Iterable[Metric]:
        states, now = self._services.inboxes.states(), time.time()
        online = {state.name: int(state.online) for state in states}
        yield _by("clinic_ai_inbox_online", "1 if an inbox is there and can be read.", "inbox", online)
        waiting = {state.name: state.waiting for state in states}
        yield _by("clinic_ai_inbox_waiting_files", "Files that lie in an inbox.", "inbox", waiting)
        oldest = {state.name: 0 if state.oldest_at is None else max(0, int(now - state.oldest_at)) for state in states}
        yield _by("clinic_ai_inbox_oldest_seconds", "Since when the oldest of them has lain there.", "inbox", oldest)

    def _disk(self) -> Iterable[Metric]:
        disk = self._services.disk.state()
        free = {system.names[0]: system.free_bytes for system in disk.file_systems}
        yield _by("clinic_ai_disk_free_bytes", "Free space, by what lies on the disk.", "disk", free)
        yield _one("clinic_ai_disk_reserve_bytes", "Free space that what comes in never takes.", disk.reserve_bytes)
        yield _one("clinic_ai_disk_waiting", "1 if what comes in waits for room.", int(bool(disk.waiting)))
        used = {row.name: row.size_bytes for row in disk.classes}
        yield _by("clinic_ai_disk_used_bytes", "What takes room, as counted last.", "class", used)
        quotas = {row.name: row.quota_bytes for row in disk.classes}
        yield _by("clinic_ai_disk_quota_bytes", "What may take room at most; 0: no limit.", "class", quotas)
        yield _one(
            "clinic_ai_disk_originals_removed_bytes",
            "Originals that retention removed since the daemon started.",
            disk.removed_bytes,
        )
        yield _one(
            "clinic_ai_disk_garbage_bytes",
            "Objects nobody needed, removed since the daemon started.",
            disk.garbage_bytes,
        )


def exposition(services: Services) -> bytes:
    """Return all figures in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ApplianceCollector(services))
    return generate_latest(registry)


def _all(states: Iterable[StrEnum], counts: Mapping[Any, int]) -> dict[str, int]:
    """Return a count for every state: a series that is not there cannot be compared with 0."""
    return {state.value: counts.get(state, 0) for state in states}


def _one(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)


def _by(name: str, words: str, label: str, counts: Mapping[Any, int]) -> Metric:
    family = GaugeMetricFamily(name, words, labels=[label])
    for key, value in counts.items():
        family.add_metric([str(key)], value)
    return family
