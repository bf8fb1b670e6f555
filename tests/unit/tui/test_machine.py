"""The machine screen: what it says of processors, memory, disk and links, and what its keys do."""

from __future__ import annotations

import math
from typing import Any

import pytest
from screens import NOW, SIZES, Exhibit, made_status, picture, play, shows, until
from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot

from clinic_ai.control.client import NoDaemon
from clinic_ai.control.machine_views import MachineView
from clinic_ai.control.views import Role, TopicView
from clinic_ai.tui.app import ClinicApp
from clinic_ai.tui.graphs import GAP, bar, graph
from clinic_ai.tui.views.machine import POINTS

SIZE_NAMES = [f"{width}x{height}" for width, height in SIZES]
MIB = 1 << 20


def line(low: float, high: float, *, since: int = 0) -> tuple[float | None, ...]:
    """A wave between two values, with nothing in the first ``since`` steps."""
    return tuple(
        None if step < since else round(low + (high - low) * (1 + math.sin(step / 20)) / 2, 1) for step in range(POINTS)
    )


def made_machine(**changes: Any) -> MachineView:
    """A small machine at rest, with what a test wants otherwise."""
    nothing = (None,) * POINTS
    past = {
        "span": "hour",
        "step_s": 15.0,
        "ends_at": NOW,
        "cpu_percent": line(2, 9, since=60),
        "memory_mb": line(5200, 5600, since=60),
        "temperature_c": nothing,
        "power_w": nothing,
        "daemon_mb": line(108, 112, since=60),
        "children_mb": line(100, 110, since=60),
        "disk_free_mb": line(190_000, 195_000, since=60),
        "gpus": (),
    }
    resting: dict[str, Any] = {
        "host": "clinic-1",
        "processor": "AMD EPYC 7313 16-Core Processor",
        "cores": 16,
        "system": "Debian GNU/Linux 12 (bookworm), kernel 6.1.0",
        "now": {
            "at": NOW,
            "cpu_percent": 7.2,
            "memory_mb": 64_000,
            "memory_available_mb": 58_500,
            "disk_free_mb": 190_735,
            "temperature_c": None,
            "power_w": None,
            "on_mains": None,
            "gpus": (),
        },
        "problem": "",
        "remedy": "",
        "gpu_problem": "",
        "past": past | changes.pop("past", {}),
        "daemon_resident_bytes": 110 << 20,
        "children": (),
        "inboxes": ({"name": "main", "path": "/var/lib/clinic-ai/inbox", "online": True},),
        "network": {"enabled": False, "listening": False, "sentence": "", "open": 0, "stored": 0, "refused": 0},
        "peers": (),
        "targets": (),
        "disks": (
            {
                "names": ("objects", "inbox"),
                "path": "/var/lib/clinic-ai",
                "free_bytes": 200 * 10**9,
                "total_bytes": 500 * 10**9,
                "short": False,
            },
        ),
        "disk_reserve_bytes": 20 * 10**9,
        "disk_waiting": "",
    }
    resting["now"] = resting["now"] | changes.pop("now", {}) if changes.get("now", 0) is not None else None
    changes.pop("now", None)
    return MachineView.model_validate(resting | changes)


def busy() -> MachineView:
    """A machine with a GPU that trains, a share that is gone and results that do not go out."""
    return made_machine(
        now={
            "cpu_percent": 63.0,
            "memory_available_mb": 31_000,
            "temperature_c": 71.0,
            "power_w": 155.0,
            "on_mains": True,
            "gpus": (
                {
                    "index": 0,
                    "name": "NVIDIA H200",
                    "memory_mb": 143_771,
                    "memory_used_mb": 41_000,
                    "use_percent": 97.0,
                    "temperature_c": 91.0,
                    "power_w": 640.0,
                    "power_limit_w": 700.0,
                },
            ),
        },
        past={
            "cpu_percent": line(10, 70),
            "memory_mb": line(12_000, 33_000),
            "temperature_c": line(48, 73),
            "power_w": line(60, 170),
            "children_mb": line(300, 21_000),
            "gpus": (
                {
                    "index": 0,
                    "use_percent": line(0, 99),
                    "memory_mb": line(900, 41_000),
                    "temperature_c": line(35, 91),
                    "power_w": line(70, 660),
                },
            ),
        },
        children=(
            {"name": "guard", "pid": 4101, "resident_bytes": 61 * MIB, "age_s": 7100, "busy": False},
            {"name": "engine xray", "pid": 4188, "resident_bytes": 1400 * MIB, "age_s": 640, "busy": True},
            {"name": "trainer xray", "pid": 4242, "resident_bytes": 19_000 * MIB, "age_s": 5400, "busy": True},
        ),
        inboxes=(
            {
                "name": "ct room",
                "path": "/mnt/ct",
                "online": False,
                "sentence": "The inbox ct room (/mnt/ct) does not answer.",
                "remedy": "Look whether its server runs.",
            },
            {"name": "main", "path": "/srv/inbox", "online": True, "waiting": 12, "oldest_at": NOW - 130},
        ),
        network={
            "enabled": True,
            "listening": True,
            "sentence": "CLINIC_AI listens at 0.0.0.0:11112",
            "open": 1,
            "stored": 5120,
            "refused": 2,
        },
        peers=({"name": "pacs", "ae_title": "PACS_1", "host": "192.168.7.20"},),
        targets=(
            {
                "target": "outbox",
                "place": "/srv/outbox",
                "waiting": 3,
                "waiting_since": NOW - 700,
                "state": "PENDING",
                "attempts": 4,
                "ended_at": None,
                "error": "The outbox is full.",
            },
        ),
        disks=(
            {
                "names": ("objects", "inbox"),
                "path": "/srv",
                "free_bytes": 15 * 10**9,
                "total_bytes": 2 * 10**12,
                "short": True,
            },
        ),
        disk_waiting="Waiting for disk space: 15 GB are free, 20 GB are kept.",
    )


def exhibit_of(machine: MachineView) -> Exhibit:
    return Exhibit({"machine": machine, "studies": NoDaemon("Not asked here.")})


@pytest.mark.parametrize("size", SIZES, ids=SIZE_NAMES)
def test_at_rest(pictures: SnapshotAssertion, size: tuple[int, int]) -> None:
    assert picture(exhibit_of(made_machine()), "machine", "clinic-1", size=size) == pictures


@pytest.mark.parametrize("size", SIZES, ids=SIZE_NAMES)
def test_busy(pictures: SnapshotAssertion, size: tuple[int, int]) -> None:
    assert picture(exhibit_of(busy()), "machine", "NVIDIA H200", size=size) == pictures


@pytest.mark.parametrize("size", SIZES, ids=SIZE_NAMES)
def test_daemon_lost(pictures: SnapshotAssertion, size: tuple[int, int]) -> None:
    exhibit = exhibit_of(busy())

    async def lose(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "clinic-1")
        exhibit.answers["status"] = NoDaemon("No daemon answers.", remedy="Start it.")
        exhibit.tell(TopicView(topic="start"))

    assert picture(exhibit, "machine", "No daemon answers", size=size, after=lose) == pictures


def test_the_bottom_is_reached_by_keys(pictures: SnapshotAssertion) -> None:
    async def down(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "clinic-1")
        await pilot.press("G")

    assert picture(exhibit_of(busy()), "machine", "results to outbox", size=(80, 24), after=down) == pictures


def test_before_the_first_reading_it_says_so() -> None:
    shown = picture(exhibit_of(made_machine(now=None)), "machine", "clinic-1", size=(140, 40))
    assert "The first reading is being made." in shown
    assert "GPU" not in shown


def test_sensors_that_do_not_answer_are_named_with_what_to_do() -> None:
    machine = made_machine(problem="The sensors of this machine do not answer.", remedy="Look at `dmesg`.")
    assert "▲ The sensors of this machine do not answer. Look at `dmesg`." in picture(
        exhibit_of(machine), "machine", "clinic-1", size=(140, 40)
    )


def test_a_driver_without_a_usable_gpu_is_not_called_none() -> None:
    machine = made_machine(gpu_problem="The driver of the GPU does not answer: Driver mismatch.")
    shown = picture(exhibit_of(machine), "machine", "clinic-1", size=(140, 40))
    assert "▲ GPU: none can be used. The driver of the GPU does not answer" in shown


def test_t_asks_for_the_day_and_again_for_the_hour() -> None:
    exhibit = exhibit_of(made_machine())
    exhibit.answers["machine"] = lambda span, points: made_machine(past={"span": span})

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "last hour")
        await pilot.press("t")
        await shows(pilot, "last day")
        await pilot.press("t")
        await shows(pilot, "last hour")

    play(exhibit, script, place="machine")
    asked = [arguments for arguments, _ in exhibit.sent("machine")]
    assert asked[0] == ("hour", POINTS)
    assert ("day", POINTS) in asked


def test_it_fetches_when_the_machine_moved_and_draws_only_what_changed() -> None:
    exhibit = exhibit_of(made_machine())

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "clinic-1")
        await pilot.pause()  # its bars are as wide as their box, once that is laid out
        asked = len(exhibit.sent("machine"))
        workers = app.query_one("#machine-workers").content
        exhibit.answers["machine"] = made_machine(now={"cpu_percent": 44.0})
        exhibit.tell(TopicView(topic="machine"))
        await shows(pilot, "44 %")
        assert len(exhibit.sent("machine")) > asked
        assert app.query_one("#machine-workers").content is workers

    play(exhibit, script, place="machine")


def test_a_technician_sees_it_on_the_monitor_socket_too() -> None:
    exhibit = exhibit_of(busy())
    exhibit.answers["status"] = made_status(role=Role.TECHNICIAN, may_change=False)
    assert "trainer xray" in picture(exhibit, "machine", "clinic-1", size=(140, 40))


def test_y_copies_all_of_it() -> None:
    exhibit = exhibit_of(busy())

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "clinic-1")
        await pilot.press("y")
        await until(pilot, lambda: "results to outbox" in app.clipboard, "all should be copied")
        assert "NVIDIA H200" in app.clipboard

    play(exhibit, script, place="machine")


def test_names_from_outside_are_no_markup() -> None:
    machine = made_machine(inboxes=({"name": "[red]x[/]", "path": "/a[b]", "online": True},))
    assert "inbox [red]x[/] online" in picture(exhibit_of(machine), "machine", "clinic-1", size=(140, 40))


# ---------------------------------------------------------------- graphs


def test_graphs_are_drawn_in_eighths_with_gaps() -> None:
    assert graph([None, 0, 50, 100], 4, low=0, high=100) == [f"{GAP}▁▄█"]
    assert graph([None, 0, 50, 100], 4, low=0, high=100, rows=2) == ["   █", f"{GAP}▁██"]
    assert graph([0, 90, 0, 0], 2, low=0, high=90) == ["█▁"]
    assert graph([9], 3, low=0, high=9) == ["███"]
    assert graph([], 2, low=0, high=1) == [GAP * 2]
    assert graph([3], 1, low=0, high=0) == ["▁"]
    assert bar(0.5, 4) == "██░░"
    assert bar(7, 2) == "██"
