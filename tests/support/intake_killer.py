"""SIGKILLs an ingest at a step, restarts it, and checks that every file is there exactly once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from intake_site import Site
from PIL import Image
from scans import write_ct_slice

from clinic_ai.domain import Fate
from clinic_ai.home import init_home
from clinic_ai.store import audit, studies

SUPPORT = Path(__file__).parent
SCRIPT = SUPPORT.parent / "integration" / "children" / "ingest_once.py"


def prepare(home: Path) -> None:
    """Make a home whose inbox has two studies, a picture, a duplicate and something to quarantine."""
    inbox = init_home(home).inbox
    for instance in (1, 2):
        write_ct_slice(inbox / f"a{instance}.dcm", seed=1, study="1.2.3", instance=instance)
    write_ct_slice(inbox / "b.dcm", seed=2, study="1.2.4")
    shutil.copy(inbox / "b.dcm", inbox / "b again.dcm")
    Image.new("L", (8, 8), 9).save(inbox / "c.png")
    (inbox / "junk.txt").write_text("no scan")


def run(home: Path, kill_at: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(home), str(kill_at)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def check_all_is_there_once(home: Path) -> None:
    site = Site(home)
    try:
        assert site.fates() == {Fate.STORED: 4, Fate.DUPLICATE: 1, Fate.QUARANTINED: 1}
        shapes = sorted((study.study_instance_uid, study.state.value, study.facts.slices) for study in site.studies())
        assert [shape for shape in shapes if not shape[0].startswith("2.25")] == [
            ("1.2.3", "CLOSED", 2),
            ("1.2.4", "CLOSED", 1),
        ]
        assert len(shapes) == 3
        with site.database.read() as connection:
            for study in site.studies():
                for instance in studies.instances_of(connection, study.study_id, study.version):
                    assert site.objects.verify(instance.sha256)
            assert audit.first_break(connection) is None
        stored = [path for path in site.home.objects.rglob("*") if path.is_file()]
        assert len(stored) == 4
        assert os.listdir(site.home.spool) == os.listdir(site.home.inbox) == []
        assert len([path for path in site.home.quarantine.rglob("*") if path.is_file()]) == 2
    finally:
        site.close()


def steps_of(home: Path) -> int:
    """Return how many lasting steps an undisturbed run takes."""
    prepare(home)
    done = run(home, 0)
    assert done.returncode == 0, done.stderr
    check_all_is_there_once(home)
    return int(done.stdout.splitlines()[-1])


def killed_at(home: Path, kill_at: int) -> bool:
    """Kill a run just before a step, let the next one finish, and check; return whether it came to that step."""
    prepare(home)
    ended = run(home, kill_at).returncode
    assert ended in {-signal.SIGKILL, 0}
    finished = run(home, 0)
    assert finished.returncode == 0, finished.stderr
    check_all_is_there_once(home)
    return ended == -signal.SIGKILL
