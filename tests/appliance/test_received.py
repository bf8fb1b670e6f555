"""A study sent over the network to a whole appliance ends as a result in its outbox."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from harness import QUICK, Daemon, rows, wait_until
from receiving_room import PEER, dcmsend, free_port, needs_dcmtk, slices

from clinic_ai.home import Home


@needs_dcmtk
def test_a_study_that_was_sent_ends_as_a_result(home: Home, tmp_path: Path, start: Callable[[], Daemon]) -> None:
    port = free_port()
    home.clinic_toml.write_text(
        f'{QUICK}\n[network]\nenabled = true\nbind = "127.0.0.1"\nport = {port}\n'
        f'[[network.peer]]\nname = "{PEER.name}"\nae_title = "{PEER.ae_title}"\n'
    )
    daemon = start()
    wait_until(lambda: any(entry["event"] == "network.listening" for entry in daemon.seen), "a receiver")

    assert dcmsend(port, slices(tmp_path / "ct", 12)).wait() == 0
    daemon.wait_for("delivery.sent")

    [study] = rows(home, "SELECT study_id, source FROM studies")
    assert study["source"] == PEER.name
    wait_until(lambda: bool(rows(home, "SELECT 1 FROM studies WHERE state = 'DONE'")), "the end of the study")
    versions = sorted((home.outbox / study["study_id"]).iterdir())
    result = json.loads((versions[-1] / "result.json").read_text())
    assert result["study"]["source"] == PEER.name
    assert rows(home, "SELECT COUNT(*) AS n FROM instances")[0]["n"] == 12
    assert rows(home, "SELECT COUNT(*) AS n FROM audit WHERE action = 'association.released'")[0]["n"] == 1
    assert not any(place.is_file() for place in home.incoming.rglob("*"))
