"""From a task to the one volume that is judged: chosen, read, turned upright, looked at, or refused in words."""

from __future__ import annotations

from dataclasses import dataclass, replace

from clinic_ai.contract import AnalysisTask, VolumeInfo
from clinic_ai.domain import Refusal
from clinic_ai.errors import InputError
from clinic_ai_ct.gate import (
    Candidate,
    Limit,
    Reason,
    candidates,
    limits_by_header,
    limits_by_values,
    refusal,
    refuse_by_values,
)
from clinic_ai_ct.reading import canonical, read
from clinic_ai_ct.survey import Survey, survey
from clinic_ai_ct.volume import Grid, Volume


@dataclass(frozen=True)
class Admitted:
    """A volume that is judged. ``volume`` is canonical, with the sentences of ``limits`` as its remarks.

    ``source`` is the grid of the stack as it arrived: ``reading.to_source`` brings masks back onto it, and ``info``
    names its slices in that order.
    """

    info: VolumeInfo
    source: Grid
    volume: Volume
    survey: Survey
    limits: tuple[Limit, ...]


@dataclass(frozen=True)
class Admission:
    """What is judged of a study, None if nothing can be; and why the rest is not."""

    admitted: Admitted | None
    refusals: tuple[Refusal, ...]


def admit(task: AnalysisTask, *, any_part: bool = False) -> Admission:
    """Return the best stack of the study that can be judged; one that cannot be read or is no chest makes way.

    With ``any_part`` that it is a chest follows from its voxels alone: headers of copies without patients lack the
    descriptions by which it was admitted.
    """
    fit, refused = candidates(task, any_part=any_part)
    refusals = list(refused)
    admitted: Admitted | None = None
    for one in fit:
        if admitted is not None:
            what = f"{one.name} ({len(one.info.slices)} slices) was not judged: another series of the study was."
            refusals.append(refusal(one.first, Reason("other_series", what)))
            continue
        found = _look(task, one)
        if isinstance(found, Reason):
            refusals.append(refusal(one.first, found))
        else:
            admitted = found
    return Admission(admitted, tuple(refusals))


def _look(task: AnalysisTask, one: Candidate) -> Admitted | Reason:
    try:
        reading = read(task, one.info)
    except InputError as error:
        return Reason(error.code, f"{one.name} was not judged. {error.message}", error.remedy)
    volume = canonical(reading.volume)
    found = survey(volume)
    reason = refuse_by_values(found, reading.acquisition)
    if reason is not None:
        return replace(reason, sentence=f"{one.name} was not judged. {reason.sentence}")
    header = one.first.header
    limits = (
        *limits_by_header(one.info, header, task.facts),
        *limits_by_values(found, reading.acquisition, header, volume.grid),
    )
    remarks = (*volume.remarks, *(limit.sentence for limit in limits))
    return Admitted(one.info, reading.volume.grid, replace(volume, remarks=remarks), found, limits)
