"""Small pictures of stored images for the terminal, made by a warm child that nothing else depends on."""

from __future__ import annotations

import base64
import binascii
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from clinic_ai.confinement import Confinement
from clinic_ai.domain import Analysis, Artefact, ArtefactState, Audience, SliceRef, StoredFile
from clinic_ai.errors import ChildDied, ChildMisbehaved, ChildRefused, ChildTimedOut, Conflict, NotFound
from clinic_ai.ingest.geometry import StackGeometry, measure
from clinic_ai.ingest.geometry_words import line_of
from clinic_ai.ingest.stacks import Plane, Stack, dot, stacks_of
from clinic_ai.previewing import CT_WINDOWS, PreviewOutline, PreviewResult, PreviewTask, Window
from clinic_ai.processes import ChildSpec, Crew
from clinic_ai.results.orientation import edges_of
from clinic_ai.results.outlines import is_outlined, outlines_on
from clinic_ai.results.overlays import overlay_title
from clinic_ai.results.rendering import heatmap_of
from clinic_ai.results.statements import findings_of
from clinic_ai.results.turns import Turns
from clinic_ai.store import artefacts, jobs, reviews, studies
from clinic_ai.store.database import Database
from clinic_ai.store.objects import ObjectStore
from clinic_ai.warm_child import WarmChild

log = structlog.get_logger()

PREVIEW_TIMEOUT_S = 20.0
PREVIEWER_MEMORY_BYTES = 3 << 30
PREVIEWER_IDLE_S = 20.0
"""A person who looks at something else for so long gets a fresh child."""
READABLE = frozenset({ArtefactState.PRELIMINARY, ArtefactState.FINAL})
"""States in which what a study shows may be read outside of a review."""
_KEPT_STUDIES = 4
_KEPT_KILLERS = 256
_KILLED = "Reading the pixels of {what} ended the process that tried; nothing else was harmed."
_KILLED_REMEDY = "Look at it in another viewer. If it opens there, report which device made it."


@dataclass(frozen=True)
class Wish:
    """A picture that is wanted: ``stack`` and ``image`` count from 1, ``columns`` and ``rows`` are pixels.

    ``window`` goes before ``preset``, a key of ``CT_WINDOWS``, ``full`` for the range of the values, or nothing.
    """

    columns: int
    rows: int
    stack: int = 1
    image: int = 1
    window: Window | None = None
    preset: str = ""
    overlay: bool = False


@dataclass(frozen=True)
class Place:
    """Which image it is: ``image`` of ``images`` of a stack; ``frame`` of ``frames`` of its file, which begin there.

    ``line`` says in words how the stack lies, ``position_mm`` where on its normal; None if that is not known.
    """

    version: int
    stack: int
    stacks: int
    image: int
    images: int
    frame: int
    frames: int
    line: str
    modality: str
    sha256: str
    position_mm: float | None


@dataclass(frozen=True)
class Preview:
    """A picture, what it is of, the window used, and what could be laid over it. Edges: top, right, bottom, left."""

    place: Place
    made: PreviewResult
    edges: tuple[str, str, str, str]
    presets: tuple[str, ...]
    overlays: tuple[str, ...]
    overlay_note: str


@dataclass(frozen=True)
class Stacked:
    """The stacks of the newest version of a study, measured, in the order in which they are numbered from 1."""

    version: int
    stacks: tuple[StackGeometry, ...]


@dataclass(frozen=True)
class _Laid:
    """A heat map or outlines to lay over an image, or why there is nothing to see."""

    path: str = ""
    title: str = ""
    extent: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    note: str = ""
    outlines: tuple[PreviewOutline, ...] = ()


class Previews:
    """Has pictures made, one at a time; of each reader only the newest request waits."""

    def __init__(self, database: Database, objects: ObjectStore, crew: Crew) -> None:
        self._database = database
        self._objects = objects
        self._crew = crew
        self._turns = Turns()
        self._stacks: OrderedDict[tuple[str, int, int], Stacked] = OrderedDict()
        self._killers: OrderedDict[str, None] = OrderedDict()
        limits = Confinement(data=PREVIEWER_MEMORY_BYTES, file_size=1)
        self.child = WarmChild(crew, ChildSpec(kind="previewer", name="previewer", confinement=limits))
        self._lock_stacks = threading.Lock()

    def show(self, study_id: str, wish: Wish, reader: str) -> Preview:
        """Return a picture of an image of a study's newest version.

        Raise NotFound if there is no such study, stack or image; Conflict if a newer request of this reader took its
        place or the original is not stored any more; ChildError with a sentence if it cannot be decoded.
        """
        with self._turns.turn(reader):
            plane, place = _find(study_id, self.stacks(study_id), wish)
            if not self._objects.has(plane.sha256):
                raise Conflict(
                    f"The originals of study {study_id} are not stored any more, so there is no picture to show.",
                    remedy="Look at it in the PACS, or send the study again.",
                )
            laid = self._overlay(study_id, place)
            task = PreviewTask(
                path=str(self._objects.path(plane.sha256)),
                frame=place.frame - 1,
                columns=wish.columns,
                rows=wish.rows,
                window=wish.window or CT_WINDOWS.get(wish.preset),
                own_range=wish.window is None and wish.preset == "full",
                heatmap_path=laid.path if wish.overlay and laid.path else None,
                extent=laid.extent,
                outlines=laid.outlines if wish.overlay else (),
            )
            made = self._make(task, place, study_id)
        return Preview(
            place=place,
            made=made,
            edges=edges_of(plane.orientation, made.right, made.bottom),
            presets=("full",) if made.colour or place.modality != "CT" else ("full", *CT_WINDOWS),
            overlays=(laid.title,) if laid.path or laid.outlines else (),
            overlay_note=laid.note,
        )

    def stacks(self, study_id: str) -> Stacked:
        """Return the stacks of a study's newest version, as they are numbered here. Raise NotFound."""
        with self._database.read() as connection:
            study = studies.get_study(connection, study_id)
            key = (study_id, study.version, studies.count_instances(connection, study_id, study.version))
            with self._lock_stacks:
                if key in self._stacks:
                    return self._stacks[key]
            instances = studies.instances_of(connection, study_id, study.version)
        found = Stacked(study.version, tuple(map(measure, stacks_of(instances))))
        with self._lock_stacks:
            self._stacks[key] = found
            while len(self._stacks) > _KEPT_STUDIES:
                self._stacks.popitem(last=False)
        return found

    # ------------------------------------------------------------ the child

    def _make(self, task: PreviewTask, place: Place, study_id: str) -> PreviewResult:
        what = f"image {place.image} of stack {place.stack} of study {study_id}"
        if place.sha256 in self._killers:
            raise ChildDied(_KILLED.format(what=what), remedy=_KILLED_REMEDY)
        with self.child.at_work() as child:
            try:
                made = child.call("preview", task, PreviewResult, timeout_s=PREVIEW_TIMEOUT_S)
                _check_size(made, task)
            except ChildRefused:
                raise
            except (ChildDied, ChildTimedOut, ChildMisbehaved) as error:
                self.child.distrust()
                if self._crew.closed:
                    raise  # we are stopping and killed it ourselves: no fault of the file
                self._remember(place.sha256)
                log.warning("preview.killed", sha256=place.sha256, error=type(error).__name__)
                raise type(error)(_KILLED.format(what=what), remedy=_KILLED_REMEDY) from error
        return made

    def _remember(self, sha256: str) -> None:
        """Do not try again what ended a child: each time somebody scrolls past it would cost a fresh one."""
        self._killers[sha256] = None
        while len(self._killers) > _KEPT_KILLERS:
            self._killers.popitem(last=False)

    # ------------------------------------------------------------ overlays

    def _stored(self, sha256: str) -> str | None:
        return str(self._objects.path(sha256)) if self._objects.has(sha256) else None

    def _overlay(self, study_id: str, place: Place) -> _Laid:
        with self._database.read() as connection:
            analysed = jobs.analyses_of(connection, study_id, place.version)
            analyses = [analysis for _, analysis in analysed]
            mapped = any(f.instance_sha256 == place.sha256 and f.heatmap for f in findings_of(analyses))
            ref = SliceRef(sha256=place.sha256, frame=place.frame - 1)
            if not mapped and not is_outlined(analyses, ref):
                return _Laid()
            told = readable(artefacts.artefacts_of(connection, study_id, place.version))
            made = {
                (analysis.plugin, file.name): file
                for job_id, analysis in analysed
                for file in jobs.files_of(connection, job_id)
            }
            sign = reviews.sign_off_of(connection, told) if told is not None else None
        if mapped:
            return self._heat_map(place, analyses, made, told)
        if told is None:
            return _Laid(note="There are outlines, but no result that may be read.")
        outlines, words = outlines_on(ref, analyses, made, told.verdict, sign, self._stored)
        return _Laid(title=words, outlines=outlines)

    def _heat_map(
        self,
        place: Place,
        analyses: Sequence[Analysis],
        made: Mapping[tuple[str, str], StoredFile],
        told: Artefact | None,
    ) -> _Laid:
        title = overlay_title(findings_of(analyses), told.verdict, place.sha256) if told is not None else None
        if title is None:
            return _Laid(note="There is a heat map, but not all of its findings were released.")
        found = heatmap_of(place.sha256, analyses, made)
        if found is None or not self._objects.has(found[1].sha256):
            return _Laid(note="The heat map is not stored any more.")
        if place.frame != 1:
            return _Laid(note="The heat map is of the first frame.")
        shown, stored = found
        return _Laid(str(self._objects.path(stored.sha256)), title, shown.extent)


def readable(made: Sequence[Artefact]) -> Artefact | None:
    """Return the newest artefact for clinicians that may be read, None if there is none."""
    fit = [a for a in made if a.audience is Audience.CLINICIAN and a.state in READABLE]
    return max(fit, key=lambda artefact: artefact.created_at, default=None)


def _find(study_id: str, found: Stacked, wish: Wish) -> tuple[Plane, Place]:
    """Return the image that is wanted. Raise NotFound."""
    if not found.stacks:
        raise NotFound(f"Study {study_id} has no image to show.", remedy="Its files are listed with what they are.")
    if not 1 <= wish.stack <= len(found.stacks):
        raise NotFound(f"Study {study_id} has no stack {wish.stack}.", remedy=f"It has {len(found.stacks)}.")
    geometry = found.stacks[wish.stack - 1]
    stack = geometry.stack
    if not 1 <= wish.image <= stack.images:
        raise NotFound(
            f"Stack {wish.stack} of study {study_id} has no image {wish.image}.", remedy=f"It has {stack.images}."
        )
    plane, within = plane_of(stack, wish.image)
    return plane, Place(
        version=found.version,
        stack=wish.stack,
        stacks=len(found.stacks),
        image=wish.image,
        images=stack.images,
        frame=plane.frame + within + 1,
        frames=max(1, plane.header.frames),
        line=line_of(geometry),
        modality=plane.header.modality,
        sha256=plane.sha256,
        position_mm=None if plane.position is None or not plane.placed else dot(plane.normal, plane.position),
    )


def plane_of(stack: Stack, image: int) -> tuple[Plane, int]:
    """Return the plane that holds an image of a stack, from 1, and which one of its images it is, from 0."""
    left = image - 1
    for plane in stack.planes:
        if left < plane.images:
            return plane, left
        left -= plane.images
    raise NotFound(f"The stack has no image {image}.")


def _check_size(made: PreviewResult, task: PreviewTask) -> None:
    """Raise ChildMisbehaved unless the answer is a picture of just the size that was asked for."""
    try:
        size = len(base64.b64decode(made.pixels, validate=True))
    except (binascii.Error, ValueError) as error:
        raise ChildMisbehaved("The previewer child broke the protocol: its picture is not base64.") from error
    if size != task.columns * task.rows * 3:
        raise ChildMisbehaved("The previewer child broke the protocol: its picture has another size.")
