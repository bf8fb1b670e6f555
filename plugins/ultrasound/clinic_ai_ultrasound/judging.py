"""What base or adapter answer about the test images, so that a candidate can be held against the model in use."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext

from clinic_ai.errors import DatasetError, ModelError
from clinic_ai.gating import JudgedRow, Judgement, JudgeTask
from clinic_ai.ml.subgroups import traits
from clinic_ai_ultrasound.adapters import Adapters
from clinic_ai_ultrasound.answering import fitting
from clinic_ai_ultrasound.evaluation import Model, Said, ask_all, generation_of
from clinic_ai_ultrasound.loading import load_base
from clinic_ai_ultrasound.plugin import describe_plugin
from clinic_ai_ultrasound.scoring import EXACT

FIGURE = "share of exactly right answers"


def judge(task: JudgeTask) -> Judgement:
    """Return what the model answers to each question about a readable test image, and whether that is exactly right.

    Raise ModelError if an adapter comes without its base or does not fit it, DatasetError if there is no such question.
    """
    examples = [example for example in task.dataset.examples if example.split == "test" and example.pairs]
    if not examples:
        raise DatasetError(
            "No test image of the dataset has an answered question.",
            remedy="Fill in the sheet for images of more patients, and train again.",
        )
    base = task.model if task.model.manifest.base_digest is None else task.base
    if base is None:
        raise ModelError(f"The adapter {task.model.ref.label()} cannot be judged without its base.")
    loaded = load_base(base, task.device)
    if task.model.manifest.base_digest is not None:
        adapters = Adapters(loaded)
        adapters.add(task.model)
        adapters.use(task.model.ref)
    generation = generation_of(task.dataset.category, task.categories or describe_plugin().categories)
    said = ask_all(loaded, examples, [Model(nullcontext, fitting(generation, task.model.manifest))])
    return Judgement(metric="mean", figure=FIGURE, rows=_rows(said))


def _rows(said: Said) -> tuple[JudgedRow, ...]:
    groups = {example.sha256: traits(example.path, example.groups) for example in said.examples}
    asked: Counter[str] = Counter()
    rows = []
    (answers,) = said.answers
    exact = said.scored(0).by_metric[EXACT]
    for example, pair, answered, score in zip(said.examples, said.pairs, answers, exact.tolist(), strict=True):
        asked[example.sha256] += 1
        rows.append(
            JudgedRow(
                key=f"{example.sha256} {asked[example.sha256]}",
                sha256=example.sha256,
                patient_key=example.patient_key,
                groups=groups[example.sha256],
                score=score,
                question=pair.question,
                text=answered.text,
            )
        )
    return tuple(rows)
