"""The phases of the tasks: labels by texts, masks by texts, and both with reports and the encoder at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from clinic_ai.ml.label_scores import label_scores, macro
from clinic_ai.ml.mask_scores import dice
from clinic_ai_ct.classifier import classification_loss
from clinic_ai_ct.configurations import Size
from clinic_ai_ct.encoder import Features
from clinic_ai_ct.label_sets import Targets, class_weights, targets
from clinic_ai_ct.localiser import localisation_loss
from clinic_ai_ct.sliding import by_tiles
from clinic_ai_ct.training.cases import Case
from clinic_ai_ct.training.objective import VALIDATION_LOSS, Objective, Scene, Whole, generator_of
from clinic_ai_ct.training.phases import JOINT_WEIGHTS
from clinic_ai_ct.training.prepared import Prepared
from clinic_ai_ct.training.speaking import Words, words_of

_DENOISING_SHARE = 0.1
"""What telling the features without noise counts beside the masks."""
_GUESSED = 0.5
"""AUROC of what tells nothing apart."""
_ON_LESION = 0.5
"""So often a tile to learn from lies around a voxel of a lesion."""


class Classifying(Objective):
    """Learns the classifier; labels that a case does not have cost nothing."""

    def whole(self, cases: Sequence[Case]) -> Whole:
        """Return how many labels are known."""
        return {"labels": float(sum(_targets(self.scene, case).known.sum() for case in cases))}

    def loss(self, cases: Sequence[Case], whole: Whole, seed: int) -> Tensor:  # noqa: ARG002 - nothing is drawn
        """Return the cross-entropy, positives weighed by class."""
        ready = [self.scene.prepare(case) for case in cases]
        return labels_share(self.scene, self.scene.see(cases, ready), ready, whole["labels"])

    @torch.no_grad()
    def judge(self, cases: Sequence[Case]) -> dict[str, float]:
        """Return the loss and macro AUROC over labels that have both classes here."""
        judged = LabelsJudged(self.scene)
        for case in cases:
            ready = self.scene.prepare(case)
            judged.add(self.scene.see([case], [ready]), ready)
        return {VALIDATION_LOSS: judged.loss, self.phase.metric: _known(judged.auroc, _GUESSED)}


class Localising(Objective):
    """Learns the localiser. Dice is counted over the cases that go through at once, cross-entropy over the step."""

    def whole(self, cases: Sequence[Case]) -> Whole:
        """Return how many masks are known."""
        return {"masks": _known_masks(self.scene, cases)}

    def loss(self, cases: Sequence[Case], whole: Whole, seed: int) -> Tensor:
        """Return Dice and cross-entropy of a tile of each case, and what the denoiser could not tell."""
        ready = [self.scene.prepare(case) for case in cases]
        return masks_share(self.scene, cases, self.scene.see(cases, ready), ready, whole["masks"], seed)

    @torch.no_grad()
    def judge(self, cases: Sequence[Case]) -> dict[str, float]:
        """Return the loss, and the mean over findings of Dice where the finding is there."""
        judged = MasksJudged(self.scene)
        for case in cases:
            ready = self.scene.prepare(case)
            judged.add(self.scene.see([case], [ready]), ready)
        return {VALIDATION_LOSS: judged.loss, self.phase.metric: _known(judged.dice, 0.0), **judged.each}


class Joint(Objective):
    """Learns all tasks and the encoder at once; a case without masks, labels or a report teaches the other tasks."""

    def whole(self, cases: Sequence[Case]) -> Whole:
        """Return how many labels, masks and words of reports there are."""
        return {
            "labels": float(sum(_targets(self.scene, case).known.sum() for case in cases)),
            "masks": _known_masks(self.scene, cases),
            "words": 0.0 if self.scene.language is None else words_of(self.scene, cases),
        }

    def loss(self, cases: Sequence[Case], whole: Whole, seed: int) -> Tensor:
        """Return the weighted sum; the encoder runs once for all."""
        ready = [self.scene.prepare(case) for case in cases]
        features = self.scene.see(cases, ready)
        loss = features.global_.sum() * 0.0
        if whole["labels"]:
            share = labels_share(self.scene, features, ready, whole["labels"])
            loss = loss + JOINT_WEIGHTS["classification"] * share
        if whole["masks"]:
            share = masks_share(self.scene, cases, features, ready, whole["masks"], seed)
            loss = loss + JOINT_WEIGHTS["localisation"] * share
        if whole["words"]:
            share = Words(self.scene).share(features, cases, ready, whole["words"])
            loss = loss + JOINT_WEIGHTS["report"] * share
        return loss

    @torch.no_grad()
    def judge(self, cases: Sequence[Case]) -> dict[str, float]:
        """Return the figures of the tasks, and their mean by the weights of the losses."""
        labels, masks = LabelsJudged(self.scene), MasksJudged(self.scene)
        words = None if self.scene.language is None else Words(self.scene)
        for case in cases:
            ready = self.scene.prepare(case)
            features = self.scene.see([case], [ready])
            labels.add(features, ready)
            masks.add(features, ready)
            if words is not None and case.told:
                words.add(features, case, ready)
        losses = {"classification": labels.loss, "localisation": masks.loss}
        figures = {"classification": labels.auroc, "localisation": masks.dice}
        if words is not None:
            losses["report"], figures["report"] = words.loss, words.foretold
        known = {task: figure for task, figure in figures.items() if not math.isnan(figure)}
        weight = sum(JOINT_WEIGHTS[task] for task in known)
        mean = sum(JOINT_WEIGHTS[task] * figure for task, figure in known.items()) / max(weight, 1e-9)
        loss = sum(JOINT_WEIGHTS[task] * one for task, one in losses.items())
        return {
            VALIDATION_LOSS: loss,
            self.phase.metric: mean,
            **{f"validation_{task}": figure for task, figure in known.items()},
        }


# ---------------------------------------------------------------- labels


def weigh_classes(scene: Scene, cases: Sequence[Case]) -> None:
    """Give the classifier the weights of its positives in the train part."""
    weights = class_weights(_targets(scene, case) for case in cases)
    scene.network.classifier.set_weights(torch.from_numpy(weights))


def labels_share(scene: Scene, features: Features, ready: Sequence[Prepared], known: float) -> Tensor:
    """Return the share that some cases have of the loss of a step with so many ``known`` labels."""
    values = torch.stack([one.values for one in ready]).to(scene.device)
    there = torch.stack([one.labelled for one in ready]).to(scene.device)
    logits = scene.network.classify(features).float()
    loss = classification_loss(logits, values, there, scene.network.classifier.weights)
    return loss * (there.sum() / max(known, 1.0))


class LabelsJudged:
    """What the classifier makes of cases, one after the other."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._total, self._known = 0.0, 0.0
        self._rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, features: Features, ready: Prepared) -> None:
        """Judge one case."""
        known = float(ready.labelled.sum())
        if not known:
            return
        self._total += float(labels_share(self._scene, features, [ready], 1.0))
        self._known += known
        scores = torch.sigmoid(self._scene.network.classify(features).float())[0].cpu()
        self._rows.append((ready.values.numpy(), scores.numpy(), ready.labelled.numpy()))

    @property
    def loss(self) -> float:
        """Mean over the known labels."""
        return self._total / max(1.0, self._known)

    @property
    def auroc(self) -> float:
        """Macro AUROC; NaN if no label has both classes."""
        if not self._rows:
            return math.nan
        truth, scores, known = (np.stack(column) for column in zip(*self._rows, strict=True))
        names = self._scene.network.config.classifier.labels
        return macro(label_scores(truth, scores, names, known=known))["auroc"]


# ---------------------------------------------------------------- masks


def masks_share(
    scene: Scene, cases: Sequence[Case], features: Features, ready: Sequence[Prepared], known: float, seed: int
) -> Tensor:
    """Return the share that some cases have of the loss of a step with so many ``known`` masks."""
    network, config = scene.network, scene.network.config
    refined = network.refine(features)
    patch = config.encoder.patch
    parts, images, masks = [], [], []
    for row, (case, one) in enumerate(zip(cases, ready, strict=True)):
        place = _tile(one, config.localiser.tile, patch, generator_of(seed, case))
        z, y, x = place
        dz, dy, dx = (slice(s.start // p, s.stop // p) for s, p in zip(place, patch, strict=True))
        parts.append(refined[row, :, dz, dy, dx])
        images.append(one.image[:, z, y, x])
        masks.append(one.masks[:, z, y, x])
    image, truth = torch.stack(images).to(scene.device), torch.stack(masks).to(scene.device)
    there = torch.stack([one.known for one in ready]).to(scene.device)
    logits = network.segment(torch.stack(parts), image).float()
    loss = localisation_loss(logits, truth, there)
    denoised = network.localiser.denoising_loss(refined, features)
    return (loss + _DENOISING_SHARE * denoised) * (there.sum() / max(known, 1.0))


class MasksJudged:
    """What the localiser makes of cases, one after the other."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._losses: list[float] = []
        self._dice: dict[str, list[float]] = {}

    def add(self, features: Features, ready: Prepared) -> None:
        """Judge one case."""
        if not ready.known.any():
            return
        image = ready.image.unsqueeze(0).to(self._scene.device)
        logits = by_tiles(self._scene.network, features, image).float()
        truth = ready.masks.unsqueeze(0).to(logits.device)
        known = ready.known.unsqueeze(0).to(logits.device)
        self._losses.append(float(localisation_loss(logits, truth, known)))
        for at, name in enumerate(self._scene.network.config.localiser.findings):
            if ready.known[at] and ready.masks[at].any():
                said = (logits[0, at] > 0).cpu().numpy()
                self._dice.setdefault(name, []).append(dice(said, ready.masks[at].numpy() > 0))

    @property
    def loss(self) -> float:
        """Mean over the cases."""
        return float(np.mean(self._losses)) if self._losses else 0.0

    @property
    def each(self) -> dict[str, float]:
        """Mean Dice of each finding that is there."""
        return {f"validation_dice_{name}": float(np.mean(values)) for name, values in self._dice.items()}

    @property
    def dice(self) -> float:
        """Mean over the findings; NaN if none is there."""
        return float(np.mean(list(self.each.values()))) if self._dice else math.nan


def _tile(ready: Prepared, tile: Size, patch: Size, draw: torch.Generator) -> tuple[slice, slice, slice]:
    """Return where a tile to learn from lies, on whole patches; often around a voxel of a lesion."""
    shape = ready.image.shape[1:]
    sides = [min(whole, part) for whole, part in zip(shape, tile, strict=True)]
    inside = ready.masks[ready.known > 0].amax(dim=0).nonzero() if bool((ready.known > 0).any()) else torch.empty(0, 3)
    on_lesion = len(inside) > 0 and float(torch.rand((), generator=draw)) < _ON_LESION
    voxel = inside[int(torch.randint(len(inside), (), generator=draw))].tolist() if on_lesion else None
    places = []
    for axis, (whole, side, step) in enumerate(zip(shape, sides, patch, strict=True)):
        room = (whole - side) // step
        at = int(torch.randint(room + 1, (), generator=draw))
        if voxel is not None:
            at = min(room, max(0, (int(voxel[axis]) - side // 2) // step))
        places.append(slice(at * step, at * step + side))
    return places[0], places[1], places[2]


def _known(figure: float, otherwise: float) -> float:
    """Return a figure, or what stands for one that the validation part is too small for: the loss decides then."""
    return otherwise if math.isnan(figure) else figure


def _targets(scene: Scene, case: Case) -> Targets:
    return targets(scene.network.config.classifier.labels, case.labels)


def _known_masks(scene: Scene, cases: Sequence[Case]) -> float:
    return float(sum(case.knows(name) for case in cases for name in scene.network.config.localiser.findings))
