"""A routing decision as a view. Apart from ``views``, so that the terminal does not import routing."""

from __future__ import annotations

from clinic_ai.control.views import ChoiceRow, RouteView, RuleRow
from clinic_ai.domain import StudyFacts
from clinic_ai.routing import Routing, render_explanation


def route_view(facts: StudyFacts, routing: Routing) -> RouteView:
    """Return where a study with these facts goes, and why."""
    return RouteView(
        facts=facts,
        plugins=tuple(ChoiceRow.model_validate(choice) for choice in routing.plugins),
        missing=tuple(ChoiceRow.model_validate(choice) for choice in routing.missing),
        explanation=tuple(RuleRow.model_validate(considered) for considered in routing.explanation),
        lines=tuple(render_explanation(routing)),
    )
