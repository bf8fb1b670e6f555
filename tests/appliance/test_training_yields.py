"""A whole appliance that trains: it makes way for the first file of a study, and goes on by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny_learner
from harness import QUICK, ROOMY, wait_until
from nights import labelled_folder
from scans import write_ct_slice

from clinic_ai.appliance import Appliance
from clinic_ai.domain import RunState, StudyState
from clinic_ai.home import Home, lock_home
from clinic_ai.plugins import PluginCatalogue, find_plugins
from clinic_ai.settings import load_settings
from clinic_ai.store import studies
from clinic_ai.store.runs import RunView

TRAINING = """
[training]
quiet_s = {quiet_s}
"""


@pytest.fixture(autouse=True)
def _children_find_the_tiny_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent / "support"))


@contextmanager
def appliance(home: Home, *, settle_s: float = 0.1, quiet_s: float = 0.2) -> Iterator[Appliance]:
    text = QUICK.replace("settle_s = 0.1", f"settle_s = {settle_s}")
    home.clinic_toml.write_text(text + TRAINING.format(quiet_s=quiet_s) + ROOMY)
    echo = find_plugins().manifests["echo"]
    with lock_home(home):
        made = Appliance(
            home,
            load_settings(home.clinic_toml),
            PluginCatalogue({"echo": echo, "tiny": tiny_learner.manifest()}, []),
        )
        try:
            made.open()
            made.start()
            yield made
        finally:
            made.stop(grace_s=5.0)


def until(made: Appliance, run_id: str, ready: Callable[[RunView], bool]) -> RunView:
    wait_until(lambda: ready(made.runs.get(run_id)), "the run to get there", 60)
    return made.runs.get(run_id)


def started(made: Appliance, folder: Path, **recipe: float | int | str) -> str:
    run_id = made.runs.start("tiny", folder, {"paced": 5, **recipe}, "ada")
    until(made, run_id, lambda run: bool(run.progress and run.progress["step"] >= 5))
    return run_id


def trainers(made: Appliance) -> list[int]:
    return [child.pid for child in made.crew.living() if child.spec.kind == "trainer"]


def study_states(made: Appliance) -> list[StudyState]:
    with made.database.read() as connection:
        return [study.state for study in studies.list_studies(connection, limit=10)]


def dropped(home: Home, aside: Path) -> Path:
    write_ct_slice(aside / "1.dcm", seed=1)
    return (aside / "1.dcm").rename(home.inbox / "1.dcm")


def test_it_makes_way_before_the_file_has_come_to_rest_and_goes_on_when_it_is_gone(home: Home, tmp_path: Path) -> None:
    folder = labelled_folder(tmp_path / "labelled")
    with appliance(home, settle_s=3600.0) as made:
        run_id = started(made, folder)
        file = dropped(home, tmp_path)
        run = until(made, run_id, lambda run: run.state is RunState.PAUSED)
        assert run.pause_code == "study"
        assert trainers(made) == []
        assert study_states(made) == [], "nothing was taken yet"
        file.unlink()
        until(made, run_id, lambda run: run.state is RunState.RUNNING)


@pytest.mark.parametrize("deaf", [False, True])
def test_a_study_is_done_while_training_waits_and_training_is_done_after_it(
    home: Home, tmp_path: Path, deaf: bool
) -> None:
    folder = labelled_folder(tmp_path / "labelled")
    with appliance(home, quiet_s=1.0) as made:
        run_id = started(made, folder, deaf=deaf)
        (pid,) = trainers(made)
        dropped(home, tmp_path)
        wait_until(lambda: study_states(made) == [StudyState.DONE], "the study", 60)
        until(made, run_id, lambda run: run.state is RunState.RUNNING and trainers(made) not in ([], [pid]))
        tiny_learner.allow(home.runs / run_id, 1000)
        run = until(made, run_id, lambda run: run.state is RunState.FINISHED)
        assert run.error == ""


def test_what_a_crash_interrupted_goes_on_with_the_next_start(home: Home, tmp_path: Path) -> None:
    folder = labelled_folder(tmp_path / "labelled")
    with appliance(home) as made:
        run_id = started(made, folder)
    with appliance(home) as made:
        run = until(made, run_id, lambda run: run.state is RunState.RUNNING)
        assert run.at_once is False
        tiny_learner.allow(home.runs / run_id, 1000)
        until(made, run_id, lambda run: run.state is RunState.FINISHED)
