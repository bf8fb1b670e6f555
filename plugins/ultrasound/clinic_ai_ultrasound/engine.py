"""Answers the questions of a study's images, each by the adapter of the image's category."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from clinic_ai.contract import AnalysisTask, Device, LoadedModel, ModelManifest, QuestionTask, TaskImage
from clinic_ai.domain import Analysis, Answer, CategoryInfo, Generation, ModelRef, Refusal
from clinic_ai.errors import InputError, ModelError
from clinic_ai.ml.greys import Float
from clinic_ai.ml.images import GreyImage, load_grey
from clinic_ai.ml.unlike import Unlike
from clinic_ai_ultrasound import frames, gate
from clinic_ai_ultrasound.adapters import Adapters
from clinic_ai_ultrasound.answering import CUT_OFF, REPETITION, Answered, Seen, answer, batches, fitting, look
from clinic_ai_ultrasound.confidence import Calibration, holds_for
from clinic_ai_ultrasound.gate import Reason
from clinic_ai_ultrasound.loading import BASE_SLOT, Base, load_base
from clinic_ai_ultrasound.pictures import as_picture, read
from clinic_ai_ultrasound.plugin import describe_plugin

IMAGES = 32
"""Images of one study that the standard questions are asked about at most; a person may ask about any other."""
SHARE_OF_TIME = 0.8
"""Of the time an analysis may take, after which nothing more is asked: what was answered must not be lost."""
_ASK = "Ask about it with `clinic-ai study ask`."
NOT_LEARNED = "The model has not learned this question; nobody measured how often such answers are right."
_NOTES = {
    REPETITION: "The model repeated itself; the repetition was cut out.",
    CUT_OFF: "The answer was too long and is cut off at its end.",
}

Task = AnalysisTask | QuestionTask


class UltrasoundEngine:
    """The warm half of the plugin: one base, and over it the adapter of the category that is asked about."""

    def __init__(self) -> None:
        self._manifest = describe_plugin()
        self._base: Base | None = None
        self._adapters: Adapters | None = None
        self._unlike: Unlike | None = None

    def load(self, base: LoadedModel | None, device: Device) -> None:
        """Load the base; adapters over another one are forgotten. Raise ModelError if it cannot be used."""
        if base is None:
            raise ModelError(
                "The ultrasound plugin needs a base model.", remedy="Import one with `clinic-ai model import DIR`."
            )
        self.close()
        loaded = load_base(base, device)
        Calibration.of(base.manifest)  # refused now rather than at the first answer
        self._unlike = Unlike.of(base, loaded.model.config.vision_config.hidden_size)
        self._base, self._adapters = loaded, Adapters(loaded)

    def use(self, adapter: LoadedModel | None) -> None:
        """Take in the adapter of a category beside those of others; None leaves them: a task says which it pins.

        Raise ModelError if it does not belong over the base.
        """
        if adapter is not None:
            _, adapters = self._ready()
            Calibration.of(adapter.manifest)
            adapters.add(adapter)

    def analyse(self, task: AnalysisTask) -> Analysis:
        """Ask the standard questions of each image's category; refuse in words what cannot be asked about."""
        self._require_pinned(task)
        work = _Work(until=time.monotonic() + SHARE_OF_TIME * self._manifest.timeout_s)
        for image in task.images:
            try:
                asked = self._admit(image, task)
                if not asked.category.questions:
                    work.remarks.append(f"The category {asked.category.label} has no standard questions.")
                elif work.images == IMAGES or work.left_s() <= 0:
                    work.refuse(image, Reason("not_reached", f"The study has too many images to ask about all. {_ASK}"))
                else:
                    work.images += 1
                    self._ask_all(asked, task, work)
            except _Refused as refused:
                work.refuse(image, refused.reason)
            except InputError as error:  # what is wrong with one image is no reason to say nothing of the others
                work.refuse(image, Reason(error.code, error.message, error.remedy))
        if self._unlike is None and work.answers:
            work.remarks.append(gate.CANNOT_TELL)
        if any(refusal.code == "not_reached" for refusal in work.refusals):
            work.remarks.append(f"The standard questions were asked about {work.images} images of the study only.")
        return Analysis(
            plugin=self._manifest.name,
            plugin_version=self._manifest.version,
            models=task.models,
            answers=tuple(work.answers),
            refusals=tuple(work.refusals),
            remarks=tuple(dict.fromkeys(work.remarks)),
            timings_ms={name: round(seconds * 1000, 2) for name, seconds in work.seconds.items()},
        )

    def ask(self, task: QuestionTask) -> Answer:
        """Answer one question about one image. Raise InputError if it cannot be asked about or is not answered."""
        self._require_pinned(task)
        work = _Work()
        try:
            asked = self._admit(task.image, task)
            chosen = [task.frame] if task.frame is not None else _choose(task.image, 1)
            (found,) = self._ask_frame(asked, task, chosen[0], (task.question,), work)
        except _Refused as refused:
            raise InputError(refused.reason.code, refused.reason.sentence, remedy=refused.reason.remedy) from None
        if isinstance(found, Reason):
            raise InputError(found.code, found.sentence, remedy=found.remedy)
        return found

    def close(self) -> None:
        """Let go of the base and its adapters."""
        self._base = self._adapters = self._unlike = None

    # ------------------------------------------------------------ who answers

    def _ready(self) -> tuple[Base, Adapters]:
        if self._base is None or self._adapters is None:
            raise ModelError("The ultrasound engine has no base; it must be loaded first.")
        return self._base, self._adapters

    def _require_pinned(self, task: Task) -> None:
        """Raise ModelError if what is loaded is not what the task pins."""
        base, adapters = self._ready()
        bases = [ref for ref in task.models if ref.slot == BASE_SLOT]
        if [ref.digest for ref in bases] != [base.ref.digest]:
            raise ModelError(f"The job pins another base than {base.ref.label()}, which is loaded.")
        for ref in task.models:
            if ref.slot != BASE_SLOT:
                adapters.get(ref)

    def _admit(self, image: TaskImage, task: Task) -> _Asked:
        """Return who answers about an image. Raise _Refused if it is no ultrasound, or if nobody does."""
        reason = gate.refuse_by_header(image.header, task.facts)
        if reason is not None:
            raise _Refused(reason)
        category = next((c for c in task.categories or self._manifest.categories if c.key == image.category), None)
        if category is None:
            raise _Refused(_no_category(image))
        adapter = next((ref for ref in task.models if ref.slot == category.key != BASE_SLOT), None)
        if adapter is None and not task.base_answers:
            raise _Refused(untrained(category))
        return _Asked(image, category, adapter)

    # ------------------------------------------------------------ asking

    def _ask_all(self, asked: _Asked, task: AnalysisTask, work: _Work) -> None:
        with work.timed("choose"):
            chosen = _choose(asked.image, frames.KEPT)
        for frame in chosen:
            try:
                answers = self._ask_frame(asked, task, frame, asked.category.questions, work)
            except _Refused as refused:  # another frame of the loop may still be asked about
                work.refuse(asked.image, _of_frame(refused.reason, frame, asked.image))
                continue
            for found in answers:
                if isinstance(found, Answer):
                    work.answers.append(found)
                else:
                    work.refuse(asked.image, found)

    def _ask_frame(
        self, asked: _Asked, task: Task, frame: int, questions: Sequence[str], work: _Work
    ) -> list[Answer | Reason]:
        """Answer questions about one frame, or say of one why it has no answer. Raise _Refused, InputError."""
        base, adapters = self._ready()
        with work.timed("read"):
            image = read(asked.image.path, frame)
        reason = gate.refuse_by_pixels(image)
        if reason is not None:
            raise _Refused(reason)
        work.remarks += gate.remarks_by_pixels(image)
        with work.timed("look"):
            seen = self._look(base, image)
        with work.timed("switch"):
            adapters.use(asked.adapter)
        manifest = adapters.get(asked.adapter).manifest if asked.adapter is not None else base.manifest
        generation = fitting(asked.category.generation or Generation(), manifest)
        found: list[Answered | Reason] = []
        for batch in batches(base, questions):
            with work.timed("answer"):
                try:
                    timeout_s = max(0.0, min(task.answer_timeout_s, work.left_s()))
                    found += answer(base, seen, batch, generation, timeout_s=timeout_s)
                except InputError as error:  # too late or too long: what other batches were answered still counts
                    found += [Reason(error.code, error.message, error.remedy)] * len(batch)
        return [
            one if isinstance(one, Reason) else self._worded(asked, frame, question, one, manifest)
            for question, one in zip(questions, found, strict=True)
        ]

    def _look(self, base: Base, image: GreyImage) -> Seen:
        seen = look(base, as_picture(image))
        reason = gate.refuse_unlike(self._unlike, seen.pooled) if self._unlike is not None else None
        if reason is not None:
            raise _Refused(reason)
        return seen

    @staticmethod
    def _worded(asked: _Asked, frame: int, question: str, found: Answered, manifest: ModelManifest) -> Answer | Reason:
        if not found.text:
            return Reason("empty_answer", f"The model gave no answer to the question: {question}")
        several = asked.image.header.frames > 1
        notes = [_NOTES[flag] for flag in found.flags]
        if several:
            notes.append(f"Read from frame {frame + 1} of {asked.image.header.frames}.")
        if asked.adapter is None:
            label = asked.category.label
            notes.append(f"Answered by the base model; no model has been trained for {label}.")
        calibration = Calibration.of(manifest)
        if not holds_for(manifest, question):
            calibration = None
            notes.append(NOT_LEARNED)
        return Answer(
            question=question,
            text=found.text,
            confidence=calibration.probability(found.mean_log_probability) if calibration is not None else None,
            instance_sha256=asked.image.sha256,
            frame=frame if several else None,
            category=asked.category.key,
            adapter=asked.adapter.slot if asked.adapter is not None else "",
            flags=found.flags,
            notes=tuple(notes),
        )


def untrained(category: CategoryInfo) -> Reason:
    """Return why nobody answers about images of a category, and what to do."""
    folder = f"labels/ultrasound/{category.key}"
    return Reason(
        "no_trained_model",
        f"The category {category.label} has no trained model: it needs a labelled sheet.",
        f"Put its images and the sheet with questions and answers into {folder}, then run "
        f"`clinic-ai train run ultrasound {folder}`.",
    )


def _no_category(image: TaskImage) -> Reason:
    if image.category:
        return Reason("unknown_category", f"The plugin has no category {image.category}.")
    if image.category_note:  # it says what to do, too
        return Reason("no_category", image.category_note)
    return Reason(
        "no_category", "It is not known which category the image is of.", "Say so with `clinic-ai study category`."
    )


def _of_frame(reason: Reason, frame: int, image: TaskImage) -> Reason:
    """Return a reason that says of which frame it is, if the image is a loop."""
    if image.header.frames <= 1:
        return reason
    return replace(reason, sentence=f"Frame {frame + 1} of {image.header.frames}: {reason.sentence}")


def _choose(image: TaskImage, keep: int) -> list[int]:
    """Return the frames to ask about, counted from 0. Raise InputError if one cannot be read."""

    def pixels(frame: int) -> Float:
        return load_grey(image.path, frame=frame, max_side=frames.SIDE).pixels

    return frames.representative(pixels, image.header.frames, keep)


@dataclass(frozen=True)
class _Asked:
    """An image that may be asked about, and who answers: the adapter of its category, or the base if None."""

    image: TaskImage
    category: CategoryInfo
    adapter: ModelRef | None


class _Refused(Exception):
    """An image is not asked about."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.code)
        self.reason = reason


@dataclass
class _Work:
    """What an analysis has produced so far; ``seconds`` by kind of work.

    ``until`` on the monotonic clock it may go on.
    """

    answers: list[Answer] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    images: int = 0
    until: float = math.inf

    def left_s(self) -> float:
        """Return the seconds that are left; 0 or less: none."""
        return self.until - time.monotonic()

    def refuse(self, image: TaskImage, reason: Reason) -> None:
        """Say of an image why it, or a question about it, has no answer."""
        sentence = f"{reason.sentence} {reason.remedy}".strip()
        self.refusals.append(Refusal(instance_sha256=image.sha256, code=reason.code, sentence=sentence))

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Count the time of what is done inside as ``name``."""
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
