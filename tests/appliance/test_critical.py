"""A critical finding through real processes: on record before the result goes on, repeated through SIGKILL."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from harness import QUICK, Daemon, rows, wait_until
from scans import write_ct_slice

from clinic_ai.control.client import Client
from clinic_ai.home import Home

LIST = """
[[critical]]
term = "modality CT"
category = 1
repeat_min = [0.02]
escalate_after = 2
"""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    got: list[dict[str, object]]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.server.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_it_is_on_record_before_the_result_and_repeats_through_kills_until_a_person_reacts(
    home: Home, start: Callable[[], Daemon]
) -> None:
    server = Server(("127.0.0.1", 0), Handler)
    server.got = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hook = f'[notify.webhook]\nurl = "http://127.0.0.1:{server.server_port}/"\n'
    home.clinic_toml.write_text(QUICK + LIST + hook + '[review]\nreviewers = ["Dr. Ada Example"]\n')

    daemon = start()
    write_ct_slice(home.inbox / "one.dcm", seed=1)
    first = daemon.wait_for("critical.open")
    assert first["notices"] == 1
    daemon.kill()
    (found,) = rows(home, "SELECT * FROM audit WHERE action = 'critical.found'")
    saved = rows(home, "SELECT job_id FROM analyses")
    assert [row["job_id"] for row in saved] == [json.loads(found["details"])["job"]]
    done = rows(home, "SELECT seq FROM audit WHERE action LIKE 'artefact.%' OR action LIKE 'delivery.%'")
    assert all(row["seq"] > found["seq"] for row in done)

    daemon = start()
    assert daemon.wait_for("critical.open")["notices"] >= 2
    while not daemon.wait_for("critical.open")["escalated"]:
        pass
    wait_until(lambda: any(notice["escalated"] for notice in server.got), "the escalated notice")
    assert {notice["study"] for notice in server.got} == {found["subject"]}

    with Client(home) as client:
        (alert,) = client.critical()
        assert alert.what == "modality ct"
        client.acknowledge(alert.alert_id, told_to="Dr. Weber", reviewer="Dr. Ada Example")
    daemon.kill()
    (row,) = rows(home, "SELECT * FROM alerts JOIN critical_alerts USING (alert_id)")
    assert row["acknowledged_by"]
    assert row["told_to"] == "Dr. Weber"
    daemon = start()
    wait_until(lambda: bool(rows(home, "SELECT 1 FROM deliveries WHERE state = 'SENT'")), "the delivery")
    assert not [entry for entry in daemon.seen if entry["event"] == "critical.open"]
    assert daemon.stop() == 0
    server.shutdown()
    server.server_close()
