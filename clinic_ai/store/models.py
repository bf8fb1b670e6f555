"""The models of this appliance, and which of them was active when."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

from sqlalchemy import Connection, Row, insert, select, update

from clinic_ai import states
from clinic_ai.contract import ModelManifest
from clinic_ai.domain import Key, ModelRef, ModelState, Sha256, Word
from clinic_ai.errors import Conflict, NotFound
from clinic_ai.store.audit import record
from clinic_ai.store.tables import activations, models

Then = Callable[[Connection, ModelRef], None]
"""What else belongs into the transaction that enters a model."""
Permit = Callable[[Connection, "ModelView"], str | None]
"""Says on which approval, by its id, a candidate becomes active, or on none. Raises Conflict if it may not."""


class ModelView(Word):
    """One model of the registry; ``directory`` lies below the home's ``models``."""

    plugin: Key
    slot: Key
    name: str
    version: str
    digest: Sha256
    state: ModelState
    reference: bool
    licence: str
    clinical_use: bool
    directory: str
    manifest: ModelManifest
    imported_at: float
    imported_by: str

    @property
    def conditions(self) -> tuple[str, ...]:
        """Return the conditions it was validated for, or says that it judges."""
        said = self.manifest.parameters.get("condition")
        return tuple(dict.fromkeys((*self.manifest.validation, *([said] if isinstance(said, str) else []))))

    @property
    def tier(self) -> str:
        """Return fast, intensive or whatever else its manifest calls its tier; empty if it has none."""
        said = self.manifest.parameters.get("tier")
        return said if isinstance(said, str) else ""

    @property
    def ref(self) -> ModelRef:
        """Return what a job pins of it."""
        return ModelRef(
            plugin=self.plugin,
            slot=self.slot,
            name=self.name,
            version=self.version,
            digest=self.digest,
            reference=self.reference,
        )


def add_model(
    connection: Connection,
    manifest: ModelManifest,
    *,
    digest: str,
    directory: str,
    state: Literal[ModelState.IMPORTED, ModelState.CANDIDATE],
    actor: str,
) -> None:
    """Enter a model whose files lie in their place already."""
    connection.execute(
        insert(models).values(
            plugin=manifest.plugin,
            name=manifest.name,
            version=manifest.version,
            slot=manifest.slot,
            digest=digest,
            state=state.value,
            directory=directory,
            manifest=manifest.model_dump_json(),
            imported_at=time.time(),
            imported_by=actor,
        )
    )
    record(
        connection,
        actor=actor,
        action="model.imported",
        subject=_subject(manifest.plugin, manifest.name, manifest.version),
        details={"state": state.value, "slot": manifest.slot, "digest": digest, "licence": manifest.licence},
    )


def find_model(connection: Connection, plugin: str, name: str, version: str) -> ModelView | None:
    """Return a model, or None if the registry has none of that name."""
    row = connection.execute(select(models).where(_is(plugin, name, version))).first()
    return None if row is None else _view(row)


def get_model(connection: Connection, plugin: str, name: str, version: str) -> ModelView:
    """Return a model. Raise NotFound if the registry has none of that name."""
    found = find_model(connection, plugin, name, version)
    if found is None:
        raise NotFound(
            f"There is no model {_subject(plugin, name, version)}.",
            remedy="`clinic-ai model list` shows all; `clinic-ai model import DIR` adds one.",
        )
    return found


def list_models(connection: Connection) -> list[ModelView]:
    """Return all models by plugin, slot and time of import."""
    query = select(models).order_by(models.c.plugin, models.c.slot, models.c.imported_at)
    return [_view(row) for row in connection.execute(query)]


def active_models(connection: Connection, plugin: str) -> list[ModelView]:
    """Return the active models of a plugin, one per slot, by slot."""
    query = (
        select(models)
        .where(models.c.plugin == plugin, models.c.state == ModelState.ACTIVE.value)
        .order_by(models.c.slot)
    )
    return [_view(row) for row in connection.execute(query)]


def previous(connection: Connection, plugin: str, slot: str) -> ModelView | None:
    """Return the model a rollback of the slot leads to: the one before, or the base behind its first adapter."""
    standing = _standing(connection, plugin, slot)
    if len(standing) > 1:
        return get_model(connection, plugin, standing[-2].name, standing[-2].version)
    if not standing:
        return None
    base = get_model(connection, plugin, standing[-1].name, standing[-1].version).manifest.base_digest
    return next((m for m in list_models(connection) if m.plugin == plugin and m.digest == base), None)


def activate(connection: Connection, model: ModelView, *, actor: str, approval_id: str | None = None) -> None:
    """Make ``model`` the active one of its slot and retire the one before it.

    Raise Conflict if the state of the model does not permit it.
    """
    _switch(connection, model.plugin, model.slot, model, actor=actor, undoes=None, approval_id=approval_id)


def roll_back(connection: Connection, plugin: str, slot: str, *, actor: str) -> None:
    """Take the newest promotion of a slot back. Raise Conflict if nothing comes before it."""
    target = previous(connection, plugin, slot)
    if target is None:
        raise Conflict(f"Nothing was active in the slot {slot} of {plugin} before.")
    undoes = _standing(connection, plugin, slot)[-1].activation_id
    _switch(connection, plugin, slot, target, actor=actor, undoes=undoes)


def _switch(
    connection: Connection,
    plugin: str,
    slot: str,
    model: ModelView,
    *,
    actor: str,
    undoes: int | None,
    approval_id: str | None = None,
) -> None:
    before = [m for m in active_models(connection, plugin) if m.slot == slot]
    for old in before:
        _set_state(connection, old, states.step(states.MODEL, old.state, "retire"))
    if model.slot == slot:  # otherwise the base behind an adapter, which was and stays active in a slot of its own
        _set_state(connection, model, states.step(states.MODEL, model.state, "promote"))
    connection.execute(
        insert(activations).values(
            plugin=plugin,
            slot=slot,
            name=model.name,
            version=model.version,
            at=time.time(),
            by=actor,
            kind="promote" if undoes is None else "rollback",
            undoes=undoes,
            approval_id=approval_id,
        )
    )
    details = {"slot": slot, "digest": model.digest, "retired": [f"{m.name}/{m.version}" for m in before]}
    record(
        connection,
        actor=actor,
        action="model.promoted" if undoes is None else "model.rolled_back",
        subject=_subject(plugin, model.name, model.version),
        details=details | ({"approval": approval_id} if approval_id is not None else {}),
    )


def _standing(connection: Connection, plugin: str, slot: str) -> list[Row[Any]]:
    """Return the promotions of a slot that no rollback took back, oldest first; the last one is in force."""
    query = (
        select(activations)
        .where(activations.c.plugin == plugin, activations.c.slot == slot)
        .order_by(activations.c.activation_id)
    )
    rows = connection.execute(query).all()
    undone = {row.undoes for row in rows if row.kind == "rollback"}
    return [row for row in rows if row.kind == "promote" and row.activation_id not in undone]


def _set_state(connection: Connection, model: ModelView, state: ModelState) -> None:
    connection.execute(update(models).where(_is(model.plugin, model.name, model.version)).values(state=state.value))


def _is(plugin: str, name: str, version: str) -> Any:
    return (models.c.plugin == plugin) & (models.c.name == name) & (models.c.version == version)


def _subject(plugin: str, name: str, version: str) -> str:
    return f"{plugin}/{name}/{version}"


def _view(row: Row[Any]) -> ModelView:
    manifest = ModelManifest.model_validate_json(row.manifest)
    return ModelView(
        plugin=row.plugin,
        slot=row.slot,
        name=row.name,
        version=row.version,
        digest=row.digest,
        state=ModelState(row.state),
        reference=manifest.reference,
        licence=manifest.licence,
        clinical_use=manifest.clinical_use,
        directory=row.directory,
        manifest=manifest,
        imported_at=row.imported_at,
        imported_by=row.imported_by,
    )
