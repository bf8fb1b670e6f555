"""The client of what is told about the machine."""

from __future__ import annotations

from clinic_ai.control.client import Client
from clinic_ai.control.machine_views import MachineView, Span


class MachineClient(Client):
    """Talks to the daemon of one home about its machine; raises what ``Client`` raises."""

    def machine(self, span: Span = "hour", points: int = 120) -> MachineView:
        """Return how the machine fares, with its last hour or day in about so many steps."""
        return self._get("/v1/machine", MachineView, {"span": span, "points": points})
