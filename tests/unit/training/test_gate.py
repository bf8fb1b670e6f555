"""Candidates held against the model in use: real trainers, engines and guard; each refusal names its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_learner
from school import School, open_school, tiny_png
from tiny_learner import HARM, OFFENCE, SHIRK, write_model

from clinic_ai.contract import Dataset, Device, Example, Limits, LoadedModel
from clinic_ai.domain import ModelState, RunState, new_id
from clinic_ai.errors import Conflict, ModelError, NotAllowed
from clinic_ai.gating import GateReport
from clinic_ai.home import init_home
from clinic_ai.processes import ChildSpec
from clinic_ai.settings import Settings
from clinic_ai.store import gates
from clinic_ai.store.gates import add_report
from clinic_ai.training.deciding import MANY_TRIED
from clinic_ai.training.spoken import Interrupted, Watch

MANIFEST = tiny_learner.manifest().model_copy(update={"trainer": "tiny_learner:TinyJudge"})
IN_USE, BETTER, SAME = 0.5, 1.0, 0.5001


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[School]:
    """One school with a guard for all of these tests; models have names of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(tiny_learner.__file__).parent))
        school = open_school(init_home(tmp_path_factory.mktemp("school") / "home"), MANIFEST, examining=True)
        yield school
        school.close()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """120 test patients, half of them women, half of each with pneumonia."""
    return make_dataset(tmp_path_factory.mktemp("images"))


def make_dataset(directory: Path, patients: int = 120, split: str = "test") -> Dataset:
    """Return a dataset whose images are the same file; their hashes, by which models judge, differ."""
    (directory / "image.png").write_bytes(tiny_png("image"))
    examples = tuple(
        Example(
            path=str(directory / "image.png"),
            sha256=f"{number * 2654435761 % 2**32:08x}" + "0" * 56,
            patient_key=f"{split} {number}",
            labels={"pneumonia": number % 2},
            split=split,  # type: ignore[arg-type]
            groups={"sex": "female" if number % 4 < 2 else "male", "station": "rare" if number < 4 else "usual"},
        )
        for number in range(patients)
    )
    return Dataset(dataset_id=new_id("D"), plugin="tiny", digest="0" * 64, examples=examples)


@pytest.fixture
def make(room: School, tmp_path: Path) -> Callable[..., LoadedModel]:
    """Return what enters a model of a weight; its slot is that of the test, so that tests do not meet."""

    def made(weight: float, *, active: bool = False, slot: str = tmp_path.name.lower()[:40]) -> LoadedModel:
        name = new_id("M").lower()
        write_model(tmp_path / name, weight, name=name, slot=slot)
        if active:
            ref = room.registry.import_directory(tmp_path / name, "ada")
            room.registry.promote("tiny", name, "1", "ada")
        else:
            ref = room.registry.import_candidate(tmp_path / name, "run R")
        return room.registry.loaded(ref)

    return made


def examine(room: School, candidate: LoadedModel, dataset: Dataset, watch: Watch | None = None) -> GateReport:
    """Return the report of a candidate."""
    assert room.gate is not None
    return room.gate.examine(
        MANIFEST,
        candidate,
        dataset,
        spec=ChildSpec(kind="trainer", name="tiny examination"),
        limits=Limits(),
        device=Device(),
        watch=watch or Watch(),
    )


def examination_of(candidate: LoadedModel, incumbent: LoadedModel | None, **wanted: object) -> GateReport:
    """Return a report as it is wanted; one that passed if nothing else is said."""
    return GateReport.model_validate(
        {
            **{key: getattr(candidate.ref, key) for key in ("plugin", "slot", "name", "version", "digest")},
            "report_id": new_id("G"),
            "incumbent": incumbent.ref if incumbent else None,
            "dataset_id": "D",
            "rules": {"improvement": "proven", "largest_loss": 0.0, "subgroup_loss": 0.05},
            "passed": True,
            "reasons": ("It is better.",),
            "at": 1.0,
            **wanted,
        }
    )


class TestExamination:
    def test_what_is_better_passes_with_its_figures(
        self, room: School, make: Callable[..., LoadedModel], dataset: Dataset
    ) -> None:
        incumbent, candidate = make(IN_USE, active=True), make(BETTER)
        report = examine(room, candidate, dataset)
        assert report.passed, report.reasons
        assert report.incumbent == incumbent.ref
        assert report.digest == candidate.ref.digest
        assert report.comparison is not None
        overall = report.comparison.overall
        assert (overall.examples, overall.patients) == (120, 120)
        assert overall.candidate == 1.0
        assert overall.interval is not None
        assert overall.interval[0] > 0
        assert report.guard is not None
        assert (report.guard.examples, report.guard.new) == (60, ())
        assert "instead of" in report.reasons[0]
        assert any("Bonferroni" in note for note in report.notes)
        assert any("Too small to tell: station rare." in note for note in report.notes)

    def test_what_is_no_better_is_refused_with_the_numbers(
        self, room: School, make: Callable[..., LoadedModel], dataset: Dataset
    ) -> None:
        make(IN_USE, active=True)
        report = examine(room, make(SAME), dataset)
        assert not report.passed
        assert "An improvement is not proven: AUROC for pneumonia 0.8" in report.reasons[0]
        assert "difference +0.000 (95 % interval" in report.reasons[0]

    def test_one_of_many_that_passes_is_a_doubt(
        self, room: School, make: Callable[..., LoadedModel], dataset: Dataset
    ) -> None:
        incumbent = make(IN_USE, active=True)
        for _ in range(MANY_TRIED):
            refused = make(SAME)
            with room.database.write() as connection:
                report = examination_of(refused, incumbent, passed=False, reasons=("It is no better.",))
                add_report(connection, report, of=refused.ref)
        report = examine(room, make(BETTER), dataset)
        assert report.passed
        [doubt] = report.doubts
        assert doubt.startswith("4 others were held against the same model before")
        assert "up to 12%" in doubt

    def test_a_loss_in_one_group_is_refused_for_that_group(
        self, room: School, make: Callable[..., LoadedModel], dataset: Dataset
    ) -> None:
        make(IN_USE, active=True)
        report = examine(room, make(2 + HARM), dataset)
        assert not report.passed
        assert any("the 60 test examples of sex female (60 patients) it loses" in reason for reason in report.reasons)
        assert not any("sex male" in reason for reason in report.reasons)

    def test_words_that_the_guard_keeps_back_anew_are_refused(
        self, room: School, make: Callable[..., LoadedModel], dataset: Dataset
    ) -> None:
        make(IN_USE, active=True)
        report = examine(room, make(2 + OFFENCE), dataset)
        assert not report.passed
        assert "The guard keeps back what it says of 60 of 60 test images" in report.reasons[0]
        assert report.guard is not None
        assert report.guard.incumbent_kept_back == 0
        assert report.guard.new[0].rule in report.reasons[0]

    def test_alone_it_is_held_against_chance(
        self, room: School, make: Callable[..., LoadedModel], dataset: Dataset
    ) -> None:
        report = examine(room, make(BETTER), dataset)
        assert (report.passed, report.incumbent) == (True, None)
        assert "none is in use" in report.reasons[0]
        report = examine(room, make(0.0), dataset)
        assert not report.passed
        assert "alone it is not better than chance (0.5)" in report.reasons[0]

    def test_too_few_patients_tell_nothing(
        self, room: School, make: Callable[..., LoadedModel], tmp_path: Path
    ) -> None:
        report = examine(room, make(BETTER), make_dataset(tmp_path, patients=8))
        assert not report.passed
        assert "8 test images of 8 patients are too few to tell; 10 patients are needed." in report.reasons[0]

    def test_what_cannot_be_examined_is_a_report_that_says_so(
        self, room: School, make: Callable[..., LoadedModel], dataset: Dataset
    ) -> None:
        assert room.gate is not None
        untaught = MANIFEST.model_copy(update={"trainer": "tiny_learner:TinyTrainer"})
        report = room.gate.examine(
            untaught,
            make(BETTER),
            dataset,
            spec=ChildSpec(kind="trainer", name="tiny examination"),
            limits=Limits(),
            device=Device(),
        )
        assert not report.passed
        assert "it has no `judge`, so none of its candidates can be promoted" in report.reasons[0]

    def test_what_leaves_out_test_examples_that_the_other_judges_is_refused(
        self, room: School, make: Callable[..., LoadedModel], dataset: Dataset
    ) -> None:
        make(IN_USE, active=True)
        report = examine(room, make(2 + SHIRK), dataset)
        assert not report.passed
        assert "leaves out 60 test examples that the model in use judges" in report.reasons[0]

    def test_an_adapter_of_a_base_that_is_not_here_is_refused(
        self, room: School, dataset: Dataset, tmp_path: Path
    ) -> None:
        write_model(tmp_path / "adapter", BETTER, slot="adapter", base_digest="f" * 64)
        report = examine(room, room.registry.outside(tmp_path / "adapter"), dataset)
        assert not report.passed
        assert "The base of the adapter tiny/scalar/1" in report.reasons[0]

    def test_it_ends_when_somebody_wants_it_to(
        self, room: School, make: Callable[..., LoadedModel], dataset: Dataset
    ) -> None:
        started = []
        with pytest.raises(Interrupted):
            examine(room, make(BETTER), dataset, Watch(started.append, lambda: bool(started)))
        assert not started[0].alive


class TestPromotion:
    @pytest.fixture
    def examined(self, room: School, make: Callable[..., LoadedModel]) -> Callable[..., LoadedModel]:
        """Enter a candidate with a report as it is wanted, made against what is in use."""

        def made(**wanted: object) -> LoadedModel:
            candidate = make(BETTER)
            assert room.gate is not None
            report = examination_of(candidate, room.gate.incumbent(MANIFEST, candidate), **wanted)
            with room.database.write() as connection:
                add_report(connection, report, of=candidate.ref)
            return candidate

        return made

    def words(self, model: LoadedModel) -> tuple[str, str, str]:
        return model.ref.plugin, model.ref.name, model.ref.version

    def active(self, room: School, model: LoadedModel) -> bool:
        return model.ref in room.registry.active("tiny")

    def test_a_candidate_needs_an_examination_that_it_passed(
        self, room: School, make: Callable[..., LoadedModel], examined: Callable[..., LoadedModel]
    ) -> None:
        with pytest.raises(Conflict, match="was never held against the model in use"):
            room.promotions.promote(*self.words(make(BETTER)), user="ada", wanted=None)
        refused = examined(passed=False, reasons=("It is worse.",))
        for wanted in (None, "ada"):
            with pytest.raises((Conflict, NotAllowed)):
                room.promotions.promote(*self.words(refused), user="ada", wanted=wanted)
        with pytest.raises(Conflict, match=r"did not pass its examination: It is worse\."):
            room.promotions.approve(*self.words(refused), user="ada", wanted=None)
        assert not self.active(room, refused)

    def test_a_named_person_approves_and_it_is_on_record(
        self, room: School, examined: Callable[..., LoadedModel]
    ) -> None:
        candidate = examined()
        with pytest.raises(Conflict, match="Nobody has approved the candidate"):
            room.promotions.promote(*self.words(candidate), user="ada")
        approval, report = room.promotions.approve(*self.words(candidate), user="ada", wanted=None, reason="seen")
        assert (approval.name, approval.reason, approval.report_id) == ("ada", "seen", report.report_id)
        again, _ = room.promotions.approve(*self.words(candidate), user="ada", wanted=None)
        assert again == approval
        room.promotions.promote(*self.words(candidate), user="bob")
        assert self.active(room, candidate)
        with room.database.read() as connection:
            (activation,) = gates.activations_of(connection, *self.words(candidate))
            assert (activation.by, activation.approval_id) == ("bob", approval.approval_id)
            assert gates.find_approval(connection, approval.approval_id) == approval
        with pytest.raises(Conflict, match="only a candidate is approved"):
            room.promotions.approve(*self.words(candidate), user="ada", wanted=None)

    def test_a_report_against_another_model_than_the_one_in_use_does_not_count(
        self, room: School, make: Callable[..., LoadedModel], examined: Callable[..., LoadedModel]
    ) -> None:
        make(IN_USE, active=True)
        candidate = examined()
        room.promotions.approve(*self.words(candidate), user="ada", wanted=None)
        make(BETTER, active=True)
        with pytest.raises(Conflict, match="another is in use by now") as refusal:
            room.promotions.promote(*self.words(candidate), user="ada")
        assert "model check" in refusal.value.remedy

    def test_names_are_those_that_results_are_signed_with(
        self, room: School, examined: Callable[..., LoadedModel], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = Settings.model_validate({"review": {"reviewers": ["Dr. A"]}})
        monkeypatch.setattr(room.promotions, "_settings", lambda: settings)
        candidate = examined()
        for wanted in (None, "Dr. B"):
            with pytest.raises(NotAllowed, match="is not a name that results are signed with"):
                room.promotions.approve(*self.words(candidate), user="ada", wanted=wanted)
        room.promotions.promote(*self.words(candidate), user="ada", wanted="Dr. A")
        assert self.active(room, candidate)

    def test_without_approval_only_what_is_beyond_doubt_becomes_active_by_itself(
        self, room: School, examined: Callable[..., LoadedModel], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        doubtful, good = examined(doubts=("A small group may be worse off.",)), examined()
        assert not room.promotions.by_itself(good.ref), "by default a person says so"
        settings = Settings.model_validate({"training": {"gate": {"approval": False}}})
        monkeypatch.setattr(room.promotions, "_settings", lambda: settings)
        assert not room.promotions.by_itself(doubtful.ref)
        assert not self.active(room, doubtful)
        with pytest.raises(Conflict, match="with a doubt: A small group"):
            room.promotions.promote(*self.words(doubtful), user="ada")
        assert room.promotions.by_itself(good.ref)
        assert self.active(room, good)


class TestRun:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A labelled folder of 100 patients."""
        directory = tmp_path / "labelled"
        directory.mkdir()
        rows = ["file,patient_id,pneumonia"]
        for number in range(100):
            (directory / f"{number}.png").write_bytes(tiny_png(str(number)))
            rows.append(f"{number}.png,P{number},{number % 2}")
        (directory / "labels.csv").write_text("\n".join(rows) + "\n")
        return directory

    def test_it_ends_with_a_report_and_one_that_was_trained_is_not_trained_again(
        self, room: School, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert room.gate is not None
        examine, interrupted = room.gate.examine, []

        def interrupt(*args: object, **options: object) -> GateReport:
            if not interrupted:
                interrupted.append(room.runs.get(run_id))
                raise Interrupted("A study waits.")
            return examine(*args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(room.gate, "examine", interrupt)
        run_id = room.runs.start("tiny", folder, {"steps": 3}, "ada")
        paused = room.runs.wait(run_id, 60)
        assert paused.state is RunState.PAUSED
        assert interrupted[0].progress is not None
        assert interrupted[0].progress["message"] == "holds the candidate against the model in use"
        assert room.registry.list_models() == [m for m in room.registry.list_models() if m.version != run_id]
        (room.home.runs / run_id / "checkpoint.json").unlink()  # what training would go on from
        room.runs.resume(run_id, "ada")
        finished = room.runs.wait(run_id, 60)
        assert finished.state is RunState.FINISHED, finished.error
        assert not (room.home.runs / run_id / "checkpoint.json").exists()
        (model,) = [m for m in room.registry.list_models() if m.version == run_id]
        assert model.state is ModelState.CANDIDATE
        with room.database.read() as connection:
            report = gates.newest_report(connection, "tiny", model.name, run_id)
        assert report is not None
        assert (report.digest, report.dataset_id) == (model.digest, finished.dataset_id)

    def test_a_model_that_knows_the_test_patients_is_not_compared(self, room: School, folder: Path) -> None:
        run_id = room.runs.start("tiny", folder, {}, "ada")
        assert room.runs.wait(run_id, 60).state is RunState.FINISHED
        dataset = room.runs.datasets.get(room.runs.get(run_id).dataset_id)
        swapped = {"train": "test", "test": "train", "validation": "validation"}
        other = dataset.model_copy(
            update={"examples": tuple(e.model_copy(update={"split": swapped[e.split]}) for e in dataset.examples)}
        )
        (model,) = [m for m in room.registry.list_models() if m.version == run_id]
        report = examine(room, room.registry.loaded(model.ref), other)
        assert not report.passed
        assert "was trained on" in report.reasons[0]
        assert "test patients or images" in report.reasons[0]

    def test_what_was_made_and_is_torn_is_made_again_and_not_examined(
        self, room: School, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert room.gate is not None
        examine, examined = room.gate.examine, []

        def interrupt(*args: object, **options: object) -> GateReport:
            examined.append(args[1])
            if len(examined) == 1:
                (room.home.runs / run_id / "model" / "weights.safetensors").write_bytes(b"torn")
                raise Interrupted("The power failed.")
            return examine(*args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(room.gate, "examine", interrupt)
        run_id = room.runs.start("tiny", folder, {"steps": 4}, "ada")
        assert room.runs.wait(run_id, 60).state is RunState.PAUSED
        room.runs.resume(run_id, "ada")
        finished = room.runs.wait(run_id, 60)
        assert finished.state is RunState.FINISHED, finished.error
        assert examined[0] == examined[1], "the same model, byte by byte"


class TestOutside:
    """What is examined is what will be imported: a directory that is not as its manifest says is not looked at."""

    @pytest.mark.parametrize("how", ["changed", "linked", "more"])
    def test_a_model_whose_files_are_not_those_of_its_digest_is_refused(
        self, room: School, tmp_path: Path, how: str
    ) -> None:
        place, other = tmp_path / "one", tmp_path / "other"
        write_model(place, BETTER)
        write_model(other, IN_USE)
        weights = place / "weights.safetensors"
        if how == "changed":
            weights.write_bytes((other / "weights.safetensors").read_bytes())
        elif how == "linked":
            weights.rename(tmp_path / "weights")
            weights.symlink_to(tmp_path / "weights")
        else:
            (place / "beside.bin").write_bytes(b"read by the judge, and never imported")
        with pytest.raises(ModelError):
            room.registry.outside(place)
