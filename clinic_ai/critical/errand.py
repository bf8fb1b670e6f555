"""What the daemon gives the child that carries a notice outside."""

from __future__ import annotations

from clinic_ai.domain import Word
from clinic_ai.settings import NotifySettings

WEBHOOK = "webhook"
EMAIL = "email"


class Errand(Word):
    """One notice for one channel: ``words`` is JSON or a message as RFC 5322 has it, ``to`` who gets the message."""

    channel: str
    settings: NotifySettings
    home: str
    words: str
    to: tuple[str, ...] = ()


class Taken(Word):
    """Nothing more to say."""
