"""Repeats alerts about critical findings until a person acknowledges them, and carries their notices outside.

Each channel has a lane of its own: a server that is slow or gone keeps neither the repeats nor the other channel
waiting, and no lane of the studies ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import structlog

from clinic_ai.critical.channels import NotSent, channels_of, send
from clinic_ai.processes import Crew
from clinic_ai.settings import Settings
from clinic_ai.store import alerts, critical
from clinic_ai.store.database import Database

log = structlog.get_logger()

BACKOFF_S = (5.0, 30.0, 120.0, 300.0)
"""Waits before a notice is tried again; the last one repeats."""
STUCK_S = 120.0
"""A notice that has waited this long is an alert, even if nothing said that it failed."""
FAILED = "notice_not_sent"
REMEDY = "Tell the people yourself; then check [notify] of clinic.toml, the server and the network."

Clock = Callable[[], float]


class Herald:
    """Announces what is due. ``clock`` is UTC seconds."""

    def __init__(
        self, database: Database, settings: Callable[[], Settings], wake: Callable[[], None], clock: Clock = time.time
    ) -> None:
        self._database = database
        self._settings = settings
        self._wake = wake
        self._clock = clock

    def step(self) -> bool:
        """Announce the alerts that are due; return whether there were any."""
        now, channels = self._clock(), channels_of(self._settings().notify)
        with self._database.read() as connection:
            due = critical.due(connection, now)
            waiting = {channel: critical.oldest_pending(connection, channel) for channel in channels}
        for alert_id in due:
            with self._database.write() as connection:
                alert = critical.announce(connection, alert_id, now, channels)
            if alert is not None:
                log.warning(
                    "critical.open",
                    alert=alert.alert_id,
                    study=alert.study_id,
                    category=alert.category,
                    notices=alert.notices,
                    escalated=alert.escalated,
                )
        for channel, since in waiting.items():
            if since is not None and now - since > STUCK_S:
                self._report_stuck(channel, now - since)
        if due:
            self._wake()
        return bool(due)

    def _report_stuck(self, channel: str, age_s: float) -> None:
        with self._database.write() as connection:
            if alerts.is_open(connection, FAILED, channel):
                return
            words = f"A notice of a critical finding has waited {age_s:.0f} s to leave by {channel}."
            alerts.raise_alert(connection, FAILED, channel, words, REMEDY)


class Messenger:
    """Carries the notices of one channel outside. ``clock`` is UTC seconds."""

    def __init__(
        self,
        channel: str,
        crew: Crew,
        database: Database,
        settings: Callable[[], Settings],
        home: Path,
        clock: Clock = time.time,
    ) -> None:
        self.channel = channel
        self._crew = crew
        self._database = database
        self._settings = settings
        self._home = home
        self._clock = clock

    def step(self) -> bool:
        """Try the notice that is due; return whether there was one."""
        notify = self._settings().notify
        with self._database.read() as connection:
            notice = critical.next_notice(connection, self.channel, self._clock(), longest_s=max(BACKOFF_S))
        if notice is None:
            return False
        if notice.acknowledged or self.channel not in channels_of(notify):
            with self._database.write() as connection:
                reason = "acknowledged" if notice.acknowledged else "the channel is switched off"
                critical.drop(connection, notice, reason, self._clock())
            return True
        try:
            send(self._crew, self.channel, notify, self._home, notice)
        except NotSent as error:
            self._failed(notice, error)
            return True
        with self._database.write() as connection:
            critical.sent(connection, notice, self.channel, self._clock())
            alerts.withdraw(connection, FAILED, self.channel)
        log.info("notice.sent", channel=self.channel, alert=notice.alert_id, notice=notice.number)
        return True

    def _failed(self, notice: critical.Notice, error: NotSent) -> None:
        again = self._clock() + BACKOFF_S[min(notice.attempt, len(BACKOFF_S) - 1)]
        words = f"A notice of a critical finding of study {notice.study_id} did not leave: {error.message}"
        with self._database.write() as connection:
            critical.postpone(connection, notice, error.message, again)
            alerts.raise_alert(connection, FAILED, self.channel, words, REMEDY)
        log.error("notice.not_sent", channel=self.channel, alert=notice.alert_id, attempt=notice.attempt + 1)
