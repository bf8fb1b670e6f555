"""``clinic-ai study category`` and ``plugin categories``: which category an image is of, and what answers about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from clinic_ai.cli.options import HomeOption, JsonOption, client_of, home_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clinic_ai.control.category_views import CategoryRow, StudyCategories
    from clinic_ai.control.views import ImageCategory
    from clinic_ai.home import Home

MAX_IMAGES = 20
"""Images that ``study show`` lists at most; ``study category`` lists all."""


def study_category(
    study_id: Annotated[str, typer.Argument(metavar="STUDY", help="Id of the study, as `study list` shows it.")],
    category: Annotated[
        str | None, typer.Argument(metavar="[CATEGORY]", help="What its images are of: key, label or alias.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Take the choice back.")] = False,
    plugin: Annotated[
        str | None, typer.Option(metavar="PLUGIN", help="Else the one the study goes to, or the only one there is.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which category each image of a study is of and how that is known, or say it in your name.

    A study that was analysed without what you say is analysed again. Exit code 1 if the category of an image is open.
    """
    from clinic_ai.cli.output import Exit, print_done, print_json
    from clinic_ai.control.category_views import CategoryOrder

    if category is not None and clear:
        raise typer.BadParameter("Name a category or take the choice back, not both.", param_hint="--clear")
    with client_of(home) as client:
        if category is not None or clear:
            order = CategoryOrder(category=category, plugin=plugin)
            print_done(client.choose_category(study_id, order), as_json=as_json)
            return
        found = client.categories(study_id, plugin)
    if as_json:
        print_json(found)
    else:
        _print_study(found)
    if not all(image.category for image in found.images):
        raise typer.Exit(Exit.FAILED)


def plugin_categories(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the categories that plugins answer questions about, and what answers; one that nothing does says why."""
    from clinic_ai.cli.output import print_json, say, table

    rows = _rows(home_of(home))
    if as_json:
        print_json(rows)
        return
    if not rows:
        say("No plugin has categories.")
    for name in dict.fromkeys(row.plugin for row in rows):
        table(
            (name, "label", "code", "questions", "answered by"),
            (
                (r.category, r.label, r.codes[0] if r.codes else "-", str(len(r.questions)), r.answered_by or "nothing")
                for r in rows
                if r.plugin == name
            ),
            empty="",
        )
    for row in rows:
        if row.note:
            say(f"{row.note[:1].upper()}{row.note[1:]}.")


def print_categories(images: Sequence[ImageCategory]) -> None:
    """Print a line for each image, for ``study show``."""
    from clinic_ai.cli.output import fields

    fields((f"category {number}", _line(image)) for number, image in enumerate(images[:MAX_IMAGES], start=1))
    if len(images) > MAX_IMAGES:
        fields((("more images", f"{len(images) - MAX_IMAGES} more; `clinic-ai study category` lists all"),))


def _print_study(found: StudyCategories) -> None:
    from clinic_ai.cli.output import moment, say, table

    if found.chosen:
        say(f"{found.chosen_by} chose {found.chosen} on {moment(found.chosen_at)} for all images of the study.")
    rows = ((image.file or image.sha256[:12], image.category or "open", image.note) for image in found.images)
    table(("image", "category", "how that is known"), rows, empty="The study has no images.")


def _line(image: ImageCategory) -> str:
    # The note of a known one begins with its label.
    return f"{image.file or image.sha256[:12]}: {image.note}"


def _rows(home: Home) -> list[CategoryRow]:
    """Return the categories by the daemon or, without one, by what lies in the home."""
    from clinic_ai.cli.offline import daemon_answers, model_desk, plugins_of
    from clinic_ai.control.category_rows import category_rows
    from clinic_ai.settings import load_settings

    if daemon_answers(home):
        with client_of(home.path) as client:
            return client.plugin_categories()
    with model_desk(home) as desk:
        models = desk.models()
    base_answers = load_settings(home.clinic_toml).questions.base_answers
    return category_rows(plugins_of(home).manifests, models, home.labels, base_answers=base_answers)
