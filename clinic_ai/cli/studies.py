"""``clinic-ai study``, ``route`` and ``alert``: what arrived, where it is, and why it waits."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clinic_ai.cli.categories import print_categories, study_category
from clinic_ai.cli.exports import export_study
from clinic_ai.cli.files import print_files
from clinic_ai.cli.options import HomeOption, JsonOption, client_of, example, group, home_of
from clinic_ai.cli.questions import ask_study, list_questions

if TYPE_CHECKING:
    from clinic_ai.control.views import ArtefactRow, RouteView, StudyRow, StudyView, VersionView
    from clinic_ai.domain import InstanceHeader, StudyState
    from clinic_ai.home import Home
    from clinic_ai.settings import InboxSettings, Settings

study = group("study", "The studies: list them, see why one waits, try it again.")
route = group("route", "Where a study goes, and why.")

MAX_STACKS = 20
"""Lines on series at most: a study of more is a radial acquisition or a mistake, and `--json` has all."""

StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="Id of the study, as `study list` shows it.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="Rows at most.")]


@study.command("list", epilog=example("study list --state FAILED --state UNROUTED"))
def list_studies(
    state: Annotated[list[str] | None, typer.Option(metavar="STATE", help="Only this state; may be repeated.")] = None,
    limit: Limit = 50,
    before: Annotated[str | None, typer.Option(metavar="PLACE", help="Go on after the end of a list before.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the studies, newest first, and why each waits."""
    from clinic_ai.cli.output import age, print_json, say, table

    with client_of(home) as client:
        page = client.studies(states=_states(state or []), limit=limit, before=before)
    if as_json:
        print_json(page)
        return
    now = time.time()
    rows = ((s.study_id, _looks(s), s.state.value, age(now - s.opened_at), _waits(s)) for s in page.studies)
    table(("study", "what", "state", "age", "waits because"), rows, empty="No studies.")
    if page.next_before is not None:
        say(f"There are more than these {limit}; --before {page.next_before} shows the next.")


@study.command("show", epilog=example("study show S-20261121-7F3K9QXB"))
def show(study_id: StudyArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show one study: its versions, jobs, files, what the guard decided and where results went.

    Exit code 1 if its newest version failed, was not routed, or is held.
    """
    from clinic_ai.cli.output import Exit, print_json
    from clinic_ai.domain import StudyState

    with client_of(home) as client:
        found = client.study(study_id)
    if as_json:
        print_json(found)
    else:
        _print_study(found)
    newest = found.versions[0]
    stuck = newest.study.state in {StudyState.FAILED, StudyState.UNROUTED}
    if stuck or any(artefact.state in {"HELD", "BLOCKED"} for artefact in newest.artefacts):
        raise typer.Exit(Exit.FAILED)


@study.command("close", epilog=example("study close S-20261121-7F3K9QXB"))
def close(study_id: StudyArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Go on with what has arrived of a study; what comes later makes a new version. Done in your name."""
    from clinic_ai.cli.output import print_done

    with client_of(home) as client:
        print_done(client.close_study(study_id), as_json=as_json)


# Without the setting, -20 would be taken for an option.
@study.command(
    "priority",
    epilog=example("study priority S-20261121-7F3K9QXB 80"),
    context_settings={"ignore_unknown_options": True},
)
def priority(
    study_id: StudyArgument,
    number: Annotated[int, typer.Argument(metavar="N", min=-100, max=100, help="From -100 to 100; higher goes first.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a study, and its jobs that wait, go before or after others. Done in your name."""
    from clinic_ai.cli.output import print_done

    with client_of(home) as client:
        print_done(client.prioritise(study_id, number), as_json=as_json)


@study.command("retry", epilog=example("study retry S-20261121-7F3K9QXB"))
def retry(study_id: StudyArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Try a study again by the rules as they are now."""
    from clinic_ai.cli.output import print_done

    with client_of(home) as client:
        print_done(client.retry(study_id), as_json=as_json)


@study.command("reroute", epilog=example("study reroute S-20261121-7F3K9QXB"))
def reroute(study_id: StudyArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Route a study again even if it is in work."""
    from clinic_ai.cli.output import print_done

    with client_of(home) as client:
        print_done(client.reroute(study_id), as_json=as_json)


study.command("category", epilog=example("study category S-20261121-7F3K9QXB femur"))(study_category)
study.command("export", epilog=example("study export S-20261121-7F3K9QXB /media/stick/scan"))(export_study)
study.command("ask", epilog=example('study ask S-20261121-7F3K9QXB "Is the femur visible?" --image 2'))(ask_study)
study.command("questions", epilog=example("study questions S-20261121-7F3K9QXB"))(list_questions)


@route.command("explain", epilog=example("route explain inbox/scan.dcm"))
def explain(
    target: Annotated[
        str, typer.Argument(metavar="PATH|STUDY", help="A file, the folder of one study, or a study id.")
    ],
    source: Annotated[str, typer.Option(metavar="INBOX", help="For a path: the inbox it would come from.")] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say where a study goes, which rules matched and why the others did not.

    A path needs no daemon: its headers are read in a child process, and the file stays as it is.
    Exit code 1 if it goes nowhere.
    """
    from clinic_ai.cli.output import Exit, print_json, say, say_raw
    from clinic_ai.errors import NotFound

    path = Path(target).expanduser()
    if path.exists():
        view = explain_path(home_of(home), path, source)
    elif target.startswith("S-"):
        with client_of(home) as client:
            view = client.route(target)
    else:
        remedy = "Give a path that exists, or the id of a study such as S-20261121-7F3K9QXB."
        raise NotFound(f"There is no file or folder {target}.", remedy=remedy)
    if as_json:
        print_json(view)
    else:
        if path.exists() and not source:
            say(f"Asked as for files from the inbox “{view.facts.source}”; --source names another.")
        for line in view.lines:
            (say_raw if line.startswith(" ") else say)(line)
    if not view.plugins:
        raise typer.Exit(Exit.FAILED)


# ---------------------------------------------------------------- routing a path


def explain_path(home: Home, path: Path, source: str) -> RouteView:
    """Read the headers of one study's files as ingest would, and ask the rules of this home.

    Raise InputError if nothing in it can be read or it holds several studies.
    """
    from clinic_ai.control.explain import route_view
    from clinic_ai.plugins import find_plugins
    from clinic_ai.routing import facts_of
    from clinic_ai.routing import route as ask
    from clinic_ai.settings import load_settings

    settings = load_settings(home.clinic_toml)
    inbox = _inbox_of(settings, home, path.resolve(), source)
    headers = _headers(path, settings, inbox)
    facts = facts_of(headers, inbox.name)
    rules = settings.routing
    routing = ask(facts, rules.rule, find_plugins().manifests, mode=rules.mode, use_claims=rules.use_claims)
    return route_view(facts, routing)


def _inbox_of(settings: Settings, home: Home, path: Path, source: str) -> InboxSettings:
    """Return the inbox a path lies in, or is said to come from; else the first one."""
    from clinic_ai.errors import NotFound

    if source:
        for inbox in settings.inbox:
            if inbox.name == source:
                return inbox
        names = ", ".join(inbox.name for inbox in settings.inbox)
        raise NotFound(f"There is no inbox named {source}.", remedy=f"clinic.toml has: {names}.")
    inside = (inbox for inbox in settings.inbox if path.is_relative_to((home.path / inbox.path).resolve()))
    return next(inside, settings.inbox[0])


def _headers(path: Path, settings: Settings, inbox: InboxSettings) -> list[InstanceHeader]:
    from clinic_ai.errors import InputError
    from clinic_ai.ingest.assemble import with_folder_hints
    from clinic_ai.ingest.headers import HeaderReader
    from clinic_ai.processes import Crew

    whole = path.resolve()
    paths = sorted(p for p in whole.rglob("*") if p.is_file()) if whole.is_dir() else [whole]
    crew = Crew()
    try:
        parsed = HeaderReader(crew).read(paths, settings.ingest)
    finally:
        crew.close()
    found = [
        with_folder_hints(file.header, str(Path(file.path).parent), inbox.modality, inbox.body_part)
        for file in parsed
        if file.header is not None
    ]
    if not found:
        problem = next((file.problem for file in parsed if file.problem is not None), None)
        sentence = problem.sentence if problem else "There is no file in it."
        raise InputError("nothing_to_route", f"{path}: {sentence}", remedy=problem.remedy if problem else "")
    if len({header.study_instance_uid for header in found}) > 1:
        raise InputError(
            "several_studies", f"{path} holds files of several studies.", remedy="Name one file of the study you mean."
        )
    return found


# ---------------------------------------------------------------- printing


def _states(words: list[str]) -> tuple[StudyState, ...]:
    from clinic_ai.domain import StudyState

    known = {state.value: state for state in StudyState}
    wrong = [word for word in words if word.upper() not in known]
    if wrong:
        raise typer.BadParameter(f"{wrong[0]} is not a state; they are {', '.join(known)}.", param_hint="--state")
    return tuple(known[word.upper()] for word in words)


def _looks(row: StudyRow) -> str:
    parts = ("/".join(row.facts.modalities), "/".join(row.facts.body_parts))
    return " ".join(part for part in parts if part)[:18] or "–"


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _waits(row: StudyRow) -> str:
    return "" if row.wait is None else row.wait.sentence


def _print_study(found: StudyView) -> None:
    from clinic_ai.cli.output import say

    for version in found.versions:
        _print_version(version)
        for artefact in version.artefacts:
            _print_artefact(artefact, content=found.content)
        say()
    print_files(found.files)


def _print_version(version: VersionView) -> None:
    from clinic_ai.cli.output import fields, moment, styled

    row, facts = version.study, version.study.facts
    amount = f"{_number(facts.slices, 'image')} in {_number(version.instances, 'file')}"
    wait = (("waits because", row.wait.sentence), ("what to do", row.wait.remedy)) if row.wait else ()
    fields(
        (
            ("study", styled(f"{row.study_id} version {row.version}", "strong")),
            ("state", row.state.value),
            *wait,
            ("patient", row.pseudonym),
            ("what", ", ".join(filter(None, (_looks(row), amount, facts.study_description)))),
            ("source", row.source),
            ("priority", f"{row.priority}: {row.priority_reason}" if row.priority_reason else ""),
            ("arrived", moment(row.opened_at)),
            ("closed", f"{moment(row.closed_at)}: {row.closed_reason}" if row.closed_at else ""),
            ("originals", f"removed by retention on {moment(gone)}" if (gone := row.originals_removed_at) else ""),
        )
    )
    numbers = ("" if stack.series_number is None else f" {stack.series_number}" for stack in version.stacks)
    lines = [(f"series{number}", stack.line) for number, stack in zip(numbers, version.stacks, strict=True)]
    fields(lines[:MAX_STACKS])
    if len(lines) > MAX_STACKS:
        fields((("more series", f"{_number(len(lines) - MAX_STACKS, 'more line')}; `--json` shows all"),))
    fields(("remark", remark) for remark in version.remarks)
    print_categories(version.categories)
    for job in version.jobs:
        who = f"{job.kind.value} {job.plugin}".strip()
        rule = f", by {job.rule if job.rule.startswith('claim of ') else f'rule “{job.rule}”'}" if job.rule else ""
        used = "".join(f", {model.label()}" for model in job.models)
        fields(((f"job {job.job_id}", f"{who}: {job.state.value}, attempt {job.attempt}{rule}{used}. {job.error}"),))
        if job.wait is not None:
            fields((("  waits because", job.wait.sentence), ("  what to do", job.wait.remedy)))


def _print_artefact(artefact: ArtefactRow, *, content: bool) -> None:
    from clinic_ai.cli.output import fields, say
    from clinic_ai.domain import headed

    policy = f"{artefact.policy_name} ({artefact.policy_hash[:12]})"
    fields(((f"for {artefact.audience}", f"{artefact.state}; the guard said {artefact.action}, policy {policy}"),))
    spoke = dict.fromkeys((d.rule, d.action, d.reason) for d in artefact.decisions if d.action != "allow")
    fields((f"  {rule}", f"{action}: {reason}") for rule, action, reason in spoke)
    fields((f"  {d.target}", f"{d.state} {d.place} {d.error}".strip()) for d in artefact.deliveries)
    for mark in artefact.marks:
        say(f"  {mark}")
    for heading, released in headed(artefact.released or ()):
        if heading:
            say(f"  {heading}:")
        notes = f" ({'; '.join(released.annotations)})" if released.annotations else ""
        say(f"  {released.text}{notes}")
    if artefact.released is None and not content:
        say("  What it says is for clinicians.")
