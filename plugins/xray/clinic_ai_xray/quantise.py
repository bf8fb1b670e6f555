"""Makes an int8 version of an exported classifier: its convolutions with whole numbers, everything else in float32.

Static quantisation of ONNX Runtime in its QDQ form: weights symmetric and per output channel, activations in 0..255
with ranges seen on calibration images. Weights take seven bits: where a processor lacks VNNI, products of eight bits
overflow its 16-bit sums, which costs far more than the bit (measured here on AVX2: a correlation of the logits with the
float ones of 0.957 instead of 0.9998).
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from clinic_ai.errors import ModelError
from clinic_ai.ml.greys import Float
from clinic_ai_xray.served import ORT_ERRORS

_ACTIVATIONS = {"Clip", "Relu"}
"""What may stand behind a convolution and is done by its range instead."""


def quantise(content: bytes, images: Float) -> bytes:
    """Return the int8 version of the ONNX file ``content``, calibrated on ``images``.

    These are prepared, float32 (n, 1, side, side) in 0..1. Metadata are those of ``content``, and what is behind its
    last convolution stays as it is. Raise ModelError if it is no model that ONNX Runtime can quantise.
    """
    try:
        original = onnx.load_model_from_string(content)
        # ONNX Runtime quantises from file to file, and has temporary ones of its own beside these.
        with tempfile.TemporaryDirectory() as folder:
            source, prepared, made = (Path(folder) / f"{name}.onnx" for name in ("source", "prepared", "int8"))
            source.write_bytes(content)
            # Folds norms into convolutions and notes all shapes, without which fewer nodes could be quantised.
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
            chosen = _convolutions(onnx.load(prepared))
            if not chosen:
                raise ModelError("The model has no convolution to make int8.")
            quantize_static(
                prepared,
                made,
                _Images(images),
                quant_format=QuantFormat.QDQ,
                nodes_to_quantize=chosen,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                extra_options={"WeightSymmetric": True},
            )
            model = onnx.load(made)
        del model.metadata_props[:]
        model.metadata_props.extend(original.metadata_props)
        onnx.checker.check_model(model)
    except (DecodeError, ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"The ONNX file cannot be made int8: it is damaged ({type(error).__name__}).") from error
    except ORT_ERRORS as error:
        raise ModelError("The ONNX file cannot be made int8: this onnxruntime cannot run it.") from error
    return bytes(model.SerializeToString())


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """Gives the calibration images one by one."""

    def __init__(self, images: Float) -> None:
        self._left = iter(images)

    def get_next(self) -> dict[str, Float] | None:
        """Return the next input, None behind the last."""
        image = next(self._left, None)
        return None if image is None else {"images": np.ascontiguousarray(image[None])}


def _convolutions(model: onnx.ModelProto) -> list[str]:
    """Return the names of all convolutions, and of the activations that alone take what one of them gives."""
    takers = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            takers[name].append(node)
    found = []
    for node in model.graph.node:
        if node.op_type == "Conv":
            behind = takers[node.output[0]]
            found.append(node.name)
            found += [taker.name for taker in behind if len(behind) == 1 and taker.op_type in _ACTIVATIONS]
    return found
