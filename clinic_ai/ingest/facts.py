"""What routing may look at, gathered from the headers of a study's instances."""

from __future__ import annotations

from collections.abc import Iterable

from clinic_ai.domain import InstanceHeader, StudyFacts

MAX_VALUES = 100
"""Different values kept of one kind: a study of a thousand descriptions is a mistake or an attack."""


def facts_of(headers: Iterable[InstanceHeader], source: str) -> StudyFacts:
    """Return the facts of a study; the order of ``headers`` does not matter."""
    every = list(headers)
    return StudyFacts(
        source=source,
        modalities=_values(header.modality for header in every),
        body_parts=_values(header.body_part for header in every),
        views=_values(header.view_position for header in every),
        stations=_values(header.station_name for header in every),
        study_description=next(iter(_values(header.study_description for header in every)), ""),
        series_descriptions=_values(header.series_description for header in every),
        sop_class_uids=_values(header.sop_class_uid for header in every),
        slices=sum(header.frames for header in every),
    )


def _values(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({value for value in values if value})[:MAX_VALUES])
