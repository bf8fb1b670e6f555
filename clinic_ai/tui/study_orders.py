"""The orders of the study's screen that ask for more than yes or no: priority, category, and files in quarantine."""

from __future__ import annotations

from clinic_ai.control.category_views import CategoryOrder, CategoryRow, StudyCategories
from clinic_ai.control.file_views import AcceptOrder, DecidedView, DiscardOrder, FileView
from clinic_ai.control.terminal_client import TerminalClient
from clinic_ai.control.views import FileRow
from clinic_ai.domain import FileDecision, StudyState
from clinic_ai.tui.choosing import AskWords, Choice, Choose
from clinic_ai.tui.view import ClinicView

PRIORITIES = (
    Choice("100", "first of all (100)"),
    Choice("50", "before others (50)"),
    Choice("0", "as any other (0)"),
    Choice("-50", "when there is time (-50)"),
)
_NONE = "none"
WHAT_RETRY_DOES = {
    StudyState.ROUTED: "Whatever of it waits is tried at once.",
    StudyState.DONE: "It is analysed again as a new version, whose result replaces the present one.",
    StudyState.UNROUTED: "The rules as they are now are asked where it goes.",
    StudyState.FAILED: "It is routed and analysed again.",
}


def prioritise(view: ClinicView, study_id: str) -> None:
    """Ask how urgent the study is, and set it."""

    def chosen(key: str | None) -> None:
        if key is not None:
            view.order(None, lambda client: client.prioritise(study_id, int(key)))

    view.app.push_screen(Choose(f"When is study {study_id} to be worked on?", PRIORITIES), chosen)


# ---------------------------------------------------------------- category


def choose_category(view: ClinicView, study_id: str) -> None:
    """Ask which category the images are of, among those of the plugin that the study goes to."""

    def look(client: TerminalClient) -> tuple[StudyCategories, tuple[CategoryRow, ...]]:
        mine = client.categories(study_id)
        rows = tuple(row for row in client.plugin_categories() if row.plugin == mine.plugin)
        return mine, rows

    def ask(found: tuple[StudyCategories, tuple[CategoryRow, ...]]) -> None:
        mine, rows = found
        choices = [Choice(row.category, f"{row.label}{_standing(row, mine)}") for row in rows]
        if mine.chosen:
            choices.append(Choice(_NONE, "take the choice back: as the folders and files say"))
        question = f"Which category are the images of study {study_id} of, for {mine.plugin}?"

        def chosen(key: str | None) -> None:
            if key is not None:
                order = CategoryOrder(category=None if key == _NONE else key, plugin=mine.plugin)
                view.order(None, lambda client: client.choose_category(study_id, order))

        view.app.push_screen(Choose(f"{question}\nIf it was analysed already, it is analysed again.", choices), chosen)

    view.order(None, look, ask)


def _standing(row: CategoryRow, mine: StudyCategories) -> str:
    if row.category == mine.chosen:
        return f" (chosen by {mine.chosen_by})"
    return "" if row.answered_by else " (nothing answers about it yet)"


# ---------------------------------------------------------------- files in quarantine


def accept_file(view: ClinicView, row: FileRow) -> None:
    """Ask how a quarantined file is to be accepted, and do it."""

    def ask(found: FileView) -> None:
        choices = [
            Choice(c.decision.value, f"{c.decision.value.replace('_', ' ')}: {c.meaning}") for c in found.choices
        ]
        question = f"File {row.file_id} ({row.name}) is in quarantine. {row.reason}\nLet it out how?"

        def chosen(key: str | None) -> None:
            if key is None:
                return
            order = AcceptOrder(files=(row.file_id,), decision=FileDecision(key))
            view.order(None, lambda client: client.accept_files(order), lambda done: _say(view, done))

        view.app.push_screen(Choose(question, choices), chosen)

    view.order(None, lambda client: client.file(row.file_id), ask)


def discard_file(view: ClinicView, row: FileRow) -> None:
    """Ask why a quarantined file is not wanted, then whether to remove its bytes, and do it."""

    def given(reason: str | None) -> None:
        if reason is None:
            return
        order = DiscardOrder(files=(row.file_id,), reason=reason)
        question = (
            f"Remove the bytes of file {row.file_id} ({row.name}) for good?\nReason: {reason}\n"
            "Its row in the ledger stays, with the reason and your name."
        )
        view.order(question, lambda client: client.discard_files(order), lambda done: _say(view, done))

    view.app.push_screen(AskWords(f"Why is file {row.file_id} ({row.name}) not wanted?"), given)


def _say(view: ClinicView, done: DecidedView) -> None:
    view.clinic.notify(done.sentence, markup=False)
