"""What the store knows of the categories of a study's images: a person's choice, and the folders they came in."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, insert, select

from clinic_ai.domain import Key
from clinic_ai.store import audit
from clinic_ai.store.studies import in_version
from clinic_ai.store.tables import category_choices, files, instances


@dataclass(frozen=True)
class Told:
    """What was told of the images of one study version.

    ``chosen`` is the category a person chose for all of them, empty if nobody did; ``folders`` gives for the SHA-256 of
    an image the path below its inbox that it came with, its own name included.
    """

    chosen: str = ""
    chosen_by: str = ""
    chosen_at: float | None = None
    """UTC seconds."""
    folders: Mapping[str, str] = field(default_factory=dict)


def told_of(connection: Connection, study_id: str, version: int, plugin: str) -> Told:
    """Return what was told of a study version, for the categories of one plugin."""
    query = (
        select(category_choices)
        .where(category_choices.c.study_id == study_id, category_choices.c.plugin == plugin)
        .order_by(category_choices.c.choice_id.desc())
        .limit(1)
    )
    came = (
        select(instances.c.sha256, files.c.name)
        .join(files, files.c.file_id == instances.c.file_id)
        .where(*in_version(study_id, version))
    )
    folders = {str(row.sha256): str(row.name) for row in connection.execute(came)}
    newest = connection.execute(query).first()
    if newest is None or not newest.category:
        return Told(folders=folders)
    return Told(newest.category, newest.chosen_by, newest.chosen_at, folders)


def choose(connection: Connection, study_id: str, plugin: Key, category: str, *, by: str) -> None:
    """Note which category a person says the images of a study are of; an empty one takes the choice back."""
    connection.execute(
        insert(category_choices).values(
            study_id=study_id, plugin=plugin, category=category, chosen_by=by, chosen_at=time.time()
        )
    )
    audit.record(
        connection,
        actor=by,
        action="study.category",
        subject=study_id,
        details={"plugin": plugin, "category": category},
    )
