"""The route about the machine: what it is, how it fares and fared, and what it is linked to. It changes nothing."""

from __future__ import annotations

from typing import Annotated

import psutil
from fastapi import APIRouter, Query

from clinic_ai.control import desk
from clinic_ai.control.asking import Having
from clinic_ai.control.disk_views import FileSystemRow
from clinic_ai.control.machine_views import (
    MOST_POINTS,
    GpuPast,
    MachineView,
    NowView,
    PastView,
    PeerRow,
    Span,
    TargetRow,
)
from clinic_ai.control.services import Services
from clinic_ai.control.views import NetworkRow
from clinic_ai.store.links import links

router = APIRouter(tags=["machine"])


@router.get("/v1/machine")
def get_machine(
    services: Having,
    span: Annotated[Span, Query(description="How far the history reaches back.")] = "hour",
    points: Annotated[int, Query(ge=1, le=MOST_POINTS, description="Steps of the history, about.")] = 120,
) -> MachineView:
    """Return what the machine is, how it fares, its history, who takes its memory, and its links."""
    identity = services.machine.identity
    reading, trouble = services.machine.now()
    disk = services.disk.state()
    return MachineView(
        host=identity.host,
        processor=identity.processor,
        cores=identity.cores,
        system=identity.system,
        now=None if reading is None else NowView.model_validate(reading),
        problem="" if trouble is None else trouble.message,
        remedy="" if trouble is None else trouble.remedy,
        gpu_problem=services.machine.gpu_problem,
        past=_past(services, span, points),
        daemon_resident_bytes=psutil.Process().memory_info().rss,
        children=desk.children(services),
        inboxes=desk.inboxes(services),
        network=NetworkRow.model_validate(services.receiver.view()),
        peers=tuple(PeerRow.model_validate(peer) for peer in services.settings().network.peer),
        targets=_targets(services),
        disks=tuple(FileSystemRow.model_validate(system) for system in disk.file_systems),
        disk_reserve_bytes=disk.reserve_bytes,
        disk_waiting=disk.waiting,
    )


def _past(services: Services, span: Span, points: int) -> PastView:
    past = services.machine.past(span, points)
    gpus = (
        GpuPast(index=index, **{name.removeprefix("gpu_"): line for name, line in lines.items()})
        for index, lines in sorted(past.gpus.items())
    )
    return PastView(span=span, step_s=past.step_s, ends_at=past.ends_at, gpus=tuple(gpus), **past.lines)


def _targets(services: Services) -> tuple[TargetRow, ...]:
    outbox = str(services.home.path / services.settings().results.outbox)
    with services.database.read() as connection:
        found = links(connection)
    return tuple(TargetRow(place=outbox if link.target == "outbox" else "", **link.model_dump()) for link in found)
