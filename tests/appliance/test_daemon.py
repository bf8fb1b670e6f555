"""The daemon as systemd and people at a shell see it: signals, sd_notify, sockets, verbs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from harness import QUICK, Daemon, clinic_ai, rows, wait_until
from scans import write_ct_slice

from clinic_ai.control.client import Client
from clinic_ai.home import Home


def test_verbs_show_a_study_from_file_to_result(home: Home, tmp_path: Path, start: Callable[[], Daemon]) -> None:
    daemon = start()
    write_ct_slice(tmp_path / "ct.dcm", seed=1)
    (tmp_path / "ct.dcm").rename(home.inbox / "ct.dcm")
    daemon.wait_for("delivery.sent")
    [study] = rows(home, "SELECT study_id FROM studies")
    wait_until(lambda: rows(home, "SELECT state FROM studies")[0]["state"] == "DONE", "the end of the study")
    listed = clinic_ai(home, "study", "list")
    assert study["study_id"] in json.dumps(listed)
    shown = json.dumps(clinic_ai(home, "study", "show", study["study_id"]))
    assert "DONE" in shown
    assert "ct.dcm" in shown
    assert "PHANTOM^" not in shown
    explained = json.dumps(clinic_ai(home, "route", "explain", study["study_id"]))
    assert "echo" in explained
    status = clinic_ai(home, "status")
    assert isinstance(status, dict)
    assert status["studies"]["DONE"] == 1
    assert "version 2" in json.dumps(clinic_ai(home, "study", "retry", study["study_id"]))
    daemon.wait_for("delivery.sent")
    assert (home.outbox / study["study_id"] / "v2" / "result.json").is_file()


def test_a_reload_takes_good_settings_and_refuses_bad_ones(
    home: Home, tmp_path: Path, start: Callable[[], Daemon]
) -> None:
    home.clinic_toml.write_text(QUICK + "\n[routing]\nuse_claims = false\n")
    daemon = start()
    write_ct_slice(tmp_path / "ct.dcm", seed=2)
    (tmp_path / "ct.dcm").rename(home.inbox / "ct.dcm")
    wait_until(lambda: bool(rows(home, "SELECT 1 FROM studies WHERE state = 'UNROUTED'")), "an unrouted study")
    [study] = rows(home, "SELECT study_id FROM studies")

    home.clinic_toml.write_text(QUICK + "\n[routing]\nmode = 'sometimes'\nnonsense = 1\n")
    daemon.process.send_signal(signal.SIGHUP)
    first = daemon.wait_for("settings.refused")
    second = daemon.wait_for("settings.refused")
    assert "routing.mode" in first["problem"]
    assert "routing.nonsense" in second["problem"]
    wait_until(lambda: bool(rows(home, "SELECT 1 FROM alerts WHERE acknowledged_at IS NULL")), "the alert")

    rule = '[[routing.rule]]\nname = "all CT"\nplugins = ["echo"]\nwhen = { modality = ["CT"] }\n'
    home.clinic_toml.write_text(QUICK + "\n[routing]\nuse_claims = false\n" + rule)
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for("settings.reloaded")
    assert not rows(home, "SELECT 1 FROM alerts WHERE acknowledged_at IS NULL")
    clinic_ai(home, "study", "retry", study["study_id"])
    daemon.wait_for("delivery.sent")
    assert rows(home, "SELECT rule FROM jobs WHERE kind = 'analyse'")[0]["rule"] == "all CT"


def test_systemd_hears_when_it_is_ready_reloads_and_stops(
    home: Home, tmp_path: Path, start: Callable[[], Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(place))
        ear.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(place))
        daemon = start()

        def hear(word: str) -> str:
            while True:
                message = ear.recv(4096).decode()
                if word in message:
                    return message

        assert hear("READY=1")
        daemon.process.send_signal(signal.SIGHUP)
        assert "MONOTONIC_USEC=" in hear("RELOADING=1")
        assert hear("READY=1")
        daemon.process.send_signal(signal.SIGTERM)
        assert hear("STOPPING=1")
        assert daemon.process.wait(timeout=60) == 0


def test_both_sockets_are_for_the_owner_and_the_group(home: Home, start: Callable[[], Daemon]) -> None:
    start()
    for place in (home.control_socket, home.monitor_socket):
        assert os.stat(place).st_mode & 0o777 == 0o660


def test_all_threads_of_the_daemon_share_one_heap(home: Home, start: Callable[[], Daemon]) -> None:
    daemon = start()
    with Client(home) as client:
        client.status()
    assert psutil.Process(daemon.process.pid).num_threads() > 5
    maps = [line.split() for line in Path(f"/proc/{daemon.process.pid}/maps").read_text().splitlines()]
    spans = [[int(end, 16) for end in columns[0].split("-")] for columns in maps]
    reserved = 64 << 20  # glibc gives each further heap that much address space, at a multiple of it
    heaps = [
        hex(start)
        for (start, _), (_, end), columns in zip(spans, spans[1:], maps, strict=False)
        if columns[1].startswith("rw") and start % reserved == 0 and end - start == reserved
    ]
    assert heaps == []


def test_a_broken_policy_pack_lets_studies_in_and_nothing_out(
    home: Home, tmp_path: Path, start: Callable[[], Daemon]
) -> None:
    pack = home.policies / "default" / "policy.toml"
    whole = pack.read_text()
    pack.write_text(whole.replace("[[rule]]", "[[rool]]", 1))
    daemon = start()
    write_ct_slice(tmp_path / "ct.dcm", seed=3)
    (tmp_path / "ct.dcm").rename(home.inbox / "ct.dcm")

    def waits() -> str:
        found = rows(home, "SELECT wait FROM studies")
        return json.loads(found[0]["wait"])["code"] if found and found[0]["wait"] else ""

    wait_until(lambda: waits() == "no_policy", "the wait for a policy")
    assert not list(home.outbox.iterdir())
    assert rows(home, "SELECT 1 FROM alerts WHERE acknowledged_at IS NULL")
    pack.write_text(whole)  # and no reload: a pack that is whole again is found by itself
    daemon.wait_for("delivery.sent")
    assert not rows(home, "SELECT 1 FROM alerts WHERE code = 'policy_rejected' AND acknowledged_at IS NULL")


@pytest.mark.timeout(600)  # it judges a chest CT as well, beside whatever other tests do
def test_the_demo_accounts_for_every_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "clinic_ai", "demo", "--home", str(tmp_path / "demo"), "--json"],
        capture_output=True,
        text=True,
        timeout=560,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert sum(len(row["files"]) for row in shown) > 20
    assert any("phantom" in name for row in shown if row["place"] for name in row["files"])
    for row in shown:
        assert row["fate"] in {"STORED", "QUARANTINED", "DUPLICATE"}
        assert row["outcome"]
