"""What is said of a volume beside its findings: the guard takes none of it for a finding, or for a loop."""

from __future__ import annotations

from itertools import product

import chests
import numpy as np
from ct_studies import header, survey_of
from guarding import guard

from clinic_ai.contract import VolumeInfo
from clinic_ai.domain import StudyFacts
from clinic_ai_ct import regions
from clinic_ai_ct.engine import CANNOT_TELL, NO_MIDDLE, nothing_said_of
from clinic_ai_ct.gate import limits_by_header, limits_by_values
from clinic_ai_ct.lesions import LESIONS, Lesion
from clinic_ai_ct.measuring import masks_of
from clinic_ai_ct.reading import Acquisition, resampled
from clinic_ai_ct.volume import Grid, Volume

NOTHING_FOUND = tuple(chests.finding(name, 0.02) for name in LESIONS)
CHEST = Grid((100, 10, 10), (9.0, 9.0, 9.0))
SPACINGS = ((5.0, 0.7, 0.7), (3.0, 3.0, 3.0), (1.0, 1.0, 1.0), (6.0, 5.6, 5.6), (1.25, 0.742, 0.742))


def limits() -> set[str]:
    """Return every limit that the header and the values of a volume can lead to, in words."""
    volume = VolumeInfo.model_construct(spacing=(6.0, 5.0, 5.0), directions=None, slices=())
    found = [*limits_by_header(volume, header(), StudyFacts())]
    surveys = [
        survey_of(metal_ml=7.0, cut_above=above, cut_below=below, cut_aside=aside, lungs_ml=350.0)
        for above, below, aside in ((False, True, False), (True, True, True), (False, False, True))
    ]
    contrasts = (Acquisition(), Acquisition(contrast=False), Acquisition(contrast=True))
    ratios = [Acquisition(lossy_ratio=ratio, rescaled=False) for ratio in (0.0, 8.0, 30.0)]
    for seen, acquisition in product(surveys, (*contrasts, *ratios)):
        found += limits_by_values(seen, acquisition, header(), CHEST)
    assert {limit.code for limit in found} == {
        "unknown_body_part", "thick_slices", "coarse_pixels", "not_axial", "no_contrast", "contrast_unknown",
        "contrast_phase_unknown", "lossy", "metal", "lungs_cut", "little_air", "rescale_not_said", "more_than_chest",
    }  # fmt: skip
    return {limit.sentence for limit in found}


def moves() -> set[str]:
    """Return what is said of volumes brought to other voxels, or to another part of them."""
    said = set()
    for old, new in product(SPACINGS, SPACINGS):
        volume = Volume(np.zeros((4, 6, 6), np.int16), Grid((4, 6, 6), old))
        said |= {*resampled(volume, new).remarks, *resampled(volume, new, (3, 3, 3)).remarks}
    return said


def test_the_guard_lets_every_remark_go_without_a_word():
    said = sorted({*limits(), *moves(), regions.OFF.sentence, regions.NOT_LEARNED, CANNOT_TELL, NO_MIDDLE})
    said += [nothing_said_of(1), nothing_said_of(5)]
    for sentence in said:
        verdict = guard([sentence], NOTHING_FOUND, masks_of([Lesion(name) for name in LESIONS]))
        assert [d for d in verdict.decisions if d.statement_id] == [], sentence
    assert any("3 mm on every side" in sentence for sentence in said)
