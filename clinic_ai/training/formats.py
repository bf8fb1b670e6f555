"""What the files of a model are, by content: safetensors, ONNX or text, and never a pickle.

Pure Python with bounds checked before anything is believed: this runs in the daemon, on files from
outside. It proves that a file has the shape of its format, not that an engine can use it; a trial load in
a child of its own shows that.
"""

from __future__ import annotations

import json
import math
import mmap
import pickletools
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from clinic_ai.errors import ModelError

MAX_SAFETENSORS_HEADER_BYTES = 100_000_000
"""The cap of the safetensors reference implementation."""
MAX_TEXT_BYTES = 64 << 20
TEXT_SUFFIXES = frozenset({".csv", ".jinja", ".json", ".md", ".toml", ".txt"})
PICKLE_SUFFIXES = frozenset({".bin", ".ckpt", ".joblib", ".npz", ".pickle", ".pkl", ".pt", ".pth"})

_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_PICKLE_PROBE_BYTES = 1 << 20
_PICKLE_MIN_OPCODES = 8
_ACTING_OPCODES = frozenset(
    {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "REDUCE", "BUILD", "PERSID", "BINPERSID", "PROTO"}
)
_CONVERT = "Convert the weights to safetensors or ONNX on another machine; a pickle can run code when it is opened."


class FormatError(Exception):
    """A file is not what its name says; the text continues "The file … "."""


def check_file(path: Path, names: Collection[str]) -> None:
    """Check one file of a model directory whose other files are ``names``.

    Raise ModelError if it is a pickle, or not what its suffix says.
    """
    suffix = path.suffix.lower()
    if suffix in PICKLE_SUFFIXES:
        raise ModelError(f"The file {path.name} has the suffix of a pickle or an archive of pickles.", remedy=_CONVERT)
    with path.open("rb") as stream:
        if pickle_like(stream.read(_PICKLE_PROBE_BYTES)):
            raise ModelError(f"The file {path.name} is a pickle or an archive, whatever its name.", remedy=_CONVERT)
    try:
        _check_content(path, suffix, names)
    except FormatError as error:
        raise ModelError(
            f"The file {path.name} {error}.",
            remedy="A model holds .onnx (with .data) or .safetensors files and texts (.json, .txt, .md, .toml, .csv).",
        ) from None


def _check_content(path: Path, suffix: str, names: Collection[str]) -> None:
    if suffix == ".safetensors":
        check_safetensors(path)
    elif suffix == ".onnx":
        check_onnx(path, names)
    elif suffix in TEXT_SUFFIXES:
        _check_text(path)
    elif suffix == ".data":
        _check_external(path, names)
    else:
        raise FormatError(f"has the suffix {suffix or '(none)'}, which no model of this appliance needs")


def pickle_like(head: bytes) -> bool:
    """Return whether bytes begin as a pickle (any protocol) or as a zip archive, the shell of a torch ``.pt``."""
    if head.startswith(_ZIP_MAGIC):
        return True
    acts, count = False, 0
    try:
        for opcode, _, _ in pickletools.genops(head):
            acts, count = acts or opcode.name in _ACTING_OPCODES, count + 1
    except (ValueError, IndexError, OverflowError, struct.error):
        # Cut off by the probe, or chance: a safetensors header of 384 bytes begins with the mark of protocol 1.
        return acts and count >= _PICKLE_MIN_OPCODES
    return acts


def _check_text(path: Path) -> None:
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise FormatError(f"is a text of more than {MAX_TEXT_BYTES >> 20} MiB")
    content = path.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError("is not a text in UTF-8") from None
    if "\0" in text:
        raise FormatError("is not a text: it holds zero bytes")


def _check_external(path: Path, names: Collection[str]) -> None:
    for name in names:
        if name.endswith(".onnx") and path.name in external_files(path.with_name(name)):
            return
    raise FormatError("holds raw weights that no .onnx file beside it refers to")


# ---------------------------------------------------------------- safetensors

_DTYPE_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
    "F4": 4,
}


def check_safetensors(path: Path) -> None:
    """Raise FormatError unless the header describes the whole file: every byte in one tensor, none in two."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= min(MAX_SAFETENSORS_HEADER_BYTES, size - 8):
            raise FormatError("is not safetensors: its header does not fit into it")
        text = stream.read(length)
    if not text.startswith(b"{"):
        raise FormatError("is not safetensors: its header is not a JSON object")
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError):
        raise FormatError("is not safetensors: its header is not valid JSON") from None
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FormatError("is not safetensors: its metadata are not texts")
    spans = sorted(_span(tensor) for tensor in header.values())
    if not spans:
        raise FormatError("holds no tensor")
    end = 0
    for begin, stop in spans:
        if begin != end:
            raise FormatError("is not safetensors: its tensors overlap or leave a gap")
        end = stop
    if end != size - 8 - length:
        raise FormatError(f"should hold {end} bytes of tensors and holds {size - 8 - length}: it is cut off or padded")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _span(tensor: object) -> tuple[int, int]:
    """Return first byte and end of one entry of the header, in bytes after the header."""
    if not isinstance(tensor, dict) or set(tensor) != {"dtype", "shape", "data_offsets"}:
        raise FormatError("is not safetensors: a tensor lacks dtype, shape or data_offsets")
    bits, shape, offsets = _DTYPE_BITS.get(str(tensor["dtype"])), tensor["shape"], tensor["data_offsets"]
    if bits is None or not _natural(shape) or not _natural(offsets) or len(offsets) != 2:
        raise FormatError("is not safetensors: a tensor has an unknown dtype, shape or place")
    begin, stop = offsets
    if begin > stop or (stop - begin) * 8 != math.prod(shape) * bits:
        raise FormatError("is not safetensors: the size of a tensor is not that of its shape")
    return begin, stop


def _natural(numbers: object) -> bool:
    return isinstance(numbers, list) and all(type(n) is int and 0 <= n < 1 << 48 for n in numbers)


# ---------------------------------------------------------------- ONNX (protocol buffers, onnx.proto3)

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_NESTING = 16
_MODEL_IR, _MODEL_GRAPH, _MODEL_OPSET, _MODEL_FUNCTION = 1, 7, 8, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_OUTPUT = 1, 5, 12
_NODE_ATTRIBUTE = 5
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_TENSOR_EXTERNAL = 13


def check_onnx(path: Path, names: Collection[str]) -> None:
    """Raise FormatError unless the file is a ModelProto with a graph whose weights lie in it or beside it."""
    outside = external_files(path) - set(names)
    if outside:
        raise FormatError("keeps weights in a file that model.toml does not list")


def external_files(path: Path) -> set[str]:
    """Return the names of the files in which an ONNX model keeps weights. Raise FormatError if it is no ONNX."""
    if path.stat().st_size == 0:
        raise FormatError("is empty")
    with path.open("rb") as stream:
        # Not closed by hand: views into it live as long as the traceback of a refusal.
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    return _model_externals(memoryview(mapped))


def _model_externals(model: memoryview) -> set[str]:
    seen: dict[int, int] = {}
    externals: set[str] = set()
    for field, wire, value in _fields(model):
        seen[field] = seen.get(field, 0) + 1
        if field == _MODEL_IR and (wire != _VARINT or not 1 <= value <= 100):
            raise FormatError("is not ONNX: it has no known format version")
        if field == _MODEL_GRAPH:
            externals |= _graph_externals(_message(wire, value), 0, whole=True)
        elif field == _MODEL_FUNCTION:
            externals |= _nodes_externals(_message(wire, value), 7, 0)
    if seen.get(_MODEL_GRAPH) != 1 or _MODEL_IR not in seen or _MODEL_OPSET not in seen:
        raise FormatError("is not ONNX: it lacks its format version, its operator set or its graph")
    return externals


def _graph_externals(graph: memoryview, depth: int, *, whole: bool = False) -> set[str]:
    externals = _nodes_externals(graph, _GRAPH_NODE, depth)
    kinds = set()
    for field, wire, value in _fields(graph):
        kinds.add(field)
        if field == _GRAPH_INITIALIZER:
            externals |= _tensor_externals(_message(wire, value))
    if whole and not {_GRAPH_NODE, _GRAPH_OUTPUT} <= kinds:
        raise FormatError("is not a usable ONNX model: its graph has no node or no output")
    return externals


def _nodes_externals(holder: memoryview, node_field: int, depth: int) -> set[str]:
    if depth > _MAX_NESTING:
        raise FormatError(f"is not a usable ONNX model: its graphs are nested more than {_MAX_NESTING} deep")
    externals: set[str] = set()
    for field, wire, value in _fields(holder):
        if field != node_field:
            continue
        for part, part_wire, attribute in _fields(_message(wire, value)):
            if part == _NODE_ATTRIBUTE:
                externals |= _attribute_externals(_message(part_wire, attribute), depth)
    return externals


def _attribute_externals(attribute: memoryview, depth: int) -> set[str]:
    externals: set[str] = set()
    for field, wire, value in _fields(attribute):
        if field in {_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS} and wire == _BYTES:
            externals |= _tensor_externals(_message(wire, value))
        elif field in {_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS} and wire == _BYTES:
            externals |= _graph_externals(_message(wire, value), depth + 1)
    return externals


def _tensor_externals(tensor: memoryview) -> set[str]:
    externals: set[str] = set()
    for field, wire, value in _fields(tensor):
        if field != _TENSOR_EXTERNAL:
            continue
        entry = {part: bytes(_message(w, v)) for part, w, v in _fields(_message(wire, value))}
        if entry.get(1) == b"location":
            externals.add(entry.get(2, b"").decode("utf-8", errors="replace"))
    return externals


def _message(wire: int, value: Any) -> memoryview:
    if wire != _BYTES:
        raise FormatError("is not ONNX: a part of it has the wrong kind")
    message: memoryview = value
    return message


def _fields(message: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Yield (field number, wire type, value) of a protocol-buffer message; lengths are checked first."""
    at, size = 0, len(message)
    while at < size:
        key, at = _varint(message, at)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            number, at = _varint(message, at)
            yield field, wire, number
            continue
        if wire == _BYTES:
            length, at = _varint(message, at)
        else:
            length = {_FIXED64: 8, _FIXED32: 4}.get(wire, -1)
        if field == 0 or length < 0 or length > size - at:
            raise FormatError("is not ONNX: a part of it does not fit into it")
        yield field, wire, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise FormatError("is not ONNX: it ends inside a number")
