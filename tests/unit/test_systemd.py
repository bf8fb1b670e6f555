"""The unit: understood by systemd, locked down, and every line of it explained."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from clinic_ai.appliance import STOP_GRACE_S
from clinic_ai.cli.output import Exit

UNIT = Path(__file__).parents[2] / "systemd" / "clinic-ai.service"
NETWORK = UNIT.with_name("clinic-ai-network.conf")
GPU = UNIT.with_name("clinic-ai-gpu.conf")
THRESHOLD = 9
"""Highest exposure accepted, in tenths of systemd's scale of 0 (locked) to 10 (open); a plain unit has 96."""
THRESHOLD_WITH_NETWORK = 18
THRESHOLD_WITH_GPU = 12

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def directives() -> list[tuple[str, str]]:
    lines = [line for line in UNIT.read_text().splitlines() if re.match(r"[A-Z]\w+=", line)]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


def values(name: str) -> list[str]:
    return [value for key, value in directives() if key == name]


@needs_systemd
def test_systemd_finds_nothing_to_complain_about(tmp_path: Path) -> None:
    installed = tmp_path / UNIT.name
    # verify looks for the program, which is not installed here: an executable of this machine stands in for it.
    installed.write_text(UNIT.read_text().replace("/opt/clinic-ai/bin/clinic-ai", sys.executable))

    done = subprocess.run(["systemd-analyze", "verify", str(installed)], capture_output=True, text=True, timeout=60)

    complaints = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, complaints) == (0, [])


@needs_systemd
@pytest.mark.parametrize(
    ("drop_ins", "threshold"), [([], THRESHOLD), ([NETWORK], THRESHOLD_WITH_NETWORK), ([GPU], THRESHOLD_WITH_GPU)]
)
def test_the_unit_is_locked_down(tmp_path: Path, drop_ins: list[Path], threshold: int) -> None:
    installed = tmp_path / UNIT.name
    # Later lines win or add, as those of a drop-in do.
    installed.write_text("\n".join(path.read_text() for path in (UNIT, *drop_ins)))
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={threshold}", str(installed)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze does not know --offline")

    assert done.returncode == 0, done.stdout[-400:]


@needs_systemd
def test_a_plain_unit_would_not_pass(tmp_path: Path) -> None:
    plain = tmp_path / "plain.service"
    plain.write_text(f"[Service]\nExecStart={sys.executable}\n")

    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={THRESHOLD}", str(plain)],
        capture_output=True,
        timeout=60,
    )

    assert done.returncode != 0


@pytest.mark.parametrize("file", [UNIT, NETWORK], ids=lambda file: file.name)
def test_every_line_has_its_reason(file: Path) -> None:
    lines = file.read_text().splitlines()
    unexplained = [
        line for previous, line in pairwise(lines) if re.match(r"[A-Z]\w+=", line) and not re.match(r"# \S", previous)
    ]

    assert directives()
    assert unexplained == []


def test_the_network_takes_back_what_locks_it_and_nothing_else() -> None:
    given = dict(re.findall(r"^([A-Z]\w+)=(.*)$", NETWORK.read_text(), re.MULTILINE))

    assert set(given) == {"PrivateNetwork", "RestrictAddressFamilies", "RestrictNamespaces", "IPAddressAllow"}
    assert set(given) - {"IPAddressAllow"} <= {name for name, _ in directives()}
    assert values("IPAddressDeny") == ["any"]  # so that IPAddressAllow is the whole list
    assert given["RestrictNamespaces"] == "user net"  # with these, children still leave the network


def test_what_is_said_to_be_absent_is_absent() -> None:
    absent = re.findall(r"^# ([A-Z]\w+)  +\S", UNIT.read_text().partition("deliberately absent")[2], re.MULTILINE)

    assert {"MemoryDenyWriteExecute", "ProcSubset", "PrivateUsers"} <= set(absent)
    assert [name for name in absent if values(name)] == []


def test_the_unit_agrees_with_the_program() -> None:
    assert values("RestartPreventExitStatus") == [f"{int(Exit.USAGE)} {int(Exit.UNUSABLE)}"]
    # Lanes and threads are joined after the grace time; systemd must not cut that short.
    assert float(values("TimeoutStopSec")[0]) >= STOP_GRACE_S + 60
    assert values("KillMode") == ["mixed"]


def test_one_capability_is_had_and_no_child_has_it() -> None:
    assert values("CapabilityBoundingSet") == values("AmbientCapabilities") == ["CAP_LEASE"]
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can hand a capability to a program, by setpriv")
    script = (
        "import subprocess, sys; from clinic_ai.confinement import keep_capabilities; keep_capabilities();"
        "own = open('/proc/self/status').read();"
        "child = subprocess.check_output(['cat', '/proc/self/status'], text=True);"
        "print(*[line.split()[1] for text in (own, child) for line in text.splitlines() if line.startswith('CapEff')])"
    )
    caps = ["--inh-caps=-all,+lease", "--ambient-caps=-all,+lease", "--bounding-set=-all,+lease"]
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *caps, sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd="/",
        env={"PYTHONPATH": str(UNIT.parents[1])},
    )
    if "ermission" in done.stderr:
        pytest.skip("another user cannot reach the package here")

    own, child = (int(word, 16) for word in done.stdout.split())
    assert (own, child) == (1 << 28, 0)


def test_the_user_is_the_one_the_unit_names() -> None:
    entry = next(
        line.split()
        for line in UNIT.with_name("clinic-ai.sysusers.conf").read_text().splitlines()
        if not line.startswith("#")
    )

    assert [entry[:2], values("User"), values("Group")] == [["u", "clinic-ai"], ["clinic-ai"], ["clinic-ai"]]
