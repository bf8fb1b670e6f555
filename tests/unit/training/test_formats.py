"""What a model's files are: pickles refused whatever their name, damaged files refused, real ones accepted."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save

from clinic_ai.errors import ModelError
from clinic_ai.training.formats import check_file, external_files, pickle_like


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("true",)


def _onnx_model(weights: np.ndarray, *, external: str = "") -> onnx.ModelProto:
    tensor = numpy_helper.from_array(weights, "w")
    if external:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=external)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        [tensor],
    )
    return helper.make_model(graph)


def _safetensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    onnx.save(_onnx_model(np.ones(4, dtype=np.float32)), path)
    return path


class TestPickles:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    @pytest.mark.parametrize("name", ["weights.safetensors", "model.onnx", "labels.json", "card.md"])
    def test_a_pickle_is_refused_whatever_its_name(self, tmp_path: Path, protocol: int, name: str) -> None:
        path = tmp_path / name
        path.write_bytes(pickle.dumps({"w": _Evil()}, protocol))
        with pytest.raises(ModelError, match="is a pickle"):
            check_file(path, {name})

    def test_a_pickle_longer_than_what_is_read_of_it_is_refused(self) -> None:
        assert pickle_like(pickle.dumps([_Evil(), list(range(500_000))], 2)[: 1 << 20])

    def test_a_torch_archive_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.safetensors"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("weights/data.pkl", pickle.dumps(_Evil()))
        with pytest.raises(ModelError, match="pickle or an archive"):
            check_file(path, {path.name})

    @pytest.mark.parametrize("name", ["a.pt", "a.bin", "a.pkl", "a.PTH", "a.npz"])
    def test_the_suffixes_of_pickles_are_refused(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_text("harmless")
        with pytest.raises(ModelError, match="suffix of a pickle"):
            check_file(tmp_path / name, {name})

    @given(size=st.integers(0, 3000))
    def test_no_safetensors_header_is_taken_for_a_pickle(self, size: int) -> None:
        # The first bytes are a length; some lengths begin as pickles of protocols 1 to 5 do.
        text = json.dumps({"__metadata__": {"pad": "x" * size}}).encode()
        assert not pickle_like(struct.pack("<Q", len(text)) + text)


class TestSafetensors:
    def test_what_the_library_writes_is_accepted(self, tmp_path: Path) -> None:
        path = tmp_path / "w.safetensors"
        tensors = {"a": np.ones((3, 4), np.float16), "b": np.zeros((0, 2), np.int64), "c": np.array(1.0)}
        path.write_bytes(save(tensors, metadata={"format": "np"}))
        check_file(path, {path.name})

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "does not fit"),
            (struct.pack("<Q", 1 << 60) + b"{}", "does not fit"),
            (_safetensors(b"[1]     "), "not a JSON object"),
            (_safetensors(b"{" * 5000), "not valid JSON"),
            (_safetensors({}), "no tensor"),
            (_safetensors(b'{"a":{},"a":{}}'), "not valid JSON"),
            (_safetensors({"a": {"dtype": "F32", "shape": [1]}}), "lacks dtype"),
            (_safetensors({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, b"1234"), "unknown dtype"),
            (_safetensors({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"1234"), "unknown dtype"),
            (_safetensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234"), "not that of its"),
            (_safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"123"), "cut off"),
            (
                _safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"12345"),
                "cut off or padded",
            ),
            (_safetensors({"a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}}, b"12"), "overlap or leave"),
            (_safetensors({"__metadata__": {"a": 1}}), "metadata"),
        ],
    )
    def test_what_does_not_describe_its_file_is_refused(self, tmp_path: Path, content: bytes, reason: str) -> None:
        path = tmp_path / "w.safetensors"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=reason):
            check_file(path, {path.name})


class TestOnnx:
    def test_a_real_model_is_accepted(self, model: Path) -> None:
        check_file(model, {model.name})

    def test_weights_beside_it_must_be_listed(self, tmp_path: Path) -> None:
        path = tmp_path / "m.onnx"
        onnx.save(_onnx_model(np.ones(4, dtype=np.float32), external="m.data"), path)
        (tmp_path / "m.data").write_bytes(np.ones(4, dtype=np.float32).tobytes())
        assert external_files(path) == {"m.data"}
        names = {"m.onnx", "m.data"}
        check_file(path, names)
        check_file(tmp_path / "m.data", names)
        with pytest.raises(ModelError, match="does not list"):
            check_file(path, {"m.onnx"})

    def test_weights_elsewhere_on_the_disk_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "m.onnx"
        onnx.save(_onnx_model(np.ones(4, dtype=np.float32), external="../../secret"), path)
        with pytest.raises(ModelError, match="does not list"):
            check_file(path, {"m.onnx"})

    def test_weights_of_a_constant_node_in_a_branch_are_seen(self, tmp_path: Path) -> None:
        hidden = helper.make_tensor("c", TensorProto.FLOAT, [1], [1.0])
        hidden.ClearField("float_data")
        hidden.data_location = TensorProto.EXTERNAL
        hidden.external_data.add(key="location", value="hidden.data")
        out = helper.make_tensor_value_info("o", TensorProto.FLOAT, [1])
        branch = helper.make_graph([helper.make_node("Constant", [], ["o"], value=hidden)], "b", [], [out])
        node = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
        x = helper.make_tensor_value_info("x", TensorProto.BOOL, [])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
        path = tmp_path / "m.onnx"
        path.write_bytes(helper.make_model(helper.make_graph([node], "g", [x], [y])).SerializeToString())
        assert external_files(path) == {"hidden.data"}

    def test_a_model_cut_anywhere_is_refused(self, model: Path) -> None:
        whole = model.read_bytes()
        cut = model.with_name("cut.onnx")
        for length in range(len(whole)):
            cut.write_bytes(whole[:length])
            # Cut between two parts it is still well-formed protobuf, but then lacks its operator set.
            with pytest.raises(ModelError):
                check_file(cut, {cut.name})

    @given(content=st.binary(max_size=200))
    def test_rubbish_is_refused_in_words(self, tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
        path = tmp_path_factory.mktemp("rubbish") / "m.onnx"
        path.write_bytes(content)
        with pytest.raises(ModelError):
            check_file(path, {path.name})


class TestOthers:
    def test_texts_are_accepted(self, tmp_path: Path) -> None:
        for name, text in (("labels.json", '["a"]'), ("card.md", "# Card\n"), ("vocab.txt", "N.\nI. A.\n")):
            (tmp_path / name).write_text(text)
            check_file(tmp_path / name, {name})

    @pytest.mark.parametrize(("name", "content"), [("a.txt", b"\xff\xfe"), ("a.json", b"a\0b"), ("run.sh", b"ls")])
    def test_what_is_neither_weights_nor_text_is_refused(self, tmp_path: Path, name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError):
            check_file(tmp_path / name, {name})

    def test_raw_data_that_no_model_refers_to_is_refused(self, tmp_path: Path, model: Path) -> None:
        (model.parent / "extra.data").write_bytes(b"1234")
        with pytest.raises(ModelError, match=r"no \.onnx file"):
            check_file(model.parent / "extra.data", {model.name, "extra.data"})
