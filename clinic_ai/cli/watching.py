"""``status --watch``: a few plain lines, printed again whenever something changed; for pipes and slow links."""

from __future__ import annotations

import json
import queue
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from clinic_ai.cli.output import clean, moment, styled, terminal_width

if TYPE_CHECKING:
    from clinic_ai.control.views import RunRow, StatusView
    from clinic_ai.home import Home
    from clinic_ai.tui.feed import Again, Fetch, Lost, Picture, Told

CALM_S = 1.0
"""Between two blocks lies at least this long; what changed meanwhile is in the second."""
_NAME = 9
_STEP_PERCENT = 5


class _Everything:
    """What the feed fetches for this: the status alone, after every change but a reading of the machine."""

    def __init__(self) -> None:
        self.name = "watch"
        self.topics = frozenset({"runs", "inboxes"})
        self.fetch: Fetch = lambda _: None
        self.again: Again | None = None


def watch(home: Home, *, monitor: bool, as_json: bool) -> None:
    """Print how things stand whenever that changed, until ctrl-C; say when the daemon is gone and when it is back."""
    from clinic_ai.control.terminal_client import TerminalClient
    from clinic_ai.tui.feed import Feed

    answers: queue.SimpleQueue[Told] = queue.SimpleQueue()
    feed = Feed(lambda: TerminalClient(home, monitor=monitor), tell=answers.put)
    feed.want(_Everything())
    feed.start()
    teller = Teller(as_json=as_json)
    try:
        while True:
            if teller.tell(_newest(answers)):
                time.sleep(CALM_S)
    except KeyboardInterrupt:
        pass  # that is how it is ended
    finally:
        feed.stop()


def _newest(answers: queue.SimpleQueue[Told]) -> Picture | Lost:
    """Wait for an answer and return the newest. Raise what ended the feed, if a fault did."""
    from clinic_ai.tui.feed import Broken

    while True:
        answer = answers.get()
        if isinstance(answer, Broken):
            raise answer.error
        if answers.empty():
            return answer


class Teller:
    """Prints what is news; ``clock`` gives UTC seconds."""

    def __init__(self, *, as_json: bool, clock: Callable[[], float] = time.time) -> None:
        self._as_json = as_json
        self._clock = clock
        self._shown: tuple[str, ...] | None = None
        self._lost = ""

    def tell(self, answer: Picture | Lost) -> bool:
        """Print an answer if it says anything new; return whether it did."""
        from clinic_ai.tui.feed import Lost

        if isinstance(answer, Lost):
            sentence = f"{answer.sentence} {answer.remedy}".strip()
            if sentence == self._lost:
                return False
            self._lost = sentence
            self._say({"daemon": False, "sentence": sentence}, (f"{sentence} It is asked again every second.",), "bad")
            return True
        lines, back = tuple(block(answer.status)), bool(self._lost)
        if lines == self._shown and not back:
            return False
        if back:
            self._say({"daemon": True, "sentence": "The daemon is back."}, ("The daemon is back.",), "good")
        self._shown, self._lost = lines, ""
        self._say(answer.status.model_dump(mode="json"), lines, "")
        return True

    def _say(self, document: dict[str, object], lines: tuple[str, ...], style: str) -> None:
        if self._as_json:
            sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
        else:
            sys.stdout.write(styled(moment(self._clock()), "strong") + "\n")
            for line in lines:
                sys.stdout.write(_folded(line, style or ("bad" if line.startswith("▲") else "")))
            sys.stdout.write("\n")
        sys.stdout.flush()


def _folded(line: str, style: str) -> str:
    folded = textwrap.wrap(clean(line), terminal_width(), subsequent_indent=" " * (_NAME + 1), break_on_hyphens=False)
    return "".join((styled(piece, style) if style else piece) + "\n" for piece in folded)


# ---------------------------------------------------------------- what is said


def block(status: StatusView) -> Iterator[str]:
    """Yield the lines about a status; nothing in them changes by the mere passing of time."""
    yield _line("daemon", f"{status.version}, since {moment(status.started_at)}, {_access(status)}")
    yield _line("studies", _studies(status.studies))
    held = status.artefacts.get("HELD", 0) + status.artefacts.get("BLOCKED", 0)
    waiting = status.files.get("QUARANTINED", 0)
    yield _line("results", f"{held} held for a person, {status.artefacts.get('PRELIMINARY', 0)} not signed")
    if waiting:
        yield _line("files", f"{waiting} in quarantine")
    for inbox in status.inboxes:
        if not inbox.online:
            yield f"▲ inbox {inbox.name} is offline. {inbox.sentence} {inbox.remedy}".rstrip()
        elif inbox.waiting or inbox.sentence:
            count = f"{inbox.waiting} file{'' if inbox.waiting == 1 else 's'} waiting"
            yield _line("inbox", f"{inbox.name}: {count}. {inbox.sentence} {inbox.remedy}".rstrip())
    if status.network is not None and status.network.enabled:
        yield _line("network", f"{status.network.sentence}; {status.network.stored} objects received")
    for run in status.runs:
        yield _line("training", f"{run.plugin} {run.run_id} is {run.state}. {_stands(run)}".rstrip())
    for problem in status.plugin_problems:
        yield f"▲ {problem}"
    if status.policy.pack is None:
        yield f"▲ {status.policy.problem}"
    for alert in status.alerts:
        yield f"▲ alert {alert.alert_id}: {alert.sentence} {alert.remedy}".rstrip()
    if status.more_alerts:
        yield f"▲ {status.more_alerts} more alerts: `clinic-ai alert list`"
    if not status.alerts:
        yield _line("alerts", "none")


def _line(name: str, words: str) -> str:
    return f"{name:{_NAME}} {words}"


def _access(status: StatusView) -> str:
    return f"{status.person} is {status.role.value}" + ("" if status.may_change else ", read-only")


def _studies(counts: dict[str, int]) -> str:
    named = [f"{number} {state}" for state, number in counts.items() if number]
    return ", ".join(named) or "none yet"


def _stands(run: RunRow) -> str:
    """Return where a run stands, in steps coarse enough to be read."""
    if run.state != "RUNNING" or run.progress is None:
        return run.error
    done, steps = run.progress.get("step") or 0, run.progress.get("steps") or 0
    if not done or not steps:
        return str(run.progress.get("message") or "")
    percent = 100 * done // steps // _STEP_PERCENT * _STEP_PERCENT
    return f"Epoch {run.progress['epoch']} of {run.progress['epochs']}, {percent} % of all steps."
