"""What is answered about frozen datasets. Rows name no file; what was noted of one does, and is for administrators."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from clinic_ai.control.training_views import AskedView
from clinic_ai.control.views import View


class LeftOutView(View):
    """How many images, or pairs of question and answer, were left out for one reason."""

    reason: str
    what: str
    count: int


class DatasetRow(View):
    """A frozen dataset. ``images`` and ``patients`` count by part, ``sources`` images by where their labels come from.

    ``reviews`` counts the signed reviews in it, ``runs`` are the training runs that learned from it, oldest first.
    """

    dataset_id: str
    plugin: str
    category: str = ""
    digest: str
    created_at: float
    images: dict[str, int]
    patients: dict[str, int]
    sources: dict[str, int] = Field(default_factory=dict)
    reviews: int = 0
    parents: tuple[str, ...] = ()
    left_out: tuple[LeftOutView, ...] = ()
    made_by: str = ""
    runs: tuple[str, ...] = ()


class FolderView(View):
    """A folder that a dataset was made of, and who named it."""

    path: str
    given_by: str


class SubgroupView(View):
    """Images of one group of patients or scanners, by part; an empty ``group`` is what no header says."""

    trait: str
    group: str
    images: dict[str, int]


class DatasetView(View):
    """All that is known of a dataset. Notes and folders may name patients."""

    row: DatasetRow
    folders: tuple[FolderView, ...]
    review_ids: tuple[str, ...]
    notes: tuple[str, ...]
    parts: tuple[str, ...]
    subgroups: tuple[SubgroupView, ...]
    questions: tuple[AskedView, ...]


class DatasetCheckView(View):
    """What is wrong with a dataset, its images read again. ``problems`` forbid to learn from it, ``notes`` do not."""

    dataset_id: str
    images: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    parts: tuple[str, ...]
    subgroups: tuple[SubgroupView, ...]


def row_of(view: Any) -> DatasetRow:
    """Return the row of a ``store.datasets.DatasetView``."""
    lineage = view.lineage
    return DatasetRow(
        dataset_id=view.dataset_id,
        plugin=view.plugin,
        category=view.category,
        digest=view.digest,
        created_at=view.created_at,
        images=view.images,
        patients=view.patients,
        sources=lineage.images,
        reviews=len(lineage.reviews),
        parents=lineage.parents,
        left_out=tuple(LeftOutView.model_validate(left) for left in lineage.left_out),
        made_by=lineage.made_by,
        runs=view.runs,
    )


def view_of(details: Any) -> DatasetView:
    """Return what is shown of a ``training.inspection.DatasetDetails``."""
    lineage = details.view.lineage
    return DatasetView(
        row=row_of(details.view),
        folders=tuple(FolderView.model_validate(folder) for folder in lineage.folders),
        review_ids=lineage.reviews,
        notes=details.view.notes,
        parts=details.parts,
        subgroups=tuple(SubgroupView.model_validate(group) for group in details.subgroups),
        questions=tuple(AskedView.model_validate(asked) for asked in details.questions),
    )
