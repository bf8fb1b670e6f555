"""``clinic-ai alert``: what a person should look at, and the critical findings that somebody has to react to."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from clinic_ai.cli.options import HomeOption, JsonOption, client_of, example, group, order_of

alert = group("alert", "What a person should look at.")


@alert.command("list", epilog=example("alert list --critical"))
def list_alerts(
    critical: Annotated[
        bool, typer.Option("--critical", help="Critical findings, with what was found; for clinicians.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what nobody acknowledged yet. Exit code 1 if there is something."""
    from clinic_ai.cli.output import Exit, age, print_json, table

    now = time.time()
    with client_of(home) as client:
        urgent = client.critical() if critical else []
        others = () if critical else client.alerts()
    if as_json:
        print_json(urgent or others)
    elif critical:
        lines = (
            (str(a.alert_id), a.study_id, a.act_within, age(now - a.raised_at), f"{a.notices}×", a.what) for a in urgent
        )
        table(("id", "study", "act within", "age", "notices", "what"), lines, empty="No open critical findings.")
    else:
        rows = ((str(a.alert_id), age(now - a.last_at), f"{a.count}×", f"{a.sentence} {a.remedy}") for a in others)
        table(("id", "age", "times", "what, and what to do"), rows, empty="No open alerts.")
    if urgent or others:
        raise typer.Exit(Exit.FAILED)


@alert.command("ack", epilog=example("alert ack 12 --told 'Dr. Weber, 14:05'"))
def acknowledge(
    alert_id: Annotated[int, typer.Argument(metavar="ID", help="Number of the alert.")],
    told: Annotated[str, typer.Option("--told", metavar="WHO", help="To whom a critical finding was told.")] = "",
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Who you are, of [review] reviewers in clinic.toml.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Acknowledge an alert in your name; one about a critical finding repeats until a clinician does."""
    from clinic_ai.cli.output import print_done
    from clinic_ai.control.alert_views import AckOrder

    order = order_of(AckOrder, told_to=told, reviewer=name)
    with client_of(home) as client:
        print_done(client.acknowledge(alert_id, order.told_to, order.reviewer), as_json=as_json)
