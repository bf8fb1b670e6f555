"""What is answered about the layers of a model and the memory of its training, and how the order is given."""

from __future__ import annotations

from typing import Self

from pydantic import Field, FiniteFloat, model_validator

from clinic_ai.control.views import Line, Order, View
from clinic_ai.describing import ModelStats
from clinic_ai.domain import Key, ModelRef


class StatsOrder(Order):
    """Describe a model, or without a name what a run by this recipe would start from.

    ``gpu_memory_mb`` is what training may use of a GPU, in MiB; 0: it is trained on the processor.
    """

    plugin: Key
    name: Line | None = None
    version: Line | None = None
    recipe: dict[str, FiniteFloat | int | str | bool] = Field(default_factory=dict)
    gpu_memory_mb: int = Field(default=0, ge=0, le=1 << 24)

    @model_validator(mode="after")
    def _whole_name(self) -> Self:
        if (self.name is None) != (self.version is None):
            raise ValueError("a model is named by its name and its version")
        return self


class StatsView(View):
    """A model by its layers, and what its training would take."""

    model: ModelRef
    stats: ModelStats
