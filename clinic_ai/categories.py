"""Which category an image of a study is of, and how that is known. Pure: what the store knows comes in as ``Told``.

What says something of the category is a *clue*: "it is one of these". Clues have a strength; from the strongest:

1. a person's choice for the study
2. the first ``[[category]]`` rule of clinic.toml that fits the study
3. the folders the file came in, the nearest first
4. its inbox, by its name or its own body part
5. the view codes of the DICOM header
6. its anatomy codes
7. its body part, and whole words of its view name, descriptions and protocol name

The strongest clues there are decide. Where they leave several categories open, as a code that two share does, weaker
ones may tell between these. Where clues of one strength contradict each other, or several categories are left, the
category stays empty: nothing is guessed. What is weaker and contradicts is told.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from clinic_ai.contract import PluginManifest, TaskImage
from clinic_ai.domain import (
    CategoryInfo,
    Code,
    FileKind,
    Instance,
    InstanceHeader,
    Key,
    Sha256,
    Study,
    Word,
    plain_name,
)
from clinic_ai.routing import check_condition
from clinic_ai.settings import CategoryRule
from clinic_ai.store.categories import Told

_WORD = re.compile(r"[^\W_]+")
_SCHEMES = {"SNM3": "SRT", "99SDM": "SRT"}
"""Older designators of a coding scheme (PS3.16 section 8)."""
_MOST_TOLD = 3
"""Clues of one kind that a note names."""


class CategoryFound(Word):
    """The category of an image, empty if it is unknown or ambiguous, and how that is known, for people.

    ``note`` quotes only what is a name of a category, never the rest of a header or path: it holds no personal data.
    """

    category: str = ""
    note: str


@dataclass(frozen=True)
class Clue:
    """Something that says: it is one of ``keys``. ``words`` name it, to go on with “says …”."""

    keys: tuple[str, ...]
    words: str


def categorise(
    manifest: PluginManifest, rules: Sequence[CategoryRule], study: Study, images: Iterable[Instance], told: Told
) -> dict[Sha256, CategoryFound]:
    """Return the category of each image by its SHA-256; nothing if the plugin has no categories."""
    if not manifest.categories:
        return {}
    names = Names(manifest.categories)
    remarks: list[str] = []
    above = [_chosen(told, names, remarks), _by_rule(manifest.name, rules, study, names, remarks)]
    return {
        image.sha256: decide(
            (*above, *_of_image(image.header, told.folders.get(image.sha256, ""), study.source, names)),
            names.labels,
            study.study_id,
            remarks,
        )
        for image in images
    }


def with_categories(images: Iterable[TaskImage], found: Mapping[str, CategoryFound]) -> tuple[TaskImage, ...]:
    """Return the images of a task with their categories, as ``categorise`` found them."""
    none = CategoryFound(note="")
    return tuple(
        image.model_copy(update={"category": of.category, "category_note": of.note})
        for image in images
        for of in (found.get(image.sha256, none),)
    )


def decide(
    levels: Iterable[Sequence[Clue]], labels: Mapping[str, str], study_id: str, remarks: Iterable[str] = ()
) -> CategoryFound:
    """Weigh clues, the strongest level first; ``labels`` are of all categories by key, ``remarks`` end the note."""
    first, *weaker = [level for level in levels if level] or [()]
    key, used = _agreed(first, weaker)
    if key:
        against = [clue for level in weaker for clue in level if key not in clue.keys]
        said = [f"{labels[key]}, by {_listed([clue.words for clue in used])}.", *_against(against, labels)]
    elif first:
        said = [_ambiguous(used, labels), _remedy(study_id, used[0].keys[0])]
    else:
        nothing = "Nothing says which category it is of: no rule, folder, inbox, code or word of its header."
        said = [nothing, _remedy(study_id, "CATEGORY"), "`clinic-ai plugin categories` lists them."]
    return CategoryFound(category=key, note=" ".join([*said, *remarks]))


def _agreed(first: Sequence[Clue], weaker: Sequence[Sequence[Clue]]) -> tuple[str, list[Clue]]:
    """Return the one category left by the strongest clues and those that tell between what they leave open.

    Empty if there is none; with the clues that were used.
    """
    left, used = _common(first), list(first)
    for level in weaker:
        if len(left) <= 1:
            break
        fitting = [clue for clue in level if left & set(clue.keys)]  # the others contradict what is stronger
        told = left & _common(fitting)
        if fitting and not told:
            break  # they contradict each other
        if fitting and told != left:
            left, used = told, [*used, *fitting]
    return (next(iter(left)) if len(left) == 1 else ""), used


def _common(clues: Sequence[Clue]) -> frozenset[str]:
    """Return the categories that all of these say; none if two contradict each other."""
    return frozenset.intersection(*(frozenset(clue.keys) for clue in clues)) if clues else frozenset()


# ------------------------------------------------------------ names


class Names:
    """What the categories of a plugin are called."""

    def __init__(self, categories: Sequence[CategoryInfo]) -> None:
        self.labels: dict[str, str] = {category.key: category.label for category in categories}
        self._names = _index((name, c.key) for c in categories for name in (c.key, c.label, *c.aliases))
        self._parts = _index((part, c.key) for c in categories for part in c.body_parts)
        self._codes: dict[tuple[str, str], tuple[str, ...]] = {}
        for category in categories:
            for code in category.codes:
                at = _compared(code)
                self._codes[at] = (*self._codes.get(at, ()), category.key)
        self._longest = max(map(len, self._names), default=0)

    def called(self, name: str) -> tuple[Key, ...]:
        """Return the categories of this name or, if there are none, of this body part."""
        plain = plain_name(name)
        return self._names.get(plain) or self._parts.get(plain, ())

    def coded(self, code: Code) -> tuple[Key, ...]:
        """Return the categories of this code."""
        return self._codes.get(_compared(code), ())

    def within(self, text: str) -> list[tuple[str, tuple[Key, ...]]]:
        """Return the names that whole words of a text make up, as they stand there, and whose they are.

        A name within a longer one is none: “non-standard NT” does not name the standard.
        """
        words = _WORD.findall(unicodedata.normalize("NFKC", text))
        found: list[tuple[int, int, str]] = []
        for start in range(len(words)):
            for count, plain in enumerate(accumulate(map(plain_name, words[start:])), start=1):
                if len(plain) > self._longest:
                    break
                if plain in self._names:
                    found.append((start, start + count, plain))
        return [
            (" ".join(words[start:end]), self._names[plain])
            for start, end, plain in found
            if not any(s <= start and end <= e and (s, e) != (start, end) for s, e, _ in found)
        ]


def _compared(code: Code) -> tuple[str, str]:
    return _SCHEMES.get(code.scheme, code.scheme), code.value


def _index(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Return the keys of each name, each once and in their order."""
    found: dict[str, dict[str, None]] = {}
    for name, key in pairs:
        if plain := plain_name(name):
            found.setdefault(plain, {})[key] = None
    return {plain: tuple(keys) for plain, keys in found.items()}


# ------------------------------------------------------------ clues


def _chosen(told: Told, names: Names, remarks: list[str]) -> list[Clue]:
    if not told.chosen:
        return []
    if told.chosen in names.labels:
        return [Clue((told.chosen,), "a person's choice for the study")]
    remarks.append(f"A person chose {told.chosen}, which is no category any more.")
    return []


def _by_rule(plugin: str, rules: Sequence[CategoryRule], study: Study, names: Names, remarks: list[str]) -> list[Clue]:
    for number, rule in enumerate(rules, start=1):
        if rule.plugin != plugin or not all(check.matched for check in check_condition(rule.when, study.facts)):
            continue
        if rule.category in names.labels:
            return [Clue((rule.category,), f"category[{number}] of clinic.toml")]
        remarks.append(f"category[{number}] of clinic.toml names {rule.category}, which is no category.")
        return []
    return []


def _of_image(header: InstanceHeader, path: str, source: str, names: Names) -> tuple[list[Clue], ...]:
    """Return the clues to one image, by strength; ``path`` is the one it came with."""
    nearest_first = reversed(path.split("/")[:-1])
    folders = [_called([(folder, f"the folder “{folder}” it came in")], names) for folder in nearest_first]
    inbox = [(source, f"its inbox “{source}”")]
    body_part = (header.body_part, f"its body part {header.body_part}")
    if header.kind is not FileKind.DICOM:  # its body part is that of its folder or, without one, of its inbox
        return *folders, _called([*inbox, body_part], names)
    texts = {
        "view name": header.view_name,
        "series description": header.series_description,
        "study description": header.study_description,
        "protocol name": header.protocol_name,
    }
    words = [
        Clue(keys, f"“{name}” in its {where}") for where, text in texts.items() for name, keys in names.within(text)
    ]
    return (
        *folders,
        _called(inbox, names),
        _coded("view", header.view_codes, names),
        _coded("anatomy", header.anatomy_codes, names),
        [*_called([body_part], names), *words],
    )


def _called(named: Iterable[tuple[str, str]], names: Names) -> list[Clue]:
    return [Clue(keys, words) for name, words in named if (keys := names.called(name))]


def _coded(kind: str, codes: Iterable[Code], names: Names) -> list[Clue]:
    return [Clue(keys, f"its {kind} code {c.scheme} {c.value}") for c in codes if (keys := names.coded(c))]


# ------------------------------------------------------------ notes


def _against(clues: Sequence[Clue], labels: Mapping[str, str]) -> list[str]:
    if not clues:
        return []
    return [f"Against that, {_say(clues, labels)}; the stronger counts."]


def _ambiguous(clues: Sequence[Clue], labels: Mapping[str, str]) -> str:
    return f"Ambiguous: {_say(clues, labels)}."


def _say(clues: Sequence[Clue], labels: Mapping[str, str]) -> str:
    each = [f"{clue.words} says {' or '.join(labels[key] for key in clue.keys)}" for clue in clues]
    return _listed(each)


def _listed(words: Sequence[str]) -> str:
    """Return the first few, each once."""
    once = list(dict.fromkeys(words))
    return ", ".join(once[:_MOST_TOLD]) + (f" and {len(once) - _MOST_TOLD} more" if len(once) > _MOST_TOLD else "")


def _remedy(study_id: str, key: str) -> str:
    return f"Say which with `clinic-ai study category {study_id} {key}`."
