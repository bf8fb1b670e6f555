"""The dialogs in which a clinician acknowledges a critical finding and says to whom it was told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from clinic_ai.control.alert_views import AckOrder, CriticalView
from clinic_ai.errors import ClinicError
from clinic_ai.tui.making import made
from clinic_ai.tui.review_words import critical_words
from clinic_ai.tui.screens import Choose, Prompt
from clinic_ai.tui.view import ClinicView


def choose_critical(view: ClinicView, found: Sequence[CriticalView], chosen: Callable[[CriticalView], None]) -> None:
    """Call ``chosen`` with the finding a person means; it is asked for only if there are several."""
    if not found:
        view.clinic.notify("There is no critical finding to acknowledge.")
        return
    if len(found) == 1:
        chosen(found[0])
        return
    by_id = {str(one.alert_id): one for one in found}
    options = [(key, critical_words(one, view.clinic.clock())) for key, one in by_id.items()]

    def decided(key: str | None) -> None:
        if key is not None:
            chosen(by_id[key])

    view.clinic.push_screen(Choose("Which critical finding do you acknowledge?", options), decided)


def ask_who_was_told(view: ClinicView, one: CriticalView, name: str, reviewer: str | None) -> None:
    """Ask to whom a finding was told, then acknowledge it as ``name``; ``reviewer`` is that name if it is no user's."""

    def written(told: str | None) -> None:
        if told is None:
            return
        try:
            order = made(AckOrder, told_to=told, reviewer=reviewer)
        except ClinicError as error:
            view.clinic.notify(f"{error.message} {error.remedy}", severity="error", markup=False)
            return
        view.order(None, lambda client: client.acknowledge(one.alert_id, order.told_to, order.reviewer))

    question = (
        f"Acknowledge as {name}?\n\n{one.what} in {one.study_id}, act within {one.act_within}\n\n"
        "Its notices then end. To whom was it told?"
    )
    view.clinic.push_screen(Prompt(question, placeholder="such as: Dr. Weber, ward 3, by telephone"), written)
