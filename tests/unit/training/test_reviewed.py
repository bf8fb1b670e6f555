"""What clinicians said of images becomes a dataset, if their reviews permit that."""

from __future__ import annotations

import pytest
import tiny_learner
from harness import wait_until
from reviewed import review_again, reviewed
from school import School

from clinic_ai.domain import Presence, RunState
from clinic_ai.domain.reviews import ReviewDecision
from clinic_ai.errors import DatasetError
from clinic_ai.store import reviews

TINY = tiny_learner.manifest()


def test_what_was_reviewed_is_learned_from_with_consent_alone(school: School) -> None:
    present, _ = reviewed(school, 1)
    absent, _ = reviewed(school, 2, Presence.ABSENT, decision=ReviewDecision.AMEND)
    reviewed(school, 3, Presence.UNCERTAIN)
    refused, review_id = reviewed(school, 4, consent=False)
    dataset = school.runs.datasets.gather(TINY, ("reviews",), "ada")
    assert sorted(example.labels["pneumonia"] for example in dataset.examples) == [0, 1]
    assert {example.patient_key for example in dataset.examples} == {f"{1:064x}", f"{2:064x}"}
    assert school.runs.datasets.get(dataset.dataset_id).examples == dataset.examples
    with school.database.read() as c:
        known = {example.sha256: example.labels for example in reviews.labelled_examples(c, ["pneumonia"])}
    assert known == {present: {"pneumonia": 1}, absent: {"pneumonia": 0}}
    with school.database.write() as c:
        reviews.set_consent(c, review_id, True, "ada")
        assert refused in {example.sha256 for example in reviews.labelled_examples(c, ["pneumonia"])}


def test_nothing_learns_from_a_review_whose_consent_was_taken_back(school: School) -> None:
    for patient in range(1, 21):
        _, review_id = reviewed(school, patient, Presence.PRESENT if patient % 2 else Presence.ABSENT)
    run_id = school.runs.start("tiny", None, {"hold_at": 3}, "ada", sources=("reviews",))
    wait_until(lambda: school.runs.get(run_id).state is RunState.RUNNING, "the beginning of the run")
    school.runs.pause(run_id, "ada")
    with school.database.write() as c:
        reviews.set_consent(c, review_id, False, "ada")
    school.runs.resume(run_id, "ada")
    run = school.runs.wait(run_id, 60)
    assert run.state is RunState.FAILED
    assert run.error.startswith(f"1 review is in the dataset {run.dataset_id} that nobody may learn from any more")
    [dataset_id] = {school.runs.datasets.gather(TINY, ("reviews",), "ada").dataset_id}
    school.runs.datasets.refuse_withdrawn(dataset_id)


def test_the_newest_review_of_a_study_counts(school: School) -> None:
    sha256, review_id = reviewed(school, 1)
    with school.database.write() as c:
        study_id = reviews.get_review(c, review_id).study_id
        review_again(c, study_id, sha256, Presence.ABSENT, True, ReviewDecision.REJECT)
        [example] = reviews.labelled_examples(c, ["pneumonia"])
        assert example.labels == {"pneumonia": 0}
        review_again(c, study_id, sha256, Presence.PRESENT, False, ReviewDecision.AMEND)
        assert reviews.labelled_examples(c, ["pneumonia"]) == []


def test_nothing_reviewed_is_said(school: School) -> None:
    with pytest.raises(DatasetError, match="no labelled image"):
        school.runs.datasets.gather(TINY, ("reviews",), "ada")
