"""An engine that answers questions, rightly or as the question wishes."""

from __future__ import annotations

import time

from clinic_ai.contract import AnalysisTask, Condition, Device, LoadedModel, PluginManifest, QuestionTask
from clinic_ai.domain import Analysis, Answer, CategoryInfo
from clinic_ai.errors import InputError

TALKING = PluginManifest(
    name="talking",
    version="1",
    summary="Answers questions.",
    claims=(Condition(modality=("US",)),),
    categories=(CategoryInfo(key="fetal_head", label="Fetal head", aliases=("head",), body_parts=("HEAD",)),),
    capabilities=("analyse", "ask"),
    needs_model=False,
    memory_mb=64,
    timeout_s=10.0,
    engine="talking_engine:TalkingEngine",
)
ANSWER = "The head lies in the left half of the image."
LOOP = "a mass in the bowel. The cecum. " + "cec. " * 40


class TalkingEngine:
    """Says what it is asked to."""

    def load(self, base: LoadedModel | None, device: Device) -> None:
        """Nothing is to be loaded."""

    def use(self, adapter: LoadedModel | None) -> None:
        """There is none."""

    def analyse(self, task: AnalysisTask) -> Analysis:
        """Say nothing of a study."""
        return Analysis(plugin="talking", plugin_version="1", models=(), remarks=("It was looked at.",))

    def ask(self, task: QuestionTask) -> Answer:
        """Answer, or do the harm that the question names."""
        asked = task.question
        said = Answer(
            question=asked,
            text=LOOP if "texture" in asked else ANSWER,
            confidence=0.8,
            instance_sha256=task.image.sha256,
            frame=task.frame,
            category=task.image.category,
            notes=("It was a phantom.",),
        )
        if "contour" in asked:
            raise InputError("no_contour", "The contour is not visible.", remedy="Send another image.")
        if "blurred" in asked:
            time.sleep(3600)
        if "bright" in asked:
            return said.model_copy(update={"instance_sha256": "0" * 64})
        return said

    def close(self) -> None:
        """Nothing to let go of."""
