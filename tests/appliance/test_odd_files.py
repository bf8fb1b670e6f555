"""Every DICOM file inside pydicom's package, dropped at once: each accounted for, and the daemon lives."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from harness import Daemon, rows, wait_until
from scans import write_ct_slice

from clinic_ai.home import Home

FINAL = {"STORED", "DUPLICATE", "QUARANTINED"}


def shipped() -> Path:
    spec = find_spec("pydicom")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data"


@pytest.mark.torture  # the demo has the oddest of them: test_daemon.py
def test_every_file_of_pydicom_is_accounted_for(home: Home, tmp_path: Path, start: Callable[[], Daemon]) -> None:
    aside = tmp_path / "aside"
    ignore = shutil.ignore_patterns("__pycache__", "*.py", "*.json", "palettes")
    shutil.copytree(shipped(), aside, ignore=ignore)
    dropped = sorted(p.relative_to(aside).as_posix() for p in aside.rglob("*") if p.is_file())
    assert len(dropped) > 100
    daemon = start()
    aside.rename(home.inbox / "from pydicom")

    def decided() -> bool:
        fates = Counter(r["fate"] for r in rows(home, "SELECT fate FROM files"))
        living = rows(home, "SELECT 1 FROM studies WHERE state IN ('RECEIVING', 'CLOSED', 'ROUTED')")
        return sum(fates[f] for f in FINAL) >= len(dropped) and not living

    wait_until(decided, "a fate for every file", 240)
    ledger = {r["name"]: r for r in rows(home, "SELECT * FROM files")}
    assert sorted(ledger) == sorted(f"from pydicom/{name}" for name in dropped)
    for name, row in ledger.items():
        assert row["fate"] in FINAL, name
        if row["fate"] == "QUARANTINED":
            assert row["reason"], name
            assert row["remedy"], name
    reasons = [json.loads(p.read_text()) for p in home.quarantine.rglob("reason.json")]
    assert len(reasons) == sum(r["fate"] == "QUARANTINED" for r in ledger.values())
    studies = rows(home, "SELECT study_id, state, wait FROM studies WHERE state != 'SUPERSEDED'")
    for study in studies:
        assert study["state"] in {"DONE", "UNROUTED", "FAILED"}
        if study["state"] != "DONE":
            wait = json.loads(study["wait"])
            assert wait["sentence"], study["study_id"]
            assert wait["remedy"], study["study_id"]
    assert Counter(s["state"] for s in studies)["DONE"] > 20
    # The next good study is processed, from a folder that is named like a patient.
    folder = home.inbox / "MUSTER HANS" / "a" / "b" / "c"
    folder.mkdir(parents=True)
    write_ct_slice(tmp_path / "good.dcm", seed=4711)
    (tmp_path / "good.dcm").rename(folder / "good.dcm")
    wait_until(
        lambda: bool(
            rows(
                home,
                "SELECT 1 FROM studies JOIN files USING (study_id) "
                "WHERE files.name = 'MUSTER HANS/a/b/c/good.dcm' AND state = 'DONE'",
            )
        ),
        "the result of the next good study",
    )
    assert daemon.stop() == 0
    # The log says of every file in quarantine why, and quotes no name.
    told = [entry for entry in daemon.seen if entry["event"] == "file.quarantined"]
    assert sorted(entry["sentence"] for entry in told) == sorted(reason["sentence"] for reason in reasons)
    assert all(entry["remedy"] and (home.quarantine / entry["place"] / "reason.json").exists() for entry in told)
    assert "not json" not in {entry["event"] for entry in daemon.seen}
    everything = json.dumps(daemon.seen, ensure_ascii=False)
    assert not [
        word for word in ("MUSTER", "from pydicom", "98892001", "Doe", "CompressedSamples") if word in everything
    ]
