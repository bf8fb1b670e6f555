"""What is said of refusals: the first of its kind at once, the others of a minute together, and each is counted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from clinic_ai.tasks import Refusal

SAY_AGAIN_S = 60.0
"""The same refusal of the same caller is written down at most this often, with its count."""
_KINDS = 1000
"""Callers and reasons remembered."""

_Kind = tuple[str, str, str]
"""Address, peer and reason. Not the AE title of a stranger, who could take another one each time."""


@dataclass
class _Said:
    at: float
    """When it was last said, in seconds of the monotonic clock."""
    since: Refusal | None = None
    """What came since then, with its count."""


class Refusals:
    """The refusals of one sort of thing, associations or objects, of which each is said with its count."""

    def __init__(self) -> None:
        self._said: dict[_Kind, _Said] = {}

    def worth_saying(self, refusals: Iterable[Refusal], now: float) -> list[Refusal]:
        """Return what to write down at ``now`` (seconds of the monotonic clock), after these were refused."""
        due = []
        for refusal in refusals:
            kind = (refusal.caller.address, refusal.caller.peer, refusal.reason)
            said = self._said.get(kind)
            if said is None:
                self._said[kind] = _Said(now)
                due.append(refusal)
            else:
                before = said.since.count if said.since is not None else 0
                said.since = refusal.model_copy(update={"count": before + refusal.count})
        return due + self._rest(now)

    def _rest(self, now: float) -> list[Refusal]:
        """Return what came since the same was said, where that is long ago, and forget what did not come again."""
        everything = len(self._said) > _KINDS
        over = {kind: said for kind, said in self._said.items() if everything or now - said.at >= SAY_AGAIN_S}
        due = []
        for kind, said in over.items():
            del self._said[kind]
            if said.since is not None:
                due.append(said.since)
                if not everything:
                    self._said[kind] = _Said(now)
        return due
