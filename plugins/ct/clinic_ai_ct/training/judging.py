"""What a network makes of the test volumes as it would be served, so that a candidate can be held against it.

The score of a volume says how near findings and masks come to what is known of it: the mean, over the labels it is
judged by, of one minus the squared error of the probability (Brier 1950), and the mean Dice of the masks whose place
is known, of lesions that masks of the dataset show; where both are known it is the mean of the two. A volume is read
as the engine reads it: all of the chest, in as many windows as it takes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from clinic_ai.errors import DatasetError
from clinic_ai.gating import JudgedRow, Judgement, JudgeTask
from clinic_ai.ml.mask_scores import dice
from clinic_ai.ml.subgroups import traits
from clinic_ai_ct.lesions import LESIONS
from clinic_ai_ct.outlining import draw
from clinic_ai_ct.served import MaskEvidence, Served, drawn_of, reach_of, serve
from clinic_ai_ct.sliding import read
from clinic_ai_ct.training.cases import Case, cases_of
from clinic_ai_ct.training.chests import Chest, chest_of

FIGURE = "agreement with labels and masks"


def judge(task: JudgeTask) -> Judgement:
    """Return the score of each readable test volume of which a judged label, or the place of a lesion, is known.

    Raise ModelError if the model is damaged or cannot be served, DatasetError if no such volume can be read.
    """
    torch.set_num_threads(max(1, task.device.threads))
    served = serve(task.model, task.device)
    of = {example.sha256: example for example in task.dataset.examples if example.split == "test"}
    cases = [case for case in cases_of(task.dataset) if case.split == "test"]
    rows: list[JudgedRow] = []
    notes: list[str] = []
    for case in cases:
        score = _score(served, case, notes.append)
        if score is not None:
            key, example = case.sha256, of[case.sha256]
            groups = traits(case.volume, example.groups) if case.slices else {}
            rows.append(JudgedRow(key=key, sha256=key, patient_key=example.patient_key, groups=groups, score=score))
    if not rows:
        raise DatasetError(
            f"Nothing that {task.model.ref.label()} judges is known of any of the {len(cases)} test volumes.",
            remedy="Add labels or lesion masks of more patients, and train again.",
        )
    return Judgement(metric="mean", figure=FIGURE, rows=tuple(rows), notes=tuple(notes))


def _score(served: Served, case: Case, note: Callable[[str], None]) -> float | None:
    try:
        chest = chest_of(case, served.network.config)
    except DatasetError as error:
        note(f"A test volume was left out: {error.message}")
        return None
    found = read(served.network, *chest.tensors(served.network.config, served.device))
    logits = dict(zip(served.network.config.classifier.labels, found.logits[0].tolist(), strict=True))
    drawn = served.network.probabilities(found.masks[0])
    evidence, overlaps = _masks(served, case, chest, drawn)
    errors = [
        (rule.probability(logits[rule.label], evidence.get(rule.label, MaskEvidence())) - case.labels[rule.label]) ** 2
        for rule in served.rules
        if rule.label in case.labels
    ]
    parts = [1.0 - float(np.mean(errors))] if errors else []
    parts += [float(np.mean(overlaps))] if overlaps else []
    return float(np.mean(parts)) if parts else None


def _masks(served: Served, case: Case, chest: Chest, drawn: np.ndarray) -> tuple[dict[str, MaskEvidence], list[float]]:
    """Return what each mask says for its finding, and the Dice of those whose truth is known: 1 if both are empty."""
    grid = chest.volume.grid
    evidence: dict[str, MaskEvidence] = {}
    overlaps: list[float] = []
    for at, (name, outline) in enumerate(
        zip(served.network.config.localiser.findings, served.outlines, strict=True),
    ):
        if not case.knows(name) and name not in case.labels:
            continue
        mask = draw(drawn[at], grid, grid, outline)
        if name in LESIONS and case.knows(name):
            truth = chest.masks.get(name)
            overlaps.append(dice(mask, np.zeros_like(mask) if truth is None else truth))
        (reach,) = reach_of(drawn[at], grid, (served.extents_mm3[at],))
        evidence[name] = MaskEvidence(drawn_of(float(mask.sum()) * grid.voxel_mm3, name), reach)
    return evidence, overlaps
