"""What passes between the daemon and trainers that can say what a model is made of and what training it would take."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

from pydantic import Field

from clinic_ai.contract import Limits, LoadedModel, Recipe
from clinic_ai.domain import Key, Word


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


# ---------------------------------------------------------------- what fits a machine


class GpuRoom(Word):
    """A GPU of the machine that is asked about; memory in MiB."""

    name: str
    memory_mb: int = Field(ge=0)


class FitTask(Word):
    """Say which configuration of a plugin's networks fits a machine: its memory in MiB, its cores and its GPUs."""

    plugin: Key
    memory_mb: int = Field(ge=0)
    cpus: int = Field(ge=1)
    gpus: tuple[GpuRoom, ...] = ()


class NeedTerm(Word):
    """One term of what is needed of memory, in bytes, and what it is."""

    what: str
    size_bytes: int


class Fitting(Word):
    """One configuration on this machine: what it needs term by term, in bytes, and the room that is there.

    ``seconds`` is about how long one study takes there; None where that is not known. ``sentence`` says the verdict.
    """

    name: str
    summary: str
    where: Literal["cpu", "cuda"]
    judging: tuple[NeedTerm, ...]
    learning: tuple[NeedTerm, ...]
    room_bytes: int
    seconds: float | None = None
    judges: bool
    learns: bool
    sentence: str


class FitResult(Word):
    """The configurations of a plugin, the largest first; ``chosen`` is the largest that fits, empty if none does."""

    fittings: tuple[Fitting, ...]
    chosen: str
    notes: tuple[str, ...] = ()


@runtime_checkable
class Fitter(Protocol):
    """A trainer whose networks come in several configurations, and that can say which fits a machine."""

    def fit(self, task: FitTask) -> FitResult:
        """Say what each configuration needs, and which fits; nothing is loaded."""


class FitRequest(Word):
    """Ask a trainer which configuration fits a machine."""

    trainer: str
    task: FitTask
