"""Pages of lists that grow. ``next_before`` continues a list; None at its end."""

from __future__ import annotations

from clinic_ai.control.dataset_views import DatasetRow
from clinic_ai.control.question_views import AskedView
from clinic_ai.control.review_views import ReviewRow
from clinic_ai.control.views import ModelRow, RunRow, View
from clinic_ai.domain import Alert


class ModelPage(View):
    """Models of the registry, by plugin, slot and time of import."""

    models: tuple[ModelRow, ...]
    next_before: str | None


class RunPage(View):
    """Training runs, newest first."""

    runs: tuple[RunRow, ...]
    next_before: str | None


class AlertPage(View):
    """Alerts nobody acknowledged: about critical findings first, then the newest."""

    alerts: tuple[Alert, ...]
    next_before: str | None


class DatasetPage(View):
    """Frozen datasets, newest first."""

    datasets: tuple[DatasetRow, ...]
    next_before: str | None


class ReviewPage(View):
    """What waits for a person: held artefacts first, then the oldest; no words."""

    reviews: tuple[ReviewRow, ...]
    next_before: str | None


class QuestionPage(View):
    """Questions about one study, oldest first."""

    questions: tuple[AskedView, ...]
    next_before: str | None
