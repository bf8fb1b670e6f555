"""Children that die, hang, flood and lie, as real processes."""

from __future__ import annotations

import os
import platform
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from pydantic import BaseModel, ConfigDict

from clinic_ai.confinement import Confinement
from clinic_ai.errors import ChildDied, ChildError, ChildMisbehaved, ChildRefused, ChildTimedOut, Conflict
from clinic_ai.processes import Child, ChildSpec, Crew, UnsafeFile, open_produced


class Text(BaseModel):
    model_config = ConfigDict(extra="forbid")
    text: str = ""


SPEC = ChildSpec(
    kind="test",
    name="test",
    module="misbehaving",
    confinement=Confinement(data=512 << 20, file_size=8 << 20),
    environment=(("PYTHONPATH", str(Path(__file__).parent / "children")),),
)


@pytest.fixture
def crew() -> Iterator[Crew]:
    crew = Crew()
    yield crew
    crew.close()


def ask(child: Child, method: str, text: str = "", timeout_s: float = 20) -> str:
    return child.call(method, Text(text=text), Text, timeout_s=timeout_s).text


@pytest.mark.parametrize(
    ("method", "error", "words"),
    [
        ("segfault", ChildDied, "SIGSEGV"),
        ("die_of_nameless_signal", ChildDied, "signal 39"),
        ("eat_memory", ChildDied, "memory"),
        ("leave_quietly", ChildDied, "status 3"),
        ("flood_output", ChildMisbehaved, "flooded"),
        ("flood_progress", ChildMisbehaved, "flooded"),
        ("send_oversized", ChildMisbehaved, "cap"),
        ("send_wrong_shape", ChildMisbehaved, "shape"),
        ("answer_other_call", ChildMisbehaved, "call"),
    ],
)
def test_harm_costs_one_call_and_the_child(crew: Crew, method: str, error: type[ChildError], words: str) -> None:
    child = crew.start(SPEC)
    with pytest.raises(error, match=words) as caught:
        ask(child, method, timeout_s=60)
    assert caught.value.retryable
    assert not psutil.pid_exists(child.pid)
    assert ask(crew.start(SPEC), "echo", "well") == "well"


def test_a_pickle_is_refused_and_not_run(crew: Crew, tmp_path: Path) -> None:
    child = crew.start(SPEC)
    with pytest.raises(ChildMisbehaved, match="not JSON"):
        ask(child, "send_pickle", str(tmp_path / "made by the pickle"))
    assert not list(tmp_path.iterdir())
    assert not child.alive


def test_a_child_that_hangs_is_killed_in_time(crew: Crew) -> None:
    child = crew.start(SPEC)
    ask(child, "echo")
    with pytest.raises(ChildTimedOut):
        ask(child, "hang", timeout_s=0.2)
    assert not child.alive


def test_a_refusal_in_words_leaves_the_child_alive(crew: Crew) -> None:
    child = crew.start(SPEC)
    with pytest.raises(ChildRefused, match="too odd") as caught:
        ask(child, "refuse")
    assert caught.value.code == "too_odd"
    assert not caught.value.retryable
    assert caught.value.remedy == "Send another."
    assert ask(child, "echo", "still here") == "still here"


def test_the_text_of_a_foreign_exception_stays_in_the_child(crew: Crew) -> None:
    child = crew.start(SPEC)
    with pytest.raises(ChildRefused) as caught:
        ask(child, "raise_anything", "DOE^JANE")
    assert "DOE" not in caught.value.message
    assert "misbehaving.py" in caught.value.message


def test_keys_of_a_wrong_answer_are_not_quoted(crew: Crew) -> None:
    class Counts(BaseModel, extra="forbid"):
        text: dict[str, str] = {}

    child = crew.start(SPEC)
    with pytest.raises(ChildMisbehaved, match="text: string_type") as caught:
        child.call("send_words_as_keys", Text(text="DOE^JANE"), Counts, timeout_s=20)
    assert "DOE" not in caught.value.message


def test_the_whole_group_dies_with_the_child(crew: Crew) -> None:
    child = crew.start(SPEC)
    grandchild = psutil.Process(int(ask(child, "spawn")))
    child.kill()
    grandchild.wait(timeout=10)
    assert not grandchild.is_running()


def test_what_a_dead_child_left_of_its_group_is_buried(crew: Crew) -> None:
    child = crew.start(SPEC)
    grandchild = psutil.Process(int(ask(child, "spawn")))
    os.kill(child.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(child.pid)], timeout=10)
    crew.bury_dead()
    grandchild.wait(timeout=10)
    assert not grandchild.is_running()
    assert crew.living() == []


def test_a_child_reaches_no_network(crew: Crew) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = ask(crew.start(SPEC), "reach_out", str(server.getsockname()[1]))
    if answer == "connected":
        pytest.skip("this kernel or container forbids user namespaces")
    assert answer.startswith("refused")


@pytest.mark.skipif(platform.machine() not in {"x86_64", "aarch64"}, reason="there is no filter for this machine")
@pytest.mark.parametrize(("network", "internet"), [(False, "no"), (True, "yes")])
def test_a_child_reaches_no_unix_socket_and_no_other_process(
    crew: Crew, tmp_path: Path, network: bool, internet: str
) -> None:
    spec = replace(SPEC, confinement=SPEC.confinement.model_copy(update={"network": network}))
    child = crew.start(spec)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        assert ask(child, "knock", str(tmp_path / "s")) == (
            f"fresh: no, of_a_pair: no, from_another_program: no, in_its_place: no, by_the_internet: {internet}"
        )
    assert ask(child, "trace") == "refused"


def test_a_child_cannot_fill_the_disk(crew: Crew, tmp_path: Path) -> None:
    target = tmp_path / "big"
    assert ask(crew.start(SPEC), "write_much", str(target)).startswith("refused")
    assert target.stat().st_size <= 8 << 20


def test_a_running_call_can_be_asked_to_end(crew: Crew) -> None:
    child = crew.start(SPEC)
    seen = threading.Event()
    stopper = threading.Thread(target=lambda: (seen.wait(10), child.request_stop()))
    stopper.start()
    answer = child.call("count_until_stopped", Text(), Text, timeout_s=20, on_progress=lambda _: seen.set())
    stopper.join()
    assert int(answer.text) >= 1
    assert ask(child, "echo", "ready for the next") == "ready for the next"


def test_a_call_fails_when_another_thread_kills_the_child(crew: Crew) -> None:
    child = crew.start(SPEC)
    ask(child, "echo")
    killer = threading.Timer(0.1, child.kill)
    killer.start()
    with pytest.raises(ChildDied):
        ask(child, "hang")
    killer.join()


def test_a_closed_crew_starts_nothing_and_leaves_nothing(crew: Crew) -> None:
    children = [crew.start(SPEC) for _ in range(2)]
    crew.close()
    assert not [child for child in children if psutil.pid_exists(child.pid)]
    with pytest.raises(Conflict):
        crew.start(SPEC)


def test_a_child_outlives_the_thread_that_asked_for_it(crew: Crew) -> None:
    started: list[Child] = []
    thread = threading.Thread(target=lambda: started.append(crew.start(SPEC)))
    thread.start()
    thread.join()
    assert ask(started[0], "echo", "here") == "here"
    assert started[0].alive


def test_no_descriptor_is_left_behind(crew: Crew) -> None:
    child = crew.start(SPEC)
    ask(child, "echo")
    child.close()
    before = psutil.Process().num_fds()
    for _ in range(3):
        child = crew.start(SPEC)
        ask(child, "echo")
        child.close()
    assert psutil.Process().num_fds() == before


class TestOpenProduced:
    def test_a_plain_file_opens(self, tmp_path: Path) -> None:
        (tmp_path / "heat.png").write_bytes(b"picture")
        descriptor = open_produced(tmp_path, "heat.png", max_bytes=100)
        assert os.read(descriptor, 100) == b"picture"
        os.close(descriptor)

    @pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "", ".", "..", "a/b", "nul\0"])
    def test_a_name_that_is_a_path_is_refused(self, tmp_path: Path, name: str) -> None:
        (tmp_path.parent / "secret").write_text("x")
        with pytest.raises(UnsafeFile):
            open_produced(tmp_path, name, max_bytes=100)

    def test_links_pipes_directories_and_giants_are_refused(self, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.write_text("x")
        box = tmp_path / "box"
        box.mkdir()
        (box / "symbolic").symlink_to(outside)
        os.link(outside, box / "hard")
        os.mkfifo(box / "pipe")
        (box / "folder").mkdir()
        (box / "giant").write_bytes(b"x" * 101)
        for name in ["symbolic", "hard", "pipe", "folder", "giant", "absent"]:
            with pytest.raises(UnsafeFile):
                open_produced(box, name, max_bytes=100)

    def test_a_job_directory_that_became_a_link_is_refused(self, tmp_path: Path) -> None:
        real = tmp_path / "real"
        real.mkdir()
        (real / "file").write_text("x")
        (tmp_path / "job").symlink_to(real)
        with pytest.raises((UnsafeFile, OSError)):
            open_produced(tmp_path / "job", "file", max_bytes=100)
