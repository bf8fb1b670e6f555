"""Scores a network as the challenge does: labels, masks, and the report that follows from both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from clinic_ai.contract import Scores
from clinic_ai.domain import Finding, Presence
from clinic_ai.ml.challenge import Row, challenge_table, values_of
from clinic_ai.ml.label_scores import crg, label_scores
from clinic_ai.ml.mask_scores import MaskScores, mask_scores
from clinic_ai.ml.text_scores import text_scores
from clinic_ai_ct.anatomy import REGIONS
from clinic_ai_ct.labeller import labels as labels_of
from clinic_ai_ct.measuring import LEAST_MM3, measure
from clinic_ai_ct.network import CTNetwork
from clinic_ai_ct.organs import Organs
from clinic_ai_ct.report import report_text, write_report
from clinic_ai_ct.sliding import read
from clinic_ai_ct.training.cases import Case
from clinic_ai_ct.training.prepared import Prepared
from clinic_ai_ct.training.reward import LABEL_SET
from clinic_ai_ct.volume import Grid

_THRESHOLD = 0.5


@dataclass(frozen=True)
class Evaluated:
    """The rows of the challenge's table, over so many cases of a split."""

    split: str
    cases: int
    rows: tuple[Row, ...]

    def scores(self) -> Scores:
        """Return the means of the table."""
        return Scores(split=self.split, examples=self.cases, values=values_of(self.rows))


def evaluate(
    network: CTNetwork,
    cases: Sequence[Case],
    prepare: Callable[[Case], Prepared],
    device: torch.device,
    step: Callable[[int], None] = lambda _: None,
) -> Evaluated:
    """Return the table of some cases, all of one split; ``step`` is told how many are done, and may raise."""
    network.eval()
    judged = _Judged(network)
    for done, case in enumerate(cases, start=1):
        judged.add(case, prepare(case), device)
        step(done)
    return Evaluated(cases[0].split if cases else "test", len(cases), judged.table())


class _Judged:
    def __init__(self, network: CTNetwork) -> None:
        self._network, self._config = network, network.config
        self._labels: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._masks: dict[str, list[MaskScores]] = {}
        self._said: list[str] = []
        self._truth: list[str] = []

    def add(self, case: Case, ready: Prepared, device: torch.device) -> None:
        regions = None if ready.regions is None else ready.regions.unsqueeze(0).to(device)
        found = read(self._network, ready.image.unsqueeze(0).to(device), regions)
        chances = torch.sigmoid(found.logits.float())[0].cpu().numpy()
        drawn = self._network.probabilities(found.masks[0]) > 0.5
        self._labels.append((ready.values.numpy(), chances, ready.labelled.numpy()))
        truth = ready.masks.numpy() > 0
        for at, name in enumerate(self._config.localiser.findings):
            if ready.known[at]:
                self._masks.setdefault(name, []).append(mask_scores(drawn[at], truth[at], self._config.spacing))
        if case.told:
            self._said.append(self._report(case, ready, chances, drawn))
            self._truth.append(ready.report)

    def table(self) -> tuple[Row, ...]:
        """Return all figures that mean something."""
        truth, chances, known = (np.stack(column) for column in zip(*self._labels, strict=True))
        names = self._config.classifier.labels
        scored = [one for one in label_scores(truth, chances, names, known=known) if one.rows]
        texts: dict[str, float] = {}
        if self._said:
            texts = text_scores(self._said, self._truth)
            right, said = (
                np.array([list(labels_of(text, LABEL_SET).values()) for text in texts_])
                for texts_ in (self._truth, self._said)
            )
            if 0 < right.sum() < right.size:
                texts["crg"] = crg(right, said)
            both = int(right.sum()) + int(said.sum())
            texts["label_f1"] = 2 * int((right & said).sum()) / both if both else 1.0
        return challenge_table(texts=texts, labels=scored, masks=self._masks)

    def _report(self, case: Case, ready: Prepared, chances: np.ndarray, drawn: np.ndarray) -> str:
        grid = Grid(self._config.encoder.volume, self._config.spacing)
        organs = None
        if ready.regions is not None:
            organs = Organs(ready.regions.numpy().astype(np.uint8), dict(enumerate(REGIONS, start=1)))
        findings = self._config.localiser.findings
        lesions = [
            measure(name, drawn[at], grid, ready.hu, organs, least_mm3=LEAST_MM3[name])
            for at, name in enumerate(findings)
            if name in LEAST_MM3
        ]
        called = [
            Finding(
                condition=name,
                label=name.replace("_", " ").capitalize(),
                probability=float(chance),
                threshold=_THRESHOLD,
                presence=Presence.PRESENT if chance >= _THRESHOLD else Presence.ABSENT,
                instance_sha256=case.sha256,
            )
            for name, chance in zip(self._config.classifier.labels, chances, strict=True)
            if name not in LEAST_MM3 or name not in findings
        ]
        return report_text(write_report(called, lesions))
