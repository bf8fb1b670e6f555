"""The geometry of a stack in one line for a technician."""

from __future__ import annotations

from clinic_ai.domain import Vector
from clinic_ai.ingest.geometry import Oddity, StackGeometry, counted, millimetres

_STRAIGHT = 0.98
"""Cosine of the eleven degrees by which a plane may turn before it is called oblique."""
_SLICED = frozenset({"CT", "MR", "PT"})
"""Modalities whose images have a place in the patient; of others nobody misses it."""
_SAID = frozenset({Oddity.ONE_SLICE, Oddity.SCOUT})
"""What the rest of the line says already."""


def line_of(found: StackGeometry) -> str:
    """Return the stack in words: “CT, 28 slices, axial, 5.0 mm apart, regular”, or why it is not."""
    stack = found.stack
    modality = stack.planes[0].header.modality or "unknown modality"
    files = len({plane.sha256 for plane in stack.planes})
    packed = f" in {counted(files, 'file')}" if files < stack.images else ""
    if stack.scout:
        return f"{modality}, scout, {counted(stack.images, 'image')}{packed}"
    if found.normal is None:
        sliced = modality in _SLICED or stack.images > files
        why = "".join(f", {remark.words}" for remark in found.remarks if sliced)
        return f"{modality}, {counted(stack.images, 'image')}{packed}{why}"
    parts = [modality, f"{counted(stack.images, 'slice')}{packed}", plane_name(found.normal)]
    if found.spacing is not None:
        parts.append(f"{millimetres(found.spacing.median)} apart")
    return ", ".join(parts) + _verdict(found)


def plane_name(normal: Vector) -> str:
    """Return what a plane with this normal is called: axial, coronal, sagittal, or oblique to the nearest of them."""
    x, y, z = map(abs, normal)
    most = max(x, y, z)
    name = "axial" if z == most else "coronal" if y == most else "sagittal"
    return name if most >= _STRAIGHT else f"oblique, nearest to {name}"


def _verdict(found: StackGeometry) -> str:
    said = [remark for remark in found.remarks if remark.code not in _SAID]
    reasons = "; ".join(remark.words for remark in said if not remark.harmless)
    notes = "".join(f"; {remark.words}" for remark in said if remark.harmless)
    if reasons:
        return f", not regular: {reasons}{notes}"
    return f", regular{notes}" if found.regular else notes.replace(";", ",")
