"""Over all that reports, people, faults and restarts can do: nothing unguarded and nothing unsigned goes out.

Everything is real (database, guard client, policy pack, execution, courier, outbox) but for the processes: the guard's
child answers in this one, or dies, hangs and lies as it is told, and the renderer writes the released words to a file.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy.exc import IntegrityError

from clinic_ai.domain import (
    Analysis,
    Answer,
    ArtefactState,
    CloseCode,
    Finding,
    GuardVerdict,
    Job,
    JobKind,
    PatientIdentity,
    Presence,
    Released,
    StoredFile,
    StudyFacts,
)
from clinic_ai.domain.reviews import Correction, Passage, ReviewDecision
from clinic_ai.errors import (
    ChildDied,
    ChildMisbehaved,
    ChildRefused,
    ChildTimedOut,
    ClinicError,
    NotAllowed,
    PolicyError,
)
from clinic_ai.execution import Execution
from clinic_ai.guard.client import Guard
from clinic_ai.guard.engine import judge
from clinic_ai.guard.proof import load_policy, pack_info
from clinic_ai.lanes import Wake
from clinic_ai.results.courier import Courier
from clinic_ai.results.reporting import ReportRunner
from clinic_ai.results.reviewing import Order, Reviews
from clinic_ai.results.signing import SignRunner
from clinic_ai.settings import ReviewSettings, Settings
from clinic_ai.settings.model import ExecutionSettings
from clinic_ai.store import artefacts, audit, jobs, reviews, studies
from clinic_ai.store.database import Database
from clinic_ai.store.objects import ObjectStore

PACK = Path(__file__).parents[3] / "policies" / "default"
SIGNER = "Dr. Ada Example"
LOOP = "the lung the lung " * 60
TEXTS = (
    "No acute change is seen.",
    "There is no pneumonia.",
    "PHANTOM^ONE is well, call 555-123-4567.",
    "Nor\u202emal lungs.",
    "<b>Normal</b> lungs.",
    LOOP,
    "The image was read and signed by Dr. House.",
)
FAULTS = ("raises", "hangs", "is killed", "lies")
_POLICIES: dict[str, Any] = {}


class Crew:
    """Starts guard children that live in this process; ``fault`` is what they do when asked to judge."""

    closed = False

    def __init__(self) -> None:
        self.fault = ""
        self.said: list[Released] = []
        """All that a sound guard ever released."""

    def start(self, _spec: object) -> Crew:
        self._policy: Any = None
        self._dead = False
        return self

    @property
    def alive(self) -> bool:
        return not self._dead

    pid = 1

    def kill(self) -> None:
        self._dead = True

    close = kill

    def call(self, method: str, params: Any, answer: Any, *, timeout_s: float) -> Any:
        del answer, timeout_s
        if method == "load":
            key = Path(params.directory).name
            if key not in _POLICIES:
                _POLICIES[key] = load_policy(Path(params.directory))
            self._policy = _POLICIES[key]
            return pack_info(self._policy)
        if self.fault == "raises":
            raise ChildMisbehaved("as was wished for")
        if self.fault == "hangs":
            raise ChildTimedOut("as was wished for")
        if self.fault == "is killed":
            raise ChildDied("as was wished for")
        if self._policy is None:
            raise ChildRefused("PolicyError", "The guard has no policy pack.", retryable=False)
        verdict = judge(self._policy, params)
        if self.fault == "lies":
            made = tuple(
                Released(statement_id=s.statement_id, audience=params.audience, text=s.text, policy_hash="c" * 64)
                for s in params.statements
            )
            return verdict.model_copy(update={"released": made, "policy_hash": "c" * 64, "decisions": ()})
        self.said += verdict.released
        return verdict


class Press:
    """Writes what was released; fails as often as it is told."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self.failures = 0
        self.written: list[tuple[GuardVerdict, object]] = []

    def render(self, job: Job, material: object, verdict: GuardVerdict, sign: object = None) -> tuple[StoredFile, ...]:
        del job, material
        if self.failures:
            self.failures -= 1
            raise ChildDied("the renderer died")
        self.written.append((verdict, sign))
        document = json.dumps([[released.text for released in verdict.released], sign is not None])
        sha256, size = self._objects.write_bytes(document.encode())
        return (StoredFile(name="result.json", sha256=sha256, size_bytes=size, media_type="application/json"),)


class Models:
    def loaded(self, _ref: object) -> Any:
        raise AssertionError("analyses here name no model")


class Reviewing(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(prefix="reviewing-"))
        self.database = Database(self.path / "clinic.db")
        self.database.open()
        self.objects = ObjectStore(self.path / "objects")
        (self.path / "outbox").mkdir()
        self.crew = Crew()
        self.clock = 0.0
        self.guard = Guard(
            self.crew,  # type: ignore[arg-type]
            PACK,
            archive=self.path / "packs",
            clock=self._later,
        )
        self.guard.load()
        self.settings = Settings(
            execution=ExecutionSettings(max_attempts=2, backoff_s=(0.0,)), review=ReviewSettings(reviewers=(SIGNER,))
        )
        self.reports = ReportRunner(
            database=self.database,
            objects=self.objects,
            job_directories=self.path,
            crew=self.crew,  # type: ignore[arg-type]
            guard=self.guard,
            models=Models(),  # type: ignore[arg-type]
            settings=lambda: self.settings,
            manifests=dict,
        )
        self.press = Press(self.objects)
        self.reports.press = self.press  # type: ignore[assignment]
        self.reviews = Reviews(self.database, self.objects, self.reports, lambda: self.settings.review, lambda: None)
        self.courier = Courier(self.database, self.objects, lambda: self.path / "outbox")
        self.boots = 0
        self.start_again()
        self.decided: list[str] = []

    def _later(self) -> float:
        self.clock += 60.0
        return self.clock

    def teardown(self) -> None:
        self.crew.fault, self.press.failures = "", 0
        self.work_off()
        self.nothing_is_final_without_a_named_person()
        self.no_decision_is_lost()
        self.database.close()
        self.guard.close()
        shutil.rmtree(self.path)

    # ------------------------------------------------------------ what happens

    @rule(texts=st.lists(st.sampled_from(TEXTS), min_size=1, max_size=2), likely=st.booleans())
    def a_study_is_analysed(self, texts: list[str], likely: bool) -> None:
        sha256, size = self.objects.write_bytes(texts[0].encode() + str(time.monotonic_ns()).encode())
        facts = StudyFacts(modalities=("DX",), body_parts=("CHEST",), slices=1)
        finding = Finding(
            condition="pneumonia",
            label="Pneumonia",
            probability=0.95 if likely else 0.01,
            threshold=0.5,
            presence=Presence.PRESENT if likely else Presence.ABSENT,
            instance_sha256=sha256,
        )
        analysis = Analysis(
            plugin="echo",
            plugin_version="1",
            models=(),
            findings=(finding,),
            answers=tuple(Answer(question="", text=text) for text in texts),
        )
        del size
        with self.database.write() as c:
            study_id = studies.open_study(
                c,
                grouping_key=f"1.2.{time.monotonic_ns()}",
                study_instance_uid="1.2",
                pseudonym="P-A",
                patient_key="k",
                source="inbox",
                facts=facts,
                identity=PatientIdentity(patient_name="PHANTOM^ONE", patient_id="4711"),
            )
            studies.close_version(c, study_id, 1, facts=facts, code=CloseCode.QUIET, reason="a test", actor="test")
            studies.move_study(c, study_id, 1, "route", actor="test")
            job_id = jobs.add_job(c, kind=JobKind.ANALYSE, study_id=study_id, version=1, plugin="echo")
            job = jobs.lease(c, jobs.get_job(c, job_id), "test", (), "")
            jobs.save_analysis(c, job, analysis, ())
            jobs.succeed(c, job_id)
            jobs.add_job(c, kind=JobKind.REPORT, study_id=study_id, version=1)

    @rule(kind=st.sampled_from([JobKind.REPORT, JobKind.SIGN]), fault=st.sampled_from(["", "", *FAULTS]))
    def a_job_is_done(self, kind: JobKind, fault: str) -> None:
        before, self.crew.fault = self.crew.fault, fault
        self.execution.step(kind)
        self.crew.fault = before

    @rule()
    def something_is_delivered(self) -> None:
        self.courier.step()

    @rule(fault=st.sampled_from(["", "", *FAULTS]))
    def the_guard_is_ill(self, fault: str) -> None:
        self.crew.fault = fault

    @rule()
    def a_broken_pack_is_put_in_its_place(self) -> None:
        broken = self.path / "broken"
        broken.mkdir(exist_ok=True)
        (broken / "policy.toml").write_text("name = 1")
        with pytest.raises(PolicyError):
            self.guard.reload(broken)

    @rule(times=st.integers(1, 3))
    def the_renderer_dies(self, times: int) -> None:
        self.press.failures = times

    @rule()
    def start_again(self) -> None:
        self.boots += 1
        self.execution = Execution(
            database=self.database,
            settings=lambda: self.settings,
            manifests=dict,
            runners=(self.reports, SignRunner(self.database, self.reports)),
            owner=f"boot {self.boots}",
            wake=Wake(),
        )
        self.execution.recover()

    @precondition(lambda self: self._artefacts())
    @rule(
        which=st.integers(0, 3),
        decision=st.sampled_from(ReviewDecision),
        name=st.sampled_from([SIGNER, SIGNER, SIGNER, "", "Dr. Nobody", None]),
        text=st.sampled_from([None, *TEXTS]),
        stale=st.sampled_from([False, False, False, True]),
        corrects=st.booleans(),
        again=st.booleans(),
    )
    def a_person_decides(
        self,
        which: int,
        decision: ReviewDecision,
        name: str | None,
        text: str | None,
        stale: bool,
        corrects: bool,
        again: bool,
    ) -> None:
        one = self._pick(which)
        before = self._count("reviews")
        try:
            signer = self.reviews.name_of("tester", name)
        except NotAllowed:
            assert name != SIGNER
            return
        assert signer == SIGNER
        try:
            shown = self.reviews.show(one, signer)
        except ClinicError:
            assert self.crew.fault
            return
        amends = decision is ReviewDecision.AMEND
        order = Order(
            artefact_id=one,
            decision=decision,
            digest="0" * 64 if stale else shown.digest,
            said=(Passage(statement_id="n_1", text=text),) if text is not None and amends else None,
            corrections=(Correction(condition="pneumonia", presence=Presence.ABSENT),) if amends and corrects else (),
            reason="the test wants it so",
        )
        try:
            said = self.reviews.decide(order, user="tester", name=signer)
        except ClinicError:
            assert self._count("reviews") == before
            return
        assert one in said
        assert self._count("reviews") - before in {0, 1}
        if again:
            after = self._count("reviews")
            assert self.reviews.decide(order, user="tester", name=signer) == said
            assert self._count("reviews") == after

    @precondition(lambda self: self._artefacts())
    @rule(which=st.integers(0, 3))
    def late_images_make_a_newer_version(self, which: int) -> None:
        with self.database.read() as c:
            study_id = artefacts.get_artefact(c, self._pick(which)).study_id
        try:
            self.execution.reroute(study_id, "tester")
        except ClinicError:
            return
        self.execution.route_closed()

    @precondition(lambda self: self._artefacts())
    @rule(which=st.integers(0, 3), name=st.sampled_from(["", SIGNER]))
    def a_program_error_tries_to_make_one_final(self, which: int, name: str) -> None:
        one = self._pick(which)
        with self.database.read() as c:
            if artefacts.get_artefact(c, one).state is ArtefactState.FINAL:
                return
            mine = artefacts.get_artefact(c, one).review_id
        if mine:
            return  # it was final, with a decision
        with pytest.raises(IntegrityError), self.database.write() as c:
            c.exec_driver_sql("UPDATE artefacts SET state = 'FINAL', signed_by = ? WHERE artefact_id = ?", (name, one))

    def work_off(self) -> None:
        while self.execution.step(JobKind.SIGN) or self.execution.step(JobKind.REPORT) or self.courier.step():
            pass

    # ------------------------------------------------------------ what always holds

    @invariant()
    def nothing_is_final_without_a_named_person(self) -> None:
        with self.database.read() as c:
            for one in self._all():
                if one.state is ArtefactState.FINAL or one.revision:
                    review = reviews.get_review(c, one.review_id)
                    assert review.reviewer == one.signed_by == SIGNER
                    assert review.decision.signs
                    assert [(r.statement_id, r.text) for r in one.verdict.released] == [
                        (p.statement_id, p.text) for p in review.document.said
                    ]
                else:
                    assert not one.signed_by
            actions = [row[0] for row in c.exec_driver_sql("SELECT action FROM audit")]
            assert actions.count("artefact.final") == len([one for one in self._all() if one.revision])
            assert len([a for a in actions if a in _DECISIONS]) == self._count("reviews")

    @invariant()
    def nothing_unguarded_is_released(self) -> None:
        sound = {(r.statement_id, r.text, r.annotations, r.policy_hash) for r in self.crew.said}
        for one in self._all():
            assert {(r.statement_id, r.text, r.annotations, r.policy_hash) for r in one.verdict.released} <= sound
            if one.state in {ArtefactState.BLOCKED, ArtefactState.HELD}:
                assert not one.verdict.released
                assert not one.files
            if not one.verdict.released:
                assert not one.deliveries
        for place in (self.path / "outbox").glob("*/v*/result.json"):
            texts, signed = json.loads(place.read_text())
            assert signed == ("signed" in place.parent.name)
            assert set(texts) <= {text for _, text, _, _ in sound}
            assert not any("PHANTOM" in text or "555-123" in text or LOOP in text for text in texts)

    @invariant()
    def what_was_rejected_does_not_go_out(self) -> None:
        for one in self._all():
            if one.state is ArtefactState.REJECTED:
                rejected_at = min(r.decided_at for r in self._reviews(one.artefact_id))
                assert all(d.done_at is None or d.done_at <= rejected_at or not d.place for d in one.deliveries)

    def no_decision_is_lost(self) -> None:
        with self.database.read() as c:
            made = {one.review_id for one in self._all()}
            for row in c.exec_driver_sql("SELECT review_id FROM reviews").all():
                review = reviews.get_review(c, row[0])
                newest = studies.get_study(c, review.study_id).version
                ended = review.job_id is not None and jobs.get_job(c, review.job_id).state.value in {
                    "FAILED",
                    "CANCELLED",
                }
                if review.decision.signs and newest == review.version and not ended:
                    assert review.review_id in made
            assert audit.first_break(c) is None

    # ------------------------------------------------------------

    def _all(self) -> list[Any]:
        with self.database.read() as c:
            ids = [row[0] for row in c.exec_driver_sql("SELECT artefact_id FROM artefacts ORDER BY created_at")]
            return [artefacts.get_artefact(c, one) for one in ids]

    def _pick(self, which: int) -> str:
        found = self._artefacts()
        return found[which % len(found)]

    def _artefacts(self) -> list[str]:
        return [one.artefact_id for one in self._all()]

    def _reviews(self, artefact_id: str) -> list[Any]:
        with self.database.read() as c:
            return reviews.reviews_of(c, artefact_id)

    def _count(self, table: str) -> int:
        with self.database.read() as c:
            return int(c.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar() or 0)


_DECISIONS = {f"review.{decision.value}" for decision in ReviewDecision}

Reviewing.TestCase.settings = settings(
    max_examples=5,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
TestReviewing = Reviewing.TestCase


def test_what_reads_otherwise_when_it_is_carried_out_is_not_signed() -> None:
    """A pack that comes after the decision adds a note: nobody has read it, so the report is not made."""
    world = Reviewing()
    try:
        world.a_study_is_analysed(["The heart is of normal size."], likely=True)
        world.a_job_is_done(JobKind.REPORT, "")
        one = world._pick(0)
        shown = world.reviews.show(one, SIGNER)
        order = Order(artefact_id=one, decision=ReviewDecision.ACCEPT, digest=shown.digest)
        world.reviews.decide(order, user="tester", name=SIGNER)
        shutil.copytree(PACK, world.path / "default")
        noted = world.path / "noted"
        noted.mkdir()
        (noted / "policy.toml").write_text(
            'name = "noted"\nversion = "1"\nextends = "default"\n[[rule]]\nid = "stop-note"\nhazard = "h"\n'
            'audiences = ["clinician"]\naction = "annotate"\nmessage = "DO NOT SIGN."\n'
            'when = { detector = "pattern", pattern = "heart is", what = "w" }\n'
        )
        cases = (("firing", "The heart is."), ("non_firing", "Nothing."), ("mutation", "My heart is."))
        (noted / "cases.toml").write_text(
            "".join(
                f'[[case]]\nrule = "stop-note"\nkind = "{kind}"\naudience = "clinician"\ntext = "{text}"\n'
                for kind, text in cases
            )
        )
        world.guard.reload(noted)
        now = world.reviews.show(one, SIGNER)
        assert [said.text for said in now.said] == [said.text for said in shown.said]
        assert now.digest != shown.digest
        world.work_off()
        assert [sign for _, sign in world.press.written] == [None]
        with world.database.read() as c:
            words = [row[0] for row in c.exec_driver_sql("SELECT sentence FROM alerts WHERE code = 'not_signed'")]
        assert "reads otherwise now" in words[0]
    finally:
        world.teardown()
