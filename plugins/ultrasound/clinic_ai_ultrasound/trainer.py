"""Trains the LoRA adapter of one category on labelled images and makes a candidate model of it; scores models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

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
from clinic_ai.domain import ModelRef
from clinic_ai.gating import Judgement, JudgeTask
from clinic_ai_ultrasound.adapters import Adapters
from clinic_ai_ultrasound.answering import fitting
from clinic_ai_ultrasound.costs import sizes_of
from clinic_ai_ultrasound.dataset import labelled
from clinic_ai_ultrasound.describing import describe
from clinic_ai_ultrasound.evaluation import Compared, Model, ask_all, generation_of, scores_alone
from clinic_ai_ultrasound.judging import judge as judge_model
from clinic_ai_ultrasound.loading import load_base
from clinic_ai_ultrasound.plan import plan_of
from clinic_ai_ultrasound.plugin import describe_plugin
from clinic_ai_ultrasound.recipe import AdapterRecipe
from clinic_ai_ultrasound.run import Run, required


class UltrasoundTrainer:
    """Frozen base, its image features computed once, a LoRA on its language model; one run in one child."""

    def plan(self, dataset: Dataset, limits: Limits, recipe: Recipe, base: LoadedModel | None = None) -> TrainingPlan:
        """Say what training would cost at most, should no epoch end it early.

        Raise DatasetError if it would leak or mean nothing, or if the recipe has a key or value that is not usable;
        ModelError if there is no base.
        """
        chosen = AdapterRecipe.parse(recipe)
        examples = labelled(dataset)
        sizes = sizes_of(required(base))
        return plan_of(examples, chosen, sizes, required(base), limits)

    def train(self, task: TrainingTask, progress: Progress) -> TrainingResult:
        """Train, or go on from the newest whole checkpoint in the run directory; a finished run returns its result.

        Raise DatasetError if training would leak or mean nothing, ModelError if the base cannot be used.
        """
        return Run(task, progress).go()

    def evaluate(
        self,
        model: LoadedModel,
        dataset: Dataset,
        device: Device | None = None,
        base: LoadedModel | None = None,
    ) -> Scores:
        """Score a base, or an adapter over its ``base``, on the readable images of the test part.

        Answers are generated as for the plugin's own category. Raise DatasetError if there are none, ModelError if
        ``base`` is not that of the adapter.
        """
        examples = [example for example in dataset.examples if example.split == "test" and example.pairs]
        generation = generation_of(dataset.category, describe_plugin().categories)
        if model.manifest.base_digest is None:
            alone = Model(nullcontext, fitting(generation, model.manifest))
            return scores_alone(ask_all(load_base(model, device or Device()), examples, [alone]))
        loaded = load_base(required(base), device or Device())
        adapters = Adapters(loaded)
        adapters.add(model)

        @contextmanager
        def using(ref: ModelRef | None) -> Iterator[None]:
            adapters.use(ref)
            yield

        models = [
            Model(lambda: using(None), fitting(generation, loaded.manifest)),
            Model(lambda: using(model.ref), fitting(generation, model.manifest)),
        ]
        return Compared.of(ask_all(loaded, examples, models)).scores()

    def judge(self, task: JudgeTask) -> Judgement:
        """Say what a base, or an adapter over its base, answers about the readable images of the test part.

        Raise DatasetError if there are none, ModelError if the base is missing or not that of the adapter.
        """
        return judge_model(task)

    def describe(self, task: DescribeTask) -> ModelStats:
        """Say what a model is made of and what its training would take, before anything is loaded.

        Raise ModelError if its files do not say, DatasetError if the recipe has a key or value that is not usable.
        """
        return describe(task)
