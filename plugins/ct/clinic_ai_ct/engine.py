"""Judges CT of the chest: findings, masks on the slices as they arrived, and a report of what these support."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from clinic_ai.contract import AnalysisTask, ConditionInfo, Device, LoadedModel, QuestionTask
from clinic_ai.domain import (
    Analysis,
    Answer,
    Distance,
    Finding,
    Presence,
    ProducedFile,
    ReportSentence,
    Segment,
    Segmentation,
)
from clinic_ai.errors import InputError, ModelError
from clinic_ai.heap import give_back
from clinic_ai_ct import regions, sliding
from clinic_ai_ct.admission import Admitted, admit
from clinic_ai_ct.anatomy import REGIONS
from clinic_ai_ct.lesions import LESIONS, Lesion, Piece
from clinic_ai_ct.measuring import masks_of, measure
from clinic_ai_ct.organs import Organs, frame
from clinic_ai_ct.outlining import draw, packed, write_packed
from clinic_ai_ct.plugin import describe_plugin
from clinic_ai_ct.preparing import image_of, on_network_grid
from clinic_ai_ct.reading import to_source
from clinic_ai_ct.report import write_report
from clinic_ai_ct.served import MaskEvidence, Rule, Served, drawn_of, reach_of, serve
from clinic_ai_ct.volume import Grid, Volume
from clinic_ai_ct.writer import LANGUAGE_SLOT, Writer

MAIN_SLOT = "main"
MASKS = "masks.npz"
NO_MIDDLE = "Where the middle of the body lies could not be told; places and sides are left out where they rest on it."
CANNOT_TELL = "The model cannot tell volumes that are unlike those of its training."
_LOG = logging.getLogger(__name__)

Packed = npt.NDArray[np.uint8]


class CTEngine:
    """The warm half of the plugin: the network, and beside it an organ segmenter and a language model if in use."""

    def __init__(self) -> None:
        self._manifest = describe_plugin()
        self._served: Served | None = None
        self._organs: tuple[LoadedModel, regions.OrganSegmenter] | None = None
        self._writer: Writer | None = None

    def load(self, base: LoadedModel | None, device: Device) -> None:
        """Make ``base`` the model of its slot: ``main``, ``organs`` or ``language``. Raise ModelError if it is none."""
        if base is None:
            raise ModelError("The CT plugin needs a model.", remedy="Import one with `clinic-ai model import DIR`.")
        if base.manifest.plugin != self._manifest.name:
            raise ModelError(f"Model {base.ref.label()} belongs to the plugin {base.manifest.plugin}, not to ct.")
        torch.set_num_threads(max(1, device.threads))
        if base.ref.slot == MAIN_SLOT:
            self._served = serve(base, device)
        elif base.ref.slot == regions.SLOT:
            self._organs = base, regions.load_segmenter(base, device)
        elif base.ref.slot == LANGUAGE_SLOT:
            self._writer = Writer.load(base, device)
        else:
            raise ModelError(f"The CT plugin has no slot {base.ref.slot} that {base.ref.label()} could be used in.")

    def use(self, adapter: LoadedModel | None) -> None:
        """Take no adapter. Raise ModelError if one is given: networks are replaced as a whole."""
        if adapter is not None:
            raise ModelError("The CT network takes no adapter; import the trained model as a whole.")

    def analyse(self, task: AnalysisTask) -> Analysis:
        """Judge one stack of the study; say in words why the others, or all, are not judged."""
        served = self._pinned(task)
        work = _Work(task, served, {c.code: c for c in task.conditions or self._manifest.conditions})
        with work.timed("read"):
            admission = admit(task)
        if admission.admitted is not None:
            self._judge(work, admission.admitted)
            give_back()
        return Analysis(
            plugin=self._manifest.name,
            plugin_version=self._manifest.version,
            models=task.models,
            findings=tuple(work.findings),
            refusals=admission.refusals,
            remarks=tuple(dict.fromkeys(work.remarks)),
            files=tuple(work.files),
            masks=masks_of(work.lesions),
            segmentations=tuple(work.segmentations),
            report=tuple(work.report),
            distances=tuple(work.distances),
            timings_ms={name: round(seconds * 1000, 2) for name, seconds in work.seconds.items()},
        )

    def ask(self, task: QuestionTask) -> Answer:  # noqa: ARG002 - the contract's signature
        """Answer no question. Raise InputError always; the manifest does not offer this."""
        raise InputError("no_questions", "The CT plugin answers no questions.")

    def close(self) -> None:
        """Let go of the models."""
        self._served = self._organs = self._writer = None

    # ------------------------------------------------------------ one volume

    def _judge(self, work: _Work, admitted: Admitted) -> None:
        served, volume = work.served, admitted.volume
        with work.timed("prepare"):
            small = on_network_grid(volume, served.network.config, admitted.survey.centre)
        work.remarks += small.remarks
        with work.timed("regions"):
            found = self._regions(small)
        attends = served.network.config.encoder.regions > 0
        if not attends:
            work.remarks.append(regions.NOT_LEARNED)
        if attends or found.labels is not None:
            work.remarks.append(found.sentence)
        with work.timed("network"):
            image = image_of(small, served.network.config.windows).to(served.device)
            known = found.labels if attends else None
            labels = None if known is None else torch.from_numpy(known)[None].to(served.device)
            reading = sliding.read(served.network, image, labels)
            del image
            logits = dict(zip(served.network.config.classifier.labels, reading.logits[0].tolist(), strict=True))
            masks = served.network.probabilities(reading.masks[0])
        if not (np.isfinite(masks).all() and np.isfinite(list(logits.values())).all()):
            raise ModelError(
                f"The network {served.ref.label()} computes numbers that are not finite.",
                remedy="Take its promotion back with `clinic-ai model rollback`, then train or import it again.",
            )
        organs = None if found.labels is None else _organs(found.labels, small.grid, volume.grid)
        self._outline(work, admitted, masks, small.grid, logits, organs)
        self._tell_distance(work, reading)
        with work.timed("report"):
            work.report += self._write(work, reading)

    def _regions(self, volume: Volume) -> regions.Regions:
        if self._organs is None:
            return regions.OFF
        segmenter = self._organs[1]
        return segmenter.find(image_of(volume, segmenter.config.windows), volume.grid.spacing)

    def _outline(
        self,
        work: _Work,
        admitted: Admitted,
        masks: npt.NDArray[np.float32],
        grid: Grid,
        logits: Mapping[str, float],
        organs: Organs | None,
    ) -> None:
        """Draw and measure each lesion, make findings of all labels, and write the masks of what is not absent."""
        served, volume = work.served, admitted.volume
        drawn: list[tuple[Segment, Packed]] = []
        signs: dict[str, MaskEvidence] = {}
        left_out = 0
        with work.timed("measure"):
            where = frame(volume.hu, volume.grid, organs)
        if where is None or where.middle_x is None:
            work.remarks.append(NO_MIDDLE)
        findings = served.network.config.localiser.findings
        for name, probability, outline, extent in zip(
            findings, masks, served.outlines, served.extents_mm3, strict=True
        ):
            with work.timed("outline"):
                (reach,) = reach_of(probability, grid, (extent,))
            if name not in LESIONS:
                with work.timed("outline"):
                    volume_mm3 = float(draw(probability, grid, grid, outline).sum()) * grid.voxel_mm3
                    signs[name] = MaskEvidence(drawn_of(volume_mm3, name), reach)
                continue
            rule = next(rule for rule in served.rules if rule.condition == name)
            with work.timed("outline"):
                mask = draw(probability, grid, volume.grid, outline)
            with work.timed("measure"):
                lesion = measure(name, mask, volume.grid, volume.hu, organs, least_mm3=outline.least_mm3, where=where)
            evidence = MaskEvidence(drawn_of(sum(piece.volume_mm3 for piece in lesion.pieces), name), reach)
            finding = work.find(rule, logits, admitted, evidence, lesion)
            if lesion.pieces and finding is not None and finding.presence is Presence.ABSENT:
                left_out += len(lesion.pieces)
                lesion = Lesion(name)
            work.lesions.append(lesion)
            if lesion.pieces and finding is not None:
                with work.timed("outline"):
                    segment = Segment(number=len(drawn) + 1, name=name, label=finding.label[:64], model=served.ref.slot)
                    drawn.append((segment, packed(mask, volume.grid, admitted.source)))
        named = {rule.condition for rule in served.rules if rule.condition in {one.name for one in work.lesions}}
        for rule in served.rules:
            if rule.condition not in named:
                work.find(rule, logits, admitted, signs.get(rule.label, MaskEvidence()))
        known = {*work.conditions, *(condition.code for condition in self._manifest.conditions)}
        if unnamed := sum(rule.condition not in known for rule in served.rules):
            work.remarks.append(nothing_said_of(unnamed))
        if left_out:
            work.remarks.append(
                f"{left_out} outlined {'place was' if left_out == 1 else 'places were'} left out: what the network "
                "drew there is rated as absent all the same."
            )
        with work.timed("write"):
            if organs is not None and self._organs is not None:
                drawn += _anatomy(organs, volume.grid, admitted.source, len(drawn), self._organs[0].ref.slot)
            work.keep(admitted, drawn)

    def _tell_distance(self, work: _Work, reading: sliding.Reading) -> None:
        unlike = work.served.unlike
        if unlike is None:
            work.remarks.append(CANNOT_TELL)
            return
        value = unlike.distance(reading.features.global_[0])
        work.distances.append(Distance(model=work.served.ref.slot, value=value, limit=unlike.limit))

    def _write(self, work: _Work, reading: sliding.Reading) -> tuple[ReportSentence, ...]:
        written = write_report(work.findings, work.lesions)
        if self._writer is None:
            return written
        said = self._writer.write(work.served, reading.features, work.findings, work.lesions, written)
        work.remarks += said.remarks
        return said.sentences

    def _pinned(self, task: AnalysisTask) -> Served:
        """Return the network that the task pins. Raise ModelError if another model is loaded in a slot."""
        loaded = {MAIN_SLOT: self._served.ref} if self._served else {}
        if self._organs:
            loaded[regions.SLOT] = self._organs[0].ref
        if self._writer:
            loaded[LANGUAGE_SLOT] = self._writer.ref
        for ref in task.models:
            if ref.slot not in loaded or loaded[ref.slot].digest != ref.digest:
                raise ModelError(f"The job pins model {ref.label()}, which is not loaded.")
        if self._served is None or MAIN_SLOT not in {ref.slot for ref in task.models}:
            raise ModelError("The job pins no network.", remedy="Promote one with `clinic-ai model promote`.")
        return self._served


@dataclass
class _Work:
    """What an analysis has produced so far; ``seconds`` by kind of work."""

    task: AnalysisTask
    served: Served
    conditions: Mapping[str, ConditionInfo]
    findings: list[Finding] = field(default_factory=list)
    lesions: list[Lesion] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    files: list[ProducedFile] = field(default_factory=list)
    segmentations: list[Segmentation] = field(default_factory=list)
    report: list[ReportSentence] = field(default_factory=list)
    distances: list[Distance] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the time of the block to that of ``what``."""
        began = time.perf_counter()
        yield
        self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - began

    def find(
        self,
        rule: Rule,
        logits: Mapping[str, float],
        admitted: Admitted,
        evidence: MaskEvidence,
        lesion: Lesion | None = None,
    ) -> Finding | None:
        """Add the finding of a rule, worded as the clinic words the condition; None if the clinic does not want it.

        The finding is of the slice in which most of the largest piece of its lesion lies, else of the middle one.
        """
        condition = self.conditions.get(rule.condition)
        if condition is None:
            return None
        probability = rule.probability(logits[rule.label], evidence)
        presence = rule.band.presence(probability)
        shown = lesion if lesion is not None and lesion.pieces and presence is not Presence.ABSENT else None
        slices = admitted.info.slices
        place = len(slices) // 2 if shown is None else _slice_of(shown.pieces[0], admitted)
        finding = Finding(
            condition=rule.condition,
            label=condition.label,
            probability=round(probability, 6),
            threshold=rule.band.threshold,
            presence=presence,
            instance_sha256=slices[place].sha256,
            laterality="" if shown is None else shown.side,
            model=self.served.ref.slot,
            validation=self.served.manifest.validation.get(rule.condition),
        )
        self.findings.append(finding)
        return finding

    def keep(self, admitted: Admitted, drawn: list[tuple[Segment, Packed]]) -> None:
        """Write the masks into one file; without any there is none."""
        if not drawn:
            return
        write_packed(Path(self.task.output_directory) / MASKS, [mask for _, mask in drawn])
        self.files.append(ProducedFile(name=MASKS, role="mask", media_type="application/x-npz"))
        _, rows, columns = admitted.source.shape
        self.segmentations.append(
            Segmentation(
                file=MASKS,
                slices=admitted.info.slices,
                rows=rows,
                columns=columns,
                segments=tuple(segment for segment, _ in drawn),
            )
        )


def nothing_said_of(count: int) -> str:
    """Return the sentence on labels of a network that the plugin has no condition for."""
    what = "1 further condition" if count == 1 else f"{count} further conditions"
    return f"The network rates {what} that this plugin has no words for; nothing is said of them."


def _slice_of(piece: Piece, admitted: Admitted) -> int:
    """Return which slice of the stack, as it arrived, shows most of a piece."""
    grid, source = admitted.volume.grid, admitted.source
    inside = np.linalg.solve(grid.affine(), np.array([*piece.centroid, 1.0]))
    inside[0] = piece.key_slice
    place = np.linalg.solve(source.affine(), grid.affine() @ inside)[0]
    return int(np.clip(np.rint(place), 0, source.shape[0] - 1))


def _organs(labels: regions.Labels, grid: Grid, target: Grid) -> Organs:
    """Return regions on the voxels of another grid, each by its number."""
    result = np.zeros(target.shape, dtype=np.uint8)
    names = {n: name for n, name in enumerate(REGIONS, start=1) if (labels == n).any()}
    for number in names:
        result[to_source((labels == number)[np.newaxis], grid, target)[0]] = number
    return Organs(result, names)


def _anatomy(organs: Organs, grid: Grid, source: Grid, before: int, slot: str) -> Iterator[tuple[Segment, Packed]]:
    """Yield a segment for each anatomical region."""
    for place, (number, name) in enumerate(organs.names.items(), start=before + 1):
        label = name.replace("_", " ").capitalize()
        segment = Segment(number=place, name=name, role="anatomy", label=label, model=slot)
        yield segment, packed(organs.labels == number, grid, source)
