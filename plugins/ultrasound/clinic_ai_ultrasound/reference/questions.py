"""What is asked about an image and how each answer is worded.

A topic is something that can be asked, a choice one of its possible answers. No answer has three words in a row that
stand in a question of its topic: generation forbids to repeat them. Every answer has at least five tokens.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from clinic_ai.domain import QuestionAnswer

VIEW = "view"


@dataclass(frozen=True)
class Topic:
    """Wordings of a question, that of the category files first, and the answer to each choice; ``{noun}`` is open."""

    wordings: tuple[str, ...]
    answers: Mapping[str, str]


TOPICS: dict[str, Topic] = {
    "side": Topic(
        (
            "In which half of the image does the {noun} lie?",
            "Is the {noun} on the left or on the right?",
            "On which side is the {noun}?",
        ),
        {"left": "The {noun} lies in the left half.", "right": "The {noun} lies in the right half."},
    ),
    "level": Topic(
        ("At which height does the {noun} lie?", "How high in the image is the {noun}?", "Is the {noun} high or low?"),
        {"upper": "The {noun} lies in the upper half.", "lower": "The {noun} lies in the lower half."},
    ),
    "fills": Topic(
        (
            "Does the {noun} fill half of the width?",
            "Is the {noun} wider than half of the image?",
            "Does the {noun} take up half of the image from side to side?",
        ),
        {"yes": "Yes, it fills half the width or more.", "no": "No, it fills less than half the width."},
    ),
    "axis": Topic(
        (
            "How does the long axis of the {noun} run?",
            "How is the {noun} oriented?",
            "What is the direction of the long axis of the {noun}?",
        ),
        {
            "horizontal": "The long axis runs horizontally.",
            "vertical": "The long axis runs vertically.",
            "oblique": "The long axis runs obliquely.",
        },
    ),
    "whole": Topic(
        ("Is the whole {noun} in view?", "Is all of the {noun} shown?", "Is the {noun} complete?"),
        {"yes": "Yes, all of it is in view.", "no": "No, a part of it is cut off."},
    ),
    "trimester": Topic(
        (
            "Which trimester does the {noun} suggest?",
            "What trimester is it?",
            "In which trimester was the image taken?",
        ),
        {
            "first": "It suggests the first trimester.",
            "second": "It suggests the second trimester.",
            "third": "It suggests the third trimester.",
        },
    ),
    "stomach": Topic(
        ("Is the stomach seen?", "Can the stomach be made out?", "Is there a stomach bubble?"),
        {"yes": "Yes, a dark bubble is seen.", "no": "No, it is not seen here."},
    ),
    "bones": Topic(
        ("How many bones are seen?", "Is there one bone or are there two?", "What is the number of bones?"),
        {"one": "One bone can be seen here.", "two": "Two bones can be seen here."},
    ),
    "heart": Topic(
        (
            "On which side of the thorax is the heart?",
            "Where in the thorax is the heart?",
            "To which side is the heart?",
        ),
        {"left": "The heart is on the left side.", "right": "The heart is on the right side."},
    ),
    "face": Topic(
        ("Which way does the face look?", "Where does the face point?", "Does the fetus look up or down?"),
        {"up": "The face looks up in the image.", "down": "The face looks down in the image."},
    ),
    "neck": Topic(
        ("Is the neck seen?", "Can the neck be made out?", "Is the neck clear?"),
        {"yes": "Yes, the neck is seen here.", "no": "No, a shadow hides it here."},
    ),
}
"""By key; ``VIEW`` is not among them because its answer belongs to the category."""

VIEW_WORDINGS = (
    "Which view does the image show?",
    "What does the image show?",
    "Which structure is this?",
)


@dataclass(frozen=True)
class Subject:
    """What a category is asked: its noun, its name as an answer, what it looks like to who does not know it, topics."""

    noun: str
    view: str
    looks: str
    topics: tuple[str, ...]


SUBJECTS: dict[str, Subject] = {
    "fetal_head": Subject(
        "head",
        "The image shows a fetal head.",
        "The image shows a bright ring.",
        ("side", "level", "fills", "axis", "whole", "trimester"),
    ),
    "abdomen": Subject(
        "abdomen",
        "The image shows a fetal abdomen.",
        "The image shows a grey disc.",
        ("side", "level", "fills", "whole", "stomach"),
    ),
    "femur": Subject(
        "femur",
        "The image shows a fetal femur.",
        "The image shows a bright rod.",
        ("side", "level", "axis", "whole", "bones"),
    ),
    "thorax": Subject(
        "thorax",
        "The image shows a fetal thorax.",
        "The image shows a dotted ring.",
        ("side", "level", "fills", "whole", "heart"),
    ),
    "standard_nt": Subject(
        "fetus",
        "The image shows a standard view of the nuchal translucency.",
        "The image shows a lying figure with a dark band.",
        ("side", "level", "whole", "face"),
    ),
    "non_standard_nt": Subject(
        "fetus",
        "The image shows a view of the neck that is not standard.",
        "The image shows a lying figure.",
        ("side", "level", "axis", "whole", "neck"),
    ),
    "trans_cerebellum": Subject("head", "The image shows the cerebellum.", "The image shows a bright ring.", ("side",)),
    "trans_thalamic": Subject("head", "The image shows the thalami.", "The image shows a bright ring.", ("side",)),
    "trans_ventricular": Subject(
        "head", "The image shows the ventricles.", "The image shows a bright ring.", ("side",)
    ),
    "cervix": Subject("cervix", "The image shows the cervix.", "The image shows a dark canal.", ("side",)),
}
"""By key of the category."""


@dataclass(frozen=True)
class Asked:
    """A pair with what it is about: image number, topic, and the choice that is true."""

    image: int
    topic: str
    choice: str
    pair: QuestionAnswer


def ask(category: str, image: int, truths: Mapping[str, str], wording: int = 0) -> list[Asked]:
    """Return what ``category`` is asked about an image of which ``truths`` hold, by topic; the view first.

    ``wording`` chooses among the wordings of each question; 0 is that of the category files.
    """
    subject = SUBJECTS[category]
    view = QuestionAnswer(question=VIEW_WORDINGS[wording % len(VIEW_WORDINGS)], answer=subject.view)
    asked = [Asked(image, VIEW, category, view)]
    for topic in subject.topics:
        if topic in truths:
            asked.append(Asked(image, topic, truths[topic], word(topic, truths[topic], subject.noun, wording)))
    return asked


def word(topic: str, choice: str, noun: str, wording: int = 0) -> QuestionAnswer:
    """Return question and answer of one topic in words."""
    known = TOPICS[topic]
    question = known.wordings[wording % len(known.wordings)]
    return QuestionAnswer(question=question.format(noun=noun), answer=known.answers[choice].format(noun=noun))


def questions_of(category: str) -> list[str]:
    """Return every question about ``category`` in each of its wordings."""
    subject = SUBJECTS[category]
    wordings = (question for topic in subject.topics for question in TOPICS[topic].wordings)
    return [*VIEW_WORDINGS, *(question.format(noun=subject.noun) for question in wordings)]


def choice_of(topic: str, answer: str) -> str | None:
    """Return which choice of ``topic`` the words of ``answer`` make, None if none or more than one.

    Only the word that tells the choices apart counts, so that another noun does not make an answer wrong.
    """
    words = set(answer.lower().replace(",", " ").replace(".", " ").split())
    said = [choice for choice in TOPICS[topic].answers if {choice, f"{choice}ly"} & words]
    return said[0] if len(said) == 1 else None


def balanced(asked: Iterable[Asked], seed: int) -> list[Asked]:
    """Return as many pairs for each choice of a topic, by leaving out some of those that are too many.

    The view stays as it is: within a category it has one answer.
    """
    groups: dict[tuple[str, str], list[Asked]] = defaultdict(list)
    for one in asked:
        groups[one.topic, one.choice].append(one)
    chooser = random.Random(seed)  # noqa: S311 - a choice that can be repeated, no secret
    kept: list[Asked] = []
    for topic, choice in sorted(groups):
        group = groups[topic, choice]
        fewest = min((len(found) for (name, _), found in groups.items() if name == topic), default=0)
        kept += group if topic == VIEW else chooser.sample(group, fewest)
    return sorted(kept, key=lambda one: (one.image, one.topic))
