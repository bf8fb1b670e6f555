"""One of each image: equal ones become one, what was signed counts before what a folder says, the rest must agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from clinic_ai.domain import LeftOutReason, QuestionAnswer
from clinic_ai.training.clean_images import HashedImage
from clinic_ai.training.labelled_folder import Reading, counted, named
from clinic_ai.training.sheet_layout import same_question, same_words


def without_duplicates(hashed: list[HashedImage], reading: Reading) -> list[HashedImage]:
    """Return one of each image; note the equal ones, and make the contradicting ones of a folder a problem.

    Of reviews the newest counts, and any review before a folder. An image that reviews give to two patients is left
    out.
    """
    groups: dict[str, list[HashedImage]] = defaultdict(list)
    for item in hashed:
        groups[item.sha256].append(item)
    unique, spare = [], 0
    overruled: list[str] = []
    torn: list[str] = []
    for group in groups.values():
        signed = [item for item in group if item.image.review_id]
        dropped = [item for item in group if not item.image.review_id]
        labels, pairs = _agreed(dropped, reading) if dropped else ({}, {})
        _refuse_two_patients(dropped, reading)
        if len({item.image.patient_key for item in signed}) > 1:
            torn.append(signed[0].image.name)
            continue
        if _override(labels, pairs, signed) and dropped:
            overruled += [item.image.name for item in dropped]
        else:
            spare += len(dropped)
        spare += len(signed) - 1 if signed else -1
        # The newest review, or the first image of the folder, stands for all.
        first = signed[-1] if signed else dropped[0]
        twins = tuple(twin for item in group if item is not first for twin in item.all)
        image = replace(first.image, labels=labels, pairs=tuple(pairs.values()))
        unique.append(replace(first, image=image, twins=(*first.twins, *twins)))
    reading.leave_out(
        LeftOutReason.DUPLICATE,
        spare,
        f"{counted(spare, 'image', 'was', 'were')} left out: the same image is there already.",
    )
    reading.leave_out(
        LeftOutReason.OVERRULED,
        len(overruled),
        f"Of {counted(len(overruled), 'image', 'a signed review', 'signed reviews')} say something else than the "
        f"folder; the review counts{named(overruled)}.",
    )
    reading.leave_out(
        LeftOutReason.TWO_PATIENTS,
        len(torn),
        f"{counted(len(torn), 'image', 'was', 'were')} left out: reviewed studies give the same image to two "
        f"patients{named(torn)}.",
    )
    return unique


def _agreed(group: Sequence[HashedImage], reading: Reading) -> tuple[dict[str, int], dict[str, QuestionAnswer]]:
    """Return labels and pairs of equal images of a folder together; a contradiction is a problem."""
    labels: dict[str, int] = {}
    pairs: dict[str, QuestionAnswer] = {}
    for item in group:
        against = [c for c, v in item.image.labels.items() if labels.setdefault(c, v) != v]
        if against:
            reading.problems.append(
                f"{group[0].image.name} and {item.image.name} are the same image with contradicting labels "
                f"for {', '.join(against)}."
            )
        _add_pairs(group[0], item, pairs, reading)
    return labels, pairs


def _override(labels: dict[str, int], pairs: dict[str, QuestionAnswer], signed: Sequence[HashedImage]) -> bool:
    """Put what reviews say, oldest first, over what the folder says; return whether the folder said otherwise."""
    before, asked = dict(labels), dict(pairs)
    for item in signed:
        labels.update(item.image.labels)
        pairs.update({same_question(pair.question): pair for pair in item.image.pairs})
    return any(labels[condition] != label for condition, label in before.items()) or any(
        same_words(pairs[question].answer) != same_words(pair.answer) for question, pair in asked.items()
    )


def _refuse_two_patients(dropped: Sequence[HashedImage], reading: Reading) -> None:
    if len({item.image.patient_id for item in dropped}) > 1:
        reading.problems.append(
            f"{dropped[0].image.name} and {dropped[-1].image.name} are the same image of two patients."
        )


def _add_pairs(first: HashedImage, item: HashedImage, pairs: dict[str, QuestionAnswer], reading: Reading) -> None:
    """Add what is asked about an image to what is asked about an equal one before it."""
    for pair in item.image.pairs:
        known = pairs.setdefault(same_question(pair.question), pair)
        if same_words(known.answer) != same_words(pair.answer):
            reading.problems.append(
                f"{first.image.name} and {item.image.name} are the same image with contradicting answers to "
                f"“{pair.question}”."
            )
