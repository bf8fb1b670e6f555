"""What passes between the daemon and trainers that can measure a model on this machine."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from clinic_ai.contract import Dataset, Device, Limits, LoadedModel, Scores
from clinic_ai.domain import Word

INT8 = "-int8"
"""What the version of an int8 model has behind that of the model it was made of."""


class BenchTask(Word):
    """Measure ``model`` on this machine; with a ``dataset``, beside an int8 version of it.

    The int8 version is calibrated on the training split and measured on the test split. It goes to ``model`` in
    ``directory`` if it is taken.
    """

    model: LoadedModel
    dataset: Dataset | None = None
    directory: str
    limits: Limits
    device: Device


class Measured(Word):
    """What a model costs and how good it is; ``scores`` is None if no labelled images were given."""

    milliseconds: float
    """Median processor time that one image takes on one thread, as it is served."""
    size_bytes: int
    """All its files."""
    scores: Scores | None = None


class BenchResult(Word):
    """How a model fares on this machine. Without a dataset there is ``original`` alone."""

    original: Measured
    int8: Measured | None = None
    difference: float | None = None
    """AUROC of int8 less that of the original, on the same images."""
    difference_interval: tuple[float, float] | None = None
    """95 % interval of ``difference``, by patient."""
    agreement: float | None = None
    """Share of the images of which both say the same: present, uncertain, absent, or that it is not judged."""
    taken: bool = False
    reason: str = ""
    """Why int8 is taken or not, with the figures of both; one sentence."""
    model_directory: str = ""
    """Holds model.toml and files of the int8 version, a candidate for import; empty unless it is taken."""
    notes: tuple[str, ...] = ()


@runtime_checkable
class Bencher(Protocol):
    """A trainer that can also measure a model and make an int8 version of it; not every trainer can."""

    def bench(self, task: BenchTask) -> BenchResult:
        """Measure a model, and an int8 version of it if there is a dataset.

        Raise ModelError if no int8 version can be made of the model, DatasetError if the images do not suffice.
        """


class BenchRequest(Word):
    """Ask a trainer to measure a model."""

    trainer: str
    task: BenchTask
