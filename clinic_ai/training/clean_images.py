"""The images of a labelled folder as a dataset holds them: de-identified copies, and what people should look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from clinic_ai.deidentification import BURNED_IN, BURNED_IN_POSSIBLE
from clinic_ai.domain import LeftOutReason
from clinic_ai.tasks import CopyKind, DeidentifiedFile
from clinic_ai.training.labelled_folder import LabelledImage, Reading, counted, named


@dataclass(frozen=True)
class HashedImage:
    """A labelled image: ``original`` is the SHA-256 of its file, ``sha256`` of what the dataset holds of it.

    ``groups`` is what else the dataset says of it; see ``contract.Example``. ``twins`` are the equal images that it
    stands for, ``pseudonym`` what the copy calls the patient of its header. ``beside`` are the originals of what lies
    beside a volume, in the order of the image's own, ``copies`` those of their copies.
    """

    image: LabelledImage
    original: str
    sha256: str
    groups: dict[str, str] = field(default_factory=dict)
    twins: tuple[HashedImage, ...] = ()
    pseudonym: str = ""
    beside: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()

    @property
    def files(self) -> dict[str, tuple[Path, CopyKind]]:
        """Its file and those beside it, by the SHA-256 of the original."""
        others = zip(self.beside, self.image.beside, strict=True)
        return {
            self.original: (self.image.path, self.image.kind),
            **{sha256: (one.path, one.kind) for sha256, one in others},
        }

    @property
    def all(self) -> tuple[HashedImage, ...]:
        """It and its twins."""
        return (replace(self, twins=()), *self.twins)


def clean_images(
    images: Sequence[HashedImage], copies: Mapping[str, DeidentifiedFile], reading: Reading, *, keep_burned_in: bool
) -> list[HashedImage]:
    """Return the images by their copies; say in ``reading`` which have none, were left out, or need a look."""
    clean: list[HashedImage] = []
    left_out: list[str] = []
    unreadable: list[str] = []
    kept: list[str] = []
    possible: list[str] = []
    for image in images:
        copy = copies[image.original]
        if copy.sha256 is None and image.image.review_id:
            unreadable.append(image.image.name)  # what was signed cannot be corrected in a folder
            continue
        if copy.sha256 is None:
            why = copy.problem.sentence if copy.problem else "It has no de-identified copy."
            reading.problems.append(f"{image.image.name}: {why}")
            continue
        beside = [copies[original] for original in image.beside]
        wrong = [(one, made) for one, made in zip(image.image.beside, beside, strict=True) if made.sha256 is None]
        if wrong and image.image.review_id:
            unreadable.append(image.image.name)
            continue
        for one, made in wrong:
            why = made.problem.sentence if made.problem else "It has no de-identified copy."
            reading.problems.append(f"{one.path.name} ({one.role} of {image.image.name}): {why}")
        if wrong:
            continue
        codes = {flag.code for made in (copy, *beside) for flag in made.flags}
        if BURNED_IN in codes:
            (kept if keep_burned_in else left_out).append(image.image.name)
            if not keep_burned_in:
                continue
        elif BURNED_IN_POSSIBLE in codes:
            possible.append(image.image.name)
        pseudonym = copy.header.identity.patient_id if copy.header is not None else ""
        clean.append(
            replace(
                image,
                sha256=copy.sha256,
                groups=copy.groups,
                pseudonym=pseudonym,
                copies=tuple(made.sha256 or "" for made in beside),
            )
        )
    reading.leave_out(
        LeftOutReason.BURNED_IN,
        len(left_out),
        f"{counted(len(left_out), 'image', 'was', 'were')} left out: the header says that text identifying the "
        f"patient is burnt in{named(left_out)}. training.burned_in in clinic.toml can keep such images.",
    )
    reading.leave_out(
        LeftOutReason.UNREADABLE,
        len(unreadable),
        f"{counted(len(unreadable), 'reviewed image', 'was', 'were')} left out: no de-identified copy can be made"
        f"{named(unreadable)}.",
    )
    if kept:
        reading.notes.append(
            f"{counted(len(kept), 'image', 'has', 'have')} text burnt in that identifies the patient, as the header "
            f"says{named(kept)}."
        )
    if possible:
        reading.notes.append(
            f"{counted(len(possible), 'image', 'may carry', 'may carry')} burnt-in text; look before they leave the "
            f"house{named(possible)}."
        )
    return clean
