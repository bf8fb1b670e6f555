"""Who makes a candidate active: a named person, or where the clinic asks for none, its examination alone."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from sqlalchemy import Connection

from clinic_ai.domain import ModelRef
from clinic_ai.errors import ClinicError, Conflict
from clinic_ai.gating import GateReport
from clinic_ai.promoting import Approval
from clinic_ai.results.signatures import signing_name
from clinic_ai.settings import Settings
from clinic_ai.store import gates
from clinic_ai.store.database import Database
from clinic_ai.store.models import ModelView, get_model
from clinic_ai.training.registry import Registry

log = structlog.get_logger()


class Promotions:
    """Approvals and promotions of one home; all methods may be called from any thread."""

    def __init__(self, database: Database, registry: Registry, settings: Callable[[], Settings]) -> None:
        self._database = database
        self._registry = registry
        self._settings = settings

    def approve(
        self, plugin: str, name: str, version: str, *, user: str, wanted: str | None, reason: str = ""
    ) -> tuple[Approval, GateReport]:
        """Note that a named person wants a candidate to be active, and return that with the report it rests on.

        ``wanted`` is the name as results are signed with it; None takes that of the Unix user. Raise NotFound,
        NotAllowed if that is no name to sign with, Conflict if the candidate may not be promoted.
        """
        person = signing_name(self._settings().review, user, wanted)
        with self._database.write() as connection:
            model = get_model(connection, plugin, name, version)
            return gates.approve(connection, model, name=person, actor=user, reason=reason)

    def promote(
        self, plugin: str, name: str, version: str, *, user: str, wanted: str | None = None, reason: str = ""
    ) -> ModelRef:
        """Make a model active; a candidate on the approval of ``wanted``, if given, else on the one it has.

        Where the clinic asks for no approval, a candidate that passed without doubt needs none. Raise as ``approve``
        and ``Registry.promote`` do.
        """
        if wanted is None:
            permit = gates.approved if self._settings().training.gate.approval else _with_or_without
            return self._registry.promote(plugin, name, version, user, permit)
        person = signing_name(self._settings().review, user, wanted)

        def approving(connection: Connection, model: ModelView) -> str:
            made, _ = gates.approve(connection, model, name=person, actor=user, reason=reason)
            return made.approval_id

        return self._registry.promote(plugin, name, version, user, approving)

    def by_itself(self, ref: ModelRef) -> bool:
        """Make a candidate that passed without doubt active if ``training.gate.approval`` is false; say whether.

        What speaks against it is logged; the candidate waits for a person then.
        """
        if self._settings().training.gate.approval:
            return False
        try:
            self._registry.promote(ref.plugin, ref.name, ref.version, "clinic-ai", gates.passed_alone)
        except ClinicError as error:
            log.info("model.not_promoted", model=ref.label(), sentence=error.message, remedy=error.remedy)
            return False
        log.info("model.promoted", model=ref.label())
        return True


def _with_or_without(connection: Connection, model: ModelView) -> str | None:
    try:
        return gates.approved(connection, model)
    except Conflict:
        gates.passed_alone(connection, model)
        return None
