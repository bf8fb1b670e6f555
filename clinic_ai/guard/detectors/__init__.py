"""Detectors: text and evidence in, flags out. Pure functions, one module a family; ``CATALOGUE`` has them by name.

A detector is a pydantic model: its fields are the parameters a pack may set, ``detect`` is the function. ``bind``
gives it the pack's lexicons once, when the pack is loaded.
"""

from __future__ import annotations

from clinic_ai.guard.detectors.base import Detector, Flag, View
from clinic_ai.guard.detectors.contradiction import Contradiction, LevelMismatch, NumberMismatch, SectionsDisagree
from clinic_ai.guard.detectors.degenerate import DegenerateText
from clinic_ai.guard.detectors.evidence import (
    NoEvidence,
    OmittedFinding,
    ProbabilityWording,
    UnsupportedFinding,
)
from clinic_ai.guard.detectors.hygiene import ControlCharacters, Markup, ReadingGrade, TextLength
from clinic_ai.guard.detectors.identity import OwnIdentity
from clinic_ai.guard.detectors.image import BurnedIn, ImageLacks, ImageOf, OutOfDistribution, OutOfScope, StatedSize
from clinic_ai.guard.detectors.lexical import LexiconHit, Pattern
from clinic_ai.guard.detectors.standing import ReferenceModel, Unsigned, Unvalidated

CATALOGUE: dict[str, type[Detector]] = {
    "burned_in": BurnedIn,
    "contradiction": Contradiction,
    "control_characters": ControlCharacters,
    "degenerate_text": DegenerateText,
    "image_lacks": ImageLacks,
    "image_of": ImageOf,
    "level_mismatch": LevelMismatch,
    "lexicon": LexiconHit,
    "markup": Markup,
    "no_evidence": NoEvidence,
    "number_mismatch": NumberMismatch,
    "omitted_finding": OmittedFinding,
    "out_of_distribution": OutOfDistribution,
    "out_of_scope": OutOfScope,
    "own_identity": OwnIdentity,
    "pattern": Pattern,
    "probability_wording": ProbabilityWording,
    "reading_grade": ReadingGrade,
    "reference_model": ReferenceModel,
    "sections_disagree": SectionsDisagree,
    "stated_size": StatedSize,
    "text_length": TextLength,
    "unsigned": Unsigned,
    "unsupported_finding": UnsupportedFinding,
    "unvalidated": Unvalidated,
}

__all__ = ["CATALOGUE", "Detector", "Flag", "View"]
