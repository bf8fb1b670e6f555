"""Slices in memory: instances that say where they lie, rotated as a whole or spoilt one by one."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

from clinic_ai.domain import FileKind, Instance, InstanceHeader, PlaneGeometry

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)

Matrix = tuple[tuple[float, ...], ...]


def rotation(axis: Sequence[float], degrees: float) -> Matrix:
    """Return the matrix that turns about an axis (Rodrigues)."""
    length = math.hypot(*axis)
    x, y, z = (component / length for component in axis)
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    t = 1 - c
    return (
        (t * x * x + c, t * x * y - s * z, t * x * z + s * y),
        (t * x * y + s * z, t * y * y + c, t * y * z - s * x),
        (t * x * z - s * y, t * y * z + s * x, t * z * z + c),
    )


def turned(vector: Sequence[float], matrix: Matrix) -> tuple[float, ...]:
    """Return a vector turned by a matrix."""
    return tuple(math.fsum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix)


def image(number: int, position: Sequence[float] | None, *, series: str = "1.2.3", **changes: Any) -> Instance:
    """Return image ``number`` of a series, axial unless said otherwise; changes go to its geometry or its header."""
    geometry: dict[str, Any] = {
        "image_position_patient": position,
        "image_orientation_patient": AXIAL,
        "pixel_spacing": (0.5, 0.5),
        "frame_of_reference_uid": "1.2.9",
    }
    header: dict[str, Any] = {
        "kind": FileKind.DICOM,
        "modality": "CT",
        "rows": 64,
        "columns": 64,
        "frames": 1,
        "series_number": 1,
        "series_instance_uid": series,
        "instance_number": number,
    }
    for key, value in changes.items():
        (header if key in InstanceHeader.model_fields else geometry)[key] = value
    header.setdefault("geometry", PlaneGeometry(**geometry))
    sha256 = hashlib.sha256(f"{series} {number}".encode()).hexdigest()
    return Instance(sha256=sha256, size_bytes=1, header=InstanceHeader(**header))


def row(places: Sequence[float], *, shift: float = 0.0, **changes: Any) -> list[Instance]:
    """Return axial slices at these heights in mm, each moved ``shift`` mm to the left per mm of height."""
    return [image(n, (-100.0 + shift * z, -50.0, z), **changes) for n, z in enumerate(places, 1)]


def turned_instances(instances: Sequence[Instance], matrix: Matrix, moved: Sequence[float]) -> list[Instance]:
    """Return the instances with the patient's frame turned and moved as a rigid body."""
    result = []
    for instance in instances:
        geometry = instance.header.geometry
        assert geometry is not None
        assert geometry.image_position_patient is not None
        assert geometry.image_orientation_patient is not None
        cosines = geometry.image_orientation_patient
        position = turned(geometry.image_position_patient, matrix)
        changed = geometry.model_copy(
            update={
                "image_position_patient": tuple(a + b for a, b in zip(position, moved, strict=True)),
                "image_orientation_patient": (*turned(cosines[:3], matrix), *turned(cosines[3:], matrix)),
            }
        )
        header = instance.header.model_copy(update={"geometry": changed})
        result.append(instance.model_copy(update={"header": header}))
    return result
