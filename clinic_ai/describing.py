"""What passes between the daemon and trainers that can say what a model is made of and what training it would take."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

from pydantic import Field

from clinic_ai.contract import Limits, LoadedModel, Recipe
from clinic_ai.domain import Word


class DescribeTask(Word):
    """Describe ``model`` and its training by ``recipe``, from what its files say of it; no weight is loaded.

    ``base`` is that of an adapter. ``gpu_memory_mb`` is what training may use of a GPU, in MiB; 0: no GPU.
    """

    model: LoadedModel
    base: LoadedModel | None = None
    recipe: Recipe = Field(default_factory=dict)
    limits: Limits
    gpu_memory_mb: int = Field(default=0, ge=0)


class LayerGroup(Word):
    """Layers of one kind: how many, their parameters, how many numbers are trained there, and bytes of the weights."""

    name: str
    layers: int
    parameters: int
    trained: int
    size_bytes: int


class MemoryNeed(Word):
    """Bytes that training takes: weights with what is trained, gradients, moments of the optimiser, activations."""

    weights: int
    gradients: int
    optimiser: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimiser + self.activations


class Laid(Word):
    """Weights that lie in one place during training, in bytes, and in how many parts."""

    where: Literal["gpu", "cpu", "disk"]
    parts: int
    size_bytes: int


class ModelStats(Word):
    """A model by its layers, and the memory that training would take, ``batch`` examples at once.

    ``laid`` says where its weights would lie, empty where all of them lie in the memory of the processor.
    """

    parameters: int
    trained: int
    groups: tuple[LayerGroup, ...]
    batch: int
    memory: MemoryNeed
    laid: tuple[Laid, ...] = ()
    fits: bool
    notes: tuple[str, ...] = ()


@runtime_checkable
class Describer(Protocol):
    """A trainer that can also describe models; not every trainer can."""

    def describe(self, task: DescribeTask) -> ModelStats:
        """Say what a model is made of and what its training would take, before anything is loaded.

        Raise ModelError if its files do not say, DatasetError if the recipe has a key or value it cannot use.
        """


class DescribeRequest(Word):
    """Ask a trainer to describe a model."""

    trainer: str
    task: DescribeTask
