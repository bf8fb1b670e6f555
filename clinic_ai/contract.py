"""What passes between the daemon and the plugins, in engines and trainers: manifests, tasks, results, protocols.

The light half of a plugin is its manifest, data that the daemon reads. The heavy half implements
``Engine`` and, if it can learn, ``Trainer``; both are imported only inside ``workers/``. A task carries
paths and messages, never the database.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated, Literal, Protocol

from pydantic import Field, StringConstraints

from clinic_ai.domain import (
    Analysis,
    Answer,
    Audience,
    CategoryInfo,
    InstanceHeader,
    Key,
    ModelRef,
    QuestionAnswer,
    Sha256,
    SliceRef,
    StudyFacts,
    ValidationFigures,
    Vector,
    Word,
    Words,
)

Glob = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Condition(Word):
    """What a study must look like; every list given must match, an empty one matches everything.

    Lists hold shell patterns (``*``, ``?``), compared without regard to case; one match in a list is
    enough. ``min_slices`` and ``max_slices`` count images, frames included.
    """

    modality: tuple[Glob, ...] = Field((), description="DICOM modality: CR, DX, CT, US …")
    body_part: tuple[Glob, ...] = Field((), description="Body part examined: CHEST, ABDOMEN …")
    view: tuple[Glob, ...] = Field((), description="View position: PA, AP, LL …")
    station: tuple[Glob, ...] = Field((), description="Station name of the scanner.")
    source: tuple[Glob, ...] = Field((), description="Name of the inbox or sender the study came from.")
    study_description: tuple[Glob, ...] = Field((), description="Study description.")
    series_description: tuple[Glob, ...] = Field((), description="Description of any series.")
    min_slices: int | None = Field(default=None, ge=0, description="Fewest images, frames included.")
    max_slices: int | None = Field(default=None, ge=0, description="Most images, frames included.")


class ConditionInfo(Word):
    """A condition a plugin can judge, if it has a model for it; ``code`` is a key of ``results/codes.toml``."""

    code: Key
    label: str = Field(min_length=1, max_length=80)
    body_parts: tuple[Glob, ...] = ()
    """Body parts (0018,0015) whose images it is judged on, such as CHEST*; none named means any."""
    views: tuple[Glob, ...] = ()
    """View positions (0018,5101) it is judged on, such as PA; none named means any."""
    tier: Literal["", "fast", "intensive", "both"] = ""
    """Which of its models judge: only the fast or the intensive one, or both: the fast one screens, and what it does
    not call absent the intensive one judges. Empty: both where both are active."""
    critical: int = Field(default=0, ge=0, le=3)
    """Category of the alert that a finding raises where the clinic's own list is silent; 0: none."""
    also: tuple[str, ...] = ()
    """What the columns of public label sheets call it, beside code and label."""

    def applies_to(self, body_part: str, view: str) -> bool:
        """Whether an image of this body part and view is judged; what an image does not say counts for it."""
        return _fits(body_part, self.body_parts) and _fits(view, self.views)


def _fits(value: str, patterns: tuple[str, ...]) -> bool:
    said = value.strip().upper()
    return not said or not patterns or any(fnmatchcase(said, pattern.upper()) for pattern in patterns)


class PluginManifest(Word):
    """All the daemon knows of a plugin. ``engine`` and ``trainer`` are ``package.module:Class``."""

    name: Key
    version: str
    core: str = ">=0.1,<0.2"
    """Versions of clinic-ai it works with (PEP 440)."""
    summary: str
    claims: tuple[Condition, ...] = ()
    """Studies it offers to take when no rule of the clinic speaks; any one claim is enough."""
    conditions: tuple[ConditionInfo, ...] = ()
    questions: tuple[Words, ...] = ()
    categories: tuple[CategoryInfo, ...] = ()
    """Kinds of view it answers questions about, each by an adapter of its own."""
    labels: Literal["conditions", "answers", "volumes"] = "conditions"
    """What its trainer learns from: 0 or 1 for conditions, or questions with answers (a sheet beside the images), or
    whole volumes with conditions, masks and reports beside them."""
    capabilities: tuple[Literal["analyse", "ask"], ...] = ("analyse",)
    needs_model: bool = True
    model_formats: tuple[Literal["onnx", "safetensors"], ...] = ("onnx",)
    memory_mb: int = Field(default=512, gt=0)
    """Resident memory its warm engine needs, in MiB; also the limit the child is given, times two. A model that needs
    more says so in its own manifest; see ``memory_needed``."""
    devices: tuple[Literal["cpu", "cuda"], ...] = ("cpu",)
    """Where its engine and trainer can compute; a ``Device`` of another kind is never handed to them."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Longest time one analysis may take."""
    deidentified: bool = False
    """Whether its engine is given de-identified copies instead of the images; see ``TaskImage``."""
    engine: str
    trainer: str | None = None
    reference_models: tuple[str, ...] = ()
    """Directories of reference models inside the plugin's package, as ``package:relative/path``."""
    spare_models: tuple[str, ...] = ()
    """Further ones, which are imported as well but become active only by a person; training may start from them."""


# ---------------------------------------------------------------- models on disk


class ModelFile(Word):
    """One file of a model directory."""

    name: str
    sha256: Sha256
    size_bytes: int


class ModelManifest(Word):
    """``model.toml``: what a model is, what it may be used for, and the hash of each of its files."""

    plugin: Key
    slot: Key = "main"
    name: str
    version: str
    format: Literal["onnx", "safetensors"]
    files: tuple[ModelFile, ...]
    base_digest: Sha256 | None = None
    """For an adapter: digest of the base it was trained on."""
    quantisation: str = "none"
    licence: str
    clinical_use: bool = False
    commercial_use: bool = False
    reference: bool = False
    source: str
    intended_use: str
    validation: dict[str, ValidationFigures] = Field(default_factory=dict)
    """By condition key."""
    parameters: dict[str, float | int | str | bool | tuple[float, ...]] = Field(default_factory=dict)
    """What the plugin needs to use it: input size, temperature, thresholds."""
    created_at: str = ""


class LoadedModel(Word):
    """A model as an engine receives it: a verified, absolute local directory and its manifest."""

    ref: ModelRef
    directory: str
    manifest: ModelManifest


def memory_needed(plugin: PluginManifest, models: Iterable[ModelManifest]) -> int:
    """Return the resident memory in MiB that the plugin's engine needs with these models.

    It is what the plugin declares, or the largest ``memory_mb`` among the parameters of the models if that is more.
    """
    declared = (model.parameters.get("memory_mb") for model in models)
    return max([plugin.memory_mb, *(math.ceil(mb) for mb in declared if isinstance(mb, int | float))])


class Device(Word):
    """Where an engine or trainer computes; ``threads`` is the number of CPU threads it may use.

    ``index`` of a GPU counts by place on the PCI bus, as CUDA does in children of the appliance.
    """

    kind: Literal["cpu", "cuda"] = "cpu"
    index: int = 0
    threads: int = 1
    memory_mb: int = 0


# ---------------------------------------------------------------- engine child


class TaskImage(Word):
    """A stored object a child may read. The header carries no identity unless the child needs it.

    ``sha256`` names the image in findings, refusals, files and volumes. For a plugin that asks for de-identified
    images, path and header are of the copy while ``sha256`` stays that of the original: it is not the hash of what
    lies at ``path``. ``warnings`` then says what may still tell of the patient, such as text that is burnt in.
    """

    path: str
    sha256: Sha256
    header: InstanceHeader
    warnings: tuple[Words, ...] = ()
    category: str = ""
    """Key of the category it is of; empty if that is unknown or ambiguous, or the plugin has no categories."""
    category_note: str = ""
    """How the category was found, or why there is none and what to do; one sentence for people."""


class EngineLoad(Word):
    """Load this plugin's engine with these models, one per slot (none if the plugin needs no model)."""

    engine: str
    models: tuple[LoadedModel, ...]
    device: Device


class Ready(Word):
    """The child has done what it was asked; ``seconds`` it took."""

    seconds: float


class VolumeInfo(Word):
    """One stack of slices of one series, in order along their normal; ``reason`` says why it is no regular volume.

    Of a regular volume, axes are (z, y, x) = (slice, row, column), lengths in mm: voxel (k, j, i) lies at
    ``origin + k·spacing[0]·directions[0] + j·spacing[1]·directions[1] + i·spacing[2]·directions[2]`` in the
    patient's coordinates. Of others these three are None. Nothing was resampled.
    """

    series_instance_uid: str
    slices: tuple[SliceRef, ...]
    spacing: Vector | None = None
    origin: Vector | None = None
    directions: tuple[Vector, Vector, Vector] | None = None
    reason: str = ""


class AnalysisTask(Word):
    """Analyse these images of one study version; files go into ``output_directory`` by plain names."""

    job_id: str
    facts: StudyFacts
    images: tuple[TaskImage, ...]
    output_directory: str
    models: tuple[ModelRef, ...]
    volumes: tuple[VolumeInfo, ...] = ()
    """Stacks of two slices or more whose places are known; scouts are left out."""
    conditions: tuple[ConditionInfo, ...] = ()
    """The plugin's conditions with those the clinic added."""
    categories: tuple[CategoryInfo, ...] = ()
    """The plugin's categories as the clinic has them."""
    base_answers: bool = False
    """Whether the base may answer where a category has no adapter."""
    answer_timeout_s: float = Field(default=60.0, gt=0)
    """Longest time one answer may take; one that is not finished by then is no answer."""


class QuestionTask(Word):
    """Answer a question about one image; ``facts`` and ``categories`` as in ``AnalysisTask``."""

    job_id: str
    question: Words
    audience: Audience
    facts: StudyFacts
    image: TaskImage
    frame: int | None = Field(default=None, ge=0)
    """The frame that is asked about, counted from 0; None: the engine chooses."""
    models: tuple[ModelRef, ...]
    categories: tuple[CategoryInfo, ...] = ()
    base_answers: bool = False
    answer_timeout_s: float = Field(default=60.0, gt=0)


class Engine(Protocol):
    """The heavy half of a plugin: its model, warm. Lives in one child; methods are called one at a time."""

    def load(self, base: LoadedModel | None, device: Device) -> None:
        """Make ``base`` the model of its slot; called again to replace it, and with None if no model is needed.

        Raise ModelError if the files are not what this engine can use.
        """

    def use(self, adapter: LoadedModel | None) -> None:
        """Switch to an adapter over the loaded base, in milliseconds; None takes the adapter off."""

    def analyse(self, task: AnalysisTask) -> Analysis:
        """Judge the study. Raise InputError if nothing in it can be judged for a reason of the input."""

    def ask(self, task: QuestionTask) -> Answer:
        """Answer one question. Only called if the manifest's capabilities name ``ask``."""

    def close(self) -> None:
        """Let go of everything; the process ends after this."""


# ---------------------------------------------------------------- trainer child


class Beside(Word):
    """A file that belongs to a volume: the regions of its voxels, the mask of a ``condition``, its report, or a slice.

    Where there are slices, the volume is a DICOM series; the file of the example itself is its first one.
    """

    role: Literal["regions", "mask", "report", "slice"]
    condition: str = ""
    path: str
    sha256: Sha256


class Example(Word):
    """One labelled image or volume of a frozen dataset. ``labels`` maps a condition key to 0 or 1.

    ``groups`` is what the original said of patient and scanner, as far as it did; it is no part of the digest.
    ``sex`` is M, F or O, ``age`` 0-17, 18-39, 40-64 or 65+ in years, ``station`` a pseudonym of this site; ``view`` and
    the manufacturer's ``model`` are as in the copy.
    """

    path: str
    sha256: Sha256
    patient_key: str
    labels: dict[str, int]
    split: Literal["train", "validation", "test"]
    groups: dict[str, str] = Field(default_factory=dict)
    pairs: tuple[QuestionAnswer, ...] = ()
    """Questions about the image with their answers, for a plugin that learns from answers."""
    beside: tuple[Beside, ...] = ()
    """What lies beside a volume, for a plugin that learns from volumes."""


class Dataset(Word):
    """A frozen, hashed set of examples; a patient is in one split for life."""

    dataset_id: str
    plugin: Key
    digest: Sha256
    examples: tuple[Example, ...]
    notes: tuple[str, ...] = ()
    category: str = ""
    """Key of the category its answers are about; empty for labels of conditions."""


class Limits(Word):
    """What a training run may use."""

    memory_mb: int = 4096
    threads: int = 1
    max_seconds: float = 3600.0
    gpu_memory_mb: int = 0
    """Of a GPU, if it computes on one; 0: all that is free."""


Recipe = dict[str, float | int | str | bool]
"""What a person chose of a training run; the keys are the trainer's own."""


Count = Annotated[int, Field(ge=0, le=10**12)]
"""A number of steps or MiB; no machine has more."""
Amount = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
"""Seconds, or PF-days: what is charged to budgets, so never less than nothing."""


class TrainingPlan(Word):
    """What a run will cost, before it starts."""

    steps: Count
    epochs: Count
    memory_mb: Count
    seconds: Amount
    pf_days: Amount
    disk_mb: Count = 0
    """What the run directory takes at most, checkpoints included."""
    notes: tuple[str, ...] = ()


class TrainingTask(Word):
    """Train on ``dataset``; checkpoints in ``run_directory`` are resumed, the result goes to ``model`` beside them."""

    run_id: str
    dataset: Dataset
    base: LoadedModel | None
    recipe: Recipe = Field(default_factory=dict)
    run_directory: str
    limits: Limits
    device: Device
    categories: tuple[CategoryInfo, ...] = ()
    """The plugin's categories as the clinic has them."""


class TrainingProgress(Word):
    """Where a run stands; sent often, stored by the daemon."""

    epoch: Count
    epochs: Count
    step: Count
    steps: Count
    loss: float | None = None
    metric: float | None = None
    metric_name: Words = ""
    eta_s: float | None = None
    message: Words = ""
    pf_days: Amount | None = None
    """Computation of this process so far, where the trainer counts it."""


FIGURES = {
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "meteor": "METEOR",
    "rouge_l": "ROUGE-L",
    "crg": "CRG",
    "label_f1": "label F1",
    "auroc": "AUROC",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "accuracy": "accuracy",
    "dice": "Dice",
    "iou": "IoU",
    "hd95_mm": "HD95 (mm)",
    "sensitivity": "sensitivity",
    "lesion_sensitivity": "lesions found",
}
"""Names of figures in scores, in the order of a table, and what people call them."""


class Scores(Word):
    """Figures of a model on one split: name → value, and name → (low, high) of the 95 % interval.

    A name is that of a figure, or ``task.figure`` or ``task.of.figure`` where a model does several things.
    """

    split: str
    examples: int
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]] = Field(default_factory=dict)


class TrainingResult(Word):
    """How a run ended. ``model_directory`` holds model.toml and files, a candidate for import; empty if stopped."""

    state: Literal["finished", "stopped"]
    model_directory: str = ""
    scores: Scores | None = None
    history: tuple[dict[str, float], ...] = ()
    notes: tuple[str, ...] = ()


class Progress(Protocol):
    """How a trainer reports; ``stop_requested`` turns true when it should write a checkpoint and return."""

    def report(self, progress: TrainingProgress) -> None:
        """Tell the daemon."""

    def stop_requested(self) -> bool:
        """Return whether the run should stop at the next safe point."""


class Trainer(Protocol):
    """How a plugin learns. Lives in one child for one run."""

    def plan(self, dataset: Dataset, limits: Limits, recipe: Recipe, base: LoadedModel | None = None) -> TrainingPlan:
        """Say what training on this by this recipe would cost, starting from ``base`` if there is one.

        Raise DatasetError if it would leak or mean nothing, or if the recipe has a key or value it cannot use;
        ModelError if it cannot start from that base.
        """

    def train(self, task: TrainingTask, progress: Progress) -> TrainingResult:
        """Train, or resume from the newest whole checkpoint in the run directory."""

    def evaluate(
        self,
        model: LoadedModel,
        dataset: Dataset,
        device: Device | None = None,
        base: LoadedModel | None = None,
    ) -> Scores:
        """Score a model on the test split, on one thread if no device is given.

        ``base`` is the model whose digest an adapter names as its ``base_digest``; whole models need none.
        """


class PlanTask(Word):
    """Ask a trainer for its plan."""

    trainer: str
    dataset: Dataset
    limits: Limits
    recipe: Recipe = Field(default_factory=dict)
    base: LoadedModel | None = None
    """The model the run would start from."""


class EvaluateRequest(Word):
    """Ask a trainer for the figures of a model on the test part of a dataset."""

    trainer: str
    model: LoadedModel
    dataset: Dataset
    device: Device
    base: LoadedModel | None = None


class TrainRequest(Word):
    """Ask a trainer to train."""

    trainer: str
    task: TrainingTask
