"""The registry: what is refused, what is verified, and that a switch is atomic, hot and can be taken back."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_learner
from school import School, open_school
from tiny_learner import write_model

from clinic_ai import states
from clinic_ai.contract import AnalysisTask, ModelManifest
from clinic_ai.domain import ModelRef, ModelState, StudyFacts
from clinic_ai.engines import Engines, EngineSettings
from clinic_ai.errors import Conflict, ModelError, NotFound
from clinic_ai.home import Home
from clinic_ai.store import audit
from clinic_ai.store import models as store
from clinic_ai.training.registry import Registry


@pytest.fixture
def quick(school: School, monkeypatch: pytest.MonkeyPatch) -> School:
    """A school whose imports skip the trial load, for tests of what comes before and after it."""
    real = Registry._import
    monkeypatch.setattr(
        Registry,
        "_import",
        lambda self, path, actor, state, **more: real(self, path, actor, state, **more | {"trial": False}),
    )
    return school


def _add(school: School, tmp_path: Path, version: str, weight: float = 1.0, **more: object) -> ModelRef:
    directory = tmp_path / f"source-{more.get('name', 'scalar')}-{version}"
    write_model(directory, weight, version=version, **more)  # type: ignore[arg-type]
    return school.registry.import_directory(directory, "ada")


def _states(school: School) -> dict[str, ModelState]:
    return {model.version: model.state for model in school.registry.list_models()}


class TestImport:
    def test_a_model_is_tried_copied_and_registered(self, school: School, tmp_path: Path) -> None:
        digest = write_model(tmp_path / "m", 2.5)
        ref = school.registry.import_directory(tmp_path / "m", "ada")
        assert (ref.digest, ref.plugin, ref.slot, ref.reference) == (digest, "tiny", "main", False)
        (view,) = school.registry.list_models()
        assert (view.state, view.licence, view.imported_by) == (ModelState.IMPORTED, "Apache-2.0", "ada")
        assert school.registry.active("tiny") == ()
        shutil.rmtree(tmp_path / "m")
        loaded = school.registry.loaded(ref)
        assert tiny_learner.read_weight(Path(loaded.directory)) == 2.5
        assert Path(loaded.directory).is_absolute()
        assert school.registry.verify("tiny", "scalar", "1") == []
        with school.database.read() as connection:
            assert audit.first_break(connection) is None

    def test_what_the_engine_refuses_is_not_imported(self, school: School, tmp_path: Path) -> None:
        write_model(tmp_path / "m", tiny_learner.HEAVIEST + 1)
        with pytest.raises(ModelError, match=r"refuses the model tiny/scalar/1: The weight is too heavy\."):
            school.registry.import_directory(tmp_path / "m", "ada")
        assert school.registry.list_models() == []
        assert list(school.home.models.iterdir()) == []
        assert not school.crew.living()

    def test_importing_the_same_again_changes_nothing_and_another_of_its_name_is_refused(
        self, quick: School, tmp_path: Path
    ) -> None:
        ref = _add(quick, tmp_path, "1")
        assert _add(quick, tmp_path, "1") == ref
        with pytest.raises(Conflict, match="is registered as tiny/scalar/1 already"):
            _add(quick, tmp_path, "1", weight=9.0)
        assert tiny_learner.read_weight(Path(quick.registry.loaded(ref).directory)) == 1.0

    @pytest.mark.parametrize(
        ("line", "replacement", "reason"),
        [
            ('plugin = "tiny"', 'plugin = "unknown"', "not installed"),
            ('licence = "Apache-2.0"', 'licence = " "', "does not say its licence"),
            ('version = "1"', 'version = "../../1"', "names are up to 64"),
            ('version = "1"', 'version = ".."', "names are up to 64"),
            ('name = "weights.safetensors"', 'name = "../weights.safetensors"', "names are up to 64"),
            ('format = "safetensors"', 'format = "onnx"', "lists no .onnx"),
            ('format = "safetensors"', 'format = "pickle"', "not a model manifest"),
            ('source = "made by a test"', "", "source"),
            ('source = "made by a test"', "source = ", "is not TOML"),
            ('source = "made by a test"', "source = " + "[" * 9000, "is not TOML"),
            ('source = "made by a test"', "source = " + "9" * 9000, "is not TOML"),
            ('source = "made by a test"', 'source = "s"\nsecret = 1', "secret"),
            ("size_bytes = ", "size_bytes = 1", "should have"),
            ('sha256 = "', 'sha256 = "0', "not a model manifest"),
        ],
    )
    def test_a_manifest_that_says_wrong_things_is_refused(
        self, quick: School, tmp_path: Path, line: str, replacement: str, reason: str
    ) -> None:
        write_model(tmp_path / "m", 1.0)
        toml = tmp_path / "m" / "model.toml"
        text = toml.read_text()
        assert line in text
        toml.write_text(text.replace(line, replacement))
        with pytest.raises(ModelError, match=re.escape(reason)) as refusal:
            quick.registry.import_directory(tmp_path / "m", "ada")
        assert refusal.value.remedy
        assert [p for p in quick.home.models.rglob("*") if p.is_file()] == []

    def test_files_must_be_exactly_those_listed(self, quick: School, tmp_path: Path) -> None:
        source = tmp_path / "m"
        write_model(source, 1.0)
        weights = source / "weights.safetensors"
        whole = weights.read_bytes()

        def refused(match: str) -> None:
            with pytest.raises(ModelError, match=match):
                quick.registry.import_directory(source, "ada")

        (source / "extra.txt").touch()
        refused(r"holds extra\.txt")
        (source / "extra.txt").unlink()
        (source / "folder").mkdir()
        refused("not a plain file")
        (source / "folder").rmdir()
        weights.write_bytes(whole[:-1])
        refused("should have")
        weights.write_bytes(whole[:-1] + b"x")
        refused("does not have the SHA-256")
        weights.write_bytes(whole)
        weights.rename(tmp_path / "outside")
        refused(r"lacks weights\.safetensors")
        weights.symlink_to(tmp_path / "outside")
        refused("not a plain file")
        weights.unlink()
        os.mkfifo(weights)
        refused("not a plain file")
        weights.unlink()
        (tmp_path / "outside").rename(weights)
        quick.registry.import_directory(source, "ada")

    def test_a_pickle_with_the_right_hash_is_refused(self, quick: School, tmp_path: Path) -> None:
        import hashlib

        write_model(tmp_path / "m", 1.0)
        weights, toml = tmp_path / "m" / "weights.safetensors", tmp_path / "m" / "model.toml"
        old = weights.read_bytes()
        new = pickle.dumps({"w": [1.0]})
        weights.write_bytes(new)
        text = toml.read_text().replace(hashlib.sha256(old).hexdigest(), hashlib.sha256(new).hexdigest())
        toml.write_text(text.replace(f"size_bytes = {len(old)}", f"size_bytes = {len(new)}"))
        with pytest.raises(ModelError, match="is a pickle"):
            quick.registry.import_directory(tmp_path / "m", "ada")

    def test_a_directory_without_a_manifest_is_refused(self, quick: School, tmp_path: Path) -> None:
        for place in (tmp_path / "nowhere", tmp_path):
            with pytest.raises(ModelError, match=r"no readable model\.toml"):
                quick.registry.import_directory(place, "ada")
        (tmp_path / "model.toml").symlink_to("/etc/passwd")
        with pytest.raises(ModelError, match=r"no readable model\.toml"):
            quick.registry.import_directory(tmp_path, "ada")

    def test_a_candidate_may_not_call_itself_clinical(self, quick: School, tmp_path: Path) -> None:
        write_model(tmp_path / "m", 1.0, clinical_use=True)
        with pytest.raises(ModelError, match="fit for clinical use"):
            quick.registry.import_candidate(tmp_path / "m", "run R", lambda *_: None)

    def test_a_candidate_and_what_belongs_to_it_are_entered_together(self, quick: School, tmp_path: Path) -> None:
        write_model(tmp_path / "m", 1.0)

        def fail(*_: object) -> None:
            raise Conflict("The run ended otherwise.")

        with pytest.raises(Conflict):
            quick.registry.import_candidate(tmp_path / "m", "run R", fail)
        assert quick.registry.list_models() == []
        seen: list[ModelRef] = []
        quick.registry.import_candidate(tmp_path / "m", "run R", lambda _, ref: seen.append(ref))
        assert [model.ref for model in quick.registry.list_models()] == seen


class TestDamage:
    def test_a_changed_file_is_found_at_load_promote_and_verify_and_healed_by_another_import(
        self, quick: School, tmp_path: Path
    ) -> None:
        ref = _add(quick, tmp_path, "1")
        quick.registry.loaded(ref)  # its hash is remembered now
        weights = Path(quick.registry.loaded(ref).directory) / "weights.safetensors"
        stat, content = weights.stat(), bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.chmod(0o640)
        weights.write_bytes(content)
        os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size, same time
        assert quick.registry.verify("tiny", "scalar", "1") == [
            "The file weights.safetensors does not have the hash it was imported with."
        ]
        with pytest.raises(ModelError, match="is damaged") as damaged:
            quick.registry.loaded(ref)
        assert "model import" in damaged.value.remedy
        with pytest.raises(ModelError, match="is damaged"):
            quick.registry.promote("tiny", "scalar", "1", "ada")
        weights.unlink()
        assert quick.registry.verify("tiny", "scalar", "1") == [
            "The file weights.safetensors cannot be read: No such file or directory."
        ]
        assert _add(quick, tmp_path, "1") == ref
        assert quick.registry.verify("tiny", "scalar", "1") == []
        assert [m.version for m in quick.registry.list_models()] == ["1"]

    def test_a_changed_manifest_is_found(self, quick: School, tmp_path: Path) -> None:
        ref = _add(quick, tmp_path, "1")
        toml = Path(quick.registry.loaded(ref).directory) / "model.toml"
        toml.chmod(0o640)
        toml.write_text(toml.read_text() + "\n")
        with pytest.raises(ModelError, match=r"model\.toml does not have the hash"):
            quick.registry.loaded(ref)

    def test_unchanged_files_are_not_read_again(
        self, quick: School, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ref = _add(quick, tmp_path, "1")
        quick.registry.loaded(ref)

        def read_again(descriptor: int) -> tuple[str, int]:
            raise AssertionError("a file was hashed that did not change")

        monkeypatch.setattr("clinic_ai.training.registry.hash_descriptor", read_again)
        assert quick.registry.loaded(ref).ref == ref
        with pytest.raises(AssertionError):
            quick.registry.verify("tiny", "scalar", "1")


class TestPromotion:
    def test_a_chain_of_rollbacks_walks_back(self, quick: School, tmp_path: Path) -> None:
        for version in "123":
            _add(quick, tmp_path, version)
            quick.registry.promote("tiny", "scalar", version, "ada")
        assert _states(quick) == {"1": ModelState.RETIRED, "2": ModelState.RETIRED, "3": ModelState.ACTIVE}
        assert quick.registry.rollback("tiny", "main", "bob").version == "2"
        assert quick.in_use() == ["main:2"]
        assert quick.registry.rollback("tiny", "main", "bob").version == "1"
        with pytest.raises(Conflict, match="before the present one"):
            quick.registry.rollback("tiny", "main", "bob")
        quick.registry.promote("tiny", "scalar", "3", "ada")
        assert quick.registry.rollback("tiny", "main", "bob").version == "1"
        assert _states(quick) == {"1": ModelState.ACTIVE, "2": ModelState.RETIRED, "3": ModelState.RETIRED}
        with quick.database.read() as connection:
            assert audit.first_break(connection) is None

    def test_a_rollback_of_a_model_that_is_not_in_use_any_more_changes_nothing(
        self, quick: School, tmp_path: Path
    ) -> None:
        for version in "123":
            _add(quick, tmp_path, version)
            quick.registry.promote("tiny", "scalar", version, "ada")
        with pytest.raises(Conflict, match="changed meanwhile"):
            quick.registry.rollback("tiny", "main", "bob", retires="scalar 2")
        assert quick.in_use() == ["main:3"]
        assert quick.registry.rollback("tiny", "main", "bob", retires="scalar 3").version == "2"

    def test_slots_are_promoted_and_rolled_back_apart(self, quick: School, tmp_path: Path) -> None:
        for version, slot in (("1", "a"), ("2", "b"), ("3", "b")):
            _add(quick, tmp_path, version, slot=slot)
            quick.registry.promote("tiny", "scalar", version, "ada")
        assert quick.in_use() == ["a:1", "b:3"]
        quick.registry.rollback("tiny", "b", "ada")
        assert quick.in_use() == ["a:1", "b:2"]
        with pytest.raises(Conflict):
            quick.registry.rollback("tiny", "a", "ada")

    def test_a_rollback_to_a_damaged_model_changes_nothing(self, quick: School, tmp_path: Path) -> None:
        first = _add(quick, tmp_path, "1")
        quick.registry.promote("tiny", "scalar", "1", "ada")
        _add(quick, tmp_path, "2")
        quick.registry.promote("tiny", "scalar", "2", "ada")
        (Path(quick.registry.loaded(first).directory) / "weights.safetensors").unlink()
        with pytest.raises(ModelError, match="damaged"):
            quick.registry.rollback("tiny", "main", "ada")
        assert quick.in_use() == ["main:2"]

    def test_what_is_active_or_unknown_cannot_be_promoted(self, quick: School, tmp_path: Path) -> None:
        _add(quick, tmp_path, "1")
        quick.registry.promote("tiny", "scalar", "1", "ada")
        with pytest.raises(Conflict, match="active already"):
            quick.registry.promote("tiny", "scalar", "1", "ada")
        with pytest.raises(NotFound, match="no model tiny/scalar/7"):
            quick.registry.promote("tiny", "scalar", "7", "ada")

    @pytest.mark.parametrize("memory", ["0", "-1", "inf", "nan", "true", '"much"'])
    def test_a_model_says_its_memory_in_mebibytes(self, quick: School, tmp_path: Path, memory: str) -> None:
        write_model(tmp_path / "m", 1.0)
        manifest = tmp_path / "m" / "model.toml"
        manifest.write_text(manifest.read_text() + f"memory_mb = {memory}\n")
        with pytest.raises(ModelError, match="memory_mb of the model tiny/scalar/1 is not a number"):
            quick.registry.import_directory(tmp_path / "m", "ada")

    def test_an_adapter_works_beside_its_base_only(self, quick: School, tmp_path: Path) -> None:
        base = _add(quick, tmp_path, "1")
        with pytest.raises(ModelError, match="not in the registry"):
            _add(quick, tmp_path, "x", name="lora", slot="lora", base_digest="0" * 64)
        with pytest.raises(ModelError, match="slot of its base"):
            _add(quick, tmp_path, "y", name="lora", base_digest=base.digest)
        with pytest.raises(ModelError, match="quantisation 'int8'; its base here has 'none'"):
            _add(quick, tmp_path, "z", name="lora", slot="lora", base_digest=base.digest, quantisation='"int8"')
        _add(quick, tmp_path, "1a", weight=0.5, name="lora", slot="lora", base_digest=base.digest)
        with pytest.raises(Conflict, match="its base is not the active model"):
            quick.registry.promote("tiny", "lora", "1a", "ada")
        quick.registry.promote("tiny", "scalar", "1", "ada")
        quick.registry.promote("tiny", "lora", "1a", "ada")
        assert quick.in_use() == ["lora:1a", "main:1"]
        _add(quick, tmp_path, "2")
        quick.registry.promote("tiny", "scalar", "2", "ada")
        assert quick.in_use() == ["main:2"], "an adapter must rest while another base is active"
        quick.registry.rollback("tiny", "main", "ada")
        assert quick.in_use() == ["lora:1a", "main:1"]
        assert quick.registry.rollback("tiny", "lora", "ada") == base, "behind the first adapter comes its base"
        assert quick.in_use() == ["main:1"]
        with pytest.raises(Conflict):
            quick.registry.rollback("tiny", "lora", "ada")

    @pytest.mark.parametrize("state", list(ModelState))
    def test_promotion_follows_the_table_of_states(self, quick: School, tmp_path: Path, state: ModelState) -> None:
        _add(quick, tmp_path, "1")
        with quick.database.write() as connection:
            model = store.get_model(connection, "tiny", "scalar", "1")
            store._set_state(connection, model, state)
            model = store.get_model(connection, "tiny", "scalar", "1")
        if (state, "promote") in states.MODEL:
            # What a candidate has to show beside this is for test_gate.py.
            assert quick.registry.promote("tiny", "scalar", "1", "ada", lambda *_: None) == model.ref
            assert _states(quick) == {"1": ModelState.ACTIVE}
        else:
            with pytest.raises(Conflict):
                quick.registry.promote("tiny", "scalar", "1", "ada")
            assert _states(quick) == {"1": state}


class TestHotSwitch:
    @pytest.fixture
    def engines(self, school: School) -> Iterator[Engines]:
        settings = EngineSettings(memory_mb=1024, threads=1, idle_s=60, restart_cap=3, restart_window_s=60, rest_s=1)
        engines = Engines(school.crew, lambda: settings)
        yield engines
        engines.close()

    def test_the_next_job_uses_the_promoted_model_in_the_same_process(
        self, quick: School, engines: Engines, tmp_path: Path
    ) -> None:
        def say() -> tuple[str, str]:
            refs = quick.registry.active("tiny")
            task = AnalysisTask(job_id="J", facts=StudyFacts(), images=(), output_directory=str(tmp_path), models=refs)
            models = tuple(quick.registry.loaded(ref) for ref in refs)
            (said,) = engines.analyse(quick.manifests["tiny"], models, task).remarks
            pid, _, weights = said.partition(" ")
            return pid, weights

        base = _add(quick, tmp_path, "1", weight=1.0)
        _add(quick, tmp_path, "2", weight=2.0)
        _add(quick, tmp_path, "1a", weight=0.5, name="lora", slot="lora", base_digest=base.digest)
        quick.registry.promote("tiny", "scalar", "1", "ada")
        pid, weights = say()
        assert weights == "base=1.0 adapter=0.0"
        quick.registry.promote("tiny", "lora", "1a", "ada")
        assert say() == (pid, "base=1.0 adapter=0.5")
        quick.registry.promote("tiny", "scalar", "2", "ada")
        assert say() == (pid, "base=2.0 adapter=0.0")
        quick.registry.rollback("tiny", "main", "ada")
        assert say() == (pid, "base=1.0 adapter=0.5")
        quick.registry.rollback("tiny", "lora", "ada")
        assert say() == (pid, "base=1.0 adapter=0.0")


def test_a_kill_at_any_step_leaves_the_model_whole_or_absent(home: Home, tmp_path: Path) -> None:
    school = open_school(home)
    write_model(tmp_path / "old", 1.0, version="1")
    school.registry._import(tmp_path / "old", "ada", ModelState.IMPORTED, trial=False)
    school.registry.promote("tiny", "scalar", "1", "ada")
    school.close()
    write_model(tmp_path / "new", 2.0, version="2")
    command = [sys.executable, "-m", "killed_import", str(home.path), str(tmp_path / "new"), "4"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    *killed, done = [json.loads(line) for line in lines]
    assert len(killed) > 8
    assert {case["status"] for case in killed} == {-signal.SIGKILL}
    for case in killed:
        assert case["after"] in ({"1": []}, {"1": [], "2": []}), "half a model was registered"
        assert case["active"] == ["1"] or (case["active"] == ["2"] and "2" in case["after"])
        assert (case["healed"], case["leftovers"]) == ([], [])
    assert {len(case["after"]) for case in killed} == {1, 2}
    assert (done["after"], done["active"]) == ({"1": [], "2": []}, ["2"])


def test_a_model_that_is_gone_is_named_with_a_remedy(quick: School) -> None:
    with pytest.raises(NotFound, match="tiny/gone/1") as error:
        quick.registry.loaded(ModelRef(plugin="tiny", name="gone", version="1", digest="0" * 64))
    assert "model list" in error.value.remedy


def test_the_manifest_in_the_documentation_is_one() -> None:
    page = (Path(__file__).parents[3] / "docs" / "models.md").read_text()
    (block,) = re.findall(r'^    plugin = "xray"\n(?:(?:    .*)?\n)*', page, flags=re.MULTILINE)
    manifest = ModelManifest.model_validate(tomllib.loads(textwrap.dedent(block)))
    assert manifest.validation["pneumonia"].positives == 210
