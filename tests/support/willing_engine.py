"""An engine that does what a study's description wishes for."""

from __future__ import annotations

from clinic_ai.contract import AnalysisTask, Device, LoadedModel, QuestionTask
from clinic_ai.domain import Analysis, Answer
from clinic_ai.errors import PluginError


class WillingEngine:
    def load(self, base: LoadedModel | None, device: Device) -> None:
        pass

    def use(self, adapter: LoadedModel | None) -> None:
        pass

    def ask(self, task: QuestionTask) -> Answer:
        raise PluginError("It answers no questions.")

    def close(self) -> None:
        pass

    def analyse(self, task: AnalysisTask) -> Analysis:
        wish = task.facts.study_description.removeprefix("torture: ")
        if wish == "fail":
            raise ValueError("as was wished for")
        return Analysis(plugin="willing", plugin_version="1", models=task.models, remarks=(f"Please {wish} it.",))
