"""Engines and trainers that are handed a GPU: it fails, has too little memory, or their libraries cannot use it."""

from __future__ import annotations

from tiny_learner import TinyTrainer

from clinic_ai.contract import (
    AnalysisTask,
    Device,
    LoadedModel,
    Progress,
    QuestionTask,
    TrainingResult,
    TrainingTask,
)
from clinic_ai.domain import Analysis, Answer
from clinic_ai.errors import ModelError, PluginError


class Sound:
    """Says where it computes."""

    def load(self, base: LoadedModel | None, device: Device) -> None:
        self.device = device

    def use(self, adapter: LoadedModel | None) -> None:
        pass

    def ask(self, task: QuestionTask) -> Answer:
        raise PluginError("It answers no questions.")

    def close(self) -> None:
        pass

    def analyse(self, task: AnalysisTask) -> Analysis:
        if self.device.kind == "cuda":
            self.compute()
        return Analysis(
            plugin=task.facts.study_description or "gpu",
            plugin_version="1",
            models=task.models,
            remarks=(f"Computed on {self.device.kind} {self.device.index}.",),
        )

    def compute(self) -> None:
        pass


class Unusable(Sound):
    def load(self, base: LoadedModel | None, device: Device) -> None:
        if device.kind == "cuda":
            raise ModelError("The installed library cannot use the GPU.")
        super().load(base, device)


class OutOfMemoryError(RuntimeError):
    """Named and worded as torch's."""


class Full(Sound):
    def compute(self) -> None:
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class Failing(Sound):
    def compute(self) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


class UnusableTrainer(TinyTrainer):
    """Learns on the processor alone."""

    def train(self, task: TrainingTask, progress: Progress) -> TrainingResult:
        if task.device.kind == "cuda":
            raise ModelError("The installed library cannot use the GPU.")
        return super().train(task, progress)
