"""The smallest plugin that learns: its model is one number, its training a few steps towards the mean label.

Found by children through PYTHONPATH. A recipe makes its trainer hold, die or lie at a given step.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import struct
import time
from pathlib import Path

from clinic_ai.benching import INT8, BenchResult, BenchTask, Measured
from clinic_ai.contract import (
    AnalysisTask,
    ConditionInfo,
    Dataset,
    Device,
    Example,
    Limits,
    LoadedModel,
    PluginManifest,
    Progress,
    Ready,
    Recipe,
    Scores,
    TrainingPlan,
    TrainingProgress,
    TrainingResult,
    TrainingTask,
)
from clinic_ai.describing import (
    DescribeTask,
    FitResult,
    FitTask,
    Fitting,
    Laid,
    LayerGroup,
    MemoryNeed,
    ModelStats,
    NeedTerm,
)
from clinic_ai.domain import Analysis, Finding, Presence
from clinic_ai.errors import DatasetError, ModelError
from clinic_ai.gating import JudgedRow, Judgement, JudgeTask

HEAVIEST = 1000.0
"""Weight above which the engine refuses a model."""
HARM, OFFENCE, SHIRK = 0.25, 0.125, 0.375
"""What a weight has behind its point: one that harms women, one whose engine says what no guard lets out, and one that
judges half of the test examples."""


def manifest(*, reference_models: tuple[str, ...] = (), spare_models: tuple[str, ...] = ()) -> PluginManifest:
    """Return the manifest of this plugin."""
    return PluginManifest(
        name="tiny",
        version="1.0",
        summary="A plugin of the tests.",
        conditions=(
            ConditionInfo(code="pneumonia", label="Pneumonia"),
            ConditionInfo(code="cardiomegaly", label="Large heart"),
        ),
        model_formats=("safetensors",),
        memory_mb=256,
        devices=("cpu", "cuda"),
        timeout_s=30.0,
        engine="tiny_learner:TinyEngine",
        trainer="tiny_learner:TinyTrainer",
        reference_models=reference_models,
        spare_models=spare_models,
    )


def write_model(
    directory: Path,
    weight: float,
    *,
    name: str = "scalar",
    version: str = "1",
    slot: str = "main",
    base_digest: str | None = None,
    tier: str = "",
    condition: str = "",
    plugin: str = "tiny",
    **claims: bool,
) -> str:
    """Write a model directory of one weight; return its digest."""
    directory.mkdir(parents=True, exist_ok=True)
    header = json.dumps({"weight": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}}).encode()
    content = struct.pack("<Q", len(header)) + header + struct.pack("<d", weight)
    (directory / "weights.safetensors").write_bytes(content)
    lines = [
        f'plugin = "{plugin}"',
        f'slot = "{slot}"',
        f'name = "{name}"',
        f'version = "{version}"',
        'format = "safetensors"',
        *([f'base_digest = "{base_digest}"'] if base_digest else []),
        *(f"{key} = {str(value).lower()}" for key, value in claims.items()),
        'licence = "Apache-2.0"',
        'source = "made by a test"',
        'intended_use = "tests"',
        "[[files]]",
        'name = "weights.safetensors"',
        f'sha256 = "{hashlib.sha256(content).hexdigest()}"',
        f"size_bytes = {len(content)}",
        "[parameters]",
        *(f'{key} = "{value}"' for key, value in (("tier", tier), ("condition", condition)) if value),
        "",
    ]
    text = "\n".join(lines)
    (directory / "model.toml").write_text(text)
    return hashlib.sha256(text.encode()).hexdigest()


def read_weight(directory: Path) -> float:
    """Return the weight of a model directory."""
    content = (directory / "weights.safetensors").read_bytes()
    return float(struct.unpack("<d", content[-8:])[0])


class TinyEngine:
    """Says which weights it holds, and takes that of its base for the chance of pneumonia."""

    def __init__(self) -> None:
        self._base = self._adapter = 0.0

    def load(self, base: LoadedModel | None, device: Device) -> None:
        self._base = 0.0 if base is None else read_weight(Path(base.directory))
        if self._base > HEAVIEST:
            raise ModelError("The weight is too heavy.", remedy="Train less.")

    def use(self, adapter: LoadedModel | None) -> None:
        self._adapter = 0.0 if adapter is None else read_weight(Path(adapter.directory))

    def analyse(self, task: AnalysisTask) -> Analysis:
        said = f"pid={os.getpid()} base={self._base} adapter={self._adapter}"
        if self._base % 1 == OFFENCE:
            said = "The colon is small. The cecum. with a mass in bowel. cec. cec. cec. in the cecum."
        chance = min(1.0, max(0.0, self._base))
        findings = tuple(
            Finding(
                condition="pneumonia",
                label="Pneumonia",
                probability=chance,
                threshold=0.5,
                presence=Presence.PRESENT if chance >= 0.5 else Presence.ABSENT,
                instance_sha256=image.sha256,
            )
            for image in task.images
        )
        return Analysis(plugin="tiny", plugin_version="1.0", models=task.models, findings=findings, remarks=(said,))

    def close(self) -> None:
        self._base = 0.0


class TinyTrainer:
    """Walks to the mean label of the training split, one checkpoint a step."""

    def plan(self, dataset: Dataset, limits: Limits, recipe: Recipe, base: LoadedModel | None = None) -> TrainingPlan:
        if len(dataset.examples) < 3:
            raise DatasetError("Two images are too few.", remedy="Label more.")
        seconds = float(recipe.get("planned_s", 1.0))
        plan = TrainingPlan(steps=20, epochs=1, memory_mb=limits.memory_mb, seconds=seconds, pf_days=0.0)
        lies = {key.removeprefix("plan_"): value for key, value in recipe.items() if key.startswith("plan_")}
        return plan.model_copy(update=lies)

    def train(self, task: TrainingTask, progress: Progress) -> TrainingResult:
        directory = Path(task.run_directory)
        checkpoint = directory / "checkpoint.json"
        start = read_weight(Path(task.base.directory)) if task.base else 0.0
        state = json.loads(checkpoint.read_text()) if checkpoint.exists() else {"step": 0, "weight": start}
        labels = [e.labels["pneumonia"] for e in task.dataset.examples if e.split == "train"]
        target = sum(labels) / max(1, len(labels))
        steps, first = int(task.recipe.get("steps", 20)), state["step"]
        while state["step"] < steps:
            state = {"step": state["step"] + 1, "weight": state["weight"] + 0.1 * (target - state["weight"])}
            _write(checkpoint, json.dumps(state))
            self._last = TrainingProgress(epoch=1, epochs=1, step=state["step"], steps=steps, loss=state["weight"])
            pf_days = (state["step"] - first) * float(task.recipe.get("pf_days_a_step", 0.0))
            # A copy is not checked: a trainer may be wrong about it.
            self._last = self._last.model_copy(update={"pf_days": pf_days})
            progress.report(self._last)
            self._misbehave(task, directory, state["step"], progress)
            if progress.stop_requested() and not task.recipe.get("stubborn"):
                return TrainingResult(state="stopped")
        place = directory / "model"
        plugin = str(task.recipe.get("plugin", "tiny"))
        write_model(place, state["weight"], name="trained", version=task.run_id, plugin=plugin, **_claims(task))
        scores = Scores(split="validation", examples=len(labels), values={"weight": state["weight"]})
        named = "/tmp" if task.recipe.get("elsewhere") else str(place)
        notes = (f"It took {steps} steps.",)
        return TrainingResult(state="finished", model_directory=named, scores=scores, notes=notes)

    def _misbehave(self, task: TrainingTask, directory: Path, step: int, progress: Progress) -> None:
        first = not (directory / "misbehaved").exists()
        if first and step == task.recipe.get("die_at"):
            (directory / "misbehaved").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if step == task.recipe.get("rubbish_at"):
            progress.report(Ready(seconds=1.0))  # type: ignore[arg-type]
        while step >= _allowed(task, directory) and (task.recipe.get("deaf") or not progress.stop_requested()):
            progress.report(self._last)
            time.sleep(0.01)
        if first and step == task.recipe.get("hold_at"):
            (directory / "misbehaved").touch()
            while task.recipe.get("stubborn") or not progress.stop_requested():
                # Well-behaved trainers report all the time; the daemon reminds them of a stop by that.
                progress.report(TrainingProgress(epoch=1, epochs=1, step=step, steps=20))
                time.sleep(0.02)

    def evaluate(
        self,
        model: LoadedModel,
        dataset: Dataset,
        device: Device | None = None,
        base: LoadedModel | None = None,
    ) -> Scores:
        weight = read_weight(Path(model.directory))
        figure = "report.lung_nodule.bleu_1"  # a model that does several things names its figures so
        return Scores(
            split="test",
            examples=0,
            values={"weight": weight, figure: weight},
            intervals={figure: (weight - 1, weight + 1)},
        )


class TinyJudge(TinyTrainer):
    """Also says what its models make of test examples: the heavier one is, the surer it tells labels apart.

    A weight of 0 knows nothing. One with ``HARM`` behind its point takes women with and without the condition for one
    another.
    """

    def judge(self, task: JudgeTask) -> Judgement:
        weight = read_weight(Path(task.model.directory))
        test = [example for example in task.dataset.examples if example.split == "test"]
        if not test:
            raise DatasetError("Nothing to test on.", remedy="Label more.")
        rows = tuple(
            JudgedRow(
                key=e.sha256,
                sha256=e.sha256,
                patient_key=e.patient_key,
                groups=e.groups,
                label=e.labels["pneumonia"],
                score=_chance(e, weight),
            )
            for e in test[:: 2 if weight % 1 == SHIRK else 1]
        )
        return Judgement(metric="auroc", figure="AUROC for pneumonia", rows=rows)


def _chance(example: Example, weight: float) -> float:
    noise = int(example.sha256[:8], 16) / 0xFFFFFFFF
    harmed = weight % 1 == HARM and example.groups.get("sex") == "female"
    return (1 - example.labels["pneumonia"] if harmed else example.labels["pneumonia"]) * weight + noise


class TinyDescriber(TinyTrainer):
    """Also describes its model of one number."""

    def describe(self, task: DescribeTask) -> ModelStats:
        rank = int(task.recipe.get("rank", 1))
        memory = MemoryNeed(weights=8, gradients=8 * rank, optimiser=16 * rank, activations=0)
        group = LayerGroup(name="weight", layers=1, parameters=1, trained=rank, size_bytes=8)
        laid = (Laid(where="cpu", parts=1, size_bytes=8),) if task.gpu_memory_mb else ()
        return ModelStats(
            parameters=1, trained=rank, groups=(group,), batch=1, memory=memory, laid=laid, fits=True, notes=("Light.",)
        )


class TinyFitter(TinyTrainer):
    """Also comes in two sizes: one needs a GPU of 1 GB, the other fits everywhere."""

    def fit(self, task: FitTask) -> FitResult:
        terms = (NeedTerm(what="weights", size_bytes=600_000_000), NeedTerm(what="the rest", size_bytes=200_000_000))
        on_gpu = bool(task.gpus)
        large = Fitting(
            name="large",
            summary="on a GPU",
            where="cuda",
            judging=terms,
            learning=terms,
            room_bytes=task.gpus[0].memory_mb << 20 if on_gpu else 0,
            seconds=2.0 if on_gpu else None,
            judges=on_gpu,
            learns=False,
            sentence="It fits." if on_gpu else "There is no GPU.",
        )
        small = large.model_copy(
            update={
                "name": "small",
                "where": "cpu",
                "room_bytes": task.memory_mb << 20,
                "judges": True,
                "learns": True,
                "sentence": f"It fits into {task.cpus} cores.",
            }
        )
        return FitResult(fittings=(large, small), chosen="large" if on_gpu else "small", notes=("Weighed.",))


class TinyBencher(TinyJudge):
    """Also measures: what weighs 2 or more is worth taking, what weighs 3 is written where it should not be."""

    def bench(self, task: BenchTask) -> BenchResult:
        weight, measured = read_weight(Path(task.model.directory)), Measured(milliseconds=1.0, size_bytes=8)
        if task.dataset is None:
            return BenchResult(original=measured)
        scores = Scores(split="test", examples=4, values={"auroc": 0.75}, intervals={"auroc": (0.5, 1.0)})
        measured = measured.model_copy(update={"scores": scores})
        place = Path(task.directory) / ("elsewhere" if weight == 3.0 else "model")
        if weight >= 2.0:
            write_model(place, weight / 2, name=task.model.manifest.name, version=task.model.manifest.version + INT8)
        return BenchResult(
            original=measured,
            int8=measured,
            difference=0.0,
            difference_interval=(-0.01, 0.01),
            agreement=1.0,
            taken=weight >= 2.0,
            reason="It is heavy enough." if weight >= 2.0 else "It is too light.",
            model_directory=str(place) if weight >= 2.0 else "",
            notes=(os.environ["TMPDIR"],),
        )


def _claims(task: TrainingTask) -> dict[str, bool]:
    return {"clinical_use": True} if task.recipe.get("clinical") else {}


def allow(directory: Path, steps: int) -> None:
    """Let a run with the recipe ``paced`` make this many steps in all; ``directory`` is that of the run."""
    directory.mkdir(exist_ok=True)
    _write(directory / "allowed", str(steps))


def _allowed(task: TrainingTask, directory: Path) -> float:
    """Return how many steps a run may make: as many as ``paced`` says at first, then as many as ``allow`` did."""
    said = directory / "allowed"
    return float(said.read_text()) if said.exists() else float(task.recipe.get("paced", "inf"))


def _write(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.rename(path)
