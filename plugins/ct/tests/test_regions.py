"""Where anatomical regions come from."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import tiny_ct
import torch
from onnx import helper, numpy_helper

from clinic_ai.contract import Device
from clinic_ai.errors import ModelError
from clinic_ai_ct.configurations import REGIONS
from clinic_ai_ct.regions import (
    CONFIG,
    GRAPH,
    OFF,
    SegmenterConfig,
    given,
    load_segmenter,
    segmenter_network,
    write_segmenter,
)

SEGMENTER = SegmenterConfig(
    names=("heart", "rumpelstiltskin", "liver"),
    windows=((40.0, 400.0),),
    spacing=(3.0, 3.0, 3.0),
    features=(4, 4, 4, 4, 4, 4),
)
HEART, LIVER = REGIONS.index("heart") + 1, REGIONS.index("liver") + 1


def bright_is_liver(network):
    """Set the last layer so that what is bright is the third of its names, and what is dark nothing."""
    for weights in network.parameters():
        torch.nn.init.zeros_(weights)
    network.final_conv.bias.data[:] = torch.tensor([1.0, 0.0, 0.0, 2.0])
    return network


def test_a_mask_that_came_with_the_volume_is_renumbered_by_its_names():
    labels = np.array([[[0, 1, 2, 3]]], np.uint8)
    found = given(labels, SEGMENTER.names)
    assert found.labels.tolist() == [[[0, HEART, 0, LIVER]]]
    assert "came with the images" in found.sentence


def test_without_a_mask_and_a_segmenter_it_is_said_that_it_is_off():
    assert OFF.labels is None
    assert "off" in OFF.sentence


def test_an_imported_u_net_finds_regions_on_its_own_grid(tmp_path):
    network = bright_is_liver(segmenter_network(SEGMENTER))
    write_segmenter(network, SEGMENTER, tmp_path)
    segmenter = load_segmenter(tiny_ct.seal(tmp_path, slot="organs"), Device())
    sizes = []
    segmenter.network.register_forward_hook(lambda _, image, __: sizes.append(tuple(image[0].shape)))
    found = segmenter.find(torch.rand(1, 1, 10, 50, 40), (5.0, 2.0, 2.0))
    assert sizes == [(1, 1, 16, 32, 32)]
    assert found.labels.shape == (10, 50, 40)
    assert found.labels.dtype == np.uint8
    assert set(np.unique(found.labels)) == {LIVER}
    assert "ct/tiny/1" in found.sentence


def brightness() -> onnx.ModelProto:
    """Return a graph that scores by brightness: bright is the third name, dark is nothing."""
    scale = numpy_helper.from_array(np.array([-1, 0, 0, 1], np.float32).reshape(1, 4, 1, 1, 1), "scale")
    shift = numpy_helper.from_array(np.array([0.5, -9, -9, -0.5], np.float32).reshape(1, 4, 1, 1, 1), "shift")
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["image", "scale"], ["scaled"]),
            helper.make_node("Add", ["scaled", "shift"], ["scores"]),
        ],
        "brightness",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 1, "d", "h", "w"])],
        [helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, [1, 4, "d", "h", "w"])],
        [scale, shift],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_an_imported_onnx_graph_finds_regions(tmp_path):
    onnx.save(brightness(), tmp_path / GRAPH)
    (tmp_path / CONFIG).write_text(SEGMENTER.model_dump_json())
    segmenter = load_segmenter(tiny_ct.seal(tmp_path, slot="organs", model_format="onnx"), Device())
    image = torch.zeros(1, 1, 16, 32, 32)
    image[..., :16] = 1.0
    found = segmenter.find(image, (3.0, 3.0, 3.0))
    assert (found.labels[..., :16] == LIVER).all()
    assert (found.labels[..., 16:] == 0).all()


@pytest.mark.parametrize("harm", ["config", "weights"])
def test_damaged_segmenters_are_refused(tmp_path, harm):
    write_segmenter(segmenter_network(SEGMENTER), SEGMENTER, tmp_path)
    if harm == "config":
        (tmp_path / CONFIG).write_text(json.dumps({"names": ["heart"]}))
    else:
        (tmp_path / CONFIG).write_text(SEGMENTER.model_copy(update={"names": ("heart",)}).model_dump_json())
    with pytest.raises(ModelError, match="cannot be read"):
        load_segmenter(tiny_ct.seal(tmp_path, slot="organs"), Device())
