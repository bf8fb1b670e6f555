"""How unlike the images of training an image is: the Mahalanobis distance of its features.

There are more features than training images, so their covariance is that of probabilistic PCA (Tipping and Bishop,
1999; scikit-learn's PCA): full along the directions that vary most, one variance for all others. The distance is
squared and divided by the number of features, so it is about 1 for an image of training. It is part of the exported
graph.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

DIRECTIONS = 32
"""Directions with a variance of their own, at most."""
MARGIN = 1.5
"""An image counts as unlike beyond so many times the 99th percentile of images that nothing was fitted to."""

Array = npt.NDArray[np.float32]


class Distance(nn.Module):
    """The end of the exported graph that tells the distance; nothing of it is trained."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("directions", torch.zeros(features, DIRECTIONS))
        self.register_buffer("rest", torch.ones(1))

    def forward(self, pooled: Tensor) -> Tensor:
        """Return the distances (images,) of pooled features (images, features)."""
        off = pooled - self.get_buffer("mean")
        along = off @ self.get_buffer("directions")
        # The directions are scaled so that this is the whole quadratic form less what they explain of it.
        form = (off * off).sum(dim=1) * self.get_buffer("rest") - (along * along).sum(dim=1)
        return form.clamp(min=0.0) / pooled.shape[1]


def fit(features: Array) -> dict[str, Array]:
    """Return the buffers of ``Distance`` for the features (n, features) of the training images.

    Raise ValueError for fewer than three images.
    """
    count, width = features.shape
    if count < 3:
        raise ValueError("a distance needs at least three images")
    several = min(DIRECTIONS, count - 2, width - 1)
    model = PCA(n_components=several, svd_solver="full").fit(features.astype(np.float64))
    noise = max(float(model.noise_variance_), 1e-9)
    explained = np.maximum(model.explained_variance_, noise)
    directions = np.zeros((width, DIRECTIONS), dtype=np.float32)
    directions[:, :several] = (model.components_ * np.sqrt(1 / noise - 1 / explained)[:, None]).T
    return {
        "mean": model.mean_.astype(np.float32),
        "directions": directions,
        "rest": np.array([1 / noise], dtype=np.float32),
    }


def distances(buffers: dict[str, Array], features: Array) -> Array:
    """Return the distances (n,) of features (n, features)."""
    module = Distance(features.shape[1])
    module.load_state_dict({name: torch.from_numpy(value) for name, value in buffers.items()})
    with torch.inference_mode():
        found: Array = module(torch.from_numpy(np.ascontiguousarray(features))).numpy()
    return found


def limit(buffers: dict[str, Array], features: Array) -> float:
    """Return the distance beyond which an image is not judged, from features (n, features) nothing was fitted to."""
    return MARGIN * float(np.percentile(distances(buffers, features), 99.0))
