"""Small operations on ONNX files: their weights and their metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from clinic_ai.errors import ModelError


def weights(content: bytes, names: tuple[str, ...]) -> dict[str, npt.NDArray[Any]]:
    """Return the initialisers ``names`` of an ONNX file. Raise ModelError if it lacks one."""
    model = _parse(content)
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    missing = sorted(set(names) - set(found))
    if missing:
        raise ModelError(f"The ONNX file lacks the weights {', '.join(missing)}.")
    return {name: np.array(found[name]) for name in names}


def with_weights(
    content: bytes, replaced: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str | int | float]
) -> bytes:
    """Return the ONNX file with other values for some initialisers, and ``metadata`` instead of its own.

    Raise ModelError if there is no initialiser of a name, or it has another shape or type.
    """
    model = _parse(content)
    left = dict(replaced)
    for tensor in model.graph.initializer:
        values = left.pop(tensor.name, None)
        if values is None:
            continue
        fresh = onnx.numpy_helper.from_array(values, tensor.name)
        if fresh.dims != tensor.dims or fresh.data_type != tensor.data_type:
            raise ModelError(f"The weights {tensor.name} do not fit the ONNX file.")
        tensor.CopyFrom(fresh)
    if left:
        raise ModelError(f"The ONNX file lacks the weights {', '.join(sorted(left))}.")
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def halve_weights(model: onnx.ModelProto, prefix: str) -> None:
    """Keep the float32 matrices and kernels of ``model`` whose names begin with ``prefix`` as float16, in place.

    A cast in the graph makes float32 of each again, which ONNX Runtime does once when it loads the file. Values that
    float16 cannot hold are rounded; the caller sees to it that they are not, or that it does not matter.
    """
    casts = []
    for tensor in model.graph.initializer:
        if not tensor.name.startswith(prefix) or tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        name, half = tensor.name, f"{tensor.name}.half"
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), half))
        casts.append(onnx.helper.make_node("Cast", [half], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _parse(content: bytes) -> onnx.ModelProto:
    try:
        return onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ModelError("The file is no ONNX model.") from error
