"""An engine that tells all that it was shown, and of each image what lies at its path."""

from __future__ import annotations

from clinic_ai.contract import AnalysisTask, Device, LoadedModel, QuestionTask
from clinic_ai.domain import Analysis, Answer, Refusal
from clinic_ai.errors import InputError


class CuriousEngine:
    """Refuses every image, and says whether its file names the patient."""

    def load(self, base: LoadedModel | None, device: Device) -> None:
        """Nothing to load."""

    def use(self, adapter: LoadedModel | None) -> None:
        """No adapters."""

    def analyse(self, task: AnalysisTask) -> Analysis:
        """Remark on the whole task without its hashes; refuse each image in words about its file."""
        refusals = []
        for image in task.images:
            with open(image.path, "rb") as file:
                named = b"qx7leak" in file.read().lower()
            words = "The file holds a name." if named else "The file holds a pseudonym."
            refusals.append(Refusal(instance_sha256=image.sha256, code="looked", sentence=words))
        shown = [image.model_dump(exclude={"sha256"}) for image in task.images]
        volumes = [volume.model_dump(exclude={"slices"}) for volume in task.volumes]
        remarks = tuple(map(str, (task.facts.model_dump(), *shown, *volumes)))
        return Analysis(
            plugin="curious", plugin_version="1", models=task.models, refusals=tuple(refusals), remarks=remarks
        )

    def ask(self, task: QuestionTask) -> Answer:
        """Answer nothing."""
        raise InputError("no_questions", "It answers no questions.")

    def close(self) -> None:
        """Nothing to close."""
