"""What ``clinic-ai doctor`` says of one thing it looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    verdict: Literal["ok", "warn", "fail"]
    sentence: str
    remedy: str = ""
