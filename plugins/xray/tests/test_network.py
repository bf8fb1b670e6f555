"""The network: its size, its export, and the same pixels in training and serving."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from clinic_ai.contract import Device
from clinic_ai.errors import ModelError
from clinic_ai_xray.convert import PLACE
from clinic_ai_xray.network import NETWORKS, PARAMETERS, FastNetwork, accept, describe, export
from clinic_ai_xray.run import reference_base
from clinic_ai_xray.served import ServedModel
from clinic_ai_xray.tiers import FAST


def lively_network() -> FastNetwork:
    """A network with random weights whose logits differ from image to image."""
    torch.manual_seed(3)
    network = FastNetwork().train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(8, 1, FAST.side, FAST.side))  # running statistics of the batch normalisations
    return network.eval()


def test_it_has_the_stated_number_of_parameters():
    network = FastNetwork()
    trained = sum(parameter.numel() for parameter in network.parameters())
    running = sum(buffer.numel() for name, buffer in network.named_buffers() if "running" in name)
    assert trained + running == PARAMETERS == 1_464_113
    assert sum(parameter.numel() for parameter in network.head.parameters()) == 82_049


def test_the_map_adds_up_to_the_logit():
    network = lively_network()
    with torch.inference_mode():
        maps = network.features(torch.rand(4, 1, FAST.side, FAST.side))
        logits, activation = network.head.judge(maps)
        hidden = network.head.hidden(maps.mean(dim=(2, 3)))
        constant = ((hidden > 0) * network.head.out.weight) @ network.head.hidden.bias + network.head.out.bias
    np.testing.assert_allclose(activation.mean(dim=(1, 2)) + constant, logits, atol=1e-4)


@pytest.mark.torture  # exporting it takes most of a minute; the small tier of test_intensive.py is in the suite
def test_the_export_of_the_fast_network_equals_it(tmp_path):
    path = tmp_path / "model.onnx"
    network = lively_network()
    sample = np.random.default_rng(0).random((64, 1, FAST.side, FAST.side), dtype=np.float32)
    difference = export(network, path, describe(FAST, condition="pneumonia", temperature=1.25), sample)
    with torch.inference_mode():
        spread = network(torch.from_numpy(sample))[0].std()
    assert difference < 1e-4 < spread
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_param


def test_the_export_equals_the_network_and_carries_its_metadata(small, small_base, densenet_tensors):
    torch.manual_seed(0)  # as the conversion does it
    network = NETWORKS[small]()
    PLACE[small](network, densenet_tensors(network.blocks))
    path = Path(small_base.directory) / "model.onnx"
    sample = np.random.default_rng(0).random((64, 1, small.side, small.side), dtype=np.float32)
    difference = accept(network.eval(), path, sample)
    with torch.inference_mode():
        spread = network(torch.from_numpy(sample))[0].std()
    assert difference < 1e-4 < spread  # a graph that says one thing of every image would agree for nothing
    model = onnx.load(path)
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "labels": '["untrained"]',
        "input_side": str(small.side),
        "temperature": "1.0",
        "preprocessing_version": "1",
    }
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param  # any number of images at once


def test_a_graph_of_another_network_is_not_kept(tmp_path, reference):
    copy = tmp_path / "model.onnx"
    copy.write_bytes((Path(reference.directory) / "model.onnx").read_bytes())
    network = lively_network()
    sample = np.random.default_rng(0).random((4, 1, FAST.side, FAST.side), dtype=np.float32)
    with pytest.raises(ModelError, match="differs"):
        accept(network, copy, sample)
    assert not copy.exists()


def test_the_reference_model_loads_and_is_small():
    model = reference_base()
    assert model.manifest.reference
    assert not model.manifest.clinical_use
    assert model.manifest.files[0].size_bytes < 6_000_000
    served = ServedModel(model, Device())
    images = np.random.default_rng(0).random((3, 1, FAST.side, FAST.side), dtype=np.float32)
    together = served.logits(images)
    alone = [float(served.logits(images[i : i + 1])[0]) for i in range(3)]
    np.testing.assert_allclose(together, alone, atol=1e-4)
