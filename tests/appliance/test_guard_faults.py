"""Nothing goes out and nothing becomes final while the guard raises, hangs, dies or babbles, whatever step it is at."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import QUICK, Daemon, rows, wait_until
from scans import write_ct_slice

from clinic_ai.control.review_client import ReviewClient
from clinic_ai.control.review_views import AcceptReview
from clinic_ai.errors import ClinicError
from clinic_ai.home import Home

SIGNER = "Dr. Ada Example"
SETTINGS = (
    QUICK.replace("max_attempts = 5", "max_attempts = 1")
    + f'\n[guard]\ntimeout_s = 1.0\n\n[review]\nreviewers = ["{SIGNER}"]\n'
)
MODULE = '''
import os, signal, time
from pathlib import Path
from clinic_ai.guard.detectors import Detector, Flag
from clinic_ai.hookspecs import hookimpl

FAULT = Path(__file__).with_name("fault")


def recurse():
    return recurse()


HARMS = {
    "raise": lambda: 1 / 0,
    "hang": lambda: time.sleep(3600),
    "exit": lambda: os._exit(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "babble": lambda: [os.write(int(fd), b"released\\n" * 99) for fd in os.listdir("/proc/self/fd") if fd > "0"],
    "recurse": recurse,
    "hoard": lambda: [bytearray(1 << 28) for _ in range(1 << 10)],
    "lie": lambda: "no flag at all",
}


class Faulty(Detector):
    """Fires on the word FAULTY; does the harm that the file names for the step at which it is asked."""

    step: str

    def detect(self, view):
        if any("FAULTY" in text.raw for text in view.texts):
            return Flag("a word")
        step, _, harm = FAULT.read_text().partition(" ")
        return HARMS[harm]() if step == self.step else None


@hookimpl
def guard_detectors():
    return {"fault": Faulty}
'''
RULE = """
[[rule]]
id = "fault-{step}"
hazard = "The tests do harm here."
audiences = ["clinician"]
scope = "{step}"
when = {{ detector = "faulty.fault", step = "{step}" }}
action = "hold"
message = "The tests do harm here."
"""
CASE = """
[[case]]
rule = "fault-{step}"
kind = "{kind}"
audience = "clinician"
text = "{text}"
"""
STEPS = ("statement", "artefact")
HARMS = ("raise", "hang", "exit", "kill", "babble", "recurse", "hoard", "lie")
EVERY = [f"{step} {harm}" for step in STEPS for harm in HARMS]
SOME = [f"statement {harm}" for harm in ("raise", "hang", "kill", "babble", "lie")]
SOME += [f"artefact {harm}" for harm in ("exit", "recurse", "hoard")]
FEW = ["statement raise", "artefact hang", "statement kill"]


@pytest.fixture
def fault(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Install a plugin whose detector does harm and a pack that asks it at every step; return what orders the harm."""
    site = tmp_path / "site"
    info = site / "clinic_ai_faulty-1.dist-info"
    info.mkdir(parents=True)
    (site / "clinic_ai_faulty.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: clinic-ai-faulty\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[clinic_ai]\nfaulty = clinic_ai_faulty\n")
    monkeypatch.setenv("PYTHONPATH", str(site))
    pack = home.policies / "default"
    # Only these rules: a guard that dies at every turn has to prove its pack as often.
    (pack / "questions.toml").unlink()
    (pack / "cases.toml").write_text("")
    (pack / "policy.toml").write_text('name = "default"\nversion = "1"\n')
    with (pack / "policy.toml").open("a") as rules, (pack / "cases.toml").open("a") as cases:
        for step in STEPS:
            rules.write(RULE.format(step=step))
            for kind, text in (
                ("firing", "FAULTY."),
                ("non_firing", "The heart is normal."),
                ("mutation", "No FAULTY."),
            ):
                cases.write(CASE.format(step=step, kind=kind, text=text))
    home.clinic_toml.write_text(SETTINGS)

    def order(what: str) -> None:
        (site / "fault").write_text(what)

    order("")
    return order


def drop(home: Home, seed: int) -> str:
    """Put a scan into the inbox; return its Study Instance UID."""
    uid = write_ct_slice(home.path / f"{seed}.dcm", seed=seed)
    (home.path / f"{seed}.dcm").rename(home.inbox / f"{seed}.dcm")
    return uid


def state(home: Home, uid: str) -> str:
    found = rows(home, "SELECT state FROM studies WHERE study_instance_uid = ?", uid)
    return found[0]["state"] if found else ""


@pytest.mark.parametrize(
    ("to_drafts", "to_signing"),
    [
        pytest.param(SOME, FEW, id="some"),
        pytest.param(EVERY, EVERY, id="every", marks=[pytest.mark.torture, pytest.mark.timeout(1200)]),
    ],
)
def test_no_harm_at_any_step_lets_a_word_out(
    home: Home,
    fault: Callable[[str], None],
    start: Callable[[], Daemon],
    to_drafts: list[str],
    to_signing: list[str],
) -> None:
    daemon = start()
    for seed, harm in enumerate(to_drafts):
        fault(harm)
        uid = drop(home, seed)
        wait_until(lambda uid=uid: state(home, uid) in {"HELD", "DONE", "FAILED"}, f"the end of {harm}")
        [artefact] = rows(
            home, "SELECT a.* FROM artefacts a JOIN studies s USING (study_id) WHERE s.study_instance_uid = ?", uid
        )
        assert artefact["state"] == "HELD", harm
        assert json.loads(artefact["verdict"])["released"] == [], harm
        assert not list(home.outbox.rglob("*.*")), harm
    assert not rows(home, "SELECT 1 FROM deliveries")
    assert rows(home, "SELECT 1 FROM alerts WHERE code = 'guard_unavailable' AND acknowledged_at IS NULL")

    # The guard is well again: the next study goes out, and no person can sign while it is not.
    fault("")
    drop(home, 100)
    daemon.wait_for("delivery.sent")
    [draft] = rows(home, "SELECT artefact_id FROM artefacts WHERE state = 'PRELIMINARY'")
    with ReviewClient(home) as client:
        shown = client.review(draft["artefact_id"])
    wish = AcceptReview(reviewer=SIGNER, digest=shown.digest)
    for harm in to_signing:
        fault(harm)
        with ReviewClient(home) as client, pytest.raises(ClinicError):
            client.accept(draft["artefact_id"], wish)
        assert not rows(home, "SELECT 1 FROM artefacts WHERE state = 'FINAL'"), harm
    fault("")
    with ReviewClient(home) as client:
        client.accept(draft["artefact_id"], wish)
    daemon.wait_for("delivery.sent")
    assert [row["state"] for row in rows(home, "SELECT state FROM artefacts WHERE state = 'FINAL'")] == ["FINAL"]
    assert daemon.stop() == 0
