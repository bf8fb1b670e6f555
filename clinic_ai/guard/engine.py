"""The judge: rules and their flags become decisions, and what may go out becomes ``Released``, here and nowhere else.

Total and without side effects. For each statement the strictest action of all rules that fired wins. One statement
that is held or blocked holds the whole artefact: a report with a silent gap would mislead.

Two things no pack can change: a patient and a technician only ever read templates, and text that the guard altered
is judged again and goes out only if nothing more has to be taken out of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from clinic_ai.domain import Audience, Decision, GuardAction, GuardVerdict, Released, Statement
from clinic_ai.guard.detectors import Flag, View
from clinic_ai.guard.policy import Policy, RuleEntry
from clinic_ai.guard.templates import Rendered
from clinic_ai.guard.text import Text
from clinic_ai.tasks import GuardTask

_WHOLE = ""
"""Statement id of decisions about the artefact as a whole."""
_MAX_SPANS = 100
_OF_THE_PERSON = frozenset({3, 4, 5, 6, 7})
"""Rows of the catalogue on which a clinician's own words stand against the model: evidence, certainty, history."""


@dataclass(frozen=True)
class _Fired:
    """A rule that fired, and why."""

    entry: RuleEntry
    flag: Flag


@dataclass(frozen=True)
class _Outcome:
    """What became of one statement; ``released`` is None if it is held or blocked."""

    decisions: tuple[Decision, ...]
    released: Released | None


def judge(policy: Policy, task: GuardTask) -> GuardVerdict:
    """Return what may go out of the task's statements, and every decision that was made. Never raises."""
    if task.policy_hash != policy.digest:
        reason = "The pack in force is not the one this work was pinned to."
        return _verdict(policy, task, [_decision(_WHOLE, "guard.policy_mismatch", GuardAction.HOLD, reason)], (), ())
    texts = tuple(Text(statement.text) for statement in task.statements)
    outcomes = [
        _judge_statement(policy, View(task.audience, task.subject, statement, text, texts))
        for statement, text in zip(task.statements, texts, strict=True)
    ]
    whole = View(task.audience, task.subject, None, Text(""), texts)
    fired = _yielding(whole, _fire(policy, whole))
    decisions = [d for outcome in outcomes for d in outcome.decisions]
    decisions += [_decision(_WHOLE, f.entry.id, f.entry.action, f.flag.reason) for f in fired]
    decisions += _ambiguous(task.statements)
    marks, missing = _marks(policy, task, fired)
    decisions += missing
    return _verdict(policy, task, decisions, tuple(o.released for o in outcomes if o.released), marks)


def fired_rules(policy: Policy, task: GuardTask) -> frozenset[str]:
    """Return the ids of all rules of the pack that fire anywhere in a task; what a pack's cases are judged by."""
    texts = tuple(Text(statement.text) for statement in task.statements)
    views = [View(task.audience, task.subject, s, t, texts) for s, t in zip(task.statements, texts, strict=True)]
    views.append(View(task.audience, task.subject, None, Text(""), texts))
    return frozenset(fired.entry.id for view in views for fired in _fire(policy, view))


# ---------------------------------------------------------------- one statement


def _judge_statement(policy: Policy, view: View) -> _Outcome:
    fired = _yielding(view, _fire(policy, view))
    statement_id = _id(view)
    decisions = [_decision(statement_id, f.entry.id, f.entry.action, f.flag.reason, f.flag.spans) for f in fired]
    if _strictest(decisions).severity >= GuardAction.HOLD.severity:
        return _Outcome(tuple(decisions), None)
    if view.audience is not Audience.CLINICIAN:
        name = "guard.allow_list" if view.audience is Audience.PATIENT else "guard.states_only"
        decisions.append(_decision(statement_id, name, GuardAction.REPLACE, "This audience reads templates only."))
    rendered = _rewrite(policy, view, fired)
    if rendered is None:
        reason = lacking(policy, view.subject.language) or "No template can stand in place of the statement."
        decisions.append(_decision(statement_id, "guard.no_template", GuardAction.HOLD, reason))
        return _Outcome(tuple(decisions), None)
    # A hedge only adds a sentence of the pack; whatever is taken out or put in place makes a new text.
    altered = any(d.action in {GuardAction.REDACT, GuardAction.REPLACE} for d in decisions)
    unsettled = _unsettled(policy, view, rendered.text, altered=altered)
    if unsettled:
        decisions.append(_decision(statement_id, "guard.unsettled", GuardAction.HOLD, unsettled))
        return _Outcome(tuple(decisions), None)
    return _Outcome(tuple(decisions), _release(policy, view, fired, rendered))


def _fire(policy: Policy, view: View) -> list[_Fired]:
    return [_Fired(rule.entry, flag) for rule in policy.rules_for(view) if (flag := rule.judge(view)) is not None]


def _yielding(view: View, fired: list[_Fired]) -> list[_Fired]:
    """Return the rules with those turned into notes that a named person's words stand above.

    What a clinician has signed is that person's: where it disagrees with the model, that is noted and the words stay.
    Blocks stay, and so does everything about the text as such: loops, personal data, hidden characters, length.
    """
    own = view.subject.own_words and view.subject.signed_by.strip()
    if view.audience is not Audience.CLINICIAN or not own:
        return fired
    return [
        replace(f, entry=f.entry.model_copy(update={"action": GuardAction.ANNOTATE, "message": _noted(f.entry)}))
        if f.entry.row in _OF_THE_PERSON and f.entry.action not in {GuardAction.ALLOW, GuardAction.BLOCK}
        else f
        for f in fired
    ]


def _noted(entry: RuleEntry) -> str:
    """Return what is true beside a person's words where a rule yields: its message may tell of a change nobody made."""
    if entry.own_words is not None:
        return entry.own_words
    if entry.action is GuardAction.ANNOTATE:
        return entry.message
    return f"The signer's own words stand here; from software the rule {entry.id} would not let them out unchanged."


def _rewrite(policy: Policy, view: View, fired: list[_Fired]) -> Rendered | None:
    """Return the text as it may go out: the template, or the statement with what is to be removed taken out."""
    replacing = [f for f in fired if f.entry.action is GuardAction.REPLACE]
    if replacing or view.audience is not Audience.CLINICIAN:
        return _template(policy, view, replacing)
    redacting = [f for f in fired if f.entry.action is GuardAction.REDACT]
    text = _cut(view.text.raw, redacting) if redacting else view.text.raw
    hedges = [f.entry.message for f in fired if f.entry.action is GuardAction.HEDGE]
    return Rendered(" ".join([text.rstrip(), *dict.fromkeys(hedges)]) if hedges else text)


def _template(policy: Policy, view: View, replacing: list[_Fired]) -> Rendered | None:
    templates = policy.templates_for(view.subject.language)
    statement = view.statement
    if templates is None or statement is None:
        return None
    named = [f.entry.template for f in replacing if f.entry.template is not None]
    name = named[0] if named else statement.kind
    language = policy.language_of(view.subject.language)
    return templates.fill(view.audience, name, statement.finding, language)


def _cut(raw: str, redacting: list[_Fired]) -> str:
    """Return the text without the flagged spans; spans that touch, but for blanks, leave one substitute."""
    spans = sorted((start, end, f.entry.substitute) for f in redacting for start, end in f.flag.spans)
    pieces: list[str] = []
    at = 0
    for start, end, substitute in spans:
        between = raw[at:start]
        if start >= at and not (substitute and pieces and pieces[-1] == substitute and not between.strip()):
            pieces += [between, substitute]
        at = max(at, end)
    return "".join([*pieces, raw[at:]])


def _unsettled(policy: Policy, view: View, text: str, *, altered: bool) -> str:
    """Return why a text may not go out after all, empty if it may; one that was altered is judged again."""
    if not text.strip():
        return "Nothing is left of the statement." if view.text.raw.strip() else "The statement is empty."
    if not altered:
        return ""
    # The evidence stays, the kind stays: only the words are new.
    again = _fire(policy, replace(view, text=Text(text)))
    still = [f"{f.entry.id} ({f.flag.reason})" for f in again if f.entry.action.severity >= GuardAction.REDACT.severity]
    if not still:
        return ""
    return f"The guard changed the text, but the new one is stopped by {', '.join(still)}; write it in other words."


def lacking(policy: Policy, language: str) -> str:
    """Return that the pack has no templates of a language, and which it has; nothing if it has them."""
    if policy.language_of(language):
        return ""
    return f"The pack has no templates/{language}.toml; its languages are {', '.join(sorted(policy.templates))}."


def speak(policy: Policy, view: View, name: str) -> Released | None:
    """Return a template of the pack by its name, or None if the language has none that may go out. Never raises."""
    templates = policy.templates_for(view.subject.language)
    language = policy.language_of(view.subject.language)
    rendered = templates.fill(view.audience, name, None, language) if templates else None
    if rendered is None or _unsettled(policy, view, rendered.text, altered=True):
        return None
    return _release(policy, view, [], rendered)


def _release(policy: Policy, view: View, fired: list[_Fired], rendered: Rendered) -> Released:
    replaced = any(f.entry.action is GuardAction.REPLACE for f in fired)
    notes: list[str] = []
    if view.audience is Audience.CLINICIAN:
        # A note about words that are gone would puzzle the reader; what was done to them is said.
        notes = [
            f.entry.message
            for f in fired
            if f.entry.action in {GuardAction.REPLACE, GuardAction.REDACT}
            or (f.entry.action is GuardAction.ANNOTATE and not replaced)
        ]
    return Released(
        statement_id=_id(view),
        audience=view.audience,
        kind="notice" if view.statement is None else view.statement.kind,
        section=view.statement.section if view.statement and view.audience is Audience.CLINICIAN else None,
        text=rendered.text,
        annotations=tuple(dict.fromkeys(notes)),
        sources=rendered.sources,
        policy_hash=policy.digest,
    )


# ---------------------------------------------------------------- the artefact as a whole


def _ambiguous(statements: Iterable[Statement]) -> list[Decision]:
    counts = Counter(statement.statement_id for statement in statements)
    reason = "Two statements have the same id."
    return [_decision(key, "guard.ambiguous_id", GuardAction.HOLD, reason) for key, n in counts.items() if n > 1]


def _marks(policy: Policy, task: GuardTask, fired: list[_Fired]) -> tuple[tuple[str, ...], list[Decision]]:
    """Return the marks of the rules that fired for the whole, and a hold if the language lacks one of them."""
    wanted = [f.entry.id for f in fired if f.entry.action is GuardAction.ANNOTATE]
    templates = policy.templates_for(task.subject.language)
    marks = [templates.marks.get(rule, "") if templates else "" for rule in wanted]
    if all(marks):
        return tuple(dict.fromkeys(marks)), []
    reason = lacking(policy, task.subject.language) or "The pack lacks a mark that must stand on the result."
    return (), [_decision(_WHOLE, "guard.no_template", GuardAction.HOLD, reason)]


def _verdict(
    policy: Policy, task: GuardTask, decisions: list[Decision], released: tuple[Released, ...], marks: tuple[str, ...]
) -> GuardVerdict:
    action = _strictest(decisions)
    return GuardVerdict(
        audience=task.audience,
        action=action,
        decisions=tuple(decisions),
        released=released if action.severity < GuardAction.HOLD.severity else (),
        marks=marks,
        policy_hash=policy.digest,
        policy_name=policy.name,
    )


def _strictest(decisions: Iterable[Decision]) -> GuardAction:
    return max((d.action for d in decisions), key=lambda action: action.severity, default=GuardAction.ALLOW)


def _decision(
    statement_id: str, rule: str, action: GuardAction, reason: str, spans: tuple[tuple[int, int], ...] = ()
) -> Decision:
    return Decision(statement_id=statement_id, rule=rule, action=action, reason=reason, spans=spans[:_MAX_SPANS])


def _id(view: View) -> str:
    return view.statement.statement_id if view.statement is not None else _WHOLE
