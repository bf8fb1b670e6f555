"""``clinic-ai plugin`` and ``model``: what can analyse, and with which model. Work with and without a daemon."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clinic_ai.cli.categories import plugin_categories
from clinic_ai.cli.model_fit import model_fit
from clinic_ai.cli.model_stats import model_stats
from clinic_ai.cli.options import HomeOption, JsonOption, example, group, home_of
from clinic_ai.cli.promotions import (
    Name,
    Plugin,
    Version,
    approve_model,
    check_model,
    model_record,
    promote_model,
    run_canary,
)

if TYPE_CHECKING:
    from clinic_ai.control.bench_views import BenchView
    from clinic_ai.control.views import PluginsView
    from clinic_ai.home import Home

plugin = group("plugin", "The plugins: what is installed and what it takes.")
model = group("model", "The models: import, verify, make active, take back.")


@plugin.command("list", epilog=example("plugin list"))
def list_plugins(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the plugins. Exit code 1 if one is installed that cannot be used."""
    from clinic_ai.cli.output import Exit, print_json, say, table

    found = _plugins(home_of(home))
    if as_json:
        print_json(found)
    else:
        rows = ((p.name, p.version, f"{p.memory_mb} MiB", p.summary) for p in found.plugins)
        table(("plugin", "version", "memory", "what it does"), rows, empty="No plugins are installed.")
        for problem in found.problems:
            say(problem)
    if found.problems:
        raise typer.Exit(Exit.FAILED)


@plugin.command("conditions", epilog=example("plugin conditions"))
def list_conditions(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List what each plugin can judge, on which images, and with which model; a condition without one is named."""
    from clinic_ai.cli.offline import model_desk
    from clinic_ai.cli.output import print_json, say, table
    from clinic_ai.control.condition_views import ConditionRow
    from clinic_ai.domain import ModelState

    where = home_of(home)
    found = _plugins(where)
    with model_desk(where) as desk:
        active = [m for m in desk.models() if m.state == ModelState.ACTIVE]
    rows = [
        ConditionRow(
            plugin=each.name,
            condition=condition.code,
            body_parts=condition.body_parts,
            views=condition.views,
            critical=condition.critical,
            models=tuple(
                f"{m.name} {m.version}{f' ({m.tier})' if m.tier else ''}"
                for m in active
                if m.plugin == each.name and condition.code in m.conditions
            ),
        )
        for each in found.plugins
        for condition in each.conditions
    ]
    if as_json:
        print_json(rows)
        return
    table(
        ("plugin", "condition", "body parts", "views", "critical", "model"),
        (
            (r.plugin, r.condition, _some(r.body_parts), _some(r.views), str(r.critical or "-"), _models(r.models))
            for r in rows
        ),
        empty="No plugin judges conditions.",
    )
    for problem in found.problems:
        say(problem)


plugin.command("categories", epilog=example("plugin categories"))(plugin_categories)


@model.command("list", epilog=example("model list"))
def list_models(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List all models; ACTIVE ones are in use."""
    from clinic_ai.cli.offline import model_desk
    from clinic_ai.cli.output import print_json, table

    with model_desk(home_of(home)) as desk:
        found = desk.models()
    if as_json:
        print_json(found)
        return
    rows = (
        (m.plugin, m.slot, m.name, m.version, m.state, m.digest[:12], "yes" if m.clinical_use else "no") for m in found
    )
    empty = "No models yet; the daemon brings in the reference models of the plugins at its first start."
    table(("plugin", "slot", "name", "version", "state", "digest", "clinical"), rows, empty=empty)


@model.command("import", epilog=example("model import /media/usb/chest-model"))
def import_model(
    directory: Annotated[Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, help="Has a model.toml.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a model directory and copy it into the registry; nothing is active by that."""
    from clinic_ai.cli.offline import absolute, model_desk
    from clinic_ai.cli.output import print_done

    with model_desk(home_of(home)) as desk:
        print_done(desk.import_model(absolute(directory)), as_json=as_json)


@model.command("verify", epilog=example("model verify xray chest-fast 1.0"))
def verify(plugin: Plugin, name: Name, version: Version, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Check every file of a model against its manifest. Exit code 1 if one does not fit."""
    from clinic_ai.cli.offline import model_desk
    from clinic_ai.cli.output import Exit, print_json, say

    with model_desk(home_of(home)) as desk:
        found = desk.verify_model(plugin, name, version)
    if as_json:
        print_json(found)
    else:
        for problem in found.problems or (f"Every file of {plugin}/{name}/{version} is as its manifest says.",):
            say(problem)
    if found.problems:
        raise typer.Exit(Exit.FAILED)


@model.command("bench", epilog=example("model bench xray chest-fast 1.0 /srv/labelled-chest"))
def bench(
    plugin: Plugin,
    name: Name,
    version: Version,
    dataset: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", exists=True, file_okay=False, help="Labelled images.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on this machine; with labelled images, beside an int8 version of it.

    The int8 version is calibrated on the training part of the images and measured on the test part. If it is faster
    here and as good, it becomes a candidate: nothing is in use before `clinic-ai model promote`.
    """
    from clinic_ai.cli.offline import absolute, benching
    from clinic_ai.cli.output import print_json, say
    from clinic_ai.control.bench_views import BenchOrder

    where = None if dataset is None else absolute(dataset)
    order = BenchOrder(plugin=plugin, name=name, version=version, dataset=where)
    with benching(home_of(home)) as desk:
        if where and not as_json:
            say("Calibrating and measuring; this takes minutes.")
        found = desk.bench_model(order)
    if as_json:
        print_json(found)
    else:
        _tell_bench(found)


model.command("stats", epilog=example("model stats ultrasound --set rank=16 --gpu-memory 8000"))(model_stats)
model.command("fit", epilog=example("model fit ct --gpu-memory 24000"))(model_fit)
model.command("check", epilog=example("model check xray chest-fast R-20261121-7F3K9QXB"))(check_model)
model.command("approve", epilog=example("model approve xray chest-fast R-20261121-7F3K9QXB"))(approve_model)
model.command("promote", epilog=example("model promote xray chest-fast 1.0"))(promote_model)
model.command("canary", epilog=example("model canary xray chest-fast R-20261121-7F3K9QXB"))(run_canary)
model.command("record", epilog=example("model record xray chest-fast 1.0 --output record.md"))(model_record)


@model.command("rollback", epilog=example("model rollback xray"))
def rollback(
    plugin: Plugin,
    slot: Annotated[str, typer.Option(help="Slot of the plugin.")] = "main",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take back the newest promotion of a slot."""
    from clinic_ai.cli.offline import model_desk
    from clinic_ai.cli.output import print_done

    with model_desk(home_of(home)) as desk:
        print_done(desk.rollback_model(plugin, slot), as_json=as_json)


def _tell_bench(found: BenchView) -> None:
    from clinic_ai.cli.output import say, size, table

    result = found.result
    both = [("as it is", result.original), *([("int8", result.int8)] if result.int8 else [])]
    columns = [
        (
            kind,
            f"{measured.milliseconds:.1f} ms",
            size(measured.size_bytes),
            *(
                [f"{measured.scores.values['auroc']:.3f} ({_range(measured.scores.intervals['auroc'])})"]
                if measured.scores
                else []
            ),
        )
        for kind, measured in both
    ]
    headers = ("", "an image, one thread", "size", "AUROC (95 % interval)")[: len(columns[0])]
    table(headers, columns, empty="")
    for note in (*found.dataset_notes, *result.notes):
        say(note)
    if result.int8 and result.int8.scores and result.difference is not None and result.difference_interval:
        say(
            f"Difference of the AUROC {result.difference:+.3f} ({_range(result.difference_interval, '+')}) on "
            f"{result.int8.scores.examples} images of the {result.int8.scores.split} part, by patient. Both say the "
            f"same of {100 * (result.agreement or 0.0):.0f} % of them."
        )
    if result.reason:
        say(result.reason)
    if found.candidate:
        words = f"{found.candidate.plugin} {found.candidate.name} {found.candidate.version}"
        say(f"Candidate {words}; `clinic-ai model record {words}` shows how it compares with the model in use.")


def _range(interval: tuple[float, float], sign: str = "") -> str:
    low, high = interval
    return f"{low:{sign}.3f} to {high:{sign}.3f}"


def _some(patterns: tuple[str, ...]) -> str:
    return ", ".join(patterns) or "any"


def _models(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none: train or import one"


def _plugins(home: Home) -> PluginsView:
    from clinic_ai.cli.offline import plugins_of
    from clinic_ai.control.client import Client, NoDaemon
    from clinic_ai.control.views import PluginsView

    try:
        with Client(home) as client:
            return client.plugins()
    except NoDaemon:
        found = plugins_of(home)
        manifests = (found.manifests[name] for name in sorted(found.manifests))
        return PluginsView(plugins=tuple(manifests), problems=tuple(p.sentence for p in found.problems))
