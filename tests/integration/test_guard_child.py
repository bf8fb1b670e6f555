"""The guard with its real child: killed, hung, lied to, given broken packs. Each time everything is held."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from clinic_ai.domain import Audience, Decision, GuardAction, GuardVerdict, Released, Statement, StudyFacts
from clinic_ai.errors import PolicyError
from clinic_ai.guard import client
from clinic_ai.guard.client import RESTARTS, UNKNOWN_DIGEST, Guard
from clinic_ai.guard.intents import ImageFacts, question_subject
from clinic_ai.guard.packfiles import MAX_FILES
from clinic_ai.guard.packs import shipped_pack
from clinic_ai.processes import Crew
from clinic_ai.tasks import GuardSubject, GuardTask

SUBJECT = GuardSubject(facts=StudyFacts())
QUESTIONED = question_subject(StudyFacts(), ImageFacts(calibrated=False, priors=0), language="en", identity=None)
SAID = (Statement(statement_id="a_1", kind="answer", text="The heart is of normal size."),)


class Clock:
    """A clock the test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A guard, its alerts and its clock."""

    def __init__(self, pack: Path, **options: object) -> None:
        self.crew = Crew()
        self.alerts: list[tuple[str, str, str]] = []
        self.clock = Clock()
        on_alert = lambda *alert: self.alerts.append(alert)  # noqa: E731
        self.guard = Guard(self.crew, pack, on_alert=on_alert, clock=self.clock, **options)  # type: ignore[arg-type]

    def judge(self) -> GuardVerdict:
        return self.guard.judge(SUBJECT, Audience.CLINICIAN, SAID)

    @property
    def pid(self) -> int:
        assert self.guard.pid is not None
        return self.guard.pid

    def close(self) -> None:
        self.guard.close()
        self.crew.close()


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return shutil.copytree(shipped_pack("default"), tmp_path / "trial")


@pytest.fixture
def bench(pack: Path) -> Iterator[Bench]:
    bench = Bench(pack)
    bench.guard.load()
    yield bench
    bench.close()


def assert_held(verdict: GuardVerdict) -> None:
    assert (verdict.action, verdict.released) == (GuardAction.HOLD, ())
    assert [d.rule for d in verdict.decisions] == ["guard.unavailable"]
    assert verdict.decisions[0].reason


def assert_released(verdict: GuardVerdict) -> None:
    assert [r.text for r in verdict.released] == [SAID[0].text], verdict.decisions
    assert verdict.marks


def test_a_living_guard_releases(bench: Bench) -> None:
    assert_released(bench.judge())
    assert bench.alerts == []


def test_a_forged_verdict_is_no_verdict(bench: Bench) -> None:
    """Words that the guard could not have released, by what it says that it decided."""
    digest = bench.guard.policy_hash
    for audience in Audience:
        task = GuardTask(audience=audience, subject=SUBJECT, statements=SAID, policy_hash=digest)
        sound = bench.guard.judge(SUBJECT, audience, SAID)
        assert client._implausible(sound, task, digest) == ""

        def forged(
            action: GuardAction, text: str, *, sources: tuple[str, ...] = (), task: GuardTask = task
        ) -> GuardVerdict:
            decision = Decision(statement_id="a_1", rule="r", action=action, reason="r")
            released = Released(
                statement_id="a_1",
                kind=SAID[0].kind,
                audience=task.audience,
                text=text,
                sources=sources,
                policy_hash=digest,
            )
            return GuardVerdict(
                audience=task.audience,
                action=action,
                decisions=() if action is GuardAction.ALLOW else (decision,),
                released=(released,),
                policy_hash=digest,
                policy_name="x",
            )

        wrong = [
            forged(GuardAction.ALLOW, "Anna has cancer."),
            forged(GuardAction.ANNOTATE, "Anna has cancer."),
            forged(GuardAction.HEDGE, "Anna has cancer."),
            forged(GuardAction.REDACT, SAID[0].text),
            forged(GuardAction.REPLACE, "Anna has cancer."),
        ]
        for verdict in wrong:
            assert client._implausible(verdict, task, digest), verdict
    task = task.model_copy(update={"audience": Audience.CLINICIAN})
    right = forged(GuardAction.REPLACE, "A template.", sources=("template:en/clinician/answer",), task=task)
    assert client._implausible(right, task, digest) == ""
    assert client._implausible(forged(GuardAction.HEDGE, f"{SAID[0].text} Perhaps.", task=task), task, digest) == ""


def after_a_death(bench: Bench) -> GuardVerdict:
    """Judge by the successor of a killed child: if the death was not seen before, one verdict is a hold first."""
    told = len(bench.alerts)
    verdict = bench.judge()
    if verdict.action is GuardAction.HOLD:
        assert_held(verdict)
        assert [code for code, *_ in bench.alerts[told:]] == ["guard_unavailable"]
        verdict = bench.judge()
    return verdict


def test_in_place_of_a_killed_guard_another_releases(bench: Bench) -> None:
    first = bench.pid
    os.kill(first, signal.SIGKILL)
    assert_released(after_a_death(bench))
    assert bench.pid != first


def test_a_guard_killed_in_the_middle_of_a_call_holds(bench: Bench) -> None:
    os.kill(bench.pid, signal.SIGSTOP)  # the call is sent and cannot be answered
    verdicts: list[GuardVerdict] = []
    caller = threading.Thread(target=lambda: verdicts.append(bench.judge()))
    caller.start()
    child = bench.crew.living()[0]
    while not child.busy:
        caller.join(0.01)
    os.kill(child.pid, signal.SIGKILL)
    caller.join(10)
    assert_held(verdicts[0])
    assert "SIGKILL" in verdicts[0].decisions[0].reason


def test_a_hung_guard_holds(pack: Path) -> None:
    bench = Bench(pack, timeout_s=0.3)
    try:
        bench.guard.load()
        os.kill(bench.pid, signal.SIGSTOP)
        verdict = bench.judge()
        assert_held(verdict)
        assert "did not answer" in verdict.decisions[0].reason
    finally:
        bench.close()


def test_a_broken_pack_holds_until_it_is_mended(pack: Path) -> None:
    whole = (pack / "cases.toml").read_bytes()
    (pack / "cases.toml").write_text("case = []")
    bench = Bench(pack)
    try:
        verdict = bench.judge()
        assert_held(verdict)
        assert verdict.policy_hash == UNKNOWN_DIGEST
        assert "no firing case" in verdict.decisions[0].reason
        (pack / "cases.toml").write_bytes(whole)
        assert_released(bench.judge())
    finally:
        bench.close()


def test_a_new_pack_that_does_not_load_leaves_the_old_one(bench: Bench, pack: Path, tmp_path: Path) -> None:
    before = bench.guard.policy_hash
    broken = shutil.copytree(pack, tmp_path / "broken")
    (broken / "lexicons" / "alarming.txt").write_text("harmless\n")
    with pytest.raises(PolicyError, match="alarming-diagnosis") as caught:
        bench.guard.reload(broken)
    assert "pack broken" in caught.value.message
    assert bench.alerts[-1][0] == "policy_rejected"
    assert bench.guard.policy_hash == before
    assert_released(bench.judge())
    os.kill(bench.pid, signal.SIGKILL)  # a new child must judge by the old pack too
    first = bench.judge()  # held, or of a new child if the death was noticed before
    assert first.action is GuardAction.HOLD or first.policy_hash == before
    assert_released(bench.judge())
    assert bench.guard.policy_hash == before


def test_where_no_child_can_be_started_the_old_pack_goes_on(
    bench: Bench, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/no/such/python")
        with pytest.raises(PolicyError, match=r"The guard cannot be started: No such file"):
            bench.guard.reload(pack)
    assert [code for code, _, _ in bench.alerts] == ["policy_rejected"]
    assert_released(bench.judge())


def test_a_pack_that_takes_long_to_read_keeps_nobody_waiting(
    bench: Bench, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys of many parts take tomllib minutes; only a child of its own parses them, while the guard is at work."""
    monkeypatch.setattr(client, "LOAD_TIMEOUT_S", 5.0)
    long = shutil.copytree(pack, tmp_path / "long")
    with (long / "policy.toml").open("a") as policy:
        policy.write("a." * 40_000 + "b = 1\n")
    with pytest.raises(PolicyError, match=r"policy\.toml has a line of more than"):
        bench.guard.reload(long)
    slow = shutil.copytree(pack, tmp_path / "slow")
    with (slow / "policy.toml").open("a") as policy:
        policy.write("".join(f"{'a.' * 4000}b{n} = 1\n" for n in range(100)))
    refused: list[PolicyError] = []

    def reload() -> None:
        try:
            bench.guard.reload(slow)
        except PolicyError as error:
            refused.append(error)

    reloading = threading.Thread(target=reload)
    reloading.start()
    judged = 0
    while reloading.is_alive():
        assert_released(bench.judge())
        judged += 1
    reloading.join()
    assert judged > 1
    assert "did not answer within 5 s" in refused[0].message
    assert [code for code, *_ in bench.alerts] == ["policy_rejected", "policy_rejected"]


def test_who_waits_too_long_for_the_guard_is_told_to_hold(pack: Path) -> None:
    bench = Bench(pack, timeout_s=0.1)
    bench.guard.load()
    try:
        with bench.guard._lock:
            assert_held(bench.judge())
            assert bench.guard.ask(QUESTIONED, Audience.PATIENT, "Is it well?").action is GuardAction.HOLD
    finally:
        bench.close()
    assert [code for code, *_ in bench.alerts] == ["guard_unavailable", "guard_unavailable"]


def test_a_file_whose_name_is_no_text_is_named_and_an_alert(bench: Bench, pack: Path, tmp_path: Path) -> None:
    odd = shutil.copytree(pack, tmp_path / "odd")
    os.symlink(b"/etc/passwd", os.fsencode(odd) + b"/lexicons/x\xff.txt")
    with pytest.raises(PolicyError, match=r"holds lexicons/x\\udcff\.txt, whose name is no plain text"):
        bench.guard.reload(odd)
    [(code, sentence, _)] = bench.alerts
    assert (code, sentence.encode() != b"") == ("policy_rejected", True)
    many = shutil.copytree(pack, tmp_path / "many")
    for number in range(MAX_FILES * 2):
        (many / f"{number}.txt").touch()
    with pytest.raises(PolicyError, match="exceeds 200 files"):
        bench.guard.reload(many)


def test_a_pack_that_is_edited_in_place_is_not_used_before_it_is_reloaded(bench: Bench, pack: Path) -> None:
    before = bench.guard.policy_hash
    (pack / "templates" / "note.md").write_text("an edit")
    os.kill(bench.pid, signal.SIGKILL)
    assert_released(after_a_death(bench))
    assert bench.guard.policy_hash == before
    assert bench.guard.reload(pack).digest != before
    assert_released(bench.judge())


def test_work_pinned_to_another_pack_is_held(bench: Bench) -> None:
    verdict = bench.guard.judge(SUBJECT, Audience.CLINICIAN, SAID, policy_hash="1" * 64)
    assert verdict.action is GuardAction.HOLD
    assert verdict.decisions[0].rule == "guard.policy_mismatch"


def test_what_cannot_be_sent_is_held(bench: Bench) -> None:
    assert_held(bench.guard.judge(SUBJECT, Audience.CLINICIAN, SAID, policy_hash="no hash"))
    torn = SAID[0].model_copy(update={"text": "half a character: \ud800"})
    assert_held(bench.guard.judge(SUBJECT, Audience.CLINICIAN, (torn,)))
    assert_released(bench.judge())


def test_restarts_are_capped_and_go_on_later(bench: Bench) -> None:
    for _ in range(RESTARTS):
        os.kill(bench.pid, signal.SIGKILL)
        assert_released(after_a_death(bench))
    os.kill(bench.pid, signal.SIGKILL)
    assert_held(bench.judge())
    verdict = bench.judge()
    assert_held(verdict)
    assert "left alone" in verdict.decisions[0].reason
    bench.clock.now += client.RESTART_WINDOW_S
    assert_released(bench.judge())


def test_an_archive_damaged_by_a_power_cut_is_written_again(pack: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    bench = Bench(pack, archive=archive)
    digest = bench.guard.load().digest
    bench.close()
    (archive / digest / "policy.toml").unlink()
    bench = Bench(pack, archive=archive)
    try:
        assert bench.guard.load().digest == digest
        (archive / digest / "cases.toml").write_text("case = []")
        os.kill(bench.pid, signal.SIGKILL)
        assert_held(bench.judge())
        assert_held(bench.judge())  # the copy is not what was accepted
    finally:
        bench.close()


def test_an_appliance_that_stops_holds(bench: Bench) -> None:
    bench.crew.close()
    assert_held(bench.judge())


def test_checking_a_pack_leaves_the_one_in_force(bench: Bench, pack: Path) -> None:
    before = bench.guard.policy_hash
    (pack / "lexicons" / "instructions.txt").write_text("say nothing\n")
    report = bench.guard.check(pack)
    assert {o.rule for o in report.outcomes if not o.passed} == {"instructions"}
    assert bench.guard.policy_hash == before
    assert_released(bench.judge())


def test_many_threads_share_one_guard(bench: Bench) -> None:
    verdicts: list[GuardVerdict] = []
    threads = [threading.Thread(target=lambda: verdicts.append(bench.judge())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(verdicts) == 8
    for verdict in verdicts:
        assert_released(verdict)


def test_the_daemons_side_imports_no_detector() -> None:
    heavy = "{'re2', 'numpy', 'clinic_ai.guard.engine', 'clinic_ai.guard.policy', 'clinic_ai.guard.detectors'}"
    code = f"import sys, clinic_ai.guard.client, clinic_ai.guard.packs; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_new_child_that_refuses_a_pack_still_judges_by_the_one_in_force(
    bench: Bench, pack: Path, tmp_path: Path
) -> None:
    before = bench.guard.policy_hash
    broken = shutil.copytree(pack, tmp_path / "broken")
    (broken / "policy.toml").write_text("name = 1")
    os.kill(bench.pid, signal.SIGKILL)
    for _ in range(2):  # whether or not the first call notices the death, the second has a new child
        with pytest.raises(PolicyError):
            bench.guard.reload(broken)
    verdict = bench.judge()
    assert_released(verdict)
    assert verdict.policy_hash == before
