"""What the control API answers about the machine: now, of late, who takes its memory, and its links.

Memory in MiB as the sensors have it, use in percent of all cores, power in watts, temperatures in °C, times in UTC
seconds. None is what nothing here measures.
"""

from __future__ import annotations

from typing import Literal

from clinic_ai.control.disk_views import FileSystemRow
from clinic_ai.control.views import ChildRow, InboxRow, NetworkRow, View

Span = Literal["hour", "day"]
Line = tuple[float | None, ...]

MOST_POINTS = 720
"""Steps of a history at most."""


class GpuView(View):
    """One GPU now. ``index`` counts as NVML does; ``use_percent`` is of the driver's last sample period."""

    index: int
    name: str
    memory_mb: int
    memory_used_mb: int
    use_percent: float | None
    temperature_c: float | None
    power_w: float | None
    power_limit_w: float | None


class NowView(View):
    """The newest reading. ``temperature_c`` is that of the hottest core, ``power_w`` what the processor takes."""

    at: float
    cpu_percent: float
    memory_mb: int
    memory_available_mb: int
    disk_free_mb: int
    temperature_c: float | None
    power_w: float | None
    on_mains: bool | None
    gpus: tuple[GpuView, ...]


class GpuPast(View):
    """What one GPU did of late."""

    index: int
    use_percent: Line
    memory_mb: Line
    temperature_c: Line
    power_w: Line


class PastView(View):
    """The last hour or day in steps of ``step_s`` seconds, the oldest first; the newest is that of ``ends_at``.

    A step has the mean of its readings; of memory and temperatures the highest. None where nothing was measured.
    """

    span: Span
    step_s: float
    ends_at: float
    cpu_percent: Line
    memory_mb: Line
    temperature_c: Line
    power_w: Line
    daemon_mb: Line
    children_mb: Line
    disk_free_mb: Line
    gpus: tuple[GpuPast, ...]


class TargetRow(View):
    """Where results go. ``waiting`` deliveries are not made yet, the oldest since ``waiting_since``.

    ``state``, ``attempts``, ``ended_at`` and ``error`` are those of the newest delivery that was tried; empty if none
    was.
    """

    target: str
    place: str
    waiting: int
    waiting_since: float | None
    state: str
    attempts: int
    ended_at: float | None
    error: str


class PeerRow(View):
    """A machine that may send over the network: its name as a source, the AE title and address it calls from."""

    name: str
    ae_title: str
    host: str


class MachineView(View):
    """All about the machine. ``now`` is None before the first reading; ``problem`` says why there is none now.

    ``gpu_problem`` says why no GPU can be used though there is a driver. ``cores`` are logical ones.
    """

    host: str
    processor: str
    cores: int
    system: str
    now: NowView | None
    problem: str
    remedy: str
    gpu_problem: str
    past: PastView
    daemon_resident_bytes: int
    children: tuple[ChildRow, ...]
    inboxes: tuple[InboxRow, ...]
    network: NetworkRow
    peers: tuple[PeerRow, ...]
    targets: tuple[TargetRow, ...]
    disks: tuple[FileSystemRow, ...]
    disk_reserve_bytes: int
    disk_waiting: str
    """Why nothing new is taken in, empty if it is."""
