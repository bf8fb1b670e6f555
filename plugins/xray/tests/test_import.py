"""The import of a model: what is damaged or says two things is refused, by the registry or by a trial in the engine."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from clinic_ai.contract import Device
from clinic_ai.errors import ModelError
from clinic_ai.home import init_home
from clinic_ai.ml.model_files import open_model, write_manifest
from clinic_ai.processes import Crew
from clinic_ai.store.database import Database
from clinic_ai.training.registry import Registry
from clinic_ai_xray.plugin import describe_plugin
from clinic_ai_xray.served import ServedModel


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """A registry without a model, whose trials have a real engine."""
    home = init_home(tmp_path_factory.mktemp("home") / "h")
    database, crew = Database(home.database), Crew()
    database.open()
    yield Registry(home, database, {"xray": describe_plugin()}, crew)
    crew.close()
    database.close()


def pin(directory: Path) -> None:
    """Make the manifest right again about size and hash of whatever lies beside it."""
    files = [path for path in directory.iterdir() if path.name != "model.toml"]
    write_manifest(directory, open_model(directory).manifest, files)


def flip_a_byte(directory: Path) -> None:
    content = bytearray((directory / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (directory / "model.onnx").write_bytes(content)


def cut_it_short(directory: Path) -> None:
    (directory / "model.onnx").write_bytes((directory / "model.onnx").read_bytes()[:-1000])


def cut_it_short_and_pin(directory: Path) -> None:
    cut_it_short(directory)
    pin(directory)


def change_the_pinned_hash(directory: Path) -> None:
    [file] = open_model(directory).manifest.files
    toml = directory / "model.toml"
    toml.write_text(toml.read_text().replace(file.sha256, file.sha256[::-1]))


def change_the_metadata(key: str, value: str) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        model = onnx.load(directory / "model.onnx")
        onnx.helper.set_model_props(model, {entry.key: entry.value for entry in model.metadata_props} | {key: value})
        onnx.save(model, directory / "model.onnx")
        pin(directory)

    change.__name__ = f"change_the_metadata_{key}"
    return change


def drop_the_metadata(directory: Path) -> None:
    model = onnx.load(directory / "model.onnx")
    del model.metadata_props[:]
    onnx.save(model, directory / "model.onnx")
    pin(directory)


def keep_weights_in(location: str, *, written: str = "") -> Callable[[Path], None]:
    """Return what moves the largest tensor out of the graph, which calls its new place ``location``.

    It is written into the file ``written`` of the directory, or nowhere.
    """

    def move(directory: Path) -> None:
        model = onnx.load(directory / "model.onnx")
        tensor = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        if written:
            (directory / written).write_bytes(tensor.raw_data)
        del tensor.external_data[:]
        for key, value in (("location", location), ("offset", "0"), ("length", str(len(tensor.raw_data)))):
            tensor.external_data.add(key=key, value=value)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        (directory / "model.onnx").write_bytes(model.SerializeToString())
        pin(directory)

    move.__name__ = f"keep_weights_in_{location}"
    return move


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip_a_byte, "does not have the SHA-256 that model.toml gives"),
        (change_the_pinned_hash, "does not have the SHA-256 that model.toml gives"),
        (cut_it_short, "bytes and has"),
        (cut_it_short_and_pin, "is not ONNX"),
        (keep_weights_in("/etc/hostname"), "in a file that model.toml does not list"),
        (keep_weights_in("../weights.data"), "in a file that model.toml does not list"),
        (keep_weights_in("weights.data", written="weights.data"), "does not consist of one ONNX file"),
        (change_the_metadata("labels", '["cardiomegaly"]'), "the metadata inside its ONNX file disagree"),
        (drop_the_metadata, "does not carry the metadata of this plugin"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_damaged_or_says_two_things_is_not_imported(registry, reference, tmp_path, damage, reason):
    source = tmp_path / "model"
    shutil.copytree(reference.directory, source)
    damage(source)
    with pytest.raises(ModelError, match=re.escape(reason)) as refused:
        registry.import_directory(source, "ada")
    assert refused.value.remedy
    assert registry.list_models() == []


@pytest.mark.parametrize("location", ["weights.data", "../here/weights.data"])
def test_weights_that_lie_where_the_engine_runs_are_not_loaded(reference, tmp_path, monkeypatch, location):
    """The hash of the manifest covers the graph, not what the graph would read from the working directory."""
    source = tmp_path / "model"
    shutil.copytree(reference.directory, source)
    keep_weights_in(location, written="weights.data")(source)
    (tmp_path / "here").mkdir()
    (source / "weights.data").rename(tmp_path / "here" / "weights.data")
    pin(source)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ModelError, match="its ONNX file is damaged"):
        ServedModel(open_model(source), Device())


def test_the_same_model_undamaged_is_imported(registry, reference):
    assert registry.import_directory(Path(reference.directory), "ada").digest == reference.ref.digest
