"""A technician's shift at the terminal: a real daemon, a real pseudo-terminal, and keys."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tmux
from films import write_films
from fixed_splits import fix_splits
from harness import QUICK, ROOMY, Daemon, rows, wait_until
from scans import write_ct_slice

from clinic_ai.home import Home
from clinic_ai.store.database import Database

pytestmark = pytest.mark.skipif(not tmux.INSTALLED, reason="tmux is not installed")

SIGNER = "Dr. Ada Example"
SETTINGS = f"""{QUICK}
[guard]
pack = "shift"

[review]
reviewers = ["{SIGNER}"]
{ROOMY}"""
RULE = r"""
[[rule]]
id = "not-yet"
row = 8
hazard = "Only in tests."
audiences = ["clinician"]
when = { detector = "pattern", pattern = '\breceived 1 image\b', what = "a count" }
action = "hold"
message = "The test wants it so."
"""
CASES = """
[[case]]
rule = "not-yet"
kind = "firing"
audience = "clinician"
text = "Received 1 image."
action = "hold"

[[case]]
rule = "not-yet"
kind = "non_firing"
audience = "clinician"
text = "Received 2 images."

[[case]]
rule = "not-yet"
kind = "mutation"
audience = "clinician"
text = "It is said twice: RECEIVED 1 IMAGE."
"""
WORDS = "There is no finding of note in these images."


@pytest.fixture
def terminal(home: Home) -> Iterator[Callable[[], tmux.Terminal]]:
    """Open terminals on the test's home, and close them."""
    opened: list[tmux.Terminal] = []

    def begin() -> tmux.Terminal:
        opened.append(tmux.Terminal(home))
        return opened[-1]

    yield begin
    for each in opened:
        each.end()


def hold_everything(home: Home) -> None:
    """Use a policy pack that holds what the echo plugin says."""
    pack = home.policies / "shift"
    shutil.copytree(home.policies / "default", pack)
    for name, text in (("policy.toml", RULE), ("cases.toml", CASES)):
        with (pack / name).open("a") as file:
            file.write(text)
    home.clinic_toml.write_text(SETTINGS)


def drop(home: Home, aside: Path, seed: int) -> None:
    write_ct_slice(aside / "ct.dcm", seed=seed)
    (aside / "ct.dcm").rename(home.inbox / f"ct-{seed}.dcm")


@pytest.mark.timeout(900)  # a training is nice to everybody
def test_a_shift(
    home: Home, tmp_path: Path, start: Callable[[], Daemon], terminal: Callable[[], tmux.Terminal]
) -> None:
    hold_everything(home)
    write_films(home.labels / "xray", 20)
    database = Database(home.database)
    database.open()
    fix_splits(database)
    database.close()
    daemon = start()
    screen = terminal()
    screen.sees("● linked", "No studies yet")

    # A study comes, is analysed and held; its screen says what it is.
    drop(home, tmp_path, 1)
    screen.sees("‖ HELD", "1 held")
    [study] = rows(home, "SELECT * FROM studies")
    screen.press("Enter")
    screen.sees("[2 Study]", study["study_id"], "NOT FOR DIAGNOSIS")

    # A clinician reads why it is held, signs by name, and lets other words go out.
    screen.press("3")
    screen.sees("[3 Review]", "not-yet (hold)", "kept back even from review")
    screen.press("s")
    screen.sees("Who are you?", SIGNER)
    screen.press("Enter")
    screen.sees(f"signed as: {SIGNER}")
    screen.press("e")
    screen.sees("What changes", "kept back by the guard")
    screen.press(*["Down"] * 20)
    screen.write(f"[new] {WORDS}")
    screen.sees(f"+ {WORDS}")
    screen.press("C-s")
    screen.sees(f"Sign these words as {SIGNER}?")
    screen.press("y")
    daemon.wait_for("delivery.sent")
    [result] = home.outbox.glob("*/*/result.json")
    assert WORDS in result.read_text()
    assert "Received 1 image" not in result.read_text()
    [review] = rows(home, "SELECT reviewer, decision FROM reviews")
    assert (review["reviewer"], review["decision"]) == (SIGNER, "amend")
    screen.sees("Nothing waits for a review")

    # Training is started, paused and let go on; then the technician goes home.
    screen.press("4")
    screen.sees("[4 Night]", "n starts a run")
    screen.press("n")
    screen.sees("Which plugin is to learn?")
    screen.press("Down", "Down", "Enter")  # after ct and ultrasound comes xray
    screen.sees("From what is xray to learn?")
    screen.press("Enter")
    screen.sees("Recipe as KEY=VALUE")
    screen.write("condition=pneumonia tier=fast epochs=4000 patience=4000")
    screen.press("Enter")
    screen.sees("Train xray on labels/xray", "40 labelled images")
    screen.press("y")
    screen.sees("RUNNING")
    wait_until(lambda: step(home) > 0, "the first step", 240)
    screen.press("Space")
    wait_until(lambda: run(home)["state"] == "PAUSED", "the pause", 60)
    screen.sees("PAUSED")
    assert not daemon.children("trainer")
    before = step(home)
    screen.press("Space")
    wait_until(lambda: run(home)["state"] == "RUNNING", "the end of the pause", 60)
    screen.press("q")
    wait_until(lambda: not screen.open, "the end of the screen", 20)
    wait_until(lambda: step(home) > before, "a step after the screen was closed", 240)
    assert run(home)["state"] == "RUNNING"
    assert daemon.stop() == 0


def run(home: Home) -> dict[str, Any]:
    [found] = rows(home, "SELECT * FROM runs")
    return dict(found)


def step(home: Home) -> int:
    found = run(home)
    assert found["state"] != "FAILED", found["error"]
    progress = found["progress"]
    return int(json.loads(progress)["step"]) if progress else 0
