"""Model directories for the engine: small networks, and what their numbers mean."""

from __future__ import annotations

from pathlib import Path

import torch

from clinic_ai.contract import LoadedModel, ModelManifest
from clinic_ai.ml.model_files import open_model, write_manifest
from clinic_ai.ml.unlike import LIMIT, write_statistics
from clinic_ai_ct.configurations import (
    ClassifierConfig,
    EncoderConfig,
    LocaliserConfig,
    NetworkConfig,
    ProjectorConfig,
    TextConfig,
)
from clinic_ai_ct.lesions import LESIONS
from clinic_ai_ct.network import CTNetwork, made
from clinic_ai_ct.saving import write_network
from clinic_ai_ct.served import least_mm3

LABELS = (*LESIONS, "cardiomegaly", "fibrosis", "pneumonia")
JUDGED = LABELS[:7]
"""Pneumonia is a label that the network never learned."""


def network_config(**changes) -> NetworkConfig:
    """A network of the real classes over 288 x 384 x 384 mm in voxels of 6 x 6 x 6 mm."""
    return NetworkConfig(
        encoder=EncoderConfig(
            volume=(48, 64, 64), patch=(8, 16, 16), width=16, layers=2, heads=2, mlp_width=16, stem="patch"
        ),
        text=TextConfig(width=16, layers=1, heads=2, mlp_width=16, vocabulary=320, bundled=True),
        classifier=ClassifierConfig(labels=LABELS, width=16, heads=2, soft_tokens=2),
        localiser=LocaliserConfig(width=16, layers=1, heads=2, base=4, largest=8, tile=(48, 64, 64)),
        projector=ProjectorConfig(queries=4, layers=1, width=16, heads=2, language_width=24),
        spacing=(6.0, 6.0, 6.0),
        **changes,
    )


def with_sign(name: str) -> NetworkConfig:
    """A network that has one of the signs in the place of a large heart, and draws it."""
    config = network_config()
    drawn = config.localiser.model_copy(update={"findings": (*LESIONS, name)})
    told = config.classifier.model_copy(update={"labels": tuple(swapped(name, LABELS))})
    return config.model_copy(update={"localiser": drawn, "classifier": told})


def swapped(name: str, labels: tuple[str, ...]) -> list[str]:
    """Return the labels with ``name`` for the large heart."""
    return [name if label == "cardiomegaly" else label for label in labels]


def operating(**changes) -> dict[str, object]:
    """Parameters of a model: a mask of some size makes a lesion likely, a logit of 0 is one in two for the others."""
    count, masks = len(JUDGED), len(LESIONS)
    return {
        "judged": " ".join(JUDGED),
        "slopes": (1.0,) * count,
        "mask_slopes": (1.0,) * masks + (0.0,) * (count - masks),
        "reach_slopes": (0.0,) * count,
        "intercepts": (-1.0,) * masks + (0.0,) * (count - masks),
        "abstain_low": (0.4,) * count,
        "thresholds": (0.5,) * count,
        "abstain_high": (0.6,) * count,
        "mask_thresholds": (0.5,) * masks,
        "mask_peaks": (0.6,) * masks,
        "mask_least_mm3": tuple(map(least_mm3, LESIONS)),
        "mask_extents_mm3": (1000.0,) * masks,
    } | changes


def all_of(name: str) -> CTNetwork:
    """A network that draws one lesion everywhere and no other anywhere, and rates all labels as likely as not."""
    network = made(network_config(), seed=5)
    with torch.no_grad():
        unet = network.localiser.unet
        unet.kernel.weight.zero_()
        unet.kernel.bias.zero_()
        unet.bias.copy_(torch.tensor([6.0 if one == name else -6.0 for one in LESIONS]))
        network.classifier.bias.zero_()
        network.classifier.temperature.fill_(20.0)
    return network


def model(directory: Path, network: CTNetwork | None = None, *, far: bool | None = None, **changes) -> LoadedModel:
    """Write a model directory with ``operating(**changes)`` and return it; ``far`` gives it a distance and a limit."""
    directory.mkdir(exist_ok=True)
    files = list(write_network(network or all_of("consolidation"), directory))
    parameters = operating(**changes)
    if far is not None:
        drawn = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
        write_statistics(drawn[:20], drawn[20:], directory, ridge=1e-2, margin=1.25)
        parameters[LIMIT] = 1e-3 if far else 1e6
        files.append(directory / "feature_stats.safetensors")
    manifest = ModelManifest(
        plugin="ct",
        name="tiny",
        version="1",
        format="safetensors",
        files=(),
        licence="Apache-2.0",
        reference=True,
        source="Numbers set by hand.",
        intended_use="Tests.",
        parameters=parameters,
    )
    write_manifest(directory, manifest, files)
    return open_model(directory)
