"""What the artefact stands on: a validated model, a reference model, a named person."""

from __future__ import annotations

from clinic_ai.guard.detectors.base import Detector, Flag, View


class Unvalidated(Detector):
    """Fires while any model of the result lacks a clinical validation record."""

    def detect(self, view: View) -> Flag | None:
        """Look at the subject's ``validated``."""
        return None if view.subject.validated else Flag("a model without a clinical validation record")


class ReferenceModel(Detector):
    """Fires while any model of the result is a reference model of the appliance."""

    def detect(self, view: View) -> Flag | None:
        """Look at the subject's ``reference``."""
        return Flag("a reference model") if view.subject.reference else None


class Unsigned(Detector):
    """Fires while no named person has signed."""

    def detect(self, view: View) -> Flag | None:
        """Look at the subject's ``signed_by``."""
        return None if view.subject.signed_by.strip() else Flag("nobody has signed this")
