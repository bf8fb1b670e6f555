"""``clinic-ai doctor``: looks at everything the appliance stands on and says what to do about each fault."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path

import psutil

from clinic_ai import __version__
from clinic_ai.cli.check import Check
from clinic_ai.cli.doctor_training import training
from clinic_ai.cli.offline import daemon_answers, model_desk, plugins_of
from clinic_ai.cli.policy import check_pack
from clinic_ai.control.people import group_id, user_exists
from clinic_ai.critical.matching import unknown_conditions
from clinic_ai.errors import ChildError, ClinicError, SettingsError
from clinic_ai.hardware import Machine
from clinic_ai.home import Home, check_home
from clinic_ai.plugins import PluginCatalogue
from clinic_ai.results.codes import table
from clinic_ai.settings import Settings, load_settings

ROOMY_BYTES = 5 << 30
MIN_WATCHES = 8192
PRIVILEGED = 1024
_PROBE_TIMEOUT_S = 60


def examine(home: Home) -> list[Check]:
    """Look at everything; a fault in one thing hides none of the others."""
    found = [*_machine(), *_home(home)]
    catalogue = plugins_of(home)
    found += _plugins(catalogue)
    try:
        settings = load_settings(home.clinic_toml)
    except SettingsError as error:
        return [*found, *(Check("settings", "fail", line) for line in error.problems or (error.message,))]
    found.append(Check("settings", "ok", "clinic.toml is understood."))
    for look in (_people, _rules, _categories, _inboxes, _receiver, _critical, _memory):
        found += look(home, settings, catalogue)
    found += training(settings, Machine(home.path))
    found += _told("policy", lambda: _policy(home, settings))
    found += _examples(home)
    found += _told("models", lambda: _models(home, catalogue))
    return found


def _told(name: str, look: Callable[[], Iterator[Check]]) -> list[Check]:
    """Run checks that may raise what is wrong."""
    try:
        return list(look())
    except ClinicError as error:
        return [Check(name, "fail", error.message, error.remedy)]


# ---------------------------------------------------------------- machine


def _machine() -> Iterator[Check]:
    yield Check("python", "ok", f"Python {sys.version.split()[0]}, clinic-ai {__version__}.")
    yield _network()
    yield _filter()
    yield _libraries()
    yield _watching()
    yield _clock()


def _network() -> Check:
    code = "import sys; from clinic_ai.confinement import leave_network; sys.exit(0 if leave_network() else 3)"
    if _probe(code).returncode == 0:
        return Check("isolation", "ok", "Children can be cut off from the network.")
    return Check(
        "isolation",
        "warn",
        "This kernel does not let children cut themselves off from the network.",
        "Under systemd, the unit's IPAddressDeny=any does the same; elsewhere allow user namespaces.",
    )


def _filter() -> Check:
    code = "import sys; from clinic_ai.confinement import refuse_sockets as f; sys.exit(0 if f(network=False) else 3)"
    if _probe(code).returncode == 0:
        return Check("sockets", "ok", "Children can be kept from the daemon's sockets.")
    return Check(
        "sockets",
        "warn",
        "This machine has no filter that keeps children from the daemon's sockets; the daemon alone refuses them.",
        "Use x86-64 or ARM64 with a kernel that has seccomp filters; a container must not forbid them.",
    )


def _libraries() -> Check:
    code = "import highdicom, numpy, PIL, pydicom, pynetdicom, re2, typst; print(typst.__name__)"
    done = _probe(code)
    if done.returncode == 0:
        return Check("libraries", "ok", "DICOM, report and guard libraries load in a child.")
    reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no reason given"]
    return Check("libraries", "fail", f"A library does not load: {reason[0]}", "Install clinic-ai again, as docs say.")


def _watching() -> Check:
    limit = Path("/proc/sys/fs/inotify/max_user_watches")
    try:
        watches = int(limit.read_text())
    except (OSError, ValueError):
        return Check("inotify", "warn", "There is no inotify here; new files are found by looking again and again.")
    if watches >= MIN_WATCHES:
        return Check("inotify", "ok", f"{watches} folders can be watched.")
    return Check(
        "inotify",
        "warn",
        f"Only {watches} folders can be watched; others are found by looking again and again.",
        f"Set fs.inotify.max_user_watches to {MIN_WATCHES} or more with sysctl.",
    )


def _clock() -> Check:
    newest = Path(__file__).stat().st_mtime
    if time.time() < newest:
        return Check("clock", "fail", "The clock stands before this program was installed.", "Set the clock.")
    if Path("/run/systemd/timesync/synchronized").exists():
        return Check("clock", "ok", "The clock is synchronised.")
    return Check(
        "clock", "ok", f"The clock says {time.strftime('%Y-%m-%d %H:%M')}; whether it is synchronised is not known."
    )


def _probe(code: str) -> subprocess.CompletedProcess[bytes]:
    """Run a few lines in a process of their own."""
    try:
        return subprocess.run(
            [sys.executable, "-P", "-c", code], capture_output=True, timeout=_PROBE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess([], 1, b"", b"it took too long")


# ---------------------------------------------------------------- home


def _home(home: Home) -> Iterator[Check]:
    try:
        check_home(home)
    except ClinicError as error:
        yield Check("home", "fail", error.message, error.remedy)
        return
    free = shutil.disk_usage(home.path).free
    few = free < ROOMY_BYTES
    yield Check(
        "home",
        "warn" if few else "ok",
        f"{home.path} is complete; {free >> 20} MiB are free.",
        "Make room: studies are kept, so the disk fills." if few else "",
    )
    open_to_all = [p.name for p in (home.state, home.datasets, home.backups) if stat.S_IMODE(p.stat().st_mode) & 0o077]
    if open_to_all:
        names = ", ".join(open_to_all)
        yield Check("privacy", "fail", f"Others may read {names} of the home.", "chmod 700 these folders.")
    else:
        yield Check("privacy", "ok", "Only the owner may read what is stored.")
    running = daemon_answers(home)
    yield Check("daemon", "ok", f"{'A' if running else 'No'} daemon answers at {home.control_socket}.")


# ---------------------------------------------------------------- settings


def _people(home: Home, settings: Settings, __: PluginCatalogue) -> Iterator[Check]:
    control = settings.control
    named = {*control.technicians, *control.clinicians, *control.administrators}
    missing = sorted(name for name in named if not user_exists(name))
    if control.group and group_id(control.group) is None:
        yield Check(
            "people", "fail", f"There is no group {control.group} for the sockets.", f"Run groupadd {control.group}."
        )
    yield from _passable(home, control.group)
    if missing:
        yield Check(
            "people", "warn", f"clinic.toml names users that do not exist: {', '.join(missing)}.", "Correct [control]."
        )
    elif not named:
        yield Check("people", "ok", "Only root and the daemon's user have a role; [control] gives others one.")
    else:
        yield Check("people", "ok", f"{len(named)} users have a role.")


def _passable(home: Home, group: str) -> Iterator[Check]:
    """Say which folders on the way to the sockets keep the group out that may open them."""
    gid = group_id(group) if group else None
    if gid is None:
        return
    for folder in (home.path, home.control_socket.parent):
        status = folder.stat()
        mode = stat.S_IMODE(status.st_mode)
        if not (mode & 0o001 or (status.st_gid == gid and mode & 0o010)):
            yield Check(
                "people",
                "fail",
                f"The group {group} may open the sockets, but not pass through {folder} to them.",
                f"chgrp {group} {folder}",
            )


def _rules(_: Home, settings: Settings, catalogue: PluginCatalogue) -> Iterator[Check]:
    rules = settings.routing.rule
    for rule in rules:
        unknown = sorted(set(rule.plugins) - set(catalogue.manifests))
        if unknown and rule.enabled:
            yield Check(
                "rules",
                "fail",
                f"Rule {rule.name} sends studies to {', '.join(unknown)}, which is not installed.",
                "Install the plugin or change the rule.",
            )
    if not rules and not settings.routing.use_claims:
        yield Check("rules", "warn", "There are no rules and claims are off: no study goes anywhere.", "Add a rule.")
    else:
        claims = "plugins' claims come after them" if settings.routing.use_claims else "claims are off"
        yield Check("rules", "ok", f"{len(rules)} routing rules; {claims}.")


def _categories(_: Home, settings: Settings, catalogue: PluginCatalogue) -> Iterator[Check]:
    for number, rule in enumerate(settings.category, start=1):
        manifest = catalogue.manifests.get(rule.plugin)
        keys = [category.key for category in manifest.categories] if manifest else []
        if rule.category not in keys:
            near = get_close_matches(rule.category, keys, n=1)
            yield Check(
                "categories",
                "fail",
                f"category[{number}] of clinic.toml names {rule.category} of {rule.plugin}, which is no category.",
                f"Do you mean {near[0]}?" if near else "`clinic-ai plugin categories` lists those there are.",
            )


def _inboxes(home: Home, settings: Settings, _: PluginCatalogue) -> Iterator[Check]:
    for inbox in settings.inbox:
        folder = home.path / inbox.path
        if not folder.is_dir():
            yield Check(
                f"inbox {inbox.name}", "fail", f"{folder} is not a folder.", "Make or mount it, or change clinic.toml."
            )
        elif not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            yield Check(
                f"inbox {inbox.name}", "fail", f"This user may not move files out of {folder}.", "Change its owner."
            )
        else:
            yield Check(f"inbox {inbox.name}", "ok", f"{folder} can be read and emptied.")


def _receiver(home: Home, settings: Settings, _: PluginCatalogue) -> Iterator[Check]:
    network = settings.network
    if not network.enabled:
        yield Check("network", "ok", "The C-STORE receiver is off; scans come through folders.")
        return
    if not network.peer:
        yield Check("network", "warn", "The receiver lets nobody in.", "Add a [[network.peer]] for each sender.")
    tls = [home.path / path for path in (network.tls_certificate, network.tls_key, network.tls_ca) if path]
    for path in tls:
        if not os.access(path, os.R_OK):
            yield Check("network", "fail", f"This user cannot read the TLS file {path}.", "Put it there, or chown it.")
    if network.port < PRIVILEGED and os.geteuid() != 0:
        yield Check("network", "warn", f"Port {network.port} needs a privilege.", "Choose another, such as 11112.")
    secrecy = "with TLS" if tls else "without encryption"
    yield Check(
        "network", "ok", f"{len(network.peer)} senders may call {network.ae_title} at port {network.port}, {secrecy}."
    )


def _critical(home: Home, settings: Settings, _: PluginCatalogue) -> Iterator[Check]:
    unknown = unknown_conditions(settings.critical, table())
    for condition in unknown:
        near = get_close_matches(condition, table(), n=1)
        yield Check(
            "critical",
            "fail",
            f"[[critical]] names the condition {condition}, which no finding is called.",
            f"Do you mean {near[0]}?" if near else "docs/critical-findings.md says which there are.",
        )
    notify = settings.notify
    for path in (p for p in (notify.webhook.token_file, notify.email.password_file) if p):
        place = home.path / path
        if not (place.is_file() and os.access(place, os.R_OK)):
            yield Check("critical", "fail", f"This user cannot read the file {place}.", "Put it there, or chown it.")
    if settings.critical and not unknown:
        ways = [name for name, on in (("by webhook", notify.webhook.url), ("by e-mail", notify.email.host)) if on]
        told = " and ".join(ways) if ways else "on the screens only"
        yield Check("critical", "ok", f"{len(settings.critical)} findings are critical; told {told}.")


def _memory(_: Home, settings: Settings, catalogue: PluginCatalogue) -> Iterator[Check]:
    budget = settings.execution.memory_mb or int(psutil.virtual_memory().total * 0.6) >> 20
    too_large = [m.name for m in catalogue.manifests.values() if m.memory_mb > budget]
    if too_large:
        yield Check(
            "memory",
            "fail",
            f"{', '.join(too_large)} needs more memory than the {budget} MiB that engines may use.",
            "Raise execution.memory_mb, or add memory to the machine.",
        )
    else:
        yield Check("memory", "ok", f"Engines may use {budget} MiB; each plugin fits.")


# ---------------------------------------------------------------- plugins, policy, models


def _plugins(catalogue: PluginCatalogue) -> Iterator[Check]:
    for problem in catalogue.problems:
        yield Check("plugins", "fail", problem.sentence, "Repair or uninstall it; the other plugins work.")
    names = ", ".join(f"{m.name} {m.version}" for m in catalogue.manifests.values())
    if names:
        yield Check("plugins", "ok", f"{names}.")
    else:
        yield Check("plugins", "fail", "No plugin is installed.", "Install one, such as clinic-ai-xray.")


def _policy(home: Home, settings: Settings) -> Iterator[Check]:
    directory = home.policies / settings.guard.pack
    try:
        report = check_pack(directory)
    except ChildError as error:
        yield Check("policy", "fail", f"The guard cannot test {directory}: {error.message}", error.remedy)
        return
    wrong = [*report.problems, *(o.failure for o in report.outcomes if not o.passed)]
    if wrong:
        yield Check("policy", "fail", f"Pack {report.pack.name} would be refused: {wrong[0]}", "clinic-ai policy test")
    else:
        pack = report.pack
        yield Check("policy", "ok", f"Pack {pack.name} {pack.version}: all {len(report.outcomes)} cases pass.")


def _examples(home: Home) -> Iterator[Check]:
    from clinic_ai.guard.examples import FOLDER, REMEDY, load_examples

    examples, problems = load_examples(home.path / FOLDER)
    for problem in problems:
        yield Check("examples", "warn", problem, REMEDY)
    if examples:
        yield Check("examples", "ok", f"Healthy examples that can be shown: {len(examples)}.")


def _models(home: Home, catalogue: PluginCatalogue) -> Iterator[Check]:
    with model_desk(home) as desk:
        active = [model for model in desk.models() if model.state == "ACTIVE"]
        for model in active:
            problems = desk.verify_model(model.plugin, model.name, model.version).problems
            label = f"{model.plugin}/{model.name}/{model.version}"
            if problems:
                yield Check("models", "fail", f"{label}: {problems[0]}", f"clinic-ai model rollback {model.plugin}")
            else:
                yield Check("models", "ok", f"{label} is whole.")
    without = sorted(m.name for m in catalogue.manifests.values() if m.needs_model)
    for name in without:
        if not any(model.plugin == name for model in active):
            yield Check(
                "models",
                "warn",
                f"No model of {name} is active.",
                "The daemon brings in reference models at its first start; else clinic-ai model import DIR.",
            )
