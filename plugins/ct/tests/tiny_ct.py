"""A network of the real classes that learns in seconds, and two volumes for it."""

from __future__ import annotations

import numpy as np
import torch

from clinic_ai_ct.configurations import (
    ClassifierConfig,
    EncoderConfig,
    LocaliserConfig,
    NetworkConfig,
    ProjectorConfig,
    TextConfig,
)

TEXT = TextConfig(width=32, layers=1, heads=2, mlp_width=32, vocabulary=320, bundled=True)


def config(**changes) -> NetworkConfig:
    """Return a network over 8 x 32 x 32 voxels, patches of 2 x 8 x 8; ``changes`` are of the encoder."""
    encoder = {
        "volume": (8, 32, 32),
        "patch": (2, 8, 8),
        "width": 32,
        "layers": 3,
        "heads": 2,
        "mlp_width": 64,
        "regions": 4,
    }
    return NetworkConfig(
        encoder=EncoderConfig(**(encoder | changes)),
        text=TEXT,
        classifier=ClassifierConfig(
            labels=("lung_nodule", "pleural_effusion", "cardiomegaly"), width=16, heads=2, soft_tokens=2
        ),
        localiser=LocaliserConfig(
            findings=("lung_nodule", "pleural_effusion"), width=32, layers=1, heads=2, base=4, tile=(8, 16, 16)
        ),
        projector=ProjectorConfig(queries=4, layers=1, width=16, heads=2, language_width=24),
        spacing=(2.0, 3.0, 3.0),
    )


def volumes() -> tuple[torch.Tensor, ...]:
    """Return two volumes (2, 3, 8, 32, 32), what they show (2, 2, 8, 32, 32), and their regions (2, 8, 32, 32).

    The first has a bright ball of two voxels' radius, the second a grey layer at the back.
    """
    drawn = np.random.default_rng(0)
    image = drawn.normal(0.2, 0.02, (2, 3, 8, 32, 32))
    z, y, x = np.ogrid[:8, :32, :32]
    masks = np.zeros((2, 2, 8, 32, 32), bool)
    masks[0, 0] = (z - 3) ** 2 + (y - 10) ** 2 + (x - 21) ** 2 <= 4
    masks[1, 1, :, 26:, :14] = True
    image[0] += 0.6 * masks[0, 0]
    image[1] += 0.3 * masks[1, 1]
    regions = np.zeros((2, 8, 32, 32), np.int64)
    regions[:, :, 4:28, 2:15], regions[:, :, 4:28, 17:30], regions[:, 2:6, 12:20, 12:20] = 1, 2, 3
    return tuple(torch.from_numpy(a) for a in (image.astype(np.float32), masks.astype(np.float32), regions))
