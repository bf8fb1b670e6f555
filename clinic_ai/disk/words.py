"""What people are told about the disk: sentences, and what they can do."""

from __future__ import annotations

from collections.abc import Sequence

from clinic_ai.disk.room import MIB, SLACK
from clinic_ai.disk.usage import Class

Said = tuple[str, str]
"""A sentence and its remedy."""


def below_reserve(names: Sequence[str], path: str, free: int, reserve: int) -> Said:
    """Say that a disk has less free than the reserve, and what waits because of that."""
    have = f"The disk of {path} has {free // MIB} MiB free, less than the reserve of {reserve // MIB} MiB"
    resume = f"Free {max(1, (reserve - free) // MIB + reserve * SLACK // 100 // MIB)} MiB on that disk"
    if "home" in names:
        return (
            f"{have}: new files stay in their inbox, senders and imports are refused. Nothing is lost.",
            f"{resume}; `clinic-ai disk` shows what fills it, docs/disk.md what may go. Everything goes on by itself.",
        )
    return (
        f"{have} ({', '.join(names)}). What cannot be written there waits; nothing is lost.",
        f"{resume}; everything goes on by itself.",
    )


def getting_low(names: Sequence[str], path: str, free: int, reserve: int) -> Said:
    """Say that a disk is filling up, while nothing has to wait yet."""
    return (
        f"The disk of {path} ({', '.join(names)}) has {free // MIB} MiB left; "
        f"below {reserve // MIB} MiB new files wait.",
        "Free space on that disk, or let retention do it; `clinic-ai disk` shows what fills it, docs/disk.md how.",
    )


def beyond_quota(kind: Class, size: int, quota: int) -> Said:
    """Say that a class takes more than its quota, and what a person can do."""
    return (
        f"{_NAMES[kind]} {size // MIB} MiB, more than the quota of {quota // MIB} MiB (quota.{kind.value}_mb).",
        _REMEDIES[kind],
    )


_NAMES = {
    Class.ORIGINALS: "Originals take",
    Class.RESULTS: "Results in the object store take",
    Class.QUARANTINE: "The quarantine takes",
    Class.OUTBOX: "The outbox takes",
    Class.DATASETS: "Datasets take",
    Class.RUNS: "Training runs take",
    Class.MODELS: "Models take",
    Class.BACKUPS: "Backups take",
    Class.LOGS: "Logs take",
    Class.DATABASE: "The database takes",
}
_REMEDIES = {
    Class.ORIGINALS: "Decide about studies that are held, failed or found no rule (`clinic-ai study list`), see that "
    "results can be delivered, or raise the quota.",
    Class.RESULTS: "Results are kept for good. Raise the quota, or give the appliance a larger disk.",
    Class.QUARANTINE: "Look through `clinic-ai file list --fate QUARANTINED`, decide about each with `clinic-ai file "
    "accept` or `clinic-ai file discard`; nothing is removed by itself. If a sender fills it, stop it there.",
    Class.OUTBOX: "Move or remove results that were taken over; the appliance keeps a copy of each.",
    Class.DATASETS: "Datasets are kept so that a run can be repeated. Raise the quota, or give them a larger disk.",
    Class.RUNS: "Remove folders of finished runs from runs/ (`clinic-ai train list` shows them), or raise the quota.",
    Class.MODELS: "Models are kept so that every result can be traced. Raise the quota, or give them a larger disk.",
    Class.BACKUPS: "Move the oldest files of backups/ to another machine.",
    Class.LOGS: "Remove the oldest files of logs/.",
    Class.DATABASE: "The ledger and the audit are kept for good. Raise the quota, or give the appliance a larger disk.",
}
