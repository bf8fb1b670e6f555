"""Models of one condition are promoted and rolled back while studies come in: none is lost, none is mixed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from harness import Daemon, rows, wait_until

import clinic_ai_xray
from clinic_ai.control.promotion_client import PromotionClient
from clinic_ai.control.promotion_views import CanaryOrder, PromoteOrder
from clinic_ai.domain import ModelRef
from clinic_ai.home import Home
from clinic_ai.ml.model_files import open_model, write_manifest
from clinic_ai.store import audit
from clinic_ai.store.database import Database
from clinic_ai_xray.phantom import draw_chest, write_dx

REFERENCE = Path(clinic_ai_xray.__file__).parent / "reference"
THRESHOLDS = {"fast": 1e-9, "intensive": 2e-9, "confirming": 3e-9}
"""Which model judged: the threshold goes into the finding. So low that every film is called present."""
STUDIES = 24
AT_ONCE = 6


def make_model(directory: Path, name: str, *, slot: str = "main") -> str:
    """Write a reference model as one of another name and threshold that judges phantoms; return its place."""
    place = directory / name
    shutil.copytree(REFERENCE / ("pneumonia-fast" if name == "fast" else "pneumonia-intensive"), place)
    graph = onnx.load(place / "model.onnx")
    outputs = [output for output in graph.graph.output if output.name != "distance"]  # by which it would refuse them
    del graph.graph.output[:]
    graph.graph.output.extend(outputs)
    onnx.save(graph, place / "model.onnx")
    manifest = open_model(place).manifest
    parameters = manifest.parameters | dict.fromkeys(("abstain_low", "threshold", "abstain_high"), THRESHOLDS[name])
    named = {"name": name, "version": "1", "slot": slot, "reference": False, "parameters": parameters}
    write_manifest(place, manifest.model_copy(update=named), [place / "model.onnx"])
    return str(place)


@pytest.mark.torture  # promotion and rollback by themselves: tests/unit/training, tests/unit/cli
def test_models_change_places_while_studies_come_in(home: Home, tmp_path: Path, start: Callable[[], Daemon]) -> None:
    places = {name: make_model(tmp_path, name) for name in ("fast", "intensive")}
    places["confirming"] = make_model(tmp_path, "confirming", slot="confirm")
    films = []
    for seed in range(STUDIES + 2):
        films.append(tmp_path / f"{seed}.dcm")
        write_dx(films[-1], draw_chest(96, 96, seed=seed), seed=seed, bits=8)
    daemon = start()

    def drop(count: int) -> None:
        for film in films[:count]:
            film.rename(home.inbox / film.name)
        del films[:count]

    with PromotionClient(home) as client:

        def switch_to(name: str) -> None:
            client.import_model(places[name])
            client.promote_model(PromoteOrder(plugin="xray", name=name, version="1"))

        switch_to("fast")
        files = hashes(home)
        drop(AT_ONCE)
        for number in range(STUDIES):
            if number % 2:
                client.rollback_model("xray")
                assert hashes(home) == files, "a rollback finds the files as they were"
            else:
                switch_to("intensive")
            daemon.wait_for("delivery.sent")
            drop(min(1, len(films) - 2))
        client.import_model(places["confirming"])
        shadow = client.run_canary(CanaryOrder(plugin="xray", name="confirming", version="1", hours=1, most=2))
        assert (len(shadow.shadows), shadow.why_not, shadow.sentence) == (2, {}, "")
        switch_to("confirming")
        drop(2)
        for _ in range(2):
            daemon.wait_for("delivery.sent")

    wait_until(lambda: not rows(home, "SELECT 1 FROM studies WHERE state != 'DONE'"), "the end of every study")
    judged = Counter(judges(home))
    assert judged.total() == STUDIES + 2
    assert judged["confirming"] == 2
    assert min(judged["fast"], judged["intensive"]) > 0
    database = Database(home.database)
    with database.read() as connection:
        assert audit.first_break(connection) is None
    database.close()


def hashes(home: Home) -> dict[str, str]:
    """Return the SHA-256 of every file of the model that is rolled back to."""
    place = home.models / "xray" / "fast" / "1"
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in place.iterdir()}


def judges(home: Home) -> list[str]:
    """Return which model judged each study, after a look at whether all that is known of the study says the same."""
    jobs = rows(home, "SELECT * FROM jobs WHERE kind = 'analyse'")
    assert {(row["state"], row["attempt"], row["error"]) for row in jobs} == {("DONE", 1, "")}
    pinned = {row["study_id"]: [ModelRef.model_validate(ref) for ref in json.loads(row["models"])] for row in jobs}
    assert len(pinned) == len(jobs)
    stored = {row["subject"]: row for row in rows(home, "SELECT * FROM audit WHERE action = 'analysis.stored'")}
    sent = Counter(row["subject"] for row in rows(home, "SELECT * FROM audit WHERE action = 'delivery.sent'"))
    assert sent == Counter(pinned.keys())

    found = []
    places = list(home.outbox.rglob("result.json"))
    assert len(places) == len(pinned)
    for place in places:
        result = json.loads(place.read_text())
        models = pinned.pop(result["study"]["study_id"])
        assert [ModelRef.model_validate(ref) for ref in result["models"]] == models
        assert json.loads(stored[result["study"]["study_id"]]["details"])["models"] == [ref.label() for ref in models]
        [finding] = result["findings"]
        judge = "confirming" if len(models) == 2 else models[0].name
        assert finding["threshold"] == THRESHOLDS[judge]
        assert judge in {ref.name for ref in models}
        found.append(judge)
    return found
