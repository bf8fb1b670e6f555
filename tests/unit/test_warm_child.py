"""The child that is kept between calls: one for all, fresh when it died, gone when nobody needs it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from clinic_ai.errors import ChildDied, ChildRefused
from clinic_ai.processes import Child, ChildSpec, Crew
from clinic_ai.warm_child import WarmChild

CHILDREN = Path(__file__).parents[1] / "integration" / "children"
SPEC = ChildSpec(kind="", name="test", module="misbehaving", environment=(("PYTHONPATH", str(CHILDREN)),))


class Text(BaseModel):
    text: str = ""


def call(child: Child, method: str = "echo") -> str:
    return child.call(method, Text(text="hello"), Text, timeout_s=20).text


@pytest.fixture
def crew() -> Iterator[Crew]:
    crew = Crew()
    yield crew
    crew.close()


def test_it_serves_until_nobody_uses_it_and_again_when_somebody_does(crew: Crew) -> None:
    warm = WarmChild(crew, SPEC)
    assert warm.pid is None
    with warm.at_work() as child:
        assert call(child) == "hello"
    first = warm.pid
    warm.end_if_idle(3600)
    with warm.at_work() as child:
        assert child.pid == first == warm.pid
    warm.end_if_idle(-1)
    assert warm.pid is None
    assert crew.living() == []
    with warm.at_work() as child:
        assert call(child) == "hello"
    warm.close()
    assert crew.living() == []


def test_one_that_died_or_is_distrusted_is_replaced(crew: Crew) -> None:
    warm = WarmChild(crew, SPEC)
    with warm.at_work() as child, pytest.raises(ChildDied):
        call(child, "segfault")
    with warm.at_work() as child:
        second = child.pid
        warm.distrust()
        assert warm.pid is None
    with warm.at_work() as child:
        assert call(child) == "hello"
        assert child.pid != second
    assert [each.pid for each in crew.living()] == [warm.pid]


def test_nobody_ends_it_under_a_call(crew: Crew) -> None:
    warm = WarmChild(crew, SPEC)
    with warm.at_work() as child:
        tidy = threading.Thread(target=warm.end_if_idle, args=(-1.0,))
        tidy.start()
        tidy.join(5)
        assert not tidy.is_alive()
        assert call(child) == "hello"


def test_a_fresh_one_that_does_not_prove_itself_is_not_kept(crew: Crew) -> None:
    works = False
    warm = WarmChild(crew, SPEC, proving=lambda child: call(child, "echo" if works else "refuse"))
    with pytest.raises(ChildRefused), warm.at_work():
        pass
    assert warm.pid is None
    assert crew.living() == []
    works = True
    with warm.at_work() as child:
        assert call(child) == "hello"
