"""Files that bring the parser down, hang it or make it lie cost themselves and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from harness import wait_until

from clinic_ai.errors import ChildDied
from clinic_ai.ingest.headers import HeaderReader
from clinic_ai.processes import Child, ChildSpec, Crew
from clinic_ai.settings import IngestSettings

CHILDREN = str(Path(__file__).parent / "children")


class OtherCrew(Crew):
    """Starts another module than the real parser; everything else is the real thing."""

    def __init__(self, module: str) -> None:
        super().__init__()
        self.module = module
        self.started = 0

    def start(self, spec: ChildSpec) -> Child:
        self.started += 1
        environment = (*spec.environment, ("PYTHONPATH", CHILDREN))
        return super().start(replace(spec, module=self.module, environment=environment))


@pytest.fixture
def crew() -> Iterator[OtherCrew]:
    crew = OtherCrew("moody_parser")
    yield crew
    crew.close()


@pytest.mark.parametrize(
    ("mood", "code"),
    [("KILL", "parser_killed"), ("HANG", "parser_timeout"), ("RAISE", "parser_failed"), ("LIE", "parser_misbehaved")],
)
def test_one_bad_file_costs_itself_and_its_batch_is_read(crew: OtherCrew, tmp_path: Path, mood: str, code: str) -> None:
    paths = [tmp_path / str(number) for number in range(6)]
    for path in paths:
        path.write_text("good")
    paths[3].write_text(mood)
    reader = HeaderReader(crew)
    results = reader.read(paths, IngestSettings(parser_timeout_s=1.0))
    assert [result.path for result in results] == [str(path) for path in paths]
    assert [result.problem.code if result.problem else "" for result in results] == ["", "", "", code, "", ""]
    assert results[3].problem is not None
    assert "private" not in results[3].problem.sentence
    assert crew.started <= 3
    assert reader.read(paths[:2], IngestSettings())[1].header is not None
    reader.close()


def test_trouble_of_the_machine_is_not_blamed_on_files(tmp_path: Path) -> None:
    crew = OtherCrew("no_such_module")
    (tmp_path / "a").write_text("good")
    with pytest.raises(ChildDied):
        HeaderReader(crew).read([tmp_path / "a"], IngestSettings())
    crew.close()


def test_a_parser_that_our_own_stop_killed_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    suspect = tmp_path / "a"
    suspect.write_bytes(b"KILL")

    class SlowSecond(OtherCrew):
        def start(self, spec: ChildSpec) -> Child:
            if self.started == 1:
                suspect.write_bytes(b"HANG")
            return super().start(spec)

    crew = SlowSecond("moody_parser")
    outcome: list[object] = []

    def read() -> None:
        try:
            outcome.append(HeaderReader(crew).read([suspect], IngestSettings()))
        except ChildDied as error:
            outcome.append(error)

    reading = threading.Thread(target=read)
    reading.start()
    wait_until(suspect.with_suffix(".hangs").exists, "the suspect is being read alone", 20)
    crew.close()
    reading.join(20)
    assert isinstance(outcome[0], ChildDied)


def test_a_child_is_replaced_after_many_files(crew: OtherCrew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clinic_ai.ingest.headers.FILES_PER_CHILD", 2)
    (tmp_path / "a").write_text("good")
    reader = HeaderReader(crew)
    for _ in range(3):
        assert reader.read([tmp_path / "a"] * 2, IngestSettings())[0].header is not None
    assert crew.started == 3
    reader.close()
