"""The questions before a training run: which plugin, which labels, which recipe, and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clinic_ai.control.training_views import CheckOrder, CheckView, RunOrder
from clinic_ai.control.views import PluginsView
from clinic_ai.domain import FOLDER_ALONE, LabelSource
from clinic_ai.tui.screens import Choose, Prompt

if TYPE_CHECKING:
    from clinic_ai.contract import PluginManifest
    from clinic_ai.tui.app import ClinicApp

Recipe = dict[str, float | int | str | bool]
_REVIEWS: tuple[LabelSource, ...] = ("reviews",)
_BOTH: tuple[LabelSource, ...] = ("reviews", "labels")


@dataclass(frozen=True)
class Wanted:
    """What a person wants to be trained; ``what`` says it in words."""

    order: RunOrder
    what: str

    @property
    def check(self) -> CheckOrder:
        """What looks at its labels first."""
        order = self.order
        category = str(order.recipe.get("category", ""))
        return CheckOrder(plugin=order.plugin, dataset=order.dataset, category=category, sources=order.sources)


async def ask_for_run(clinic: ClinicApp, plugins: PluginsView, *, windows: bool) -> Wanted | None:
    """Ask what is to be trained; None if the person gives up or nothing can learn. ``windows``: there are some."""
    able = {plugin.name: plugin for plugin in plugins.plugins if plugin.trainer is not None}
    if not able:
        clinic.notify("No plugin that can learn is installed.", severity="warning")
        return None
    name = await clinic.push_screen_wait(
        Choose("Which plugin is to learn?", [(each.name, f"{each.name}: {each.summary}") for each in able.values()])
    )
    if name is None:
        return None
    labels = await _labels(clinic, name)
    recipe = None if labels is None else await _recipe(clinic, able[name])
    if labels is None or recipe is None:
        return None
    at_once = False
    if windows:
        when = await clinic.push_screen_wait(
            Choose("When is it to begin?", [("window", "in the next training window"), ("now", "now, without waiting")])
        )
        if when is None:
            return None
        at_once = when == "now"
    sources, folder, where = labels
    order = RunOrder(plugin=name, dataset=folder, sources=sources, recipe=recipe, at_once=at_once)
    said = " ".join(f"{key}={value}" for key, value in recipe.items())
    return Wanted(order, f"{name} on {where}" + (f", recipe {said}" if said else ""))


async def _labels(clinic: ClinicApp, plugin: str) -> tuple[tuple[LabelSource, ...], str | None, str] | None:
    """Return the sources, the folder if it is another than the usual one, and both in words."""
    chosen = await clinic.push_screen_wait(
        Choose(
            f"From what is {plugin} to learn?",
            [
                ("labels", f"labelled images in labels/{plugin} of the home"),
                ("folder", "labelled images in another folder"),
                ("reviews", "what people signed and gave their consent for"),
                ("both", f"what people signed, and labels/{plugin}"),
            ],
        )
    )
    if chosen == "folder":
        folder = await clinic.push_screen_wait(
            Prompt("Where on the appliance do the labelled images lie?", placeholder="/srv/labelled-chest")
        )
        if folder is None:
            return None
        if not folder.startswith("/"):
            _refuse(clinic, f"{folder} is no path from the root, such as /srv/labelled-chest.")
            return None
        return FOLDER_ALONE, folder, f"the labels in {folder}"
    if chosen is None:
        return None
    return {
        "labels": (FOLDER_ALONE, None, f"labels/{plugin}"),
        "reviews": (_REVIEWS, None, "what people signed"),
        "both": (_BOTH, None, f"what people signed and labels/{plugin}"),
    }[chosen]


async def _recipe(clinic: ClinicApp, plugin: PluginManifest) -> Recipe | None:
    """Return what the person wants otherwise than the plugin has it; None if that is given up or not understood."""
    learns = ", ".join(condition.code for condition in plugin.conditions) or ", ".join(c.key for c in plugin.categories)
    what = "condition" if plugin.labels != "answers" else "category"
    named = f" Each {what} it can learn: {learns}." if learns else ""
    line = await clinic.push_screen_wait(
        Prompt(
            f"Recipe as KEY=VALUE with spaces between, such as {what}=… epochs=5; empty leaves all as the plugin has "
            f"it.{named}",
            required=False,
        )
    )
    if line is None:
        return None
    recipe: Recipe = {}
    for pair in line.split():
        key, found, value = pair.partition("=")
        if not found or not key:
            _refuse(clinic, f"{pair} is not KEY=VALUE, such as epochs=5; nothing is started.")
            return None
        recipe[key] = _value(value)
    return recipe


def _refuse(clinic: ClinicApp, sentence: str) -> None:
    clinic.notify(sentence, severity="error", markup=False)


def _value(words: str) -> float | int | str | bool:
    """Return a number or truth value where the words are one."""
    if words in {"true", "false"}:
        return words == "true"
    for kind in (int, float):
        try:
            return kind(words)
        except ValueError:
            continue
    return words


def check_words(found: CheckView) -> str:
    """Return in a few lines what a run would learn from its labels."""
    patients = ", ".join(f"{part} {count}" for part, count in found.patients.items())
    return "\n".join([f"{found.images} labelled images; patients: {patients}.", *found.parts[:4], *found.notes[:3]])
