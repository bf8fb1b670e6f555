"""How a run went: the steps a daemon saw, the table its trainer wrote, and what it came to."""

from __future__ import annotations

from pathlib import Path

import known_curves
import pytest

from clinic_ai.contract import TrainingProgress
from clinic_ai.store import runs
from clinic_ai.store.database import Database
from clinic_ai.store.runs import RunView
from clinic_ai.training.histories import MAX_POINTS, STEPS, Traces, history_of, thinned


def step(number: int, loss: float | None = 0.5) -> TrainingProgress:
    return TrainingProgress(epoch=0, epochs=4, step=number, steps=400, loss=loss)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database(tmp_path / "clinic.db")
    database.open()
    return database


def run_of(database: Database, run_id: str) -> RunView:
    with database.read() as connection:
        return runs.get_run(connection, run_id)


class TestTraces:
    def test_steps_stand_at_the_epochs_that_are_done(self) -> None:
        traces = Traces()
        for number in (50, 100, 150):
            traces.add("R-1", step(number, loss=1 / number))
        assert traces.of("R-1") == ((0.5, 0.02), (1.0, 0.01), (1.5, 1 / 150))
        assert traces.of("R-2") == ()

    @pytest.mark.parametrize(
        "progress",
        [
            step(1, loss=None),
            step(1, loss=float("nan")),
            TrainingProgress(epoch=0, epochs=4, step=0, steps=0, loss=0.5),
        ],
    )
    def test_what_has_no_loss_or_no_place_is_passed_over(self, progress: TrainingProgress) -> None:
        traces = Traces()
        traces.add("R-1", progress)
        assert traces.of("R-1") == ()

    def test_steps_that_are_taken_again_after_a_checkpoint_replace_the_first(self) -> None:
        traces = Traces()
        for number, loss in ((50, 0.9), (100, 0.8), (150, 0.7), (100, 0.6)):
            traces.add("R-1", step(number, loss))
        assert traces.of("R-1") == ((0.5, 0.9), (1.0, 0.6))

    def test_a_long_run_takes_no_more_room_than_a_short_one(self) -> None:
        traces = Traces()
        for number in range(20 * MAX_POINTS):
            traces.add("R-1", TrainingProgress(epoch=0, epochs=1, step=number, steps=20 * MAX_POINTS, loss=0.5))
        found = traces.of("R-1")
        assert MAX_POINTS <= len(found) <= 2 * MAX_POINTS
        assert found[0][0] == 0.0
        assert found[-1][0] > 0.99

    def test_only_the_newest_runs_are_remembered(self) -> None:
        traces = Traces()
        for number in range(6):
            traces.add(f"R-{number}", step(1))
        assert [number for number in range(6) if traces.of(f"R-{number}")] == [2, 3, 4, 5]


class TestHistory:
    def test_a_finished_run_has_what_it_came_to(self, database: Database, tmp_path: Path) -> None:
        losses = known_curves.losses(12)
        found = history_of(run_of(database, known_curves.add_run(database, losses)), tmp_path, ())
        assert found.epochs == 12
        [loss] = found.series
        assert loss.name == "loss"
        assert loss.points == tuple((float(epoch), value) for epoch, value in enumerate(losses, start=1))

    def test_one_at_work_has_the_table_of_its_trainer_and_the_steps_that_were_seen(
        self, database: Database, tmp_path: Path
    ) -> None:
        run = run_of(database, known_curves.add_run(database, known_curves.losses(3), finished=False, epochs=9))
        (tmp_path / "training_history.csv").write_text("epoch,loss,auroc,note\n1,0.6,0.7,so\n2,0.5,,x\n3,inf,0.8,y\n")
        found = history_of(run, tmp_path, ((0.1, 0.9), (0.2, 0.8)))
        assert found.epochs == 9
        assert {each.name: each.points for each in found.series} == {
            STEPS: ((0.1, 0.9), (0.2, 0.8)),
            "loss": ((1.0, 0.6), (2.0, 0.5)),
            "auroc": ((1.0, 0.7), (3.0, 0.8)),
        }

    def test_a_link_in_place_of_the_table_is_not_followed(self, database: Database, tmp_path: Path) -> None:
        run = run_of(database, known_curves.add_run(database, known_curves.losses(3), finished=False))
        (tmp_path / "secret").write_text("epoch,loss\n1,0.5\n")
        (tmp_path / "training_history.csv").symlink_to(tmp_path / "secret")
        found = history_of(run, tmp_path, ())
        assert found.series == ()
        assert "cannot be read" in found.note

    @pytest.mark.parametrize("content", [b"epoch,loss\n1,\xff\xfe\n", b'epoch,loss\n1,"0.5\n2', b"", b"\0\0\0"])
    def test_a_table_that_is_none_is_no_mistake_of_the_program(
        self, database: Database, tmp_path: Path, content: bytes
    ) -> None:
        run = run_of(database, known_curves.add_run(database, known_curves.losses(3), finished=False))
        (tmp_path / "training_history.csv").write_bytes(content)
        assert history_of(run, tmp_path, ()).series == ()


def test_thinning_keeps_both_ends() -> None:
    kept = thinned(range(12_345))
    assert (len(kept), kept[0], kept[-1]) == (MAX_POINTS, 0, 12_344)
    assert thinned([1, 2]) == (1, 2)
