"""Where the power comes from, and how much the processor takes: what the kernel says below /sys/class."""

from __future__ import annotations

from pathlib import Path

_MICRO = 1e-6
SHORTEST_S = 0.2
"""Counters of energy move in steps; a mean over less would be noise."""


class Watts:
    """Makes mean power of a counter of energy."""

    def __init__(self) -> None:
        self._before: tuple[float, float] | None = None
        self._watts: float | None = None

    def after(self, joules: float, monotonic: float, wraps_at: float = 0.0) -> float | None:
        """Return the mean power in watts since the call before, None at the first and where the counter began anew.

        ``joules`` is what the counter says, which begins anew at ``wraps_at`` joules if that is more than 0.
        """
        if self._before is None:
            self._before = (joules, monotonic)
            return None
        seconds = monotonic - self._before[1]
        if 0 <= seconds < SHORTEST_S:
            return self._watts
        grown = joules - self._before[0]
        if grown < 0 < wraps_at:
            grown += wraps_at
        self._before = (joules, monotonic)
        self._watts = grown / seconds if seconds > 0 and grown >= 0 else None
        return self._watts


class Rapl:
    """The processor packages' counters of energy, which Intel and AMD have; most kernels show them to root alone."""

    def __init__(self, root: Path) -> None:
        self._packages = {
            zone: Watts() for zone in sorted((root / "sys/class/powercap").glob("intel-rapl:*")) if _is_package(zone)
        }

    def watts(self, monotonic: float) -> float | None:
        """Return the mean power of all packages since the call before; None if one of them cannot be read."""
        sums = []
        for zone, watts in self._packages.items():
            try:
                joules = int((zone / "energy_uj").read_text()) * _MICRO
                wraps_at = int((zone / "max_energy_range_uj").read_text()) * _MICRO
            except (OSError, ValueError):
                return None
            sums.append(watts.after(joules, monotonic, wraps_at))
        known = [value for value in sums if value is not None]
        return sum(known) if known and len(known) == len(sums) else None


def _is_package(zone: Path) -> bool:
    """Whether this is a whole package, and neither a part of one (``intel-rapl:0:0``) nor the board (``psys``)."""
    return _text(zone / "name").startswith("package")


def on_mains(root: Path) -> bool | None:
    """Return whether the machine runs on mains power, None where nothing tells.

    A UPS that discharges counts before all else. Batteries of mice and the like are none of the machine.
    """
    states: dict[str, set[str]] = {"mains": set(), "store": set()}
    for supply in sorted((root / "sys/class/power_supply").glob("*")):
        if _text(supply / "scope") == "Device":
            continue
        kind, status = _text(supply / "type"), _text(supply / "status")
        if kind == "UPS" and status == "Discharging":
            return False
        if kind in {"Battery", "UPS"}:
            states["store"].add(status)
        elif online := _text(supply / "online"):
            states["mains"].add(online)
    if states["mains"]:
        return states["mains"] != {"0"}
    if states["store"]:
        return "Discharging" not in states["store"]
    return None


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""
