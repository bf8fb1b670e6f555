"""The home: made whole or not at all, and every reason not to start in it is one sentence with a remedy."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from clinic_ai import __version__, home
from clinic_ai.errors import HomeError
from clinic_ai.home import Home, add_new_folders, check_home, init_home, lock_home, resolve_home, shipped_packs
from clinic_ai.settings import Settings, load_settings
from clinic_ai.settings.checks import OWN_FOLDERS


@pytest.fixture
def made(tmp_path: Path) -> Home:
    return init_home(tmp_path / "home")


def refused(act: Callable[[], object]) -> HomeError:
    with pytest.raises(HomeError) as caught:
        act()
    assert caught.value.remedy
    return caught.value


def tree(path: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(path)): p.read_bytes() if p.is_file() else None for p in path.rglob("*")}


# ------------------------------------------------------------ which


def test_the_option_wins_over_the_environment_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(home.ENVIRONMENT_KEY, raising=False)
    assert resolve_home().path == Path("/var/lib/clinic-ai")
    monkeypatch.setenv(home.ENVIRONMENT_KEY, "/srv/scans")
    assert resolve_home().path == Path("/srv/scans")
    assert resolve_home(Path("here")).path == Path.cwd() / "here"


# ------------------------------------------------------------ making


def test_a_new_home_can_be_used_and_holds_valid_settings_and_packs(made: Home) -> None:
    check_home(made)
    assert load_settings(made.clinic_toml) == Settings()
    assert json.loads(made.stamp.read_text()) == {"format": home.FORMAT, "version": __version__}
    assert sorted(p.name for p in made.policies.iterdir()) == [p.name for p in shipped_packs()]


def test_strangers_see_nothing_and_only_the_owner_sees_the_state(made: Home) -> None:
    for path in [made.path, *made.path.iterdir()]:
        if not path.is_relative_to(made.policies):
            assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0, path
    assert stat.S_IMODE(made.state.stat().st_mode) == 0o700
    assert stat.S_IMODE(made.inbox.stat().st_mode) == 0o770


def test_making_it_again_changes_nothing(made: Home) -> None:
    made.clinic_toml.write_text("[clinic]\nname = 'ours'\n")
    (made.inbox / "scan.dcm").write_bytes(b"x")
    before = tree(made.path)
    init_home(made.path)
    assert tree(made.path) == before


def test_making_it_again_completes_what_is_missing(made: Home) -> None:
    made.jobs.rmdir()
    made.stamp.unlink()
    assert "lacks state/jobs/" in refused(lambda: check_home(made)).message
    init_home(made.path)
    check_home(made)


CUT_SHORT = """
import os, sys, tempfile
from pathlib import Path
from clinic_ai.home import check_home, init_home

steps = {"left": 0}

def dying(event, _):
    if event in {"os.mkdir", "open", "os.rename", "os.chmod"} and os.getpid() != parent:
        steps["left"] -= 1
        if steps["left"] < 0:
            os._exit(9)

parent = os.getpid()
sys.addaudithook(dying)
for number in [*range(10), *range(10, 1000, 7)]:  # every early step, then a sample
    home = Path(sys.argv[1]) / str(number)
    steps["left"] = number
    child = os.fork()
    if not child:
        init_home(home)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    check_home(init_home(home))
    if status == 0:
        print("whole after", number)
        break
"""


def test_a_home_whose_making_was_cut_short_anywhere_can_be_completed(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", CUT_SHORT, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(answer.stdout.removeprefix("whole after ")) > len(OWN_FOLDERS)


def test_a_shipped_pack_the_clinic_changed_is_kept(made: Home) -> None:
    assert shipped_packs(), "the shipped policy packs are not found"
    changed = made.policies / shipped_packs()[0].name / "policy.toml"
    changed.write_text("# ours\n")
    init_home(made.path)
    assert changed.read_text() == "# ours\n"


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    assert "not a home of clinic-ai" in refused(lambda: init_home(tmp_path)).message
    assert [p.name for p in tmp_path.iterdir()] == ["holiday.jpg"]


def test_an_empty_file_system_of_its_own_is_fine(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    check_home(init_home(tmp_path))


def test_a_file_in_the_place_of_the_home_is_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    assert str(file) in refused(lambda: init_home(file)).message


# ------------------------------------------------------------ checking


def test_a_missing_home_says_how_to_make_one(tmp_path: Path) -> None:
    error = refused(lambda: check_home(Home(tmp_path / "none")))
    assert error.message.startswith("There is no home of clinic-ai at")
    assert "clinic-ai init" in error.remedy


@pytest.mark.parametrize("act", [check_home, lambda h: init_home(h.path)])
def test_a_home_of_a_newer_version_is_refused(made: Home, act: Callable[[Home], object]) -> None:
    made.stamp.write_text('{"format": 99, "version": "7.3.0"}')
    error = refused(lambda: act(made))
    assert "made by clinic-ai 7.3.0" in error.message
    assert error.remedy == "Install clinic-ai 7.3.0 or later."


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": "x", "version": "1"}'])
def test_an_unreadable_stamp_is_a_sentence(made: Home, text: str) -> None:
    made.stamp.write_text(text)
    assert "cannot be understood" in refused(lambda: check_home(made)).message


def test_too_long_a_path_for_a_socket_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    # "/run/monitor.sock" takes 17 bytes: 90 bytes of home just fit.
    def padded(total: int) -> Path:
        return tmp_path / ("ä" + "x" * (total - len(os.fsencode(tmp_path)) - 3))

    check_home(init_home(padded(90)))
    long = padded(91)
    assert "has 108 bytes" in refused(lambda: init_home(long)).message
    assert not long.exists()


def test_a_nearly_full_disk_is_refused(made: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "MIN_FREE_MB", 1 << 40)
    error = refused(lambda: check_home(made))
    assert "MiB free" in error.message


NEVER_ROOT = """
import os, sys
from pathlib import Path
from clinic_ai.errors import HomeError
from clinic_ai.home import Home, check_home
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
try:
    check_home(Home(Path(sys.argv[1])))
except HomeError as error:
    print(error.message)
"""


def test_a_home_this_user_may_not_write_is_a_sentence() -> None:
    # Modes do not stop root, so as root the check runs as nobody, who cannot pass through pytest's own folder.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        made = init_home(Path(folder) / "home")
        for path in [made.path, *made.path.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        answer = subprocess.run(
            [sys.executable, "-c", NEVER_ROOT, str(made.path)], capture_output=True, text=True, check=True, cwd="/"
        )
        for path in [made.path, *made.path.rglob("*")]:
            path.chmod(0o755)  # so that it can be removed
    assert "may not write" in answer.stdout


def in_own_mounts(tmp_path: Path, then: str) -> str:
    """Make a home on a file system of 1 MiB, do something to that, and return what check_home says."""
    place = tmp_path / "disk"
    place.mkdir()
    script = f"""
        set -e
        mount -t tmpfs -o size=1m none {place}
        {sys.executable} -c 'from clinic_ai.home import *; init_home(Path("{place}/home"))'
        {then.format(place=place)}
        {sys.executable} -c 'from clinic_ai.home import *
try: check_home(Home(Path("{place}/home")))
except HomeError as error: print(error.message)'
    """
    answer = subprocess.run(["unshare", "-Urm", "sh", "-c", script], check=False, capture_output=True, text=True)
    if "unshare" in answer.stderr or "mount:" in answer.stderr:
        pytest.skip("this machine does not let a test mount file systems of its own")
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    said = in_own_mounts(tmp_path, "cat /dev/zero > {place}/filler 2>/dev/null || true")
    assert said.strip() == f"The disk of {tmp_path}/disk/home is full."


def test_a_read_only_file_system_is_a_sentence(tmp_path: Path) -> None:
    said = in_own_mounts(tmp_path, "mount -o remount,ro {place}")
    assert "mounted read-only" in said


# ------------------------------------------------------------ locking

HOLD = """
import sys
from pathlib import Path
from clinic_ai.home import Home, lock_home
with lock_home(Home(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_process_holds_the_home_and_death_lets_go_of_it(made: Home) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(made.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"

        def take() -> None:
            with lock_home(made):
                pass

        assert f"Another clinic-ai daemon (pid {other.pid}) uses the home" in refused(take).message
        other.send_signal(signal.SIGKILL)
        other.wait()
        take()
        take()  # and this process let go of it too


def test_own_folders_are_those_the_settings_protect(made: Home) -> None:
    folders = {p.name for p in made.path.iterdir() if p.is_dir()}
    assert folders == {*OWN_FOLDERS, "inbox", "outbox"}


def test_a_home_of_an_earlier_version_gets_new_folders_and_a_lost_disk_is_no_such_thing(tmp_path: Path) -> None:
    home = init_home(tmp_path / "home")
    home.spool.rmdir()
    add_new_folders(home)
    assert home.spool.is_dir()
    home.inbox.rmdir()
    add_new_folders(home)
    with pytest.raises(HomeError, match="lacks inbox/"):
        check_home(home)
    init_home(home.path)
    shutil.rmtree(home.state)
    add_new_folders(home)
    assert not home.state.exists()
