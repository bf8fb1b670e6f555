"""Every key of the screens, by the id under which a person may give it another one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from textual.binding import Binding
from textual.dom import DOMNode
from textual.keys import Keys, _character_to_key, format_key
from textual.screen import Screen

from clinic_ai.tui.views import PLACES

EVERYWHERE = "everywhere"
DIALOGS = "dialogs"
_SHOWN = {"escape": "Esc", "enter": "Enter", "space": "Space", "question_mark": "?", "slash": "/", "ctrl+p": "Ctrl-P"}
_HELD = frozenset({"ctrl", "shift", "alt", "meta", "super", "hyper"})
_NAMES = frozenset(key.value for key in Keys if not key.value.startswith("<")) | frozenset(
    _character_to_key(chr(code)) for code in range(33, 127)
)


@dataclass(frozen=True)
class Order:
    """What a key does: where, under which id, by which action; ``keys`` are Textual's names of them.

    ``plain``: its name says all there is to say, as of those that move the cursor.
    """

    place: str
    id: str
    keys: tuple[str, ...]
    action: str
    what: str
    plain: bool = False

    @property
    def shown(self) -> str:
        """The keys as a person reads them."""
        return shown(self.keys)


def shown(keys: Iterable[str]) -> str:
    """Return keys as a person reads them, such as ``Esc q ?``."""
    return " ".join(dict.fromkeys(_SHOWN.get(key, format_key(key)) for key in keys))


def normal(words: str) -> tuple[str, ...]:
    """Return the names Textual has for keys as a person writes them: ``"?, ctrl+r"``."""
    names = (name.strip() for name in words.split(","))
    return tuple(_character_to_key(name) if len(name) == 1 else name for name in names if name)


def orders_of(node: type[DOMNode] | DOMNode, place: str, chosen: Mapping[str, str] | None = None) -> list[Order]:
    """Return the orders that a class of the screens declares, with the keys a person chose instead."""
    gathered: dict[str, Order] = {}
    for binding in Binding.make_bindings(node.BINDINGS):
        if binding.id is None:
            continue
        known = gathered.get(binding.id)
        keys = (binding.key,) if known is None else (*known.keys, binding.key)
        if chosen and binding.id in chosen:
            keys = normal(chosen[binding.id])
        words = binding.tooltip or binding.description
        gathered[binding.id] = Order(place, binding.id, keys, binding.action, words, plain=not binding.tooltip)
    return list(gathered.values())


def all_orders(chosen: Mapping[str, str] | None = None) -> list[Order]:
    """Return the orders of all screens; this loads them all."""
    from clinic_ai.tui import alerts_screen, screens
    from clinic_ai.tui.app import ClinicApp

    found = orders_of(ClinicApp, EVERYWHERE, chosen)
    dialogs: list[type[DOMNode]] = [screens.HelpScreen, screens.Confirm, screens.Prompt, screens.Choose]
    dialogs.append(alerts_screen.AlertsScreen)
    for place in PLACES:
        for part in _parts(place.load()):
            if issubclass(part, Screen):  # it stands over a screen, whose keys do nothing meanwhile
                dialogs.append(part)
            else:
                found += [order for order in orders_of(part, place.name, chosen) if order not in found]
    for dialog in dict.fromkeys(dialogs):
        found += orders_of(dialog, DIALOGS, chosen)
    return found


def _parts(view: type[DOMNode]) -> Iterator[type[DOMNode]]:
    """Yield a view and the widgets of the screens that its module names."""
    import sys

    yield view
    for thing in vars(sys.modules[view.__module__]).values():
        ours = isinstance(thing, type) and issubclass(thing, DOMNode) and thing.__module__.startswith("clinic_ai.tui.")
        if ours and thing is not view and "BINDINGS" in vars(thing):
            yield thing


def settled(wished: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the keys that a person wished and can have, by id, and a sentence about each of the others."""
    ids = {order.id for order in all_orders()}
    keys = {name: key for name, key in wished.items() if name in ids}
    problems = [f"{name} is no id of a key. `clinic-ai tui --keys` lists them." for name in wished if name not in ids]
    while wrong := _first_wrong(keys):  # one at a time: what takes no key of its own leaves the key of another free
        name, sentence = wrong
        del keys[name]
        problems.append(sentence)
    return keys, problems


def _first_wrong(wished: Mapping[str, str]) -> tuple[str, str] | None:
    known = {order.id: order for order in all_orders(wished)}
    for name in wished:
        order = known[name]
        if not order.keys:
            return name, f'{name} has no key. Write one, such as "ctrl+r", or take the line out.'
        if not all(map(_exists, order.keys)):
            return name, f'no key is called {wished[name]}, as {name} wants. Write one such as "x", "f5" or "ctrl+r".'
        taken = _taken(order, known.values())
        if taken is not None:
            key, other = taken
            return name, f"the key {shown((key,))} of {name} is taken by {other}. Choose another, or move that one too."
    return None


def _exists(key: str) -> bool:
    """Return whether Textual has a name like this one; under another, what it does could not be reached."""
    *held, name = key.split("+")
    return _HELD.issuperset(held) and (len(name) == 1 or name in _NAMES)


def _taken(order: Order, others: Iterable[Order]) -> tuple[str, str] | None:
    places = {order.place, EVERYWHERE} if order.place != DIALOGS else {order.id.partition(".")[0]}
    for other in others:
        place = other.id.partition(".")[0] if other.place == DIALOGS else other.place
        meets = place in places or (order.place == EVERYWHERE and other.place != DIALOGS)
        if other.id != order.id and meets:
            for key in order.keys:
                if key in other.keys:
                    return key, other.id
    return None


def listing(chosen: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return id, keys and meaning of every order, as ``clinic-ai tui --keys`` prints them."""
    rows = []
    seen: Counter[str] = Counter()
    for order in all_orders(chosen):
        seen[order.id] += 1
        if seen[order.id] == 1:
            rows.append((order.id, order.shown, order.what))
    return rows
