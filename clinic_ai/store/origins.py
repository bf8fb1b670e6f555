"""Where models that were trained here come from: the run, its dataset, and the model it started from."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import Connection, select

from clinic_ai.contract import ModelManifest
from clinic_ai.domain import ModelRef
from clinic_ai.promoting import Origin
from clinic_ai.store.models import ModelView
from clinic_ai.store.tables import runs


def origin_of(connection: Connection, digest: str) -> Origin | None:
    """Return the run that made the model of this digest, None if none here did."""
    for row in connection.execute(select(runs).where(runs.c.result.is_not(None))):
        candidate = json.loads(row.result).get("candidate")
        if candidate is not None and candidate["digest"] == digest:
            base = json.loads(row.plan).get("base") if row.plan else None
            return Origin(
                run_id=row.run_id,
                dataset_id=row.dataset_id,
                recipe=json.loads(row.recipe),
                base=None if base is None else ModelRef.model_validate(base),
            )
    return None


def ancestors(
    connection: Connection, models: Sequence[ModelView], digest: str, manifest: ModelManifest
) -> list[Origin]:
    """Return the runs behind a model, newest first: its own, and those of what it started from or was converted from.

    ``models`` are all of the registry; the model itself need not be among them yet.
    """
    manifests = {model.digest: model.manifest for model in models} | {digest: manifest}
    found: list[Origin] = []
    waiting, seen = [digest], set[str]()
    while waiting:
        one = waiting.pop(0)
        if one in seen:
            continue
        seen.add(one)
        origin = origin_of(connection, one)
        if origin is not None:
            found.append(origin)
        if origin is not None and origin.base is not None:
            waiting.append(origin.base.digest)
        if one in manifests:
            made_of = (manifests[one].base_digest, manifests[one].parameters.get("quantised_from"))
            waiting += [digest for digest in made_of if isinstance(digest, str)]
    return found
