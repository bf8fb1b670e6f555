"""Candidates on their way to be in use: examined, run in the shadow, approved by name, promoted, on record."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from clinic_ai.control.asking import Administrator, Clinician, Having
from clinic_ai.control.model_views import ModelChoice
from clinic_ai.control.promotion_views import ApproveOrder, CanaryOrder, PromoteOrder
from clinic_ai.control.promotions import PromotionDesk
from clinic_ai.control.services import Services
from clinic_ai.control.slowly import ORDERS, slowly
from clinic_ai.control.views import DoneView
from clinic_ai.gating import GateReport
from clinic_ai.promoting import CanaryResult, PromotionRecord

router = APIRouter(prefix="/v1/models", tags=["models"])


def _desk(services: Services, actor: str) -> PromotionDesk:
    return PromotionDesk(services.database, services.promotions, services.runs, services.canary, actor)


def _administrators(services: Having, person: Administrator) -> PromotionDesk:
    return _desk(services, person.name)


def _clinicians(services: Having, person: Clinician) -> PromotionDesk:
    return _desk(services, person.name)


Administrators = Annotated[PromotionDesk, Depends(_administrators)]
Clinicians = Annotated[PromotionDesk, Depends(_clinicians)]


@router.post("/check")
@slowly(ORDERS)
def check_model(order: ModelChoice, models: Administrators) -> GateReport:
    """Hold a candidate against the model in use."""
    return models.check_model(order.plugin, order.name, order.version)


@router.post("/approve")
def approve_model(order: ApproveOrder, models: Clinicians) -> DoneView:
    """Approve a candidate in the name of a person; it is promoted separately."""
    return models.approve_model(order)


@router.post("/promote")
@slowly(ORDERS)
def promote_model(order: PromoteOrder, models: Administrators) -> DoneView:
    """Make a model the active one of its slot."""
    return models.promote_model(order)


@router.post("/canary")
@slowly(ORDERS)
def run_canary(order: CanaryOrder, models: Administrators) -> CanaryResult:
    """Run a candidate in the shadow; nothing of it is released."""
    return models.run_canary(order)


@router.get("/record")
def get_record(
    plugin: Annotated[str, Query(max_length=200)],
    models: Clinicians,
    name: Annotated[str, Query(max_length=200)],
    version: Annotated[str, Query(max_length=200)],
) -> PromotionRecord:
    """Return what stands behind a model, its promotion or the plan of it."""
    return models.model_record(plugin, name, version)
