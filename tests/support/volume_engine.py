"""An engine that remarks on the volumes it is given."""

from __future__ import annotations

from clinic_ai.contract import AnalysisTask, Device, LoadedModel, QuestionTask
from clinic_ai.domain import Analysis, Answer
from clinic_ai.errors import InputError


class VolumeEngine:
    """Says of each volume how many slices it has and how they are spaced, or why it is none."""

    def load(self, base: LoadedModel | None, device: Device) -> None:
        """Nothing to load."""

    def use(self, adapter: LoadedModel | None) -> None:
        """No adapters."""

    def analyse(self, task: AnalysisTask) -> Analysis:
        """Remark on each volume; its slices must be images of the task."""
        images = {image.sha256 for image in task.images}
        if not all(one.sha256 in images for volume in task.volumes for one in volume.slices):
            raise InputError("unknown_slice", "A volume names an image that is not in the task.")
        remarks = tuple(f"{len(volume.slices)} slices, {volume.spacing or volume.reason}" for volume in task.volumes)
        return Analysis(plugin="volumes", plugin_version="1", models=task.models, remarks=remarks)

    def ask(self, task: QuestionTask) -> Answer:
        """Answer nothing."""
        raise InputError("no_questions", "It answers no questions.")

    def close(self) -> None:
        """Nothing to close."""
