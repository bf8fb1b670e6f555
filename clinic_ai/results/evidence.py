"""What the guard holds a report's text against: findings, masks, what the images can tell, what plugins are for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clinic_ai.contract import PluginManifest
from clinic_ai.domain import Analysis, ImageFacts, Instance, Study
from clinic_ai.results.statements import findings_of
from clinic_ai.tasks import GuardSubject, PluginScope


def subject_of(
    study: Study,
    instances: Sequence[Instance],
    analyses: Sequence[Analysis],
    manifests: Mapping[str, PluginManifest],
    *,
    validated: bool,
    language: str,
) -> GuardSubject:
    """Return all that is known of a study as the guard gets it; nobody has signed it yet."""
    plugins = sorted({analysis.plugin for analysis in analyses} & set(manifests))
    return GuardSubject(
        facts=study.facts,
        identity=study.identity,
        findings=findings_of(analyses),
        masks=tuple(mask for analysis in analyses for mask in analysis.masks),
        image=image_facts(instances),
        scopes=tuple(PluginScope(plugin=name, claims=manifests[name].claims) for name in plugins),
        distances=tuple(distance for analysis in analyses for distance in analysis.distances),
        validated=validated,
        reference=any(ref.reference for analysis in analyses for ref in analysis.models),
        language=language,
    )


def image_facts(instances: Sequence[Instance]) -> ImageFacts:
    """Return what the headers of a study's images say; no model is given an earlier study yet."""
    headers = [instance.header for instance in instances if instance.header.frames or instance.header.rows]
    if not headers:
        return ImageFacts(priors=0)
    # The spacing of a projection lies at the detector, not in the patient; still a length was measured somewhere.
    calibrated = all(h.geometry is not None and h.geometry.pixel_spacing is not None for h in headers)
    stated = {h.burned_in_annotation.strip().upper() for h in headers}
    burned_in = "yes" if "YES" in stated else "no" if stated == {"NO"} else ""
    return ImageFacts.model_validate({"calibrated": calibrated, "priors": 0, "burned_in": burned_in})
