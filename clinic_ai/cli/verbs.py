"""The verbs without a group, and the whole command put together. Everything heavy is imported when it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clinic_ai.cli import (
    alerts,
    audit,
    datasets,
    disk,
    files,
    forecasting,
    guard,
    imports,
    inboxes,
    models,
    nights,
    policy,
    review,
    studies,
    training,
)
from clinic_ai.cli.options import HomeOption, JsonOption, MonitorOption, client_of, example, home_of

if TYPE_CHECKING:
    from clinic_ai.control.views import StatusView

app = typer.Typer(
    name="clinic-ai",
    help="Turns scans dropped in a folder into guarded, attributable results, offline.",
    epilog="First steps: clinic-ai demo; then clinic-ai init --home DIR, clinic-ai run --home DIR. "
    "Exit codes: 0 done, 1 failed or held, 2 wrong use, 3 no daemon, 4 not allowed, 5 not found, "
    "6 not possible now, 7 settings or home unusable.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for part in (
    studies.study,
    files.files,
    inboxes.inbox,
    studies.route,
    alerts.alert,
    audit.audit,
    models.plugin,
    models.model,
    nights.train,
    datasets.dataset,
    policy.policy,
    guard.guard,
    review.review,
    disk.disk,
):
    app.add_typer(part)


def _version(asked: bool) -> None:
    if asked:
        from clinic_ai import __version__

        typer.echo(f"clinic-ai {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Turn scans dropped in a folder into guarded, attributable results, offline."""


@app.command(epilog=example("init --home /srv/clinic-ai"))
def init(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Make a home directory, or complete one; nothing that is there is changed."""
    from clinic_ai.cli.offline import make_database
    from clinic_ai.cli.output import print_json, say
    from clinic_ai.heads.keys import make_key
    from clinic_ai.home import init_home

    made = init_home(home_of(home).path)
    make_key(made)
    make_database(made)
    if as_json:
        print_json({"home": str(made.path), "settings": str(made.clinic_toml), "inbox": str(made.inbox)})
        return
    say(f"The home is {made.path}.")
    say(f"Settings, each with its comment: {made.clinic_toml}")
    say(f"Check it with `clinic-ai doctor --home {made.path}`, start it with `clinic-ai run --home {made.path}`.")


@app.command(epilog=example("run --home /srv/clinic-ai"))
def run(home: HomeOption = None) -> None:
    """Run the daemon in the foreground. SIGTERM stops it in order, SIGHUP reloads clinic.toml."""
    from clinic_ai.daemon import run as run_daemon

    raise typer.Exit(run_daemon(home_of(home)))


@app.command(epilog=example("process chest.dcm scans/ --json"))
def process(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files and folders; they are only read.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where results go; else clinic-ai-results.")
    ] = None,
    modality: Annotated[str, typer.Option(help="DICOM modality of PNG and JPEG files, such as DX.")] = "",
    body_part: Annotated[str, typer.Option(help="Body part of PNG and JPEG files, such as CHEST.")] = "",
    category: Annotated[
        str, typer.Option(help="Category of all files, such as femur, as a first [[category]] rule would say it.")
    ] = "",
    settings: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A clinic.toml to take rules, guard and results from.")
    ] = None,
    model: Annotated[list[Path] | None, typer.Option(metavar="DIR", help="A model to use; may be repeated.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run files through the whole path without a daemon and print the results.

    Exit code 1 if one of the files gave no result.
    """
    from clinic_ai.process import process as process_files

    status = process_files(
        paths,
        output=output,
        modality=modality,
        body_part=body_part,
        settings=settings,
        models=model or [],
        category=category,
        as_json=as_json,
    )
    raise typer.Exit(status)


training.train.command(
    "forecast", epilog=example("train forecast R-20261121-7F3K9QXB --target 0.4 --output forecast.png")
)(forecasting.forecast)
app.command("import", epilog=example("import /media/cd --source cd"))(imports.import_medium)


@app.command(epilog=example("demo --input scans/"))
def demo(
    source: Annotated[
        Path | None, typer.Option("--input", metavar="DIR", help="Your own scans; else those that ship with it.")
    ] = None,
    home: Annotated[
        Path | None, typer.Option("--home", metavar="DIR", help="Keep the home here; else a new temporary one.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the whole appliance at work on example scans, with a daemon and a home of its own."""
    from clinic_ai.demo import demo as show

    raise typer.Exit(show(source, home, as_json=as_json))


@app.command(epilog=example("status --monitor --watch"))
def status(
    home: HomeOption = None,
    monitor: MonitorOption = False,
    as_json: JsonOption = False,
    follow: Annotated[
        bool, typer.Option("--watch", help="Print a few lines again whenever something changed, until ctrl-C.")
    ] = False,
) -> None:
    """Show everything at a glance. Exit code 1 if there are alerts, an inbox is gone or no policy is in force."""
    from clinic_ai.cli.output import Exit, print_json

    if follow:
        from clinic_ai.cli.watching import watch

        watch(home_of(home), monitor=monitor, as_json=as_json)
        return
    with client_of(home, monitor=monitor) as client:
        view = client.status()
    if as_json:
        print_json(view)
    else:
        _print_status(view)
    if view.alerts or view.policy.pack is None or not all(inbox.online for inbox in view.inboxes):
        raise typer.Exit(Exit.FAILED)


@app.command(epilog=example("reload"))
def reload(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Let the daemon read clinic.toml and the policy pack again, as SIGHUP does."""
    from clinic_ai.cli.output import print_done

    with client_of(home) as client:
        print_done(client.reload(), as_json=as_json)


@app.command(epilog=example("doctor --home /srv/clinic-ai"))
def doctor(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Check this machine, the home, its settings, plugins, policy and models; say what to do about each fault.

    Changes nothing. Exit code 1 if something fails; warnings alone give 0.
    """
    from clinic_ai.cli.doctor import examine
    from clinic_ai.cli.output import Exit, print_json, table

    found = examine(home_of(home))
    if as_json:
        print_json([check.__dict__ for check in found])
    else:
        styles = {"ok": "good", "warn": "wait", "fail": "bad"}
        rows = ((c.verdict, c.name, f"{c.sentence} {c.remedy}".strip()) for c in found)
        table(("", "check", "finding"), rows, empty="", style=lambda row: styles[row[0]])
    if any(check.verdict == "fail" for check in found):
        raise typer.Exit(Exit.FAILED)


@app.command(epilog=example("tui --monitor"))
def tui(
    home: HomeOption = None,
    monitor: MonitorOption = False,
    keys: Annotated[bool, typer.Option("--keys", help="Print every key with its id, for terminal.toml.")] = False,
    screenshot: Annotated[
        Path | None,
        typer.Option("--screenshot", metavar="DIR", help="Write every screen as SVG and PNG into a folder."),
    ] = None,
    size: Annotated[
        str, typer.Option("--size", metavar="COLUMNSxROWS", help="How large the screens are for --screenshot.")
    ] = "140x40",
) -> None:
    """Open the terminal screens: what waits and why, the night, the machine. Closing them harms nothing.

    Colours and keys are a person's own: ~/.config/clinic-ai/terminal.toml.
    """
    from clinic_ai.cli import screens

    if keys:
        screens.print_keys()
    elif screenshot is not None:
        screens.take_pictures(home_of(home), screenshot, size, monitor=monitor)
    else:
        screens.show(home_of(home), monitor=monitor)


def _print_status(view: StatusView) -> None:
    from clinic_ai.cli.following import words_of
    from clinic_ai.cli.output import age, fields, moment, say, size, styled

    pack = view.policy.pack
    memory = sum(child.resident_bytes for child in view.children)
    fields(
        (
            ("clinic-ai", f"{view.version}, up for {age(view.uptime_s)} since {moment(view.started_at)}"),
            ("clinic", view.clinic),
            ("home", f"{view.home}, {size(view.disk_free_bytes)} free"),
            ("you", f"{view.person}, {view.role.value}"),
            ("studies", _counts(view.studies)),
            ("jobs", _counts(view.jobs)),
            ("files", _counts(view.files)),
            ("results", _counts(view.artefacts)),
            ("policy", f"{pack.name} {pack.version} ({pack.digest[:12]})" if pack else view.policy.problem),
            ("memory", f"daemon {size(view.daemon_resident_bytes)}, {len(view.children)} children {size(memory)}"),
        )
    )
    fields(
        (f"inbox {i.name}", f"{i.path}{' is offline' * (not i.online)}{_why(i.sentence, i.remedy)}")
        for i in view.inboxes
    )
    if view.network is not None and view.network.enabled:
        fields((("network", view.network.line),))
    fields((f"quiet period {p.source}", p.line) for p in view.paces if p.studies)
    fields((f"model {m.plugin}", f"{m.name} {m.version} ({m.digest[:12]}), slot {m.slot}") for m in view.models)
    for run in view.runs:
        fields(((f"training {run.plugin}", f"{run.run_id} is {run.state}. {run.error or words_of(run.progress)}"),))
    for engine in view.engines:
        state = "busy" if engine.busy else f"idle for {age(engine.idle_s)}"
        fields(((f"engine {engine.plugin}", f"pid {engine.pid}, {size(engine.resident_bytes)}, {state}"),))
    if waiting := view.files.get("QUARANTINED", 0):
        count = "1 file waits" if waiting == 1 else f"{waiting} files wait"
        say(f"{count} in quarantine for a decision: `clinic-ai file list --quarantined`")
    for problem in view.plugin_problems:
        say(styled(problem, "bad"))
    for alert in view.alerts:
        say(styled(f"Alert {alert.alert_id}: {alert.sentence} {alert.remedy}", "bad"))
    if view.more_alerts:
        say(styled(f"{view.more_alerts} more alerts: `clinic-ai alert list`", "bad"))


def _why(sentence: str, remedy: str) -> str:
    return f". {sentence} {remedy}".rstrip() if sentence else ""


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {state}" for state, number in counts.items() if number) or "none"
