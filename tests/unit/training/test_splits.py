"""Parts of a small drop: none is empty, each near its share, and a patient stays where it is."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.store.datasets import Split
from clinic_ai.training.splits import SPLITS, filled_splits

KEY = b"k" * 32


@pytest.mark.parametrize(
    ("patients", "parts"), [(3, (1, 1, 1)), (5, (3, 1, 1)), (8, (6, 1, 1)), (20, (14, 3, 3)), (200, (140, 30, 30))]
)
def test_the_shares_of_a_drop(patients: int, parts: tuple[int, int, int]) -> None:
    drop = {f"{n:064x}" for n in range(patients)}
    counted = Counter(filled_splits(KEY, "tiny", drop, {}).values())
    assert tuple(counted[split] for split in SPLITS) == parts


def test_the_order_is_that_of_the_site_and_nothing_else() -> None:
    drop = [f"{n:064x}" for n in range(9)]
    first = filled_splits(KEY, "tiny", drop, {})
    assert filled_splits(KEY, "tiny", list(reversed(drop)), {}) == first
    assert filled_splits(b"a" * 32, "tiny", drop, {}) != first
    assert filled_splits(KEY, "other", drop, {}) != first


@given(
    drops=st.lists(st.sets(st.integers(0, 60), min_size=1), min_size=1, max_size=5),
    known=st.dictionaries(st.integers(0, 60), st.sampled_from(SPLITS), max_size=20),
)
def test_a_patient_stays_and_nobody_is_left_out(drops: list[set[int]], known: dict[int, Split]) -> None:
    table: dict[str, Split] = {f"{n:064x}": split for n, split in known.items()}
    for numbers in drops:
        drop = {f"{n:064x}" for n in numbers}
        fresh = len(drop - table.keys())
        splits = filled_splits(KEY, "tiny", drop, table)
        assert splits.keys() == drop
        assert all(splits[patient] == table[patient] for patient in drop if patient in table)
        empty_before = len(set(SPLITS) - {table[patient] for patient in drop if patient in table})
        assert len(set(SPLITS) - set(splits.values())) == max(0, empty_before - fresh)
        table |= splits
