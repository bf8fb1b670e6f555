"""The daemon's side of the guard: keeps its child warm, and answers "hold" whenever the child does not answer.

The daemon imports no detector and no pack. It copies a pack byte for byte to a place nobody edits and has the child
load it from there, so that a child that is started again judges by the very pack that was accepted.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from clinic_ai.confinement import Confinement
from clinic_ai.domain import Audience, Decision, GuardAction, GuardVerdict, Released, Statement, Word
from clinic_ai.domain.words import MAX_QUESTION
from clinic_ai.errors import (
    ChildDied,
    ChildError,
    ChildMisbehaved,
    ChildRefused,
    ChildTimedOut,
    ClinicError,
    PolicyError,
)
from clinic_ai.guard.asking import QuestionTask, QuestionVerdict
from clinic_ai.guard.intents import QuestionSubject
from clinic_ai.guard.packfiles import pack_digest, read_pack_files
from clinic_ai.processes import Child, ChildSpec, Crew
from clinic_ai.tasks import (
    CaseReport,
    GuardCompare,
    GuardLoad,
    GuardSubject,
    GuardTask,
    PackDescription,
    PackDifference,
    PackInfo,
)

Alert = Callable[[str, str, str], None]
"""Takes a stable code, a sentence and a remedy; must not raise."""
Answer = TypeVar("Answer", bound=Word)

UNKNOWN_DIGEST = "0" * 64
"""Stands for the policy hash while no pack was ever loaded."""
MEMORY_BYTES = 512 << 20
LOAD_TIMEOUT_S = 30.0
RESTARTS = 5
RESTART_WINDOW_S = 60.0
_SPEC = ChildSpec(
    kind="guard", name="guard", confinement=Confinement(data=MEMORY_BYTES, open_files=64, file_size=1 << 20)
)
_REMEDY = "The result is kept back. Look at `clinic-ai doctor`; when the guard runs again, retry the study."


class Guard:
    """Owns the one guard child. All methods may be called from any thread."""

    def __init__(
        self,
        crew: Crew,
        pack_directory: Path,
        *,
        timeout_s: float = 5.0,
        archive: Path | None = None,
        on_alert: Alert | None = None,
        max_restarts: int = RESTARTS,
        restart_window_s: float = RESTART_WINDOW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the pack to load; ``archive`` is where accepted packs are kept by digest (None: a temporary folder).

        A child that died ``max_restarts`` times within ``restart_window_s`` is left alone for the rest of it.
        """
        self.on_alert = on_alert
        self._crew = crew
        self._source = pack_directory
        self.timeout_s = timeout_s
        self._temporary = None if archive else tempfile.TemporaryDirectory(prefix="clinic-ai-policy-")
        self._archive = archive or Path(self._temporary.name if self._temporary else "")
        self._clock = clock
        self.max_restarts = max_restarts
        self.restart_window_s = restart_window_s
        self._starts: deque[float] = deque()
        self._child: Child | None = None
        self._loaded = False
        """Whether the child has the pack in force; it keeps that when it refuses another."""
        self._pack: PackInfo | None = None
        self._lock = threading.Lock()
        """Held while the child is asked or started again; never while somebody's pack is read or tried."""
        self._reloading = threading.Lock()

    @property
    def pack(self) -> PackInfo | None:
        """The pack in force, or None before the first was accepted."""
        return self._pack

    @property
    def policy_hash(self) -> str:
        """Digest of the pack in force, 64 zeros before the first was accepted."""
        return self._digest()

    @property
    def pid(self) -> int | None:
        """Process id of the child, or None if none is there."""
        child = self._child
        return child.pid if child is not None and child.alive else None

    def load(self) -> PackInfo:
        """Load the pack given at the start and return it. Raise PolicyError if it cannot be used."""
        return self.reload(self._source)

    def reload(self, directory: Path) -> PackInfo:
        """Put another pack in force. Raise PolicyError if it does not load; the one before it stays in force.

        Until then the child that judges goes on: a pack that takes long to read keeps nobody waiting.
        """
        with self._reloading:
            return self._reload(directory)

    def _reload(self, directory: Path) -> PackInfo:
        try:
            files = read_pack_files(directory)
            digest = pack_digest(files)
            self._keep(digest, files)
            child, pack = self._tried(digest, directory.name)
        except PolicyError as error:
            self._alert("policy_rejected", error.message, error.remedy)
            raise
        except (ChildError, OSError) as error:
            why = _not_started(error) if isinstance(error, OSError) else error.message
            remedy = error.remedy if isinstance(error, ChildError) else "Free memory or end processes, and reload."
            sentence = f"The policy pack {directory.name} could not be loaded. {why}"
            self._alert("policy_rejected", sentence, remedy)
            raise PolicyError(sentence, remedy=remedy) from error
        with self._lock:
            before, self._child, self._loaded = self._child, child, True
            self._pack, self._source = pack, directory
        if before is not None and before is not child:
            before.close()
        return pack

    def _tried(self, digest: str, label: str) -> tuple[Child, PackInfo]:
        """Return a new child that has loaded the kept pack with this digest. Raise as ``_accept`` does."""
        self._check_deaths()
        if self._pack is None:
            self._starts.append(self._clock())
        child = self._crew.start(_SPEC)
        try:
            return child, self._load(child, digest, label)
        except (ChildError, PolicyError) as error:
            child.kill()
            if self._pack is not None and not isinstance(error, PolicyError):
                self._starts.append(self._clock())  # it died of it, or hung
            raise

    def check(self, directory: Path) -> CaseReport:
        """Run the cases of a pack, in a child of its own, without putting it in force.

        Raise PolicyError if it cannot even be read, and ChildError if reading it kills or hangs the child.
        """
        return self._aside("check", GuardLoad(directory=str(directory.resolve())), CaseReport)

    def describe(self, directory: Path) -> PackDescription:
        """Return the rules of a pack with their coverage, from a child of its own. Raise as ``check`` does."""
        return self._aside("describe", GuardLoad(directory=str(directory.resolve())), PackDescription)

    def compare(self, old: Path, new: Path) -> PackDifference:
        """Return what sets two packs apart, from a child of its own. Raise as ``check`` does."""
        return self._aside("compare", GuardCompare(old=str(old.resolve()), new=str(new.resolve())), PackDifference)

    def _aside(self, method: str, params: Word, answer: type[Answer]) -> Answer:
        child = self._crew.start(_SPEC)
        try:
            return child.call(method, params, answer, timeout_s=LOAD_TIMEOUT_S)
        except ChildRefused as error:
            raise PolicyError(error.message, remedy=error.remedy) from error
        finally:
            child.close()

    def judge(
        self,
        subject: GuardSubject,
        audience: Audience,
        statements: tuple[Statement, ...],
        *,
        policy_hash: str | None = None,
    ) -> GuardVerdict:
        """Return what may go out. Whatever goes wrong the verdict is HOLD with nothing released; never raises.

        ``policy_hash`` is the pack the work is pinned to; another one in force is a hold.
        """
        return self._or_held(
            lambda: self._judge(subject, audience, statements, policy_hash),
            lambda reason: self._held(audience, reason),
            "What was to be judged cannot be put to the guard; it is not well formed.",
        )

    def ask(self, subject: QuestionSubject, audience: Audience, question: str) -> QuestionVerdict:
        """Return whether a model may be asked this. Whatever goes wrong the verdict is HOLD; never raises."""
        return self._or_held(
            lambda: self._ask(subject, audience, question),
            lambda reason: self._held_question(audience, reason),
            "The question cannot be put to the guard; it is too long or no text.",
        )

    def close(self) -> None:
        """End the child and remove temporary files."""
        with self._lock:
            if self._child is not None:
                self._child.close()
                self._child = None
            if self._temporary is not None:
                self._temporary.cleanup()

    # ------------------------------------------------------------

    def _or_held(self, judged: Callable[[], Answer], held: Callable[[str], Answer], malformed: str) -> Answer:
        """Return a verdict of the child, or if there is none, for whatever reason, the one that keeps back."""
        try:
            with self._turn():
                return judged()
        except ClinicError as error:
            reason, remedy = error.message, error.remedy
        except OSError as error:
            reason, remedy = _not_started(error), ""
        except ValueError:  # pydantic: a text that is no text, a hash that is none
            reason, remedy = malformed, ""
        verdict = held(reason)
        self._alert("guard_unavailable", reason, remedy or _REMEDY)
        return verdict

    def _judge(
        self, subject: GuardSubject, audience: Audience, statements: tuple[Statement, ...], policy_hash: str | None
    ) -> GuardVerdict:
        child = self._ready()
        digest = policy_hash or self._digest()
        task = GuardTask(audience=audience, subject=subject, statements=statements, policy_hash=digest)
        verdict = self._call(child, "judge", task, GuardVerdict, timeout_s=self.timeout_s)
        wrong = _implausible(verdict, task, self._digest())
        if wrong:
            self._bury()
            raise ChildMisbehaved(f"The guard child's verdict cannot be right: {wrong}.")
        return verdict

    def _ask(self, subject: QuestionSubject, audience: Audience, question: str) -> QuestionVerdict:
        child = self._ready()
        # What is cut off is not needed to see that it is too long.
        asked = question[:MAX_QUESTION]
        task = QuestionTask(audience=audience, subject=subject, question=asked, policy_hash=self._digest())
        verdict = self._call(child, "ask", task, QuestionVerdict, timeout_s=self.timeout_s)
        wrong = _implausible_answer(verdict, task)
        if wrong:
            self._bury()
            raise ChildMisbehaved(f"The guard child's verdict cannot be right: {wrong}.")
        return verdict

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for one's turn with the child. Raise ChildTimedOut if others keep it; PolicyError without a pack."""
        if self._pack is None:
            with self._in_time(self._reloading):
                if self._pack is None:
                    self._reload(self._source)
        with self._in_time(self._lock):
            yield

    @contextlib.contextmanager
    def _in_time(self, lock: threading.Lock) -> Iterator[None]:
        if not lock.acquire(timeout=self.timeout_s):
            raise ChildTimedOut(f"The guard was at work on something else for {self.timeout_s:g} s.")
        try:
            yield
        finally:
            lock.release()

    def _ready(self) -> Child:
        """Return a child that has the accepted pack, starting one if need be."""
        if self._pack is not None and (self._child is None or not self._child.alive or not self._loaded):
            self._accept(self._pack.digest, self._source.name)
        return self._warm()

    def _warm(self) -> Child:
        """Return a living child. Raise ChildDied if too many had to be started lately."""
        if self._child is not None and self._child.alive:
            return self._child
        self._check_deaths()
        self._starts.append(self._clock())
        self._child, self._loaded = self._crew.start(_SPEC), False
        return self._child

    def _check_deaths(self) -> None:
        """Raise ChildDied if too many children had to be started lately."""
        now = self._clock()
        while self._starts and now - self._starts[0] >= self.restart_window_s:
            self._starts.popleft()
        if len(self._starts) > self.max_restarts:
            raise ChildDied(
                f"The guard died {self.max_restarts} times within {self.restart_window_s:g} s and is left alone "
                "for a while.",
                remedy="Everything is held until it runs again; look at the alerts before this one for the cause.",
            )

    def _accept(self, digest: str, label: str) -> None:
        """Have the child load the kept pack with this digest. Raise PolicyError, naming ``label``, if it refuses."""
        child = self._warm()
        try:
            self._load(child, digest, label)
        except (ChildError, PolicyError):
            self._bury()
            raise
        self._loaded = True

    def _load(self, child: Child, digest: str, label: str) -> PackInfo:
        folder = self._archive / digest
        try:
            task = GuardLoad(directory=str(folder.resolve()))
            pack = child.call("load", task, PackInfo, timeout_s=LOAD_TIMEOUT_S)
        except ChildRefused as error:
            raise PolicyError(error.message.replace(digest, label), remedy=error.remedy) from error
        if pack.digest != digest:  # it now judges by something that nobody accepted
            raise PolicyError("The kept copy of the policy pack was altered.", remedy=f"Remove {folder} and reload.")
        return pack

    def _keep(self, digest: str, files: Mapping[str, bytes]) -> None:
        """Write the pack's bytes to the archive under its digest, whole or not at all."""
        target = self._archive / digest
        try:
            if target.is_dir():
                if _is_whole(target, digest):
                    return
                shutil.rmtree(target)  # a power cut left it half written
            self._archive.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=".pack-", dir=self._archive))
            try:
                for name, content in files.items():
                    path = draft / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                draft.rename(target)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        except OSError as error:
            raise PolicyError(
                f"The policy pack cannot be kept: {error.strerror}.",
                remedy=f"Check that {self._archive} can be written and has room.",
            ) from error

    def _call(self, child: Child, method: str, params: Word, answer: type[Answer], *, timeout_s: float) -> Answer:
        try:
            return child.call(method, params, answer, timeout_s=timeout_s)
        except ChildRefused:
            raise
        except ChildError:
            self._bury()
            raise

    def _bury(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _digest(self) -> str:
        return self._pack.digest if self._pack is not None else UNKNOWN_DIGEST

    def _held(self, audience: Audience, reason: str) -> GuardVerdict:
        decision = Decision(statement_id="", rule="guard.unavailable", action=GuardAction.HOLD, reason=reason)
        return GuardVerdict(
            audience=audience,
            action=GuardAction.HOLD,
            decisions=(decision,),
            released=(),
            policy_hash=self._digest(),
            policy_name=self._pack.name if self._pack is not None else "none",
        )

    def _held_question(self, audience: Audience, reason: str) -> QuestionVerdict:
        return QuestionVerdict(
            audience=audience,
            action=GuardAction.HOLD,
            intent="guard.unavailable",
            reason=reason,
            policy_hash=self._digest(),
        )

    def _alert(self, code: str, sentence: str, remedy: str) -> None:
        if self.on_alert is not None:
            self.on_alert(code, sentence, remedy)


def _not_started(error: OSError) -> str:
    return f"The guard cannot be started: {error.strerror}."


def _is_whole(folder: Path, digest: str) -> bool:
    try:
        return pack_digest(read_pack_files(folder)) == digest
    except PolicyError:
        return False


def _implausible(verdict: GuardVerdict, task: GuardTask, digest: str) -> str:
    """Return what a sound guard would never answer, or nothing."""
    if verdict.audience is not task.audience or verdict.policy_hash != digest:
        return "it is for another audience or of another pack"
    if any(d.action.severity > verdict.action.severity for d in verdict.decisions):
        return "one of its decisions is stricter than the whole"
    if verdict.action.severity >= GuardAction.HOLD.severity and not verdict.decisions:
        return "it keeps everything back and does not say why"
    wanted = (
        [(s.statement_id, s.kind) for s in task.statements]
        if verdict.action.severity < GuardAction.HOLD.severity
        else []
    )
    if [(r.statement_id, r.kind) for r in verdict.released] != wanted:
        return "what it releases does not match what it was asked"
    if any(r.audience is not task.audience or r.policy_hash != digest for r in verdict.released):
        return "it releases text for another audience or of another pack"
    return next(
        (
            wrong
            for statement, released in zip(task.statements, verdict.released, strict=False)
            if (wrong := _implausible_words(statement, released, verdict.decisions))
        ),
        "",
    )


def _implausible_words(statement: Statement, released: Released, decisions: tuple[Decision, ...]) -> str:
    """Return what cannot be right about the words released for a statement, given what was decided of it."""
    did = {d.action for d in decisions if d.statement_id == statement.statement_id}
    from_template = released.audience is not Audience.CLINICIAN or GuardAction.REPLACE in did
    if from_template is not bool(released.sources):
        return "its words are of no template and should be, or the other way round"
    if from_template:
        return ""
    if GuardAction.REDACT in did:
        return "it says that it took something out and did not" if released.text == statement.text else ""
    if GuardAction.HEDGE in did:
        return "" if released.text.startswith(statement.text.rstrip()) else "its words are not those it was asked about"
    return "" if released.text == statement.text else "its words are not those it was asked about"


def _implausible_answer(verdict: QuestionVerdict, task: QuestionTask) -> str:
    """Return what a sound guard would never answer to a question, or nothing."""
    if verdict.audience is not task.audience or verdict.policy_hash != task.policy_hash:
        return "it is for another audience or of another pack"
    if bool(verdict.question.strip()) is not (verdict.action is GuardAction.ALLOW):
        return "a question goes to a model exactly if it is allowed"
    reply = verdict.reply
    if (reply is not None) is not (verdict.action is GuardAction.REPLACE):
        return "there is a reply exactly if it is answered by a template"
    if reply is not None and (
        reply.audience is not task.audience or reply.policy_hash != task.policy_hash or not reply.sources
    ):
        return "its reply is for another audience, of another pack or of no template"
    return ""
