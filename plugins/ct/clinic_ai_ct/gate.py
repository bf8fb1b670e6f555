"""Which volumes are judged at all, and what the report has to say of those that are.

A refusal ends with a sentence and what a person can do. A limit is a sentence of the report: the volume is judged, and
this is what the judgement cannot be relied on for. Headers are looked at first, then the geometry, then the values.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from clinic_ai.contract import AnalysisTask, TaskImage, VolumeInfo
from clinic_ai.domain import FileKind, InstanceHeader, Refusal, StudyFacts
from clinic_ai_ct.reading import MAX_VOXELS, Acquisition
from clinic_ai_ct.survey import Survey
from clinic_ai_ct.volume import Grid

FEWEST_SLICES, SHORTEST_MM, THICKEST_MM = 12, 100.0, 12.0
"""Below that many slices or mm from the first to the last, or above that step between them, no chest can be judged."""
_THICK_MM, _COARSE_MM = 5.0, 2.0
_MOSTLY, _CHEST_MM = 0.8, (250.0, 300.0)
"""A stack shows less than another if it has less than this share of its length or width; so much is enough of both."""
_LEAST_LUNGS_ML, _FEW_LUNGS_ML, _MOST_LUNGS_ML = 250.0, 1000.0, 14_000.0
"""Lungs full of fluid may hold little air: below the second it is said, below the first it may be anything."""
_LOWEST_AIR_HU = -1060.0
_FLESH_HU = (10.0, 125.0)
_LEAST_SOFT = 0.4
_SATURATED = 0.02
_METAL_ML = 0.3
_STRONG_RATIO = 15.0

_CHEST = re.compile(r"CHEST|THORA(?!C(IC|O)[\W_]*(SPINE|LUMBAR|VERTEBRA))|LUNG|PULM|\bC\.?A\.?P\b|\bTAP\b|WHOLE", re.I)
_OTHER_PART = re.compile(
    r"ABDOM|ANKLE|\bARM\b|BRAIN|CALCAN|CSPINE|ELBOW|FEMUR|FINGER|FOOT|\bHAND\b|\bHEAD\b|HIP\b|JAW|KNEE|\bLEG|LSPINE|NECK|ORBIT|"
    r"PELVI|SHOULDER|SINUS|SKULL|SPINE|TIBIA|TOOTH|WRIST",
    re.I,
)
_PHASE = re.compile(
    r"ARTER|VEN(OUS|ÖS)|PORTAL|\bNATI(V|F)|WITHOUT|NON[ -]?CONTRAST|UNENHANCED|ANGIO|\bCTA\b|\bCTPA\b", re.I
)
_NO_CONTRAST = re.compile(r"\bNATI(V|F)|WITHOUT|NON[ -]?CONTRAST|UNENHANCED", re.I)
_WITH_AND_WITHOUT = re.compile(
    r"WITH\W+(AND|&)\W+WITHOUT|WITHOUT\W+(AND|&)\W+WITH\b|MIT\W+UND\W+OHNE|OHNE\W+UND\W+MIT", re.I
)
_PROJECTIONS = ("MIP", "MINIP", "MAX_IP", "MIN_IP", "PROJECTION IMAGE", "VRT", "VOLUME_RENDER", "SCREEN SAVE")
_SCOUTS = ("LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW")
_LOSSY = frozenset(
    {
        "1.2.840.10008.1.2.4.50",  # JPEG Baseline
        "1.2.840.10008.1.2.4.51",  # JPEG Extended
        "1.2.840.10008.1.2.4.81",  # JPEG-LS near-lossless
    }
)


@dataclass(frozen=True)
class Reason:
    """Why a volume is not judged: a stable code, a sentence, and what a person can do."""

    code: str
    sentence: str
    remedy: str = ""


@dataclass(frozen=True)
class Limit:
    """What a report on a volume has to say of it: a stable code and a sentence."""

    code: str
    sentence: str


@dataclass(frozen=True)
class Candidate:
    """A stack that header and geometry do not speak against, and the first of its images."""

    info: VolumeInfo
    first: TaskImage

    @property
    def name(self) -> str:
        """What a sentence calls it."""
        return _series(self.first.header)


# ---------------------------------------------------------------- headers and geometry


def candidates(task: AnalysisTask, *, any_part: bool = False) -> tuple[tuple[Candidate, ...], tuple[Refusal, ...]]:
    """Return the stacks of a study that may be judged, the best first, and refusals of all others.

    Axial ones come first, then those that show the whole chest as far as any does, then those whose slices are nearest
    to 1 to 3 mm, of these the longest. A study without any stack is refused as a whole. With ``any_part`` no header is
    asked which part of the body it shows.
    """
    images = {image.sha256: image for image in task.images}
    refusals, fit = [], []
    for info in task.volumes:
        first = images.get(info.slices[0].sha256)
        if first is None:
            continue
        reason = refuse_by_header(first.header, task.facts, any_part=any_part)
        reason = reason or refuse_by_geometry(info, first.header)
        if reason is None:
            fit.append(Candidate(info, first))
        else:
            refusals.append(refusal(first, reason))
    if not task.volumes:
        refusals.extend(_without_volumes(task))
    return tuple(_best_first(fit)), tuple(refusals)


def refuse_by_header(header: InstanceHeader, facts: StudyFacts, *, any_part: bool = False) -> Reason | None:
    """Return why the header of a stack's first image says that it is no CT of a chest, or None."""
    modality = (header.modality or "").upper()
    if header.kind is not FileKind.DICOM or modality != "CT":
        named = f"its modality is {modality}" if modality else "it names no modality"
        return Reason("not_a_ct", f"{_series(header)} is no CT ({named}), so it has no Hounsfield units.")
    types = header.geometry.image_type if header.geometry else ()
    if any(code.upper() in _PROJECTIONS for code in types):
        return Reason(
            "projection",
            f"{_series(header)} holds projections (such as maximum intensity), no plain slices.",
            "Send the slices they were made of.",
        )
    part = "" if any_part else _body_part(header, facts)
    if part and not _CHEST.search(part):
        shown = _OTHER_PART.search(part)
        if shown is not None or header.body_part:
            return Reason("wrong_body_part", f"{_series(header)} does not show the chest but {part.lower()[:40]}.")
    return None


def refuse_by_geometry(info: VolumeInfo, header: InstanceHeader) -> Reason | None:
    """Return why slices that lie like this cannot be judged, or None."""
    count = len(info.slices)
    if count < FEWEST_SLICES:
        few = f"{_series(header)} has {count} slices, too few to judge a chest: at least {FEWEST_SLICES} are needed."
        return Reason("too_few_slices", few)
    if count * header.rows * header.columns > MAX_VOXELS:
        many = f"{_series(header)} has {count} slices of {header.rows} × {header.columns} pixels, more than are judged."
        return Reason("too_many_slices", many, "Send a reconstruction with thicker slices, or of the chest alone.")
    if info.spacing is None:
        why = info.reason or "These slices are no regular volume."
        remedy = "Send a reconstruction without tilt and gaps, all slices of one size and direction."
        return Reason("irregular_volume", f"{_series(header)} was not judged. {why}", remedy)
    step, length = info.spacing[0], info.spacing[0] * count
    if step > THICKEST_MM:
        apart = f"{_series(header)} has slices {step:.1f} mm apart; above {THICKEST_MM:.0f} mm nothing can be judged."
        return Reason("too_thick", apart, "Send a reconstruction with thinner slices.")
    if length < SHORTEST_MM:
        short = f"{_series(header)} covers {length:.0f} mm, less than the {SHORTEST_MM:.0f} mm that a chest needs."
        return Reason("too_short", short)
    return None


def limits_by_header(info: VolumeInfo, header: InstanceHeader, facts: StudyFacts) -> tuple[Limit, ...]:
    """Return what the header and the geometry of a stack that is judged leave open."""
    limits = []
    if not _body_part(header, facts):
        limits.append(Limit("unknown_body_part", "The file does not name the body part; it was judged as a chest."))
    spacing = info.spacing or (0.0, 0.0, 0.0)
    if spacing[0] > _THICK_MM:
        thick = (
            f"The slices are {spacing[0]:.1f} mm apart: what is smaller than that may be missed, and sizes are rough."
        )
        limits.append(Limit("thick_slices", thick))
    if max(spacing[1:]) > _COARSE_MM:
        coarse = f"The pixels are {max(spacing[1:]):.1f} mm wide: what is smaller than two of them may be missed."
        limits.append(Limit("coarse_pixels", coarse))
    if not _axial(info):
        turned = "The slices are not axial; they were turned, and their resolution differs from axial slices."
        limits.append(Limit("not_axial", turned))
    return tuple(limits)


def _without_volumes(task: AnalysisTask) -> list[Refusal]:
    """Return why a study in which no slices lie in a row is not judged, once for each kind of reason."""
    reasons: dict[str, tuple[TaskImage, Reason]] = {}
    for image in task.images:
        if not image.header.is_picture:
            continue
        types = image.header.geometry.image_type if image.header.geometry else ()
        reason = refuse_by_header(image.header, task.facts)
        if any(word in code.upper() for code in types for word in _SCOUTS):
            reason = Reason(
                "scout_only", "The study holds only a scout, on which slices are planned.", "Send the slices as well."
            )
        elif reason is None or reason.code == "wrong_body_part":
            reason = reason or Reason("no_volume", "The image is a single slice, or does not say where it lies.")
        reasons.setdefault(reason.code, (image, reason))
    return [refusal(image, reason) for image, reason in reasons.values()]


def _best_first(fit: Sequence[Candidate]) -> list[Candidate]:
    """Return stacks in the order of ``candidates``.

    A thin stack of one lung, or of a part of both, shows less of a chest than a thick one of all.
    """
    axial = [one for one in fit if _axial(one.info)]
    longest, widest = (max((_extent(one)[n] for one in axial), default=0.0) for n in (0, 1))

    def preference(one: Candidate) -> tuple[bool, bool, float, int, str]:
        step = one.info.spacing[0] if one.info.spacing else 0.0
        length, width = _extent(one)
        part = length < min(_MOSTLY * longest, _CHEST_MM[0]) or width < min(_MOSTLY * widest, _CHEST_MM[1])
        off = max(1.0 - step, 0.0, step - 3.0)
        size = -len(one.info.slices) * one.first.header.rows
        return (not _axial(one.info), part, off, size, one.info.series_instance_uid)

    return sorted(fit, key=preference)


def _extent(one: Candidate) -> tuple[float, float]:
    """Return from the first slice to the last, and the shorter side of a slice, in mm."""
    step, down, across = one.info.spacing or (0.0, 0.0, 0.0)
    header = one.first.header
    return step * len(one.info.slices), min(down * header.rows, across * header.columns)


def _axial(info: VolumeInfo) -> bool:
    return info.directions is not None and abs(info.directions[0][2]) > 0.8


def _body_part(header: InstanceHeader, facts: StudyFacts) -> str:
    """Return what names the body part: the header, else a description, as far as it names one; else nothing."""
    if header.body_part:
        described = (header.series_description, header.study_description)
        chest = next((one for one in described if _CHEST.search(one)), "")
        return f"{header.body_part} {chest}".strip()
    for text in (header.series_description, " ".join(facts.body_parts), header.study_description, header.protocol_name):
        for pattern in (_CHEST, _OTHER_PART):
            if found := pattern.search(text):
                return found.group()
    return ""


def _series(header: InstanceHeader) -> str:
    return "The series" if header.series_number is None else f"Series {header.series_number}"


def refusal(image: TaskImage, reason: Reason) -> Refusal:
    """Return a reason as it is told of an image, with what a person can do."""
    sentence = f"{reason.sentence} {reason.remedy}".strip()
    return Refusal(instance_sha256=image.sha256, code=reason.code, sentence=sentence)


# ---------------------------------------------------------------- values


def refuse_by_values(found: Survey, acquisition: Acquisition) -> Reason | None:
    """Return why the values of a volume cannot be those of a chest in HU, or None."""
    remedy = "Look at the rescale slope and intercept of the series, or export it again."
    if found.uniform:
        return Reason("empty_volume", "The volume is uniform: there is nothing to see in it.")
    if found.saturated > _SATURATED:
        share = f"{100 * found.saturated:.0f} %"
        what = (
            f"{share} of all voxels are at the upper end of what can be stored: the values are not what was measured."
        )
        return Reason("saturated", what, remedy)
    if (wrong := _not_hounsfield(found, acquisition)) is not None:
        missing = "" if acquisition.rescaled else " Some slices do not say how to compute them (no rescale slope)."
        return Reason("not_hounsfield", f"The values cannot be Hounsfield units: {wrong}.{missing}", remedy)
    litres = found.lungs_ml / 1000
    if found.lungs_ml < _LEAST_LUNGS_ML:
        what = f"Hardly any lung was found ({litres:.1f} litres of its density), so this is no chest to judge."
        return Reason("no_lungs", what)
    if found.lungs_ml > _MOST_LUNGS_ML:
        return Reason("no_lungs", f"What has the density of lungs is {litres:.0f} litres, more than can be.")
    return None


def _not_hounsfield(found: Survey, acquisition: Acquisition) -> str | None:
    """Return what is wrong, as part of a sentence, or None."""
    if acquisition.units:
        return f"the header calls them {', '.join(acquisition.units)}"
    if found.air_hu is None:
        return "there is no air in it"
    if found.air_hu < _LOWEST_AIR_HU:
        return f"air is most often at {found.air_hu:.0f} instead of -1000"
    if found.flesh_hu is None or found.soft < _LEAST_SOFT:
        return f"only {100 * found.soft:.0f} % of the body have values of fat (-100) or flesh (50)"
    if not _FLESH_HU[0] <= found.flesh_hu <= _FLESH_HU[1]:
        return f"flesh is most often at {found.flesh_hu:.0f} instead of 50"
    return None


def limits_by_values(found: Survey, acquisition: Acquisition, header: InstanceHeader, grid: Grid) -> tuple[Limit, ...]:
    """Return what a report on this volume has to say of it."""
    limits = list(_limits_of_contrast(acquisition, header))
    if acquisition.lossy_ratio is not None or header.transfer_syntax_uid in _LOSSY:
        limits.append(_lossy(acquisition.lossy_ratio))
    if found.metal_ml >= _METAL_ML:
        metal = (
            f"There are {found.metal_ml:.1f} ml of metal, or as dense as that: streaks may hide or imitate findings."
        )
        limits.append(Limit("metal", metal))
    ends = [word for cut, word in ((found.cut_above, "upper"), (found.cut_below, "lower")) if cut]
    edges = [f"their {' and '.join(ends)} end"] if ends else []
    edges += ["the edges of the slices"] if found.cut_aside else []
    if edges:
        cut = f"The lungs go on beyond the images at {' and at '.join(edges)}; nothing is known of what lies there."
        limits.append(Limit("lungs_cut", cut))
    if found.lungs_ml < _FEW_LUNGS_ML:
        litres = f"{found.lungs_ml / 1000:.1f} litres"
        little = f"Only {litres} of lung hold air: little of the lungs is in view, or little of them is open."
        limits.append(Limit("little_air", little))
    if not acquisition.rescaled:
        unsaid = "Some slices do not say how their values become Hounsfield units; the values fit as they are."
        limits.append(Limit("rescale_not_said", unsaid))
    if grid.shape[0] * grid.spacing[0] > 700:
        limits.append(Limit("more_than_chest", "The images show more than the chest; only the chest was judged."))
    return tuple(limits)


def _limits_of_contrast(acquisition: Acquisition, header: InstanceHeader) -> Sequence[Limit]:
    said = f"{header.series_description} {header.protocol_name}"
    told = _NO_CONTRAST.search(said) and not _WITH_AND_WITHOUT.search(said)
    if acquisition.contrast is False or (acquisition.contrast is None and told):
        words = (
            "No contrast agent was given: vessels, lymph nodes and what lies around the heart are harder to tell apart."
        )
        return [Limit("no_contrast", words)]
    if acquisition.contrast is None:
        words = "It is not known whether a contrast agent was given; nothing is said about how structures take it up."
        return [Limit("contrast_unknown", words)]
    if not _PHASE.search(said):
        words = "Contrast agent was given, but not in which phase the images were taken; uptake was not judged."
        return [Limit("contrast_phase_unknown", words)]
    return []


def _lossy(ratio: float | None) -> Limit:
    known = ratio is not None and ratio > 1
    much = f", to 1/{ratio:.0f} of their size" if known and ratio is not None else ""
    harm = "small structures and fine lines may be lost"
    if known and ratio is not None and ratio > _STRONG_RATIO:
        harm = "that is so much that small structures and fine lines are not judged reliably"
    return Limit("lossy", f"The images were compressed with loss{much}: {harm}.")
