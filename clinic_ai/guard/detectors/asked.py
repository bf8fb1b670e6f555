"""What a question is about, and whether this study can answer it. Only ``questions.toml`` uses these."""

from __future__ import annotations

from typing import ClassVar

from clinic_ai.guard.detectors.base import Detector, Flag, View
from clinic_ai.guard.intents import QuestionSubject

_VOLUMES = frozenset({"CT", "MR", "PT", "NM"})
_FEWEST_SLICES = 10
"""Fewer images of a scanner are single slices or a scout, no volume."""
_SENTENCE = 1


class Flat(Detector):
    """Fires unless the study is a volume: slices of a CT, MR, PET or SPECT scanner. Two X-ray views are none."""

    def detect(self, view: View) -> Flag | None:
        """Look at modality and number of slices."""
        facts = view.subject.facts
        if {m.upper() for m in facts.modalities} & _VOLUMES and facts.slices >= _FEWEST_SLICES:
            return None
        return Flag("the images are no volume")


class OtherBodyPart(Detector):
    """Fires on a question that names parts of the body, none of which the images show.

    The lexicon's keys are the DICOM body parts that show a part, with blanks between them. Images that do not say
    what they show pass.
    """

    lexicon: str
    lexicon_fields: ClassVar[tuple[str, ...]] = ("lexicon",)

    def detect(self, view: View) -> Flag | None:
        """Compare the parts named with those of the study."""
        shown = {part.casefold() for part in view.subject.facts.body_parts if part.strip()}
        named = self._lexicons["lexicon"].find(view.text)
        if not shown or not named or any(shown & set(m.key.casefold().split()) for m in named):
            return None
        return Flag("a part of the body that is not on the images", tuple((m.start, m.end) for m in named))


class HasExample(Detector):
    """Fires if the clinic supplies a healthy example of this kind of image."""

    def detect(self, view: View) -> Flag | None:
        """Look at the subject's example."""
        subject = view.subject
        return Flag("there is an example") if isinstance(subject, QuestionSubject) and subject.example else None


class NoQuestion(Detector):
    """Fires on text without two letters in a row, or longer than ``maximum`` characters."""

    maximum: int = 500

    def detect(self, view: View) -> Flag | None:
        """Count words of two letters or more."""
        if len(view.text.raw) > self.maximum:
            return Flag("the question is too long")
        if not any(len(word) > _SENTENCE and word.isalpha() for word in view.text.words):
            return Flag("no words")
        return None


ASKED: dict[str, type[Detector]] = {
    "flat": Flat,
    "has_example": HasExample,
    "no_question": NoQuestion,
    "other_body_part": OtherBodyPart,
}
"""Detectors by the names that ``questions.toml`` uses beside those of all rules."""
