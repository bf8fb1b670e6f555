"""The audit of a real daemon: signed when it stops; a log that was cut off meanwhile is an alert at the next start."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from harness import Daemon, rows, wait_until
from scans import write_ct_slice

from clinic_ai.control.client import Client
from clinic_ai.heads.keys import key_file
from clinic_ai.heads.verifying import examine
from clinic_ai.home import Home
from clinic_ai.store.database import Database


def test_what_a_daemon_wrote_is_signed_and_a_cut_is_an_alert(home: Home, start: Callable[[], Daemon]) -> None:
    daemon = start()
    write_ct_slice(home.inbox / "one.dcm", seed=1)
    wait_until(lambda: bool(rows(home, "SELECT 1 FROM deliveries WHERE state = 'SENT'")), "the delivery")
    with Client(home) as client:
        view = client.verify_audit()
    assert view.findings == ()
    assert view.documents == 2  # the analysis and the decision of the guard
    assert daemon.stop() == 0
    assert key_file(home).stat().st_mode & 0o777 == 0o600

    database = Database(home.database)
    found = examine(home, database)
    assert (found.findings, found.signed) == ((), found.rows)
    database.close()
    connection = sqlite3.connect(home.database)
    connection.execute("DELETE FROM audit WHERE seq > ?", (found.rows - 4,))
    connection.commit()
    connection.close()

    daemon = start()
    assert [entry for entry in daemon.seen if entry["event"] == "audit.broken"]
    assert rows(home, "SELECT 1 FROM alerts WHERE code = 'audit_broken' AND acknowledged_at IS NULL")
    with Client(home) as client:
        findings = client.verify_audit().findings
    assert any(str(found.rows) in finding.sentence and "head.json" in finding.sentence for finding in findings)
    assert daemon.stop() == 0
