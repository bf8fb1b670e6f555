"""Detectors: text and evidence in, flags out. Pure functions, one module a family; ``CATALOGUE`` has them by name.

A detector is a pydantic model: its fields are the parameters a pack may set, ``detect`` is the function. ``bind``
gives it the pack's lexicons once, when the pack is loaded.
"""

from __future__ import annotations

from clinic_ai.guard.detectors.base import Detector, Flag, View
from clinic_ai.guard.detectors.degenerate import DegenerateText
from clinic_ai.guard.detectors.evidence import (
    Contradiction,
    NoEvidence,
    OmittedFinding,
    ProbabilityWording,
    UnsupportedFinding,
)
from clinic_ai.guard.detectors.hygiene import ControlCharacters, Markup, ReadingGrade, TextLength
from clinic_ai.guard.detectors.identity import OwnIdentity
from clinic_ai.guard.detectors.lexical import LexiconHit, Pattern
from clinic_ai.guard.detectors.standing import ReferenceModel, Unsigned, Unvalidated

CATALOGUE: dict[str, type[Detector]] = {
    "contradiction": Contradiction,
    "control_characters": ControlCharacters,
    "degenerate_text": DegenerateText,
    "lexicon": LexiconHit,
    "markup": Markup,
    "no_evidence": NoEvidence,
    "omitted_finding": OmittedFinding,
    "own_identity": OwnIdentity,
    "pattern": Pattern,
    "probability_wording": ProbabilityWording,
    "reading_grade": ReadingGrade,
    "reference_model": ReferenceModel,
    "text_length": TextLength,
    "unsigned": Unsigned,
    "unsupported_finding": UnsupportedFinding,
    "unvalidated": Unvalidated,
}

__all__ = ["CATALOGUE", "Detector", "Flag", "View"]
