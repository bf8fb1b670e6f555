"""An engine that answers questions without a model, and does harm where the question says so."""

from __future__ import annotations

import os
import time

from clinic_ai.contract import (
    AnalysisTask,
    Condition,
    Device,
    LoadedModel,
    ModelManifest,
    PluginManifest,
    QuestionTask,
)
from clinic_ai.domain import Analysis, Answer, ModelRef
from clinic_ai.errors import InputError
from clinic_ai.hookspecs import hookimpl

QUESTION = "Is the picture sharp?"
TEXT = "Yes, the picture is sharp."
NOTE = "Looked at with care."
NAME = "Doe^John"
ANSWERING = PluginManifest(
    name="answering",
    version="1",
    summary="Answers questions.",
    claims=(Condition(modality=("CT", "US")),),
    capabilities=("analyse", "ask"),
    questions=(QUESTION,),
    needs_model=False,
    memory_mb=64,
    engine="answering_engine:AnsweringEngine",
)


@hookimpl
def describe_plugin() -> PluginManifest:
    return ANSWERING


def model(slot: str) -> LoadedModel:
    """Return a model of the plugin that an answer may name: the base, or an adapter of it."""
    ref = ModelRef(plugin="answering", slot=slot, name=slot, version="1", digest="a" * 64)
    manifest = ModelManifest(
        plugin="answering",
        slot=slot,
        name=slot,
        version="1",
        format="safetensors",
        files=(),
        base_digest=None if slot == "base" else "b" * 64,
        licence="none",
        source="a test",
        intended_use="a test",
    )
    return LoadedModel(ref=ref, directory="/", manifest=manifest)


class AnsweringEngine:
    def load(self, base: LoadedModel | None, device: Device) -> None:
        pass

    def use(self, adapter: LoadedModel | None) -> None:
        pass

    def close(self) -> None:
        pass

    def analyse(self, task: AnalysisTask) -> Analysis:
        answers = [self.answer(QUESTION, image.sha256) for image in task.images]
        return Analysis(plugin="answering", plugin_version="1", models=task.models, answers=tuple(answers))

    def ask(self, task: QuestionTask) -> Answer:
        answer = self.answer(task.question, task.image.sha256)
        if "wait" in task.question:
            time.sleep(3600)
        elif "end" in task.question:
            os._exit(3)
        elif "dark" in task.question:
            raise InputError("dark", "The picture is too dark.", remedy="Send a brighter one.")
        elif "bright" in task.question:
            raise InputError("named", f"{NAME} is not suitable.")
        elif "grey" in task.question:
            return answer.model_copy(update={"text": "Lungs, lungs. " * 40})
        elif "turned" in task.question:
            return answer.model_copy(update={"instance_sha256": "f" * 64})
        return answer

    def answer(self, question: str, sha256: str) -> Answer:
        return Answer(question=question, text=TEXT, confidence=0.93, instance_sha256=sha256, notes=(NOTE,))
