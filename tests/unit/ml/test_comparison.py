"""The paired comparison: its interval covers, chance proves nothing, and a loss in one group is found in that group."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from clinic_ai.contract import Example
from clinic_ai.gating import Comparison, JudgedRow, Judgement
from clinic_ai.ml.comparison import FEWEST_IN_ALL, check_all_judged, check_rows, compare, said_by_both
from clinic_ai.ml.metrics import auroc, difference_interval

SHA = "0" * 64
Scores = npt.NDArray[np.float64]


def rows(
    labels: npt.ArrayLike,
    scores: Scores,
    patients: npt.ArrayLike,
    groups: Callable[[int], dict[str, str]] = lambda _: {},
) -> tuple[JudgedRow, ...]:
    """Return rows; ``groups`` takes the number of a row."""
    columns = zip(np.asarray(labels).tolist(), scores.tolist(), np.asarray(patients).tolist(), strict=True)
    return tuple(
        JudgedRow(key=str(n), sha256=SHA, patient_key=f"p{who}", groups=groups(n), label=int(label), score=score)
        for n, (label, score, who) in enumerate(columns)
    )


def compared(
    labels: npt.ArrayLike,
    one: Scores,
    other: Scores,
    patients: npt.ArrayLike,
    groups: Callable[[int], dict[str, str]] = lambda _: {},
    metric: str = "auroc",
) -> Comparison:
    """Return the comparison of two models on the same rows."""
    both = (
        Judgement.model_validate({"metric": metric, "figure": "it", "rows": rows(labels, scores, patients, groups)})
        for scores in (one, other)
    )
    return compare(*both)


def clinic(generator: np.random.Generator, patients: int, noise: float) -> tuple[npt.NDArray[np.int64], Scores, Scores]:
    """Return labels and the scores of two models, the second blurred by ``noise``; two images of each patient."""
    truth = np.repeat(generator.random(patients) < 0.4, 2)
    signal = truth * 1.5 + np.repeat(generator.normal(size=patients), 2) * 0.7 + generator.normal(size=truth.size) * 0.7
    one = signal + generator.normal(size=truth.size) * 0.6
    other = signal + generator.normal(size=truth.size) * (0.6 + noise)
    return truth.astype(np.int64), one, other


class TestFigures:
    def test_they_are_the_auroc_and_the_interval_is_that_of_ranking_every_draw(self) -> None:
        generator = np.random.default_rng(3)
        labels, one, other = clinic(generator, 300, 1.0)
        one, other = np.round(one, 1), np.round(other, 1)  # ties
        who = np.arange(600) // 2
        overall = compared(labels, one, other, who).overall
        assert (overall.examples, overall.patients) == (600, 300)
        assert overall.candidate == pytest.approx(auroc(labels, one), abs=1e-6)
        assert overall.incumbent == pytest.approx(auroc(labels, other), abs=1e-6)
        low, high = difference_interval(labels, one, other, [str(p) for p in who])
        assert overall.interval == pytest.approx((low, high), abs=0.006)

    def test_a_mean_counts_answers_and_not_patients(self) -> None:
        who = [0, 0, 0, *range(1, 12)]
        one, other = np.ones(14), np.array([0.0, 0.0, 0.0, *[1.0] * 11])
        overall = compared(np.ones(14), one, other, who, metric="mean").overall
        assert overall.difference == pytest.approx(3 / 14)
        assert overall.interval is not None
        assert overall.interval[0] == 0.0, "a draw without that one patient shows no difference"

    def test_what_only_one_of_them_judged_is_left_out(self) -> None:
        generator = np.random.default_rng(0)
        labels, one, other = clinic(generator, 30, 0.0)
        all_rows = rows(labels, one, np.arange(60) // 2)
        some = rows(labels, other, np.arange(60) // 2)[:-10]
        both = [Judgement(metric="auroc", figure="it", rows=r) for r in (all_rows, some)]
        assert compare(*both).overall.examples == 50
        assert compare(both[0], None).overall.examples == 60

    def test_alone_there_is_no_difference(self) -> None:
        labels, one, _ = clinic(np.random.default_rng(0), 30, 0.0)
        alone = compare(Judgement(metric="auroc", figure="it", rows=rows(labels, one, np.arange(60))), None).overall
        assert alone.candidate is not None
        assert alone.candidate_interval is not None
        assert (alone.incumbent, alone.difference, alone.interval) == (None, None, None)
        silent = Judgement(metric="mean", figure="nothing", rows=())
        one_row = Judgement(metric="auroc", figure="it", rows=rows(labels, one, np.arange(60)))
        assert compare(one_row, silent) == compare(one_row, None)
        assert compare(one_row, silent).alone

    def test_two_different_figures_are_not_compared(self) -> None:
        row = rows([1], np.ones(1), [0])
        with pytest.raises(ValueError, match="judged by a, the other by b"):
            compare(*(Judgement(metric="auroc", figure=figure, rows=row) for figure in "ab"))

    @pytest.mark.parametrize(
        ("labels", "patients", "reason"),
        [
            ([0, 1] * 20, [0, 1] * 20, f"2 patients are too few to tell; {FEWEST_IN_ALL} patients"),
            ([1] + [0] * 29, range(30), "1 patients have the condition and 29 do not"),
            ([], [], "0 test images of 0 patients"),
        ],
    )
    def test_too_few_are_said_and_not_judged(self, labels: list[int], patients: list[int], reason: str) -> None:
        scores = np.arange(len(labels), dtype=float)
        overall = compared(labels, scores, scores, list(patients)).overall
        assert reason in overall.why_not
        assert (overall.candidate, overall.difference, overall.interval) == (None, None, None)


class TestHonesty:
    def test_the_interval_covers_the_truth_as_often_as_it_promises(self) -> None:
        generator = np.random.default_rng(11)
        labels, one, other = clinic(generator, 4000, 0.8)
        who = np.arange(labels.size) // 2
        truth = auroc(labels, one) - auroc(labels, other)
        covered = 0
        for _ in range(200):
            labels, one, other = clinic(generator, 40, 0.8)
            low, high = compared(labels, one, other, who[:80]).overall.interval or (1.0, 0.0)
            covered += low <= truth <= high
        assert 0.90 <= covered / 200 <= 0.99

    def test_chance_is_seldom_taken_for_an_improvement(self) -> None:
        generator = np.random.default_rng(12)
        for patients in (12, 40):
            proven = 0
            for _ in range(120):
                labels, one, other = clinic(generator, patients, 0.0)
                interval = compared(labels, one, other, np.arange(2 * patients) // 2).overall.interval
                proven += interval is not None and interval[0] > 0
            assert proven / 120 <= 0.05

    def test_a_loss_in_one_group_is_found_there_and_in_no_other(self) -> None:
        generator = np.random.default_rng(13)
        labels, one, other = clinic(generator, 200, 0.0)
        poisoned = (np.arange(400) // 2) % 4 == 0
        one[poisoned] = -one[poisoned]
        sex = {False: "male", True: "female"}

        def groups(row: int) -> dict[str, str]:
            station = f"s{row // 2 % 3}"
            return {"sex": sex[bool(poisoned[row])], "station": station, "view": "unknown", "model": "the only one"}

        found = compared(labels, one, other, np.arange(400) // 2, groups)
        assert [(g.trait, g.group) for g in found.groups] == [
            ("sex", "female"),
            ("sex", "male"),
            ("station", "s0"),
            ("station", "s1"),
            ("station", "s2"),
        ]
        female = found.groups[0]
        assert female.difference is not None
        assert female.interval is not None
        assert female.difference < -0.4
        assert female.interval[1] < -0.2
        assert found.groups[1].interval is not None
        assert found.groups[1].interval[1] > 0

    def test_many_groups_do_not_make_a_loss_of_chance(self) -> None:
        generator = np.random.default_rng(14)
        accused = 0
        for _ in range(40):
            labels, one, other = clinic(generator, 150, 0.0)
            found = compared(labels, one, other, np.arange(300) // 2, lambda row: {"station": f"s{row // 2 % 10}"})
            accused += any(group.interval is not None and group.interval[1] < 0 for group in found.groups)
        assert accused / 40 <= 0.15

    def test_small_groups_are_counted_and_not_judged(self) -> None:
        labels, one, other = clinic(np.random.default_rng(0), 40, 0.0)
        found = compared(
            labels, one, other, np.arange(80) // 2, lambda row: {"station": "rare" if row < 6 else "usual"}
        )
        rare, usual = found.groups
        assert (rare.examples, rare.patients, rare.difference) == (6, 3, None)
        assert "too few to tell" in rare.why_not
        assert usual.difference is not None
        assert found.judged_groups == 1


def test_answers_of_both_stand_beside_each_other() -> None:
    def judgement(*texts: str) -> Judgement:
        made = [
            JudgedRow(key=str(n), sha256=SHA, patient_key="p", score=1.0, question=f"q{n}", text=text)
            for n, text in enumerate(texts)
        ]
        return Judgement(metric="mean", figure="it", rows=tuple(made))

    found = said_by_both(judgement("yes", "no"), judgement("maybe"))
    assert [(said.question, said.candidate, said.incumbent) for said in found] == [
        ("q0", "yes", "maybe"),
        ("q1", "no", ""),
    ]
    assert said_by_both(compareless(), None) == ()


def compareless() -> Judgement:
    """Return a judgement of something that gives no answers."""
    return Judgement(metric="auroc", figure="it", rows=rows([1], np.ones(1), [0]))


class TestRows:
    """What is judged is the test part, each example once, as the dataset has it."""

    TEST = tuple(
        Example(
            path="x.png",
            sha256=f"{number:064x}",
            patient_key=f"p{number}",
            labels={"nodule": number % 2, "mass": 1 - number % 2},
            split="test",
        )
        for number in range(4)
    )
    ROWS = tuple(
        JudgedRow(key=e.sha256, sha256=e.sha256, patient_key=e.patient_key, label=e.labels["nodule"], score=0.5)
        for e in TEST
    )

    @staticmethod
    def judgement(rows: tuple[JudgedRow, ...], metric: str = "auroc") -> Judgement:
        return Judgement.model_validate({"metric": metric, "figure": "it", "rows": rows})

    @pytest.mark.parametrize("metric", ["auroc", "mean"])
    def test_rows_that_are_so_pass(self, metric: str) -> None:
        check_rows(self.judgement(self.ROWS, metric), self.TEST)

    @pytest.mark.parametrize(
        ("lie", "metric", "words"),
        [
            ({"sha256": "f" * 64}, "auroc", "none of the test part"),
            ({"patient_key": "p9"}, "auroc", "another patient"),
            ({"label": 0}, "auroc", "labels are not those of the dataset"),
            ({"key": TEST[0].sha256}, "auroc", "judged twice"),
            ({"score": 1.5}, "mean", "not between 0 and 1"),
            ({"score": -1e308}, "mean", "not between 0 and 1"),
        ],
    )
    def test_rows_that_are_otherwise_are_refused(self, lie: dict[str, object], metric: str, words: str) -> None:
        rows = (*self.ROWS[:3], self.ROWS[3].model_copy(update=lie))
        with pytest.raises(ValueError, match=words):
            check_rows(self.judgement(rows, metric), self.TEST)

    def test_a_candidate_may_judge_more_than_the_model_in_use_and_not_less(self) -> None:
        some, all_ = self.judgement(self.ROWS[:3]), self.judgement(self.ROWS)
        check_all_judged(all_, some)
        with pytest.raises(ValueError, match="leaves out 1 test examples"):
            check_all_judged(some, all_)
