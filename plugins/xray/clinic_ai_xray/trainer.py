"""Trains the tail of a classifier on labelled images and exports it as a candidate model; measures models.

What needs torch is imported where it is used: a child that only judges does without, and starts in a tenth of the time.
"""

from __future__ import annotations

from clinic_ai.benching import BenchResult, BenchTask
from clinic_ai.contract import (
    Dataset,
    Device,
    Limits,
    LoadedModel,
    Progress,
    Recipe,
    Scores,
    TrainingPlan,
    TrainingResult,
    TrainingTask,
)
from clinic_ai.describing import DescribeTask, ModelStats
from clinic_ai.gating import Judgement, JudgeTask
from clinic_ai_xray.dataset import condition_of, labelled
from clinic_ai_xray.judged import judge
from clinic_ai_xray.judging import judge as judge_model
from clinic_ai_xray.served import ServedModel


class XrayTrainer:
    """Frozen base, its activations computed once, the tail trained on them; one run in one child."""

    def plan(self, dataset: Dataset, limits: Limits, recipe: Recipe, base: LoadedModel | None = None) -> TrainingPlan:
        """Say what training would cost at most, should no epoch end it early.

        Raise DatasetError if it would leak or mean nothing, or if the recipe has a key or value that is not usable.
        """
        from clinic_ai_xray.plan import plan_of
        from clinic_ai_xray.recipe import TailRecipe
        from clinic_ai_xray.run import reference_base

        chosen = TailRecipe.parse(recipe)
        examples = labelled(dataset, condition_of(dataset, str(recipe.get("condition", ""))))
        model_bytes = sum(file.size_bytes for file in (base or reference_base()).manifest.files)
        return plan_of(examples, chosen, limits, model_bytes)

    def train(self, task: TrainingTask, progress: Progress) -> TrainingResult:
        """Train, or go on from the newest whole checkpoint in the run directory; a finished run returns its result.

        Raise DatasetError if training would leak or mean nothing, ModelError if the base cannot be used.
        """
        from clinic_ai_xray.run import Run

        return Run(task, progress).go()

    def evaluate(
        self,
        model: LoadedModel,
        dataset: Dataset,
        device: Device | None = None,
        base: LoadedModel | None = None,  # noqa: ARG002 - its models are whole
    ) -> Scores:
        """Score ``model`` on the readable images of the test split; ``device`` says how many beside each other.

        Raise DatasetError unless both classes are among them.
        """
        served = ServedModel(model, device or Device())
        examples = [e for e in dataset.examples if e.split == "test" and served.condition in e.labels]
        (judged,), _ = judge([served], examples, served.threads)
        return judged.scores("test")

    def bench(self, task: BenchTask) -> BenchResult:
        """Measure a model, and an int8 version of it if there are labelled images.

        Raise ModelError if the model is damaged, or int8 already; DatasetError if there are too few images.
        """
        from clinic_ai_xray.bench import bench

        return bench(task)

    def judge(self, task: JudgeTask) -> Judgement:
        """Say how likely a model calls the condition on each readable test image.

        Raise ModelError if the model is damaged, DatasetError unless both classes are among the images.
        """
        return judge_model(task)

    def describe(self, task: DescribeTask) -> ModelStats:
        """Say what a model is made of and what its training would take, before anything is loaded.

        Raise ModelError if its files do not say, DatasetError if the recipe has a key or value that is not usable.
        """
        from clinic_ai_xray.describing import describe

        return describe(task)
