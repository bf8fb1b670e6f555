"""A policy pack, read: rules, lexicons and templates as frozen objects. ``proof`` decides whether it may be used.

A pack is a folder: ``policy.toml`` (rules), ``lexicons/*.txt``, ``templates/<language>.toml`` and ``cases.toml``.
Its digest covers the name and every byte of every file in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from clinic_ai.domain import Audience, GuardAction, StatementKind
from clinic_ai.guard.cases import Case, CaseFile
from clinic_ai.guard.detectors import CATALOGUE, Detector, Flag, View
from clinic_ai.guard.detectors.asked import ASKED
from clinic_ai.guard.foreign import plugin_detector
from clinic_ai.guard.intents import IntentCase, IntentEntry, QuestionFile
from clinic_ai.guard.layers import inherited_cases, laid_over
from clinic_ai.guard.lexicon import Lexicon, Shelf
from clinic_ai.guard.packfiles import BASE, pack_digest, pack_texts, read_pack_files
from clinic_ai.guard.parsing import parse_model, read_lexicons, read_templates, refuse_if, sentence
from clinic_ai.guard.templates import Templates
from clinic_ai.guard.unused import unused_lexicons, unused_templates

RuleId = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
PackName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
Sentence = Annotated[str, StringConstraints(min_length=1, max_length=300)]

MAX_DEPTH = 4
"""How deep ``all``, ``any`` and ``not`` may nest in a condition."""


class Entry(BaseModel):
    """Base of what stands in ``policy.toml``: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RuleEntry(Entry):
    """One ``[[rule]]`` as the pack writes it."""

    id: RuleId
    hazard: Sentence
    """What harm it prevents, in a sentence."""
    row: int = Field(default=0, ge=0, le=17)
    """Row of the catalogue in docs/guard.md; 0 for a rule of the clinic's own."""
    audiences: tuple[Audience, ...] = Field(min_length=1)
    scope: Literal["statement", "artefact"] = "statement"
    """Whether it looks at each statement, or once at the whole; a rule for the whole adds a mark or holds."""
    kinds: tuple[StatementKind, ...] = ()
    """Kinds of statements it looks at; none named means all. Who names ``remark`` names ``report`` as well: sentences
    of a written report came later, and no rule may miss them because its pack is older."""
    when: dict[str, Any]
    """A detector with its parameters, or ``all``, ``any``, ``not`` of such."""
    action: GuardAction
    message: Sentence
    own_words: Sentence | None = None
    """What stands beside a signer's own words where the rule only notes what it would else do (rows 3 to 7)."""
    template: Name | None = None
    """Text to put in place (action replace; else the audience's template named like the kind)."""
    substitute: Annotated[str, StringConstraints(max_length=40)] = ""
    """What stands where something was taken out (action redact)."""

    @model_validator(mode="after")
    def _action_fits_scope(self) -> RuleEntry:
        if self.scope == "artefact" and self.action not in {GuardAction.ANNOTATE, GuardAction.HOLD, GuardAction.BLOCK}:
            raise ValueError("a rule for the whole artefact can annotate, hold or block")
        if self.scope == "artefact" and self.kinds:
            raise ValueError("a rule for the whole artefact looks at no kind of statement")
        if self.template is not None and self.action is not GuardAction.REPLACE:
            raise ValueError("only action 'replace' uses a template")
        return self


class PolicyFile(Entry):
    """``policy.toml``."""

    name: PackName
    version: Annotated[str, StringConstraints(min_length=1, max_length=40)]
    summary: str = ""
    extends: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] | None = None
    """A pack in the same folder that this one changes: what this one does not have is taken from there."""
    without: tuple[RuleId, ...] = ()
    """Rules of that pack that do not count here."""
    without_intents: tuple[RuleId, ...] = ()
    """Intents of that pack's ``questions.toml`` that do not count here."""
    rule: tuple[RuleEntry, ...] = ()

    @model_validator(mode="after")
    def _says_something(self) -> PolicyFile:
        if not self.rule and self.extends is None:
            raise ValueError("there is no rule")
        if (self.without or self.without_intents) and self.extends is None:
            raise ValueError("only a pack that extends another can leave out its rules and intents")
        return self


@dataclass(frozen=True)
class Condition:
    """When a rule fires: one detector, or a combination of conditions."""

    operator: Literal["detector", "all", "any", "not"]
    detector: Detector | None = None
    parts: tuple[Condition, ...] = ()

    def judge(self, view: View) -> Flag | None:
        """Return the flag if the condition holds, with the spans of all parts that fired."""
        if self.operator == "detector":
            return self.detector.detect(view) if self.detector is not None else None
        flags: list[Flag] = []
        for part in self.parts:
            flag = part.judge(view)
            if flag is None and self.operator == "all":
                return None
            if flag is not None:
                flags.append(flag)
        if self.operator == "not":
            return None if flags else Flag(f"none of this was found: {self.sought}")
        if not flags:
            return None
        return Flag("; ".join(f.reason for f in flags), tuple(s for f in flags for s in f.spans))

    @cached_property
    def sought(self) -> str:
        """What the detectors of this condition look for, in words."""
        named = [self.detector.sought] if self.detector is not None else [part.sought for part in self.parts]
        return "; ".join(dict.fromkeys(named))

    def detectors(self) -> Iterator[Detector]:
        """Yield every detector of this condition."""
        if self.detector is not None:
            yield self.detector
        for part in self.parts:
            yield from part.detectors()


@dataclass(frozen=True)
class Rule:
    """A rule ready to judge."""

    entry: RuleEntry
    condition: Condition

    def speaks(self, view: View) -> bool:
        """Whether the rule looks at this view at all."""
        kinds = self.entry.kinds
        if (self.entry.scope == "artefact") != (view.statement is None) or view.audience not in self.entry.audiences:
            return False
        kind = None if view.statement is None else view.statement.kind
        return not kinds or kind in kinds or (kind == "report" and "remark" in kinds)

    def judge(self, view: View) -> Flag | None:
        """Return why the rule fires, or None."""
        return self.condition.judge(view) if self.speaks(view) else None


@dataclass(frozen=True)
class Intent:
    """A kind of question that no model is asked, ready to judge."""

    entry: IntentEntry
    condition: Condition

    def judge(self, view: View) -> Flag | None:
        """Return why the question is of this kind, or None."""
        return self.condition.judge(view) if view.audience in self.entry.audiences else None


@dataclass(frozen=True)
class Policy:
    """A pack. ``templates`` are by language, ``digest`` is the SHA-256 of the whole folder."""

    name: str
    version: str
    digest: str
    rules: tuple[Rule, ...] = field(repr=False)
    templates: Mapping[str, Templates] = field(repr=False)
    cases: tuple[Case, ...] = field(repr=False)
    intents: tuple[Intent, ...] = field(default=(), repr=False)
    question_cases: tuple[IntentCase, ...] = field(default=(), repr=False)
    case_places: tuple[tuple[str, int], ...] = field(default=(), repr=False)
    """For each of ``cases`` the file and its number there, from 1."""
    question_file: str = "questions.toml"
    """The file of ``question_cases``."""

    def language_of(self, language: str) -> str:
        """Return the language of the pack that stands for the asked one: ``en`` for ``en-GB``; empty if none does."""
        asked = language.lower()
        return next((name for name in (asked, asked.partition("-")[0]) if name in self.templates), "")

    @cached_property
    def _by_audience(self) -> dict[tuple[Audience, bool], tuple[Rule, ...]]:
        return {
            (audience, whole): tuple(
                r for r in self.rules if audience in r.entry.audiences and (r.entry.scope == "artefact") is whole
            )
            for audience in Audience
            for whole in (False, True)
        }

    def rules_for(self, view: View) -> tuple[Rule, ...]:
        """Return the rules that may speak of such a view, in the order of the pack."""
        return self._by_audience[view.audience, view.statement is None]

    def templates_for(self, language: str) -> Templates | None:
        """Return the templates of a language such as ``en`` or ``en-GB``, or None if the pack has none."""
        return self.templates.get(self.language_of(language))


def read_policy(directory: Path) -> Policy:
    """Read a pack without running its cases. Raise PolicyError, with every problem in one message."""
    return build_policy(directory.name, read_pack_files(directory))


def build_policy(label: str, files: Mapping[str, bytes]) -> Policy:
    """Build a pack from its files; ``label`` names it in messages. Raise PolicyError with every problem."""
    problems: list[str] = []
    digest = pack_digest(files)
    files = pack_texts(files)
    lexicons = read_lexicons(files, problems)
    written = files
    files = {**files, **laid_over(files)}
    templates = read_templates(files, problems)
    cases = parse_model(files, "cases.toml", CaseFile, problems)
    head = parse_model(files, "policy.toml", PolicyFile, problems)
    entries, inherited = _rules(head, files, problems) if head else ((), ())
    rules = [rule for entry in entries if (rule := _rule(entry, lexicons, problems))]
    problems += _missing(entries, templates)
    # A pack without questions.toml answers no question: the guard holds each.
    asked = parse_model(files, "questions.toml", QuestionFile, problems) if "questions.toml" in files else None
    if asked and head and head.without_intents:
        asked = _without(asked, head, own="questions.toml" in written, problems=problems)
    intents = [i for entry in asked.intent if (i := _intent(entry, lexicons, problems))] if asked else []
    problems += _missing_answers(asked.intent if asked else (), templates)
    if not problems:  # a list or a template may seem unused only because the rule that names it could not be read
        problems += _unused(written, rules, intents)
    refuse_if(label, problems)
    # Those of questions stand apart: they are large, and drafts are never looked up in them.
    judging = [detector for rule in rules for detector in rule.condition.detectors()]
    Shelf(dict.fromkeys(lexicon for detector in judging for lexicon in detector.lexicons()))
    if head is None or cases is None:
        raise AssertionError("a file that could not be parsed is a problem")
    return Policy(
        name=head.name,
        version=head.version,
        digest=digest,
        rules=tuple(rules),
        templates=templates,
        cases=(*cases.case, *(case for _, case in inherited)),
        case_places=(
            *(("cases.toml", number) for number, _ in enumerate(cases.case, start=1)),
            *((f"cases.toml of {head.extends}", number) for number, _ in inherited),
        ),
        question_file="questions.toml" if "questions.toml" in written else f"questions.toml of {head.extends}",
        intents=tuple(intents),
        question_cases=asked.case if asked else (),
    )


def _rules(
    head: PolicyFile, files: Mapping[str, bytes], problems: list[str]
) -> tuple[tuple[RuleEntry, ...], tuple[tuple[int, Case], ...]]:
    """Return the rules that count, and the numbered cases that come with those of the pack that is extended."""
    if head.extends is None:
        return head.rule, ()
    base = parse_model(files, BASE + "policy.toml", PolicyFile, problems)
    cases = parse_model(files, BASE + "cases.toml", CaseFile, problems)
    if base is None or cases is None:
        return head.rule, ()
    own = {entry.id: entry for entry in head.rule}
    known = {entry.id for entry in base.rule}
    problems += [f"without: {head.extends} has no rule {rule}" for rule in sorted(set(head.without) - known)]
    kept = [entry for entry in base.rule if entry.id not in head.without]
    entries = [own.get(entry.id, entry) for entry in kept] + [e for e in head.rule if e.id not in known]
    return tuple(entries), inherited_cases(cases.case, {entry.id for entry in kept} - set(own))


def _without(asked: QuestionFile, head: PolicyFile, *, own: bool, problems: list[str]) -> QuestionFile:
    """Return the questions of the extended pack without the intents that the pack leaves out, and their cases."""
    if own:
        problems.append("without_intents: this pack has a questions.toml of its own; take the intents out of it there")
        return asked
    left = set(head.without_intents)
    known = {entry.id for entry in asked.intent}
    problems += [f"without_intents: {head.extends} has no intent {intent}" for intent in sorted(left - known)]
    return asked.model_copy(
        update={
            "intent": tuple(entry for entry in asked.intent if entry.id not in left),
            "case": tuple(case for case in asked.case if case.intent not in left),
        }
    )


def _unused(files: Mapping[str, bytes], rules: Sequence[Rule], intents: Sequence[Intent]) -> list[str]:
    """Return what stands in the pack's own files and has no effect."""
    judged: list[Rule | Intent] = [*rules, *intents]
    lists = {name for each in judged for detector in each.condition.detectors() for name in detector.lexicon_names()}
    entries = [each.entry for each in judged]
    templates = {a: {e.template for e in entries if e.template and a in e.audiences} for a in Audience}
    marked = {rule.entry.id for rule in rules}
    return [*unused_lexicons(files, lists), *unused_templates(files, templates, marked)]


def _rule(entry: RuleEntry, lexicons: Mapping[str, Lexicon], problems: list[str]) -> Rule | None:
    try:
        return Rule(entry, _condition(entry.when, lexicons, MAX_DEPTH))
    except ValidationError as error:
        problems += [f"rule {entry.id}: {sentence(e)}" for e in error.errors(include_url=False, include_context=False)]
    except ValueError as error:
        problems.append(f"rule {entry.id}: {error}")
    return None


def _intent(entry: IntentEntry, lexicons: Mapping[str, Lexicon], problems: list[str]) -> Intent | None:
    try:
        return Intent(entry, _condition(entry.when, lexicons, MAX_DEPTH, {**CATALOGUE, **ASKED}))
    except ValidationError as error:
        problems += [
            f"intent {entry.id}: {sentence(e)}" for e in error.errors(include_url=False, include_context=False)
        ]
    except ValueError as error:
        problems.append(f"intent {entry.id}: {error}")
    return None


def _condition(
    raw: object, lexicons: Mapping[str, Lexicon], depth: int, catalogue: Mapping[str, type[Detector]] = CATALOGUE
) -> Condition:
    if not isinstance(raw, dict) or depth == 0:
        raise ValueError(f"a condition must be a table, nested at most {MAX_DEPTH} deep")
    if "detector" in raw:
        name = raw["detector"]
        if not isinstance(name, str):
            raise ValueError("the name of a detector is a text")
        known = plugin_detector(name) if "." in name else catalogue.get(name)
        if known is None:
            raise ValueError(f"there is no detector {name!r}; there are {', '.join(sorted(catalogue))}")
        detector = known.model_validate({k: v for k, v in raw.items() if k != "detector"})
        detector.bind(lexicons)
        return Condition("detector", detector)
    if len(raw) != 1:
        raise ValueError("a condition is one of: detector = …, all = […], any = […], not = {…}")
    ((operator, parts),) = raw.items()
    if operator == "not":
        return Condition("not", parts=(_condition(parts, lexicons, depth - 1, catalogue),))
    if operator in {"all", "any"} and isinstance(parts, list) and parts:
        combined = tuple(_condition(part, lexicons, depth - 1, catalogue) for part in parts)
        return Condition("all" if operator == "all" else "any", parts=combined)
    raise ValueError(f"{operator!r} is no condition; use detector, all, any or not")


def _missing(entries: Sequence[RuleEntry], templates: Mapping[str, Templates]) -> list[str]:
    """Return what rules name and no template file has, and ids given twice."""
    problems: list[str] = []
    ids = [entry.id for entry in entries]
    problems += [f"rule {rule}: the id is given twice" for rule in sorted({i for i in ids if ids.count(i) > 1})]
    for entry in entries:
        for language, file in templates.items():
            where = f"templates/{language}.toml"
            if entry.scope == "artefact" and entry.action is GuardAction.ANNOTATE and entry.id not in file.marks:
                problems.append(f"rule {entry.id}: {where} has no sentence for it under [marks]")
            for audience in entry.audiences:
                if entry.template is not None and entry.template not in file.of(audience):
                    problems.append(f"rule {entry.id}: {where} has no [{audience.value}] {entry.template}")
    return problems


def _missing_answers(entries: Sequence[IntentEntry], templates: Mapping[str, Templates]) -> list[str]:
    """Return answers to questions that a template file lacks, and intents given twice."""
    ids = [entry.id for entry in entries]
    twice = [f"intent {intent}: the id is given twice" for intent in sorted({i for i in ids if ids.count(i) > 1})]
    return twice + [
        f"intent {entry.id}: templates/{language}.toml has no [{audience.value}] {entry.template}"
        for entry in entries
        for language, file in templates.items()
        for audience in entry.audiences
        if entry.template not in file.of(audience)
    ]
