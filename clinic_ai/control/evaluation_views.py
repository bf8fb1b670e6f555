"""What is answered about a model that was evaluated, and how the order is given."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from clinic_ai.contract import Scores
from clinic_ai.control.views import Line, Order, View
from clinic_ai.domain import Key, ModelRef


class EvaluateOrder(Order):
    """Score a model, or without a name the one in use, on the test part of a frozen dataset, or of the newest one."""

    plugin: Key
    name: Line | None = None
    version: Line | None = None
    dataset_id: Line | None = None

    @model_validator(mode="after")
    def _whole_name(self) -> Self:
        if (self.name is None) != (self.version is None):
            raise ValueError("a model is named by its name and its version")
        return self


class EvaluationView(View):
    """The figures of a model on the test part of a dataset."""

    model: ModelRef
    dataset_id: str
    scores: Scores
