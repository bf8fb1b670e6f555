"""Published weights become a base: every tensor in its place, and what does not fit named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional
from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

from clinic_ai.contract import Device
from clinic_ai.errors import ModelError
from clinic_ai.training.model_files import read_manifest
from clinic_ai_xray.convert import PLACE, main, read_tensors
from clinic_ai_xray.network import IMAGENET_MEAN, IMAGENET_SPREAD, NETWORKS, FastNetwork, IntensiveNetwork
from clinic_ai_xray.served import ServedModel
from clinic_ai_xray.tiers import FAST, INTENSIVE


def densenet_maps(tensors, blocks, images):
    """The last feature maps of a DenseNet (Huang et al., 2017) in torchvision's layout, written out step by step."""

    def norm(name, maps):
        mean, variance, weight, bias = (
            tensors[f"features.{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.relu(functional.batch_norm(maps, mean, variance, weight, bias))

    def convolution(name, maps, **how):
        return functional.conv2d(maps, tensors[f"features.{name}.weight"], **how)

    maps = functional.max_pool2d(norm("norm0", convolution("conv0", images, stride=2, padding=3)), 3, 2, 1)
    for block, layers in enumerate(blocks, start=1):
        for layer in range(1, layers + 1):
            name = f"denseblock{block}.denselayer{layer}"
            inner = norm(f"{name}.norm2", convolution(f"{name}.conv1", norm(f"{name}.norm1", maps)))
            maps = torch.cat([maps, convolution(f"{name}.conv2", inner, padding=1)], dim=1)
        if block < len(blocks):
            name = f"transition{block}"
            maps = functional.avg_pool2d(convolution(f"{name}.conv", norm(f"{name}.norm", maps)), 2)
    return norm("norm5", maps)


def old_names(tensors):
    return {
        name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.") if "denselayer" in name else name: value
        for name, value in tensors.items()
    }


@pytest.mark.parametrize(
    ("channels", "renamed"), [(3, old_names), (1, lambda tensors: {**tensors, "op_threshs": torch.zeros(18)})]
)
def test_densenet121_gives_what_its_publisher_computes(densenet_tensors, channels, renamed):
    tensors = densenet_tensors(IntensiveNetwork.blocks, channels)
    network = IntensiveNetwork()
    PLACE[INTENSIVE](network, renamed(tensors))
    grey = torch.rand(1, 1, INTENSIVE.side, INTENSIVE.side, generator=torch.Generator().manual_seed(1))
    mean, spread = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_SPREAD))
    images = (grey.expand(-1, 3, -1, -1) - mean) / spread if channels == 3 else grey * 2048 - 1024
    with torch.inference_mode():
        expected = densenet_maps(tensors, network.blocks, images)
        found = network.eval().features(grey)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)  # 120 layers of float32


def test_mobilenet_of_transformers_gives_what_it_gave(tmp_path):
    torch.manual_seed(2)
    config = MobileNetV2Config(depth_multiplier=0.75, finegrained_output=True, tf_padding=True)
    published = MobileNetV2ForImageClassification(config).eval()
    save_file(published.state_dict(), tmp_path / "model.safetensors")
    network = FastNetwork()
    PLACE[FAST](network, read_tensors(tmp_path / "model.safetensors"))
    grey = torch.rand(2, 1, FAST.side, FAST.side)
    with torch.inference_mode():
        expected = published.mobilenet_v2(pixel_values=(grey * 2 - 1).expand(-1, 3, -1, -1)).last_hidden_state
        torch.testing.assert_close(network.eval().features(grey), expected)


def test_every_tensor_that_does_not_fit_is_named(densenet_tensors, small):
    tensors = densenet_tensors((1, 1, 1, 6))
    del tensors["features.norm0.bias"]
    del tensors["features.denseblock4.denselayer6.conv1.weight"]
    tensors["features.norm5.weight"] = torch.zeros(7)
    tensors["features.denseblock9.denselayer1.norm1.bias"] = torch.zeros(7)
    network = NETWORKS[small]()
    with pytest.raises(ModelError) as caught:
        PLACE[small](network, tensors)
    for words in (
        "base.norm0.bias is missing",
        "top.denselayer6.layers.conv1.weight is missing",
        "base.denseblock9.denselayer1.layers.norm1.bias is unknown",
        "top.norm5.weight is 7 instead of 228",
    ):
        assert words in caught.value.message


def test_a_base_can_be_imported_and_is_what_was_converted(small, small_base, densenet_tensors):
    directory = Path(small_base.directory)
    _, manifest = read_manifest(directory)
    assert (manifest.slot, manifest.licence, manifest.clinical_use) == ("second", "Apache-2.0", False)
    assert ServedModel(small_base, Device()).untrained
    session = onnxruntime.InferenceSession(directory / "model.onnx")
    grey = np.random.default_rng(3).random((3, 1, small.side, small.side), dtype=np.float32)
    (pooled,) = session.run(["features"], {"images": grey})
    mean, spread = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_SPREAD))
    images = (torch.from_numpy(grey).expand(-1, 3, -1, -1) - mean) / spread
    expected = densenet_maps(densenet_tensors((1, 1, 1, 6)), (1, 1, 1, 6), images).mean(dim=(2, 3))
    np.testing.assert_allclose(pooled, expected, rtol=1e-3, atol=1e-3)


class Hostile:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (Hostile(), "no weights that can be read safely"),
        ({"state_dict": {"a": torch.zeros(1), "epoch": 3}}, "something else than named tensors"),
        ([torch.zeros(1)], "something else than named tensors"),
    ],
)
def test_files_that_are_no_weights_are_refused(tmp_path, capsys, content, words):
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    words_of_origin = ["--licence", "x", "--source-of-weights", "y"]
    assert main([str(path), str(tmp_path / "base"), "--tier", "intensive", *words_of_origin]) == 1
    shown = capsys.readouterr()
    assert words in shown.err
    assert "run" not in shown.out
    assert not (tmp_path / "base").exists()


def test_a_state_dict_may_lie_inside_another(tmp_path):
    torch.save({"state_dict": {"a": torch.ones(2)}}, tmp_path / "weights.pth")
    assert read_tensors(tmp_path / "weights.pth")["a"].tolist() == [1, 1]
