"""What people decide about models, from whichever screen: examine, shadow, approve, make active, take back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from rich.text import Text
from textual import work
from textual.binding import Binding, BindingType

from clinic_ai.control.promotion_views import ApproveOrder, CanaryOrder, PromoteOrder
from clinic_ai.control.shelf_views import ShelfModel, ShelfView
from clinic_ai.control.terminal_client import TerminalClient
from clinic_ai.control.views import Role, VerifyView
from clinic_ai.errors import ClinicError
from clinic_ai.gating import GateReport
from clinic_ai.promoting import CanaryResult
from clinic_ai.tui.card import Card
from clinic_ai.tui.gate_words import SIGNS_LINE, canary_text, report_text
from clinic_ai.tui.screens import Choose, Confirm, Prompt
from clinic_ai.tui.view import ClinicView

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Named:
    """A model by the names that orders have."""

    plugin: str
    name: str
    version: str

    @property
    def words(self) -> str:
        """The model for people."""
        return f"{self.plugin} {self.name} {self.version}"

    @property
    def fields(self) -> dict[str, str]:
        """The same as fields of an order."""
        return {"plugin": self.plugin, "name": self.name, "version": self.version}


class DecidingView(ClinicView):
    """A screen on which one model is in hand, and may be decided about."""

    ORDERS: ClassVar[Mapping[str, Role]] = {
        "check": Role.ADMINISTRATOR,
        "canary": Role.ADMINISTRATOR,
        "approve": Role.CLINICIAN,
        "promote": Role.ADMINISTRATOR,
        "roll_back": Role.ADMINISTRATOR,
        "verify": Role.ADMINISTRATOR,
    }

    def in_hand(self) -> Named | None:
        """Return the model that the keys are about, None if there is none."""
        raise NotImplementedError

    def decidable(self, action: str) -> bool:  # noqa: ARG002 - for views that know more of the model
        """Return whether an action means anything for what is in hand."""
        return self.in_hand() is not None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Take away also the keys that mean nothing for what is in hand."""
        if action in DecidingView.ORDERS and not self.decidable(action):
            return False
        return super().check_action(action, parameters)

    def _named(self) -> Named | None:
        named = self.in_hand()
        if named is None:
            self.clinic.notify("No model is selected here.")
        return named

    async def ask(self, call: Callable[[TerminalClient], Answer]) -> Answer | None:
        """Return what the daemon answers, asked in a thread; None if it refuses, and then that is said."""

        def asked() -> Answer:
            with self.clinic.connect() as client:
                return call(client)

        try:
            return await asyncio.to_thread(asked)
        except ClinicError as error:
            self.refuse(error)
            return None

    def width_of_card(self) -> int:
        """Return the columns that the words of a card have."""
        return min(int(self.clinic.size.width * 0.95), 130) - 8  # border, padding and the bar to scroll with

    # ------------------------------------------------------------ the keys

    @work
    async def action_check(self) -> None:
        """Hold the model against the one in use, after asking: it takes minutes of this machine."""
        named = self._named()
        if named is None:
            return
        question = (
            f"Hold {named.words} against the model in use?\nBoth judge the test patients, which takes minutes of this "
            "machine. The newest examination counts: an approval of an older one does not hold for it."
        )
        if not await self.clinic.push_screen_wait(Confirm(question)):
            return
        self.clinic.notify(f"{named.words} is being examined; the answer comes when it is through.", markup=False)
        report: GateReport | None = await self.ask(lambda client: client.check_model(**named.fields))
        if report is not None:
            words = report_text(report, self.width_of_card())
            words.append(SIGNS_LINE, style="bright_black")
            self.clinic.push_screen(Card(f"Examination of {named.words}", words))
            self.refetch()

    @work
    async def action_canary(self) -> None:
        """Run the model in the shadow on studies of late, as many hours back as are chosen."""
        named = self._named()
        if named is None:
            return
        hours = await self.clinic.push_screen_wait(
            Choose(
                f"Run {named.words} in the shadow on the studies of which time? Nothing of it is released, and studies "
                "that wait go first.",
                [("24", "the last 24 hours, 50 studies at most"), ("72", "the last 3 days"), ("168", "the last week")],
            )
        )
        if hours is None:
            return
        self.clinic.notify("The candidate judges studies in the shadow; the answer comes when it is through.")
        order = CanaryOrder(**named.fields, hours=float(hours))
        found: CanaryResult | None = await self.ask(lambda client: client.run_canary(order))
        if found is not None:
            self.clinic.push_screen(Card(f"{named.words} in the shadow", canary_text(found)))
            self.refetch()

    @work
    async def action_approve(self) -> None:
        """Approve the model in the name of a person, with a reason."""
        named = self._named()
        if named is None:
            return
        name = await self.clinic.push_screen_wait(
            Prompt(
                f"Approve {named.words} in whose name? Reviewers stand in [review] of clinic.toml; empty is your own. "
                "It is not in use by that: an administrator makes it active.",
                placeholder="your own name",
                required=False,
            )
        )
        if name is None:
            return
        reason = await self.clinic.push_screen_wait(
            Prompt(f"Why is {named.words} good enough? The reason stands in its record.", required=False)
        )
        if reason is None:
            return
        order = ApproveOrder(**named.fields, reviewer=name or None, reason=reason)
        self.order(None, lambda client: client.approve_model(order))

    @work
    async def action_promote(self) -> None:
        """Make the model active, after asking what it takes the place of."""
        named = self._named()
        shelf = None if named is None else await self.ask(lambda client: client.shelf())
        if named is None or shelf is None:
            return
        model = model_of(shelf, named)
        if model is None:
            self.clinic.notify(f"The registry has no model {named.words} any more.", severity="error", markup=False)
            return
        slot = next((s for s in shelf.slots if (s.plugin, s.slot) == (model.plugin, model.slot)), None)
        there = slot.active if slot is not None else None
        place = f"It takes the place of {there}." if there else "Nothing is active there now."
        said = f"Approved by {model.approved_by}." if model.approved_by else "Nobody has approved it yet."
        question = (
            f"Make {named.words} the active model of {model.plugin}, slot {model.slot}?\n{place} {said} Studies from "
            "now on are judged by it; those in work keep the model they have."
        )
        order = PromoteOrder(**named.fields)
        self.order(question, lambda client: client.promote_model(order))

    @work
    async def action_roll_back(self) -> None:
        """Take back the newest promotion of the model's slot, after asking: what is active then is named."""
        named = self._named()
        shelf: ShelfView | None = None if named is None else await self.ask(lambda client: client.shelf())
        model = None if named is None or shelf is None else model_of(shelf, named)
        if model is None or shelf is None:
            return
        slot = next((s for s in shelf.slots if (s.plugin, s.slot) == (model.plugin, model.slot)), None)
        if slot is None or slot.before is None or slot.active is None:
            self.clinic.notify(
                f"Nothing was active in slot {model.slot} of {model.plugin} before; m makes another model active.",
                severity="warning",
                markup=False,
            )
            return
        question = (
            f"Roll back {model.plugin}, slot {model.slot}?\n{slot.active} is retired, and {slot.before} is active "
            "afterwards. Studies from then on are judged by that."
        )
        retired = slot.active
        self.order(question, lambda client: client.rollback_model(model.plugin, model.slot, retired))

    def action_verify(self) -> None:
        """Check every file of the model against its manifest; it changes nothing."""
        named = self._named()
        if named is None:
            return

        def done(found: VerifyView) -> None:
            words = Text()
            for problem in found.problems:
                words.append(f"✗ {problem}\n", style="bold red")
            if not found.problems:
                words.append("✓ Every file is as its manifest says.", style="green")
            self.clinic.push_screen(Card(f"Files of {named.words}", words))

        self.clinic.notify("The files are being read and compared with their hashes.")
        self.order(None, lambda client: client.verify_model(**named.fields), done)


def deciding_keys(view: str, *, examining: bool) -> list[BindingType]:
    """Return the keys of a view by which people decide about the model in hand."""
    keys = [
        ("c", "check", "Examine", "Hold the candidate against the model in use (asks first)"),
        ("w", "canary", "Shadow", "Run the candidate in the shadow on studies of late; nothing of it is released"),
        ("v", "verify", "Verify", "Compare the files of the model with their hashes"),
        ("a", "approve", "Approve", "Approve the candidate in the name of a person, with a reason"),
        ("m", "promote", "Make active", "Make the model the active one of its slot (asks first)"),
        ("b", "roll_back", "Roll back", "Take back the newest promotion of the slot (asks, naming what comes back)"),
    ]
    there = keys if examining else keys[3:]
    return [
        Binding(key, action, name, id=f"{view}.{action}", tooltip=tooltip, show=action != "verify")
        for key, action, name, tooltip in there
    ]


def model_of(shelf: ShelfView, named: Named) -> ShelfModel | None:
    """Return a model of the shelf by its names, None if it is not there."""
    return next(
        (m for m in shelf.models if (m.plugin, m.name, m.version) == (named.plugin, named.name, named.version)), None
    )
