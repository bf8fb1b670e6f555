"""The line of keys: the same widgets while the keys are the same, others when they are others."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from screens import still
from textual.app import App, ComposeResult
from textual.pilot import Pilot

from clinic_ai.tui.key_line import KeyLine


class Keys(App[None]):
    """Two keys; the second is there once it is allowed."""

    BINDINGS: ClassVar = [("a", "first", "First"), ("b", "second", "Second")]
    allowed = False

    def compose(self) -> ComposeResult:
        yield KeyLine(show_command_palette=False)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return self.allowed if action == "second" else True

    def action_first(self) -> None: ...

    def action_second(self) -> None: ...


async def drawn(pilot: Pilot[Any]) -> list[Any]:
    await still(pilot)
    return list(pilot.app.query_one(KeyLine).query("FooterKey"))


def test_it_is_made_anew_only_for_other_keys() -> None:
    async def look() -> None:
        app = Keys()
        async with app.run_test() as pilot:
            before = await drawn(pilot)
            assert [key.description for key in before] == ["First"]
            app.refresh_bindings()
            assert await drawn(pilot) == before, "the very same widgets"
            app.allowed = True
            app.refresh_bindings()
            after = await drawn(pilot)
            assert [key.description for key in after] == ["First", "Second"]
            assert not set(map(id, before)) & set(map(id, after))

    asyncio.run(look())
