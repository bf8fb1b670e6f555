"""What can be said without looking at the image, and what a plain network sees: the figures beside the answers."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.tree import DecisionTreeClassifier

from clinic_ai.ml.metrics import interval
from clinic_ai_ultrasound.reference.heads import Head
from clinic_ai_ultrasound.reference.samples import of_part

_DEPTH = 3


def pixel_size_figures(heads: list[Head]) -> dict[str, Any]:
    """Return how often the size of a pixel alone tells the trimester of the test images, by a small decision tree.

    ``accuracy`` is of the images as they are, ``balanced`` the mean over the trimesters.
    """
    train, test = of_part(heads, "train"), of_part(heads, "test")
    tree = DecisionTreeClassifier(max_depth=_DEPTH, min_samples_leaf=5, random_state=0)
    tree.fit([[head.pixel_mm] for head in train], [head.trimester for head in train])
    truth = np.array([head.trimester for head in test])
    right = tree.predict([[head.pixel_mm] for head in test]) == truth
    return {
        "images": len(test),
        "accuracy": float(right.mean()),
        "accuracy_interval": interval(lambda rows: float(right[rows].mean()), [head.subject for head in test]),
        "balanced": float(np.mean([right[truth == one].mean() for one in np.unique(truth)])),
    }
