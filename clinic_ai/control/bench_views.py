"""What is answered about a model that was measured, and how the order is given."""

from __future__ import annotations

from clinic_ai.benching import BenchResult
from clinic_ai.control.model_views import ModelChoice
from clinic_ai.control.views import PlainPath, View
from clinic_ai.domain import ModelRef


class BenchOrder(ModelChoice):
    """Measure a model; with labelled images below an absolute path of the daemon's machine, an int8 version too."""

    dataset: PlainPath | None = None


class BenchView(View):
    """How a model fares on this machine. ``candidate`` is its int8 version in the registry, None if it was not taken.

    ``dataset_notes`` say what was left out of the images and what needs a look; they name files.
    """

    model: ModelRef
    result: BenchResult
    dataset_id: str = ""
    dataset_notes: tuple[str, ...] = ()
    candidate: ModelRef | None = None
