"""What the images themselves forbid: a question they cannot answer, a model they were not meant for, burnt-in text."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch
from typing import Literal

from pydantic import Field

from clinic_ai.guard.detectors.base import Detector, Flag, View
from clinic_ai.guard.detectors.quantities import sizes


class ImageLacks(Detector):
    """Fires if the study does not have what a statement would need; nobody having said so counts as lacking.

    ``calibration``: millimetres per pixel. ``depth``: more than one slice. ``prior``: an earlier study.
    """

    what: Literal["calibration", "depth", "prior"]

    def detect(self, view: View) -> Flag | None:
        """Look at the subject's image facts and slices."""
        if self.what == "calibration":
            return None if view.subject.image.calibrated else Flag("the image has no scale in millimetres")
        if self.what == "depth":
            return None if view.subject.facts.slices > 1 else Flag("there is one slice only")
        return None if view.subject.image.priors else Flag("there was no earlier study to compare with")


class ImageOf(Detector):
    """Fires on a study of one of these modalities and, if any are named, one of these body parts.

    With ``unless_denied`` what the headers do not say counts as fitting: a PNG often says neither.
    """

    modalities: tuple[str, ...] = Field(min_length=1)
    body_parts: tuple[str, ...] = ()
    unless_denied: bool = False

    @property
    def sought(self) -> str:
        """Name the images."""
        parts = " of certain body parts" if self.body_parts else ""
        unsaid = ", or that do not say what they are" if self.unless_denied else ""
        return f"images of {' or '.join(self.modalities)}{parts}{unsaid}"

    def detect(self, view: View) -> Flag | None:
        """Look at the modality and body part of the study."""
        facts = view.subject.facts
        if self._fits(self.modalities, facts.modalities) and (
            not self.body_parts or self._fits(self.body_parts, facts.body_parts)
        ):
            return Flag(self.sought)
        return None

    def _fits(self, wanted: Iterable[str], values: Iterable[str]) -> bool:
        said = {value.casefold() for value in values if value.strip()}
        return not said.isdisjoint(word.casefold() for word in wanted) if said else self.unless_denied


class StatedSize(Detector):
    """Fires on every length in mm or cm."""

    def detect(self, view: View) -> Flag | None:
        """Return the places of all lengths."""
        spans = tuple(view.text.span(s.start, s.end) for s in sizes(view.text))
        return Flag("a length", spans) if spans else None


class OutOfScope(Detector):
    """Fires if a plugin judged a study of a modality or body part that none of its claims has.

    What the images do not say counts as fitting: the clinic's routing vouches for it.
    """

    def detect(self, view: View) -> Flag | None:
        """Compare the facts of the study with each plugin's claims."""
        facts = view.subject.facts
        outside = [
            scope.plugin
            for scope in view.subject.scopes
            if scope.claims
            and not any(
                _fits(c.modality, facts.modalities) and _fits(c.body_part, facts.body_parts) for c in scope.claims
            )
        ]
        return Flag(f"not what this plugin was made for: {', '.join(sorted(outside))}") if outside else None


def _fits(patterns: Iterable[str], values: Iterable[str]) -> bool:
    wanted, said = [p.casefold() for p in patterns], [v.casefold() for v in values if v.strip()]
    return not wanted or not said or any(fnmatch(value, pattern) for value in said for pattern in wanted)


class OutOfDistribution(Detector):
    """Fires if the study lies farther from a model's training data than the model's own limit."""

    factor: float = 1.0
    """The limit is multiplied by it: below 1 is stricter."""

    def detect(self, view: View) -> Flag | None:
        """Compare the distances that models handed over."""
        far = [d for d in view.subject.distances if d.value > d.limit * self.factor]
        return Flag("; ".join(f"distance {d.value:.3g}, limit {d.limit:.3g}" for d in far)) if far else None


class BurnedIn(Detector):
    """Fires if the headers say that text is burnt into the pixels, or with ``unless_denied`` if they do not deny it."""

    unless_denied: bool = False

    def detect(self, view: View) -> Flag | None:
        """Look at BurnedInAnnotation; an ultrasound that does not deny it counts as having text."""
        stated = view.subject.image.burned_in
        ultrasound = "US" in {m.upper() for m in view.subject.facts.modalities}
        if stated == "yes" or (stated == "" and (self.unless_denied or ultrasound)):
            return Flag("text is burnt into the pixels" if stated else "text may be burnt into the pixels")
        return None
