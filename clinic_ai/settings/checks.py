"""Mistakes that only two keys together make."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from pathlib import PurePath
from urllib.parse import urlsplit

from clinic_ai.settings.lines import KeyPath, Mistake
from clinic_ai.settings.model import Settings
from clinic_ai.settings.training_checks import training_mistakes

OWN_FOLDERS = (
    "labels",
    "quarantine",
    "models",
    "datasets",
    "runs",
    "policies",
    "templates",
    "backups",
    "logs",
    "state",
    "run",
)
"""Folders of the home directory that are neither inbox nor outbox: nothing else may use them."""


def across_keys(settings: Settings, home: PurePath) -> Iterator[Mistake]:
    """Yield every mistake that keys valid by themselves make together. Relative folders start at ``home``."""
    yield from _inbox_names(settings)
    yield from _folders(settings, home)
    yield from _rules(settings)
    yield from _network(settings)
    yield from _critical(settings)
    yield from _reviewers(settings)
    yield from _notify(settings)
    yield from training_mistakes(settings.training)
    ingest = settings.ingest
    if ingest.quiet_period_s > ingest.deadline_s:
        yield (
            (("ingest", "quiet_period_s"), ("ingest", "deadline_s")),
            f"{ingest.deadline_s:g} is shorter than ingest.quiet_period_s; write {ingest.quiet_period_s:g} or more",
        )
    reserve_mb, below_mb = settings.disk.reserve_mb, settings.retention.when_free_below_mb
    if 0 < below_mb <= reserve_mb:
        yield (
            (("disk", "reserve_mb"), ("retention", "when_free_below_mb")),
            f"{below_mb} is not more than disk.reserve_mb, where new files wait already; write more than {reserve_mb}",
        )


def _inbox_names(settings: Settings) -> Iterator[Mistake]:
    seen: dict[str, int] = {}
    for index, inbox in enumerate(settings.inbox):
        first = seen.setdefault(inbox.name.casefold(), index)
        if first != index:
            yield (
                (("inbox", first, "name"), ("inbox", index, "name")),
                f"inbox[{first + 1}] is named {inbox.name!r} too; write a name of its own",
            )


def _folders(settings: Settings, home: PurePath) -> Iterator[Mistake]:
    outbox = _absolute(settings.results.outbox, home)
    outbox_key: KeyPath = ("results", "outbox")
    own = [(name, home / name) for name in OWN_FOLDERS]
    for name, folder in own:
        if _overlap(outbox, folder):
            yield (outbox_key,), f"the outbox and {name}/ of the home directory overlap; write a folder apart from it"
    for index, inbox in enumerate(settings.inbox):
        folder = _absolute(inbox.path, home)
        key: KeyPath = ("inbox", index, "path")
        if _overlap(folder, outbox):
            yield (
                (outbox_key, key),
                "this inbox and the outbox overlap, so results would be read as scans; write a folder apart",
            )
        clash = next((name for name, place in own if _overlap(folder, place)), None)
        if clash:
            yield (key,), f"this inbox and {clash}/ of the home directory overlap; write a folder apart from it"
        for earlier, other in enumerate(settings.inbox[:index]):
            if _overlap(folder, _absolute(other.path, home)):
                yield (
                    (("inbox", earlier, "path"), key),
                    f"this inbox and inbox[{earlier + 1}] overlap, so a file would arrive twice; write a folder apart",
                )


def _rules(settings: Settings) -> Iterator[Mistake]:
    seen: dict[str, int] = {}
    for index, rule in enumerate(settings.routing.rule):
        place: KeyPath = ("routing", "rule", index)
        if not rule.name:
            yield ((*place, "name"),), "the rule has no name; write one, it is shown with every result"
        elif (first := seen.setdefault(rule.name.casefold(), index)) != index:
            yield (
                (("routing", "rule", first, "name"), (*place, "name")),
                f"routing.rule[{first + 1}] is named {rule.name!r} too; write a name of its own",
            )
        if not rule.plugins:
            yield ((*place, "plugins"),), 'the rule sends studies nowhere; write plugins such as ["xray"]'
        low, high = rule.when.min_slices, rule.when.max_slices
        if low is not None and high is not None and low > high:
            yield (
                ((*place, "when", "min_slices"), (*place, "when", "max_slices")),
                f"{high} is less than min_slices, so nothing can match; write {low} or more",
            )


def _network(settings: Settings) -> Iterator[Mistake]:
    network = settings.network
    if _address(network.bind) is None:
        yield (("network", "bind"),), f'{network.bind!r} is not an address; write for example "0.0.0.0"'
    tls = {"tls_certificate": network.tls_certificate, "tls_key": network.tls_key, "tls_ca": network.tls_ca}
    if any(tls.values()) and not all(tls.values()):
        missing = next(key for key, value in tls.items() if not value)
        yield (("network", missing),), "TLS needs certificate, key and authority; write all three, or none of them"
    names = {inbox.name.casefold(): f"inbox[{index + 1}]" for index, inbox in enumerate(settings.inbox)}
    callers: dict[tuple[str, str], int] = {}
    for index, peer in enumerate(network.peer):
        place: KeyPath = ("network", "peer", index)
        if not peer.name:
            yield ((*place, "name"),), "the peer has no name; write one, it is the source of its studies"
        elif (other := names.setdefault(peer.name.casefold(), _number(index))) != _number(index):
            yield ((*place, "name"),), f"{other} is named {peer.name!r} too; write a name of its own"
        if not peer.ae_title:
            yield ((*place, "ae_title"),), "the peer has no AE title; write the one it calls itself by"
        elif (first := callers.setdefault((peer.ae_title, peer.host), index)) != index:
            yield ((*place, "ae_title"),), f"network.peer[{first + 1}] has this title and host too; remove one of them"
        if peer.host != "*" and _hosts(peer.host) is None:
            yield (
                ((*place, "host"),),
                f"{peer.host!r} is not an address; write an address, a network such as 192.168.7.0/24, or *",
            )


def _reviewers(settings: Settings) -> Iterator[Mistake]:
    seen: dict[str, int] = {}
    for index, name in enumerate(settings.review.reviewers):
        key: KeyPath = ("review", "reviewers", index)
        if not name.strip():
            yield (key,), "the name is empty, and nobody can sign with it; write one or take it out"
        elif seen.setdefault(name.strip().casefold(), index) != index:
            yield (key,), f"{name!r} stands there twice; take one out"


def _critical(settings: Settings) -> Iterator[Mistake]:
    for index, entry in enumerate(settings.critical):
        place: KeyPath = ("critical", index)
        if bool(entry.condition) == bool(entry.term.strip()):
            yield (
                ((*place, "term"), (*place, "condition")),
                'the entry names both or neither; write a condition such as "pneumothorax", or a term, and not both',
            )


def _notify(settings: Settings) -> Iterator[Mistake]:
    notify = settings.notify
    for index, network in enumerate(notify.networks):
        if _hosts(network) is None:
            yield (("notify", "networks", index),), f'{network!r} is no network; write for example "192.168.7.0/24"'
    url = urlsplit(notify.webhook.url)
    if notify.webhook.url and (url.scheme not in {"http", "https"} or not url.hostname or "@" in url.netloc):
        yield (
            (("notify", "webhook", "url"),),
            'no web server has this address; write for example "https://192.168.7.9/alarm", without a password',
        )
    email = notify.email
    if email.host and not email.sender:
        yield (("notify", "email", "sender"),), "the notices have no sender; write the address they come from"
    if email.host and not email.to:
        yield (("notify", "email", "to"),), 'the notices go to nobody; write addresses such as ["desk@clinic.example"]'
    if bool(email.user) != bool(email.password_file):
        yield (
            (("notify", "email", "user"), ("notify", "email", "password_file")),
            "a login needs a name and a file with the password; write both, or none of them",
        )


def _number(index: int) -> str:
    return f"network.peer[{index + 1}]"


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _hosts(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _absolute(path: str, home: PurePath) -> PurePath:
    return PurePath(os.path.normpath(home / path))


def _overlap(one: PurePath, other: PurePath) -> bool:
    """Return whether the folders are the same or one lies inside the other."""
    return one.is_relative_to(other) or other.is_relative_to(one)
