"""What the control API takes about policy packs; apart from the guard's own types, which the terminal does without."""

from __future__ import annotations

from clinic_ai.control.views import Order, PlainPath


class PolicyTest(Order):
    """Test the pack in this directory; without one, the pack that clinic.toml names."""

    directory: PlainPath | None = None
