"""Which category each image of a study is of, and a person's choice of it."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated

from fastapi import APIRouter, Query

from clinic_ai.categories import categorise
from clinic_ai.contract import PluginManifest
from clinic_ai.control.asking import Anyone, Having, Id
from clinic_ai.control.category_rows import category_rows
from clinic_ai.control.category_views import CategoryOrder, CategoryRow, StudyCategories
from clinic_ai.control.services import Services
from clinic_ai.control.views import DoneView, ImageCategory, ModelRow
from clinic_ai.domain import CategoryInfo, Study, categories_named
from clinic_ai.errors import Conflict, NotFound
from clinic_ai.store import jobs, studies
from clinic_ai.store.categories import Told, told_of

router = APIRouter(tags=["categories"])

PluginQuery = Annotated[
    str | None, Query(max_length=64, description="Else the one the study goes to, or the only one with categories.")
]


@router.get("/v1/studies/{study_id}/categories")
def get_categories(study_id: Id, services: Having, plugin: PluginQuery = None) -> StudyCategories:
    """Return which category each image of a study is of, and how that is known."""
    study = _newest(services, study_id)
    manifest = _manifest(services, study, plugin)
    told, images = _images(services, study, manifest)
    return StudyCategories(
        study_id=study_id,
        version=study.version,
        plugin=manifest.name,
        chosen=told.chosen,
        chosen_by=told.chosen_by,
        chosen_at=told.chosen_at,
        images=images,
    )


@router.post("/v1/studies/{study_id}/category")
def choose_category(study_id: Id, order: CategoryOrder, services: Having, person: Anyone) -> DoneView:
    """Say which category the images of a study are of, or take that back; it is analysed again if it was already."""
    manifest = _manifest(services, _newest(services, study_id), order.plugin)
    key = "" if order.category is None else named(order.category, manifest).key
    return DoneView(sentence=services.execution.choose_category(study_id, manifest.name, key, person.name))


@router.get("/v1/plugins/categories")
def get_plugin_categories(services: Having) -> list[CategoryRow]:
    """Return the categories of the plugins, and what answers about each."""
    models = [ModelRow.model_validate(model) for model in services.registry.list_models()]
    manifests = services.catalogue.manifests
    base_answers = services.settings().questions.base_answers
    return category_rows(manifests, models, services.home.labels, base_answers=base_answers)


def categories_shown(services: Services, study: Study) -> tuple[ImageCategory, ...]:
    """Return the categories of a study's images for the plugins that analyse it; none if these have no categories."""
    manifests = (services.catalogue.manifests.get(plugin) for plugin in _at_work(services, study))
    found = (_images(services, study, manifest)[1] for manifest in manifests if manifest and manifest.categories)
    return tuple(image for images in found for image in images)


def named(name: str, manifest: PluginManifest) -> CategoryInfo:
    """Return the category of a plugin by key, label or alias. Raise NotFound, with the nearest there are."""
    found = categories_named(name, manifest.categories)
    if len(found) == 1:
        return found[0]
    keys = [category.key for category in found or manifest.categories]
    near = keys if found else get_close_matches(name.lower(), keys, n=3) or keys
    raise NotFound(
        f"{name} is {'more than one category' if found else 'no category'} of {manifest.name}.",
        remedy=f"Write {' or '.join(near)}; `clinic-ai plugin categories` shows them all.",
    )


def _manifest(services: Services, study: Study, plugin: str | None) -> PluginManifest:
    """Return the manifest of the plugin that is meant. Raise NotFound or Conflict if none or several may be."""
    with_categories = {name: m for name, m in services.catalogue.manifests.items() if m.categories}
    if plugin is not None:
        if plugin not in with_categories:
            known = ", ".join(sorted(with_categories)) or "none"
            raise NotFound(f"No plugin {plugin} has categories.", remedy=f"Those that have: {known}.")
        return with_categories[plugin]
    meant = [name for name in _at_work(services, study) if name in with_categories] or sorted(with_categories)
    if not meant:
        raise NotFound("No plugin that is installed has categories.", remedy="`clinic-ai plugin list` shows them.")
    if len(meant) > 1:
        raise Conflict(f"Several plugins have categories: {', '.join(meant)}.", remedy="Say which with --plugin.")
    return with_categories[meant[0]]


def _newest(services: Services, study_id: str) -> Study:
    with services.database.read() as connection:
        return studies.get_study(connection, study_id)


def _at_work(services: Services, study: Study) -> list[str]:
    with services.database.read() as connection:
        work = jobs.jobs_of(connection, study.study_id, study.version)
    return sorted({job.plugin for job in work if job.plugin})


def _images(services: Services, study: Study, manifest: PluginManifest) -> tuple[Told, tuple[ImageCategory, ...]]:
    """Return what was told of a study, and its images with their categories."""
    with services.database.read() as connection:
        told = told_of(connection, study.study_id, study.version, manifest.name)
        images = studies.instances_of(connection, study.study_id, study.version)
    labels = {category.key: category.label for category in manifest.categories}
    found = categorise(manifest, services.settings().category, study, images, told)
    return told, tuple(
        ImageCategory(
            sha256=sha256,
            file=told.folders.get(sha256, ""),
            plugin=manifest.name,
            category=one.category,
            label=labels.get(one.category, ""),
            note=one.note,
        )
        for sha256, one in found.items()
    )
