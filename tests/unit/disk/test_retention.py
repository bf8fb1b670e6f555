"""What retention chooses and what it removes."""

from __future__ import annotations

import hashlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shelf import DELIVERED, Shelf
from sqlalchemy import text

from clinic_ai.disk import retention as module
from clinic_ai.disk.garbage import StoreCount
from clinic_ai.disk.retention import DAY_S, Candidate, Need, Retention, choose
from clinic_ai.disk.room import MIB
from clinic_ai.store.objects import ObjectStore
from clinic_ai.store.originals import Delivered

CANDIDATES = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 50)), max_size=20).map(
    lambda found: [
        Candidate(Delivered(f"S-{number}", 1, float(at)), size, 1)
        for number, (at, size) in enumerate(sorted(found, key=lambda one: one[0]))
    ]
)
NEEDS = st.lists(st.builds(Need, st.sampled_from(["free_space", "quota"]), st.integers(0, 600)), max_size=2)


@given(CANDIDATES, st.integers(0, 110), NEEDS)
def test_it_chooses_the_oldest_until_there_is_enough_or_nothing_is_left(
    candidates: list[Candidate], aged_before: int, needs: list[Need]
) -> None:
    chosen = choose(candidates, aged_before=float(aged_before), needs=needs)
    gone = [removal.candidate for removal in chosen]
    wanted = max((need.size_bytes for need in needs), default=0)
    freed = sum(candidate.frees_bytes for candidate in gone)

    assert gone == [candidate for candidate in candidates if candidate in gone]  # in their order, none twice
    assert all(candidate in gone for candidate in candidates if candidate.study.delivered_at < aged_before)
    assert freed >= wanted or all(candidate in gone for candidate in candidates if candidate.frees_bytes)
    younger = [removal for removal in chosen if removal.why != "age"]
    if younger:
        assert freed - younger[-1].candidate.frees_bytes < wanted  # no more than it takes
        last = younger[-1].candidate.study.delivered_at
        assert all(c in gone or not c.frees_bytes for c in candidates if c.study.delivered_at < last)
    assert all((removal.why == "age") == (removal.candidate.study.delivered_at < aged_before) for removal in chosen)


def retention_of(store: Shelf, **options: float) -> Retention:
    count = StoreCount(store.database, store.objects)
    for _ in count.work():
        pass
    return Retention(
        store.database,
        store.objects,
        lambda: store.settings,
        count.originals_bytes,
        **{"unsettled_s": -60.0, **options},
    )


def planned(retention: Retention) -> list[tuple[str, str]]:
    return [(removal.candidate.study.study_id, removal.why) for removal in retention.plan()]


def test_by_default_nothing_is_ever_removed(store: Shelf) -> None:
    store.add_study([b"old"], delivered_at=1.0)
    assert retention_of(store).plan() == []


def test_by_age_only_what_was_delivered_long_ago_goes(store: Shelf) -> None:
    store.configure(retention={"originals_days": 30})
    now = time.time()
    old = store.add_study([b"old"], delivered_at=now - 31 * DAY_S)
    store.add_study([b"young"], delivered_at=now - 29 * DAY_S)
    store.add_study([b"held"], delivered_at=now - 99 * DAY_S, artefacts=[("HELD", ())])
    store.add_study([b"failed"], delivered_at=now - 99 * DAY_S, state="FAILED", artefacts=())
    store.add_study([b"unsent"], delivered_at=now - 99 * DAY_S, artefacts=[("FINAL", ("FAILED",))])
    retention = retention_of(store)
    assert planned(retention) == [(old, "age")]

    assert retention.remove(retention.plan()) == 3
    assert not store.objects.has(hashlib.sha256(b"old").hexdigest())
    assert store.audited("study.originals_removed") == [old]
    assert (retention.removed_studies, retention.removed_bytes) == (1, 3)
    assert retention.plan() == []
    with store.database.read() as connection:
        hashes = connection.execute(text("SELECT sha256 FROM instances WHERE study_id != :old"), {"old": old}).scalars()
        assert all(map(store.objects.has, hashes))


def test_below_the_threshold_the_oldest_go_until_a_tenth_more_is_free(
    store: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    studies = [store.add_study([bytes([number]) * MIB], delivered_at=float(number)) for number in range(1, 9)]
    store.configure(retention={"when_free_below_mb": 50})
    monkeypatch.setattr(module, "free_bytes", lambda _: 48 * MIB)
    retention = retention_of(store)
    assert planned(retention) == [(study_id, "free_space") for study_id in studies[:7]]
    monkeypatch.setattr(module, "free_bytes", lambda _: 50 * MIB)
    assert planned(retention) == []


def test_beyond_their_quota_the_oldest_originals_go(store: Shelf) -> None:
    studies = [store.add_study([bytes([number]) * MIB], delivered_at=float(number)) for number in range(1, 6)]
    store.configure(quota={"originals_mb": 5})
    assert planned(retention_of(store)) == []
    store.configure(quota={"originals_mb": 4})
    retention = retention_of(store)
    assert planned(retention) == [(studies[0], "quota"), (studies[1], "quota")]
    assert retention.remove(retention.plan()) == 2 * MIB
    assert planned(retention) == []  # known at once, not only after all was counted again


def test_what_another_study_needs_stays_until_that_one_goes_too(store: Shelf) -> None:
    first = store.add_study([b"shared", b"own"], delivered_at=1.0)
    second = store.add_study([b"shared"], delivered_at=2.0)
    store.configure(retention={"originals_days": 1})
    shared, own = store.keep(b"shared", b"own")
    retention = retention_of(store)
    (one, two) = retention.plan()
    assert (one.candidate.study.study_id, one.candidate.frees_bytes) == (first, 3)
    retention.remove([one])
    assert store.objects.has(shared)
    assert not store.objects.has(own)
    assert two.candidate.study.study_id == second
    retention.remove([two])
    assert not store.objects.has(shared)


def test_a_long_plan_comes_in_parts_and_passes_over_what_helps_nobody(
    store: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PLANNED", 3)
    for number in range(5):
        store.add_study([b"shared by all"], delivered_at=float(number + 1))
    store.add_study([b"shared by all"], artefacts=[("HELD", ())])
    younger = [store.add_study([b"x" * (MIB + number)], delivered_at=float(number + 10)) for number in range(2)]
    store.configure(retention={"when_free_below_mb": 10})
    monkeypatch.setattr(module, "free_bytes", lambda _: 9 * MIB)
    retention = retention_of(store)
    assert planned(retention) == [(study_id, "free_space") for study_id in younger]
    store.configure(retention={"originals_days": 1})
    assert len(retention.plan()) == 3
    while plan := retention.plan():
        retention.remove(plan)
    assert len(store.audited("study.originals_removed")) == 7


def test_an_original_that_is_also_a_result_or_in_a_dataset_stays(store: Shelf) -> None:
    store.configure(retention={"originals_days": 1})
    study = store.add_study([b"picture", b"scan"], results=[b"picture"], delivered_at=1.0)
    learned = store.add_study([b"lesson"], delivered_at=1.0)
    picture, scan, lesson = store.keep(b"picture", b"scan", b"lesson")
    store.add_dataset([lesson])
    retention = retention_of(store)
    assert planned(retention) == [(study, "age")]
    retention.remove(retention.plan())
    assert [store.objects.has(sha256) for sha256 in (picture, scan, lesson)] == [True, False, True]
    assert learned not in store.audited("study.originals_removed")


def test_de_identified_copies_go_with_their_originals_unless_a_dataset_has_them(store: Shelf) -> None:
    store.configure(retention={"originals_days": 1})
    store.add_study([b"one", b"shared"], delivered_at=1.0)
    store.add_study([b"shared"], delivered_at=1.0, artefacts=[("HELD", ())])
    store.add_study([b"two"], delivered_at=1.0)
    of_one, of_shared = store.add_copy(b"one", b"copy 1"), store.add_copy(b"shared", b"copy 2")
    of_two = store.add_copy(b"two", b"copy 3")
    store.add_dataset([of_two])
    retention = retention_of(store)
    assert retention.remove(retention.plan()) == len(b"one") + len(b"copy 1")
    assert [store.objects.has(sha256) for sha256 in (of_one, of_shared, of_two)] == [False, True, True]


def test_a_study_that_went_into_work_after_the_plan_keeps_its_originals(store: Shelf) -> None:
    store.configure(retention={"originals_days": 1})
    asked_again = store.add_study([b"one"], delivered_at=1.0)
    store.add_study([b"two"], delivered_at=2.0)
    in_dataset = store.add_study([b"three"], delivered_at=3.0)
    retention = retention_of(store)
    plan = retention.plan()
    store.set_job(asked_again, "QUEUED")
    one, two, three = store.keep(b"one", b"two", b"three")
    store.add_dataset([three])
    assert retention.remove(plan) == 3
    assert [store.objects.has(sha256) for sha256 in (one, two, three)] == [True, False, True]
    assert in_dataset not in store.audited("study.originals_removed")


def test_an_object_that_somebody_is_just_storing_is_left_to_the_collection_of_garbage(store: Shelf) -> None:
    store.configure(retention={"originals_days": 1})
    study = store.add_study([b"one"], delivered_at=1.0)
    retention = retention_of(store, unsettled_s=600.0)
    assert retention.remove(retention.plan()) == 0
    (one,) = store.keep(b"one")
    assert store.objects.has(one)
    assert store.audited("study.originals_removed") == [study]
    count = StoreCount(store.database, store.objects, grace_s=-60.0)
    for _ in count.work():
        pass
    assert not store.objects.has(one)


def test_a_crash_between_the_transaction_and_the_unlinking_is_finished_by_the_collection_of_garbage(
    store: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.configure(retention={"originals_days": 1})
    store.add_study([b"one"], delivered_at=1.0, artefacts=DELIVERED)
    retention = retention_of(store)

    def die(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "discard", die)
        with pytest.raises(KeyboardInterrupt):
            retention.remove(retention.plan())
    count = StoreCount(store.database, store.objects, grace_s=-60.0)
    for _ in count.work():
        pass
    assert (count.collected_objects, count.collected_bytes) == (1, 3)
    assert store.audited("objects.collected") == ["objects"]
