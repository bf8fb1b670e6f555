"""A plugin that crashes, hangs, hoards, floods, lies or reaches out costs one attempt of one job, no more."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from harness import wait_until
from scans import write_ct_slice

from clinic_ai.appliance import Appliance
from clinic_ai.contract import Condition, ConditionInfo, PluginManifest
from clinic_ai.domain import JobKind, StudyState
from clinic_ai.home import Home, lock_home
from clinic_ai.plugins import PluginCatalogue, find_plugins
from clinic_ai.settings import load_settings
from clinic_ai.store import jobs, studies

RUDE = PluginManifest(
    name="rude",
    version="1",
    summary="Does harm.",
    claims=(Condition(modality=("CT",)),),
    conditions=(ConditionInfo(code="pneumonia", label="Pneumonia"),),
    needs_model=False,
    memory_mb=64,
    timeout_s=4.0,
    engine="rude_engine:RudeEngine",
)
HARMS = ["segfault", "hang", "memory", "flood", "exit", "raise", "pickle", "oversize", "link", "hard link"]
HARMS += ["absent file", "path", "words in the version", "words in figures", ""]


@pytest.fixture
def appliance(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Appliance]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent / "support"))
    with lock_home(home):
        appliance = Appliance(home, load_settings(home.clinic_toml), PluginCatalogue({"rude": RUDE}, []))
        try:
            appliance.open()
            appliance.start()
            yield appliance
        finally:
            appliance.stop(grace_s=5.0)


def drop(home: Home, aside: Path, harm: str, seed: int) -> str:
    path = aside / f"{seed}.dcm"
    uid = write_ct_slice(path, seed=seed)
    scan = pydicom.dcmread(path)
    scan.StudyDescription = harm
    scan.save_as(path)
    path.rename(home.inbox / path.name)
    return uid


def states(appliance: Appliance) -> dict[str, StudyState]:
    with appliance.database.read() as connection:
        return {s.study_instance_uid: s.state for s in studies.list_studies(connection, limit=1000)}


def test_every_harm_costs_one_attempt_of_one_job(appliance: Appliance, home: Home, tmp_path: Path) -> None:
    uids = {drop(home, tmp_path, harm, seed): harm for seed, harm in enumerate(HARMS)}
    ended = lambda: [s for s in states(appliance).values() if s in {StudyState.DONE, StudyState.FAILED}]  # noqa: E731
    wait_until(lambda: len(ended()) == len(HARMS), "the end of every study", 120)
    with appliance.database.read() as connection:
        for study in studies.list_studies(connection, limit=1000):
            harm = uids[study.study_instance_uid]
            [job] = [j for j in jobs.jobs_of(connection, study.study_id, study.version) if j.kind is JobKind.ANALYSE]
            assert study.state is StudyState.DONE, harm
            assert job.attempt == (2 if harm else 1), harm
    for document in home.outbox.glob("*/v1/result.json"):
        assert "root:" not in document.read_text()
        assert "PHANTOM" not in document.read_text()
        assert {"result.json", "report.pdf", "report.sr.dcm"} <= {p.name for p in document.parent.iterdir()}


def test_a_refusal_ends_the_study_with_its_reason(appliance: Appliance, home: Home, tmp_path: Path) -> None:
    uid = drop(home, tmp_path, "refuse", 1)
    wait_until(lambda: states(appliance).get(uid) is StudyState.FAILED, "the refusal")
    with appliance.database.read() as connection:
        [study] = studies.list_studies(connection)
        assert study.wait is not None
        assert "not suitable" in study.wait.sentence
        assert study.wait.remedy == "Send another one."


def test_a_plugin_that_has_nothing_to_say_still_gives_a_whole_result(
    appliance: Appliance, home: Home, tmp_path: Path
) -> None:
    uid = drop(home, tmp_path, "says nothing", 2)
    wait_until(lambda: states(appliance).get(uid) is StudyState.DONE, "the result")
    [place] = home.outbox.glob("*/v1")
    assert {"result.json", "report.pdf", "report.sr.dcm"} <= {path.name for path in place.iterdir()}


@pytest.mark.parametrize(("harm", "end"), [("raise", StudyState.DONE), ("refuse by name", StudyState.FAILED)])
def test_no_log_or_reason_names_the_patient(
    appliance: Appliance, home: Home, tmp_path: Path, capfd: pytest.CaptureFixture[str], harm: str, end: StudyState
) -> None:
    uid = drop(home, tmp_path, harm, 3)
    wait_until(lambda: states(appliance).get(uid) is end, "the end")
    with appliance.database.read() as connection:
        [study] = studies.list_studies(connection)
        texts = [job.model_dump_json() for job in jobs.jobs_of(connection, study.study_id, 1)]
        texts += [json.dumps(str(row)) for row in connection.exec_driver_sql("SELECT details FROM audit")]
        texts += [str(row) for row in connection.exec_driver_sql("SELECT wait FROM studies")]
        texts += [str(row) for row in connection.exec_driver_sql("SELECT sentence, remedy FROM alerts")]
    captured = capfd.readouterr()
    assert "PHANTOM" not in "".join([*texts, captured.out, captured.err])


def test_a_missing_model_is_waited_for_and_a_damaged_one_noticed(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_plugins().manifests
    bare = found["xray"].model_copy(update={"reference_models": ()})
    phantoms = tmp_path / "phantoms"
    phantoms.mkdir()
    from clinic_ai_xray.phantom import draw_chest, write_dx

    for seed in range(2):
        write_dx(phantoms / f"{seed}.dcm", draw_chest(256, 256, seed=seed), seed=seed)

    def wait_code(appliance: Appliance) -> str:
        with appliance.database.read() as connection:
            newest = studies.list_studies(connection, limit=1)
        return newest[0].wait.code if newest and newest[0].wait is not None else ""

    with lock_home(home):
        appliance = Appliance(home, load_settings(home.clinic_toml), PluginCatalogue({"xray": bare}, []))
        try:
            appliance.open()
            appliance.start()
            (phantoms / "0.dcm").rename(home.inbox / "0.dcm")
            wait_until(lambda: wait_code(appliance) == "no_model", "the wait for a model")
            reference = Path(__import__("clinic_ai_xray").__file__).parent / "reference" / "pneumonia-fast"
            ref = appliance.registry.import_directory(reference, "tester")
            assert wait_code(appliance) == "no_model"
            appliance.registry.promote(ref.plugin, ref.name, ref.version, "tester")
            wait_until(lambda: set(states(appliance).values()) == {StudyState.DONE}, "the result")

            onnx = next(Path(appliance.registry.loaded(ref).directory).glob("*.onnx"))
            onnx.chmod(0o600)
            content = bytearray(onnx.read_bytes())
            content[len(content) // 2] ^= 1
            onnx.write_bytes(content)
            (phantoms / "1.dcm").rename(home.inbox / "1.dcm")
            wait_until(lambda: wait_code(appliance) == "bad_model", "the notice of the damage")
            content[len(content) // 2] ^= 1
            onnx.write_bytes(content)
            wait_until(lambda: set(states(appliance).values()) == {StudyState.DONE}, "the result after the repair")
        finally:
            appliance.stop(grace_s=5.0)


def test_a_daemon_started_twice_is_refused_in_one_sentence(home: Home) -> None:
    import subprocess
    import sys

    with lock_home(home):
        began = time.monotonic()
        second = subprocess.run(
            [sys.executable, "-m", "clinic_ai", "run", "--home", str(home.path)],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
    assert time.monotonic() - began < 60
    assert second.returncode not in {0, 1}
    assert "another" in second.stderr.lower()
    assert "Traceback" not in second.stderr
