"""How unlike the images of training an image is: Mahalanobis distances of what it looks like and of its features.

The features of a network that learned one condition hardly tell an inverted film or one upside down from a good one:
nothing asked it to. The means and spreads of a few tiles of the image do, and see nothing fine. So an image must be
like those of training in both. Covariances are those of probabilistic PCA (Tipping and Bishop, 1999; scikit-learn's
PCA), since there may be more numbers than training images: full along the directions that vary most, one variance for
all others. The distance is a ratio: beyond 1 an image is not judged. It is part of the exported graph.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn import functional

DIRECTIONS = 32
"""Directions with a variance of their own, at most."""
MARGIN = 1.5
"""An image counts as unlike beyond so many times the 99th percentile of images that nothing was fitted to."""
TILES = 8
"""Tiles of an image a side."""
LOOK = 2 * TILES * TILES
"""Numbers that tell what an image looks like."""

Array = npt.NDArray[np.float32]


def look(images: Tensor) -> Tensor:
    """Return mean and standard deviation of each of 8 x 8 tiles (images, 128), of images (images, 1, side, side)."""
    side = images.shape[-1] // TILES
    means = functional.avg_pool2d(images, side)
    spreads = (functional.avg_pool2d(images * images, side) - means * means).clamp(min=0.0).sqrt()
    return torch.cat([means.flatten(1), spreads.flatten(1)], dim=1)


class Unlike(nn.Module):
    """A distance of (images, width) as a ratio to its limit; nothing of it is trained. Before it is fitted it is 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("directions", torch.zeros(width, DIRECTIONS))
        # Almost nothing rather than nothing: exporting merges weights that are equal.
        self.register_buffer("rest", torch.full((1,), 1e-20 / width))

    def forward(self, values: Tensor) -> Tensor:
        """Return the distances (images,) of values (images, width)."""
        off = values - self.get_buffer("mean")
        along = off @ self.get_buffer("directions")
        # The directions are scaled so that this is the whole quadratic form less what they explain of it.
        form = (off * off).sum(dim=1) * self.get_buffer("rest") - (along * along).sum(dim=1)
        return form.clamp(min=0.0)


class Distance(nn.Module):
    """The end of the exported graph that tells how unlike the images of training an image is, in limits."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.look = Unlike(LOOK)
        self.features = Unlike(features)

    def forward(self, images: Tensor, pooled: Tensor) -> Tensor:
        """Return the distances (images,) of images (images, 1, side, side) and their features (images, features)."""
        return torch.maximum(self.look(look(images)), self.features(pooled))


def fit(train: Array, apart: Array) -> dict[str, Array]:
    """Return the buffers of ``Unlike`` for values (n, width) of training images and of others nothing was fitted to.

    Raise ValueError for fewer than three training images, or no others.
    """
    count, width = train.shape
    if count < 3 or not len(apart):
        raise ValueError("a distance needs at least three images of training and one other")
    several = min(DIRECTIONS, count - 2, width - 1)
    model = PCA(n_components=several, svd_solver="full").fit(train.astype(np.float64))
    noise = max(float(model.noise_variance_), 1e-9)
    explained = np.maximum(model.explained_variance_, noise)
    directions = np.zeros((width, DIRECTIONS), dtype=np.float32)
    directions[:, :several] = (model.components_ * np.sqrt(1 / noise - 1 / explained)[:, None]).T
    buffers = {
        "mean": model.mean_.astype(np.float32),
        "directions": directions,
        "rest": np.array([1 / noise], dtype=np.float32),
    }
    limit = max(MARGIN * float(np.percentile(distances(buffers, apart), 99.0)), 1e-9)
    return {**buffers, "directions": directions / np.float32(math.sqrt(limit)), "rest": buffers["rest"] / limit}


def fit_both(look: tuple[Array, Array], features: tuple[Array, Array]) -> dict[str, Array]:
    """Return the state of ``Distance``; each pair is of training images and of others, as in ``fit``."""
    parts = {"look": fit(*look), "features": fit(*features)}
    return {f"{part}.{name}": value for part, buffers in parts.items() for name, value in buffers.items()}


def distances(buffers: dict[str, Array], values: Array) -> Array:
    """Return the distances (n,) of values (n, width)."""
    module = Unlike(values.shape[1])
    module.load_state_dict({name: torch.from_numpy(value) for name, value in buffers.items()})
    with torch.inference_mode():
        found: Array = module(torch.from_numpy(np.ascontiguousarray(values))).numpy()
    return found


def looks(images: Array) -> Array:
    """Return ``look`` of images (n, 1, side, side)."""
    with torch.inference_mode():
        found: Array = look(torch.from_numpy(np.ascontiguousarray(images))).numpy()
    return found
