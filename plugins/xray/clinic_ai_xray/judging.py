"""What a classifier makes of the test images, so that a candidate can be held against the model in use."""

from __future__ import annotations

from clinic_ai.errors import DatasetError
from clinic_ai.gating import JudgedRow, Judgement, JudgeTask
from clinic_ai.ml.subgroups import traits
from clinic_ai_xray.judged import judge as judged_by
from clinic_ai_xray.served import ServedModel


def judge(task: JudgeTask) -> Judgement:
    """Return the calibrated probability of each readable test image that is labelled for the model's condition.

    A base that has learned nothing says nothing. Raise ModelError if the model is damaged, DatasetError unless both
    classes are among the images.
    """
    served = ServedModel(task.model, task.device)
    if served.untrained:
        return Judgement(metric="auroc", figure="nothing", rows=())
    examples = [e for e in task.dataset.examples if e.split == "test" and served.condition in e.labels]
    if not examples:
        raise DatasetError(
            f"No test image of the dataset is labelled for {served.condition}.",
            remedy="Label images of more patients for it, and train again.",
        )
    (found,), unreadable = judged_by([served], examples, served.threads)
    rows = tuple(
        JudgedRow(
            key=example.sha256,
            sha256=example.sha256,
            patient_key=example.patient_key,
            groups=traits(example.path, example.groups),
            label=1 if example.labels[served.condition] else 0,
            score=judgement.probability,
        )
        for example, judgement in zip(found.examples, found.judgements, strict=True)
    )
    notes = (f"{unreadable} test images could not be read and were left out.",) if unreadable else ()
    return Judgement(metric="auroc", figure=f"AUROC for {served.condition}", rows=rows, notes=notes)
