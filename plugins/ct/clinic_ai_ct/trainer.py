"""Trains the network for chest CT in phases and makes a candidate model of it; scores models as the challenge does.

What needs torch is imported where it is used.
"""

from __future__ import annotations

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
from clinic_ai.describing import FitResult, FitTask
from clinic_ai.errors import DatasetError
from clinic_ai.gating import Judgement, JudgeTask


class CTTrainer:
    """One or several phases over a folder of volumes; one run in one child."""

    def plan(self, dataset: Dataset, limits: Limits, recipe: Recipe, base: LoadedModel | None = None) -> TrainingPlan:
        """Say what training would cost at most, should no phase end early.

        Raise DatasetError if it would leak or mean nothing, or if the recipe has a key or value that is not usable;
        ModelError if the base cannot be read.
        """
        from clinic_ai_ct.configurations import CONFIGURATIONS
        from clinic_ai_ct.saving import read_config
        from clinic_ai_ct.training.cases import cases_of
        from clinic_ai_ct.training.plan import plan_of
        from clinic_ai_ct.training.recipe import CTRecipe

        chosen = CTRecipe.parse(recipe)
        config = CONFIGURATIONS[chosen.configuration].network if base is None else read_config(base)
        return plan_of(cases_of(dataset), chosen, config, limits)

    def train(self, task: TrainingTask, progress: Progress) -> TrainingResult:
        """Train, or go on from the newest whole checkpoint in the run directory; a finished run returns its result.

        Raise DatasetError if training would leak or mean nothing, ModelError if base, text encoder or language model
        cannot be used.
        """
        from clinic_ai_ct.training.run import Run

        return Run(task, progress).go()

    def evaluate(
        self,
        model: LoadedModel,
        dataset: Dataset,
        device: Device | None = None,
        base: LoadedModel | None = None,  # noqa: ARG002 - its models are whole
    ) -> Scores:
        """Score ``model`` on the test split: labels, masks, and the report that follows from them.

        Raise DatasetError if there is no test split or a file of it cannot be used, ModelError if the model is damaged.
        """
        import torch

        from clinic_ai_ct.saving import read_network
        from clinic_ai_ct.training.cases import cases_of
        from clinic_ai_ct.training.evaluating import evaluate
        from clinic_ai_ct.training.loading import place_of
        from clinic_ai_ct.training.prepared import Preparing
        from clinic_ai_ct.training.recipe import CTRecipe

        where = device or Device()
        torch.set_num_threads(max(1, where.threads))
        cases = [case for case in cases_of(dataset) if case.split == "test"]
        if not cases:
            raise DatasetError(f"Dataset {dataset.dataset_id} has no test part to score on.")
        place = place_of(where)
        network = read_network(model).to(place)
        prepare = Preparing(network.config, None, 0, len(cases), CTRecipe().seed)
        return evaluate(network, cases, prepare, place).scores()

    def judge(self, task: JudgeTask) -> Judgement:
        """Say how near a model comes, on each readable test volume, to what is known of it.

        Raise ModelError if the model is damaged or cannot be served, DatasetError if nothing is known of any volume.
        """
        from clinic_ai_ct.training.judging import judge

        return judge(task)

    def fit(self, task: FitTask) -> FitResult:
        """Say which configuration a machine has room and time for, with the arithmetic."""
        from clinic_ai_ct.fit import fit

        return fit(task)
