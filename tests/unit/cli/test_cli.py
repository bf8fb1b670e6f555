"""The command line against a served control room, and against a home without a daemon."""

from __future__ import annotations

import grp
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from control_room import NAME, SECRET, Room, control_room

from clinic_ai.cli import main
from clinic_ai.cli.output import Exit
from clinic_ai.domain import GuardAction
from clinic_ai.home import Home, init_home, lock_home
from clinic_ai.store import alerts
from clinic_ai.waiting import no_model, no_rule

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process; return exit code, standard output and standard error."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clinic-ai", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    monkeypatch.setenv("COLUMNS", "80")
    return call


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    with control_room(tmp_path / "h") as served:
        monkeypatch.setenv("CLINIC_AI_HOME", str(served.home.path))
        yield served


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    made = init_home(tmp_path / "h")
    monkeypatch.setenv("CLINIC_AI_HOME", str(made.path))
    return made


# ---------------------------------------------------------------- with a daemon


def test_study_list_says_why_each_waits_within_80_columns(room: Room, run: Run) -> None:
    study_id = room.add_study(state="ROUTED", wait=no_model("echo"))
    room.add_study(state="DONE")
    code, out, _ = run("study", "list")
    assert code == Exit.DONE
    assert study_id in out
    assert "There is no model for echo." in re.sub(r"\s+", " ", out)
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = run("study", "list", "--state", "done", "--json")
    assert [row["state"] for row in json.loads(out)["studies"]] == ["DONE"]


def test_study_show_prints_reason_remedy_and_result(room: Room, run: Run) -> None:
    stuck = room.add_study(state="UNROUTED", wait=no_rule())
    code, out, _ = run("study", "show", stuck)
    assert code == Exit.FAILED
    assert "No routing rule and no plugin takes a study like this one." in re.sub(r"\s+", " ", out)
    assert f"route explain {stuck}" in re.sub(r"\s+", " ", out)
    good = room.add_study(state="DONE")
    room.add_result(good)
    code, out, _ = run("study", "show", good)
    assert (code, SECRET in out, NAME in out) == (Exit.DONE, True, False)
    held = room.add_study(state="DONE")
    room.add_result(held, GuardAction.HOLD)
    code, out, _ = run("study", "show", held)
    assert (code, SECRET in out, "test.rule" in out) == (Exit.FAILED, False, True)


def test_a_study_is_closed_and_let_go_first_or_last(room: Room, run: Run) -> None:
    study_id = room.add_study(state="RECEIVING")
    code, out, _ = run("study", "priority", study_id, "-20", "--json")
    assert code == Exit.DONE
    assert "priority -20 now" in json.loads(out)["sentence"]
    code, out, _ = run("study", "close", study_id)
    assert code == Exit.DONE
    assert "is closed" in out
    assert run("study", "close", study_id)[0] == Exit.CONFLICT
    assert run("study", "priority", study_id, "101")[0] == Exit.USAGE
    code, out, _ = run("study", "show", study_id)
    shown = re.sub(r"\s+", " ", out)
    assert "-20: set by " in shown
    assert "closed it, 1 instance" in shown


def test_retry_and_reroute_say_what_will_happen(room: Room, run: Run) -> None:
    study_id = room.add_study(state="UNROUTED")
    code, out, _ = run("study", "retry", study_id)
    assert (code, study_id in out) == (Exit.DONE, True)
    code, out, _ = run("study", "reroute", room.add_study(state="ROUTED"), "--json")
    assert (code, "analysed again as version 2" in json.loads(out)["sentence"]) == (Exit.DONE, True)


def test_errors_have_their_exit_codes(room: Room, run: Run) -> None:
    code, out, err = run("study", "show", "S-1")
    assert (code, out) == (Exit.NOT_FOUND, "")
    assert "study list" in err
    assert run("study", "retry", room.add_study(state="RECEIVING"))[0] == Exit.CONFLICT
    code, out, _ = run("study", "show", "S-1", "--json")
    assert json.loads(out)["exit"] == code == Exit.NOT_FOUND
    code, _, err = run("study", "list", "--state", "eaten")
    assert (code, "UNROUTED" in err) == (Exit.USAGE, True)
    code, _, err = run("file", "list", "--fate", "eaten")
    assert (code, "QUARANTINED" in err) == (Exit.USAGE, True)
    assert run("study", "frobnicate")[0] == Exit.USAGE


STRANGER = """
import os, sys
from clinic_ai.cli import main, studies, verbs
import clinic_ai.control.client
if os.getuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
else:
    os.chmod(sys.argv[1], 0)
sys.argv = ["clinic-ai", "study", "list", "--home", sys.argv[1]]
main()
"""


def test_a_user_outside_the_group_is_not_allowed_and_told_so(room: Room) -> None:
    room.home.path.chmod(0o700)
    asked = subprocess.run([sys.executable, "-c", STRANGER, room.home.path], capture_output=True, text=True, timeout=60)
    room.home.path.chmod(0o700)
    assert (asked.returncode, "control.group" in asked.stderr) == (Exit.NOT_ALLOWED, True), asked.stderr


def test_status_tells_alerts_and_the_exit_code_too(room: Room, run: Run) -> None:
    with room.database.write() as c:
        alerts.raise_alert(c, "test", "appliance", "Something happened.", "Look at it.")
    code, out, _ = run("status", "--monitor")
    assert code == Exit.FAILED
    assert "Something happened. Look at it." in out
    assert run("alert", "list")[0] == Exit.FAILED
    assert run("alert", "ack", "1")[0] == Exit.DONE
    assert run("alert", "list")[0] == Exit.DONE


def test_every_verb_that_lists_answers_in_json(room: Room, run: Run) -> None:
    room.add_study()
    for verb in ("status", "study list", "file list", "alert list", "plugin list", "model list", "train list"):
        _, out, err = run(*verb.split(), "--json")
        assert err == ""
        json.loads(out)


def test_route_explain_of_a_study(room: Room, run: Run) -> None:
    code, out, _ = run("route", "explain", room.add_study(modality="MR", state="UNROUTED"))
    assert code == Exit.FAILED
    assert "wanted CT, the study has MR" in out
    assert run("route", "explain", room.add_study())[0] == Exit.DONE


def test_names_from_outside_cannot_move_the_cursor(room: Room, run: Run) -> None:
    from clinic_ai.store import ledger

    with room.database.write() as c:
        seen = ledger.Sighting(source="s", name="a\x1b[2Jb", raw_name=b"x", size_bytes=1, mtime_ns=1)
        ledger.begin_claims(c, [seen])
    assert "\x1b" not in run("file", "list")[1]


# ---------------------------------------------------------------- without one


def test_no_daemon_has_its_own_exit_code_and_says_how_to_start(home: Home, run: Run) -> None:
    code, _, err = run("status")
    assert code == Exit.NO_DAEMON
    assert "clinic-ai run" in err


def test_init_makes_a_home_and_again_changes_nothing(tmp_path: Path, run: Run) -> None:
    code, out, _ = run("init", "--home", str(tmp_path / "new"), "--json")
    assert code == Exit.DONE
    settings = Path(json.loads(out)["settings"])
    settings.write_text("# mine\n")
    made = Home(tmp_path / "new")
    before = made.database.read_bytes()
    with lock_home(made):  # as beside a daemon
        assert run("init", "--home", str(tmp_path / "new"))[0] == Exit.DONE
    assert settings.read_text() == "# mine\n"
    assert made.database.read_bytes() == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    assert run("init", "--home", str(tmp_path / "other"))[0] == Exit.UNUSABLE


def test_init_makes_the_database_so_that_the_daemon_needs_no_migrations(tmp_path: Path, run: Run) -> None:
    made = Home(tmp_path / "new")
    assert run("init", "--home", str(made.path))[0] == Exit.DONE
    start = f"""
import sys
from clinic_ai.appliance import Database
database = Database({str(made.database)!r})
database.open()
print("alembic" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_models_and_training_work_without_a_daemon_unless_somebody_holds_the_home(home: Home, run: Run) -> None:
    assert run("model", "list")[:2][0] == Exit.DONE
    assert run("train", "list")[0] == Exit.DONE
    assert run("model", "promote", "echo", "m", "1")[0] == Exit.NOT_FOUND
    with lock_home(home):
        code, _, err = run("model", "list")
    assert code == Exit.UNUSABLE
    assert str(os.getpid()) in err


def test_policy_test_passes_the_shipped_pack_and_fails_a_broken_one(home: Home, run: Run, tmp_path: Path) -> None:
    code, out, _ = run("policy", "test")
    assert (code, "would load" in out) == (Exit.DONE, True)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "policy.toml").write_text("not a policy")
    assert run("policy", "test", str(tmp_path / "broken"))[0] == Exit.FAILED


def test_route_explain_of_a_path_reads_the_header_and_leaves_the_file(home: Home, run: Run, tmp_path: Path) -> None:
    from pydicom.data import get_testdata_file

    scan = Path(str(get_testdata_file("CT_small.dcm")))
    code, out, _ = run("route", "explain", str(scan), "--json")
    found = json.loads(out)
    assert found["facts"]["modalities"] == ["CT"]
    assert code == (Exit.DONE if found["plugins"] else Exit.FAILED)
    (tmp_path / "note.txt").write_text("no scan")
    code, _, err = run("route", "explain", str(tmp_path / "note.txt"))
    assert (code, "note.txt" in err) == (Exit.FAILED, True)
    assert run("route", "explain", str(scan), "--source", "nowhere")[0] == Exit.NOT_FOUND
    code, out, _ = run("route", "explain", str(scan))
    assert out.startswith("Asked as for files from the inbox “inbox”")
    missing = tmp_path / ("a-long-name-" * 9)
    code, _, err = run("route", "explain", str(missing))
    assert (code, str(missing) in err) == (Exit.NOT_FOUND, True)  # whole, to be copied


def test_train_recipe_is_read_as_numbers_and_words() -> None:
    from clinic_ai.cli.training import pair_of

    assert [pair_of(t) for t in ("a=1", "b=0.5", "c=true", "d=fast", "e=x=y")] == [
        ("a", 1),
        ("b", 0.5),
        ("c", True),
        ("d", "fast"),
        ("e", "x=y"),
    ]


# ---------------------------------------------------------------- doctor


def test_doctor_finds_each_fault_at_once(home: Home, run: Run) -> None:
    home.clinic_toml.write_text(
        """
[[inbox]]
name = "gone"
path = "not-there"
[control]
technicians = ["no-such-user-here"]
group = "no-such-group-here"
[routing]
[[routing.rule]]
name = "lost"
plugins = ["no_such_plugin"]
[guard]
pack = "no-such-pack"
[[critical]]
condition = "pnuemothorax"
[notify.webhook]
url = "https://192.168.7.9/alarm"
token_file = "not-there.txt"
[[category]]
plugin = "ultrasound"
category = "femmur"
"""
    )
    home.state.chmod(0o755)
    code, out, _ = run("doctor", "--json")
    assert code == Exit.FAILED
    failed = {check["name"] for check in json.loads(out) if check["verdict"] == "fail"}
    assert {"privacy", "people", "rules", "inbox gone", "policy", "critical", "categories"} <= failed
    assert "Do you mean femur?" in [c["remedy"] for c in json.loads(out) if c["name"] == "categories"]
    critical = [check for check in json.loads(out) if check["name"] == "critical"]
    assert critical[0]["remedy"] == "Do you mean pneumothorax?"
    assert "not-there.txt" in critical[1]["sentence"]
    assert all(check["remedy"] for check in json.loads(out) if check["verdict"] == "fail")


def test_doctor_says_who_keeps_the_group_of_the_sockets_out(home: Home, run: Run) -> None:
    other = next(g.gr_name for g in grp.getgrall() if g.gr_gid != home.path.stat().st_gid)
    home.clinic_toml.write_text(f'[control]\ngroup = "{other}"\n')
    _, out, _ = run("doctor", "--json")
    [kept_out, *_] = [check for check in json.loads(out) if check["name"] == "people" and check["verdict"] == "fail"]
    assert kept_out["remedy"] == f"chgrp {other} {home.path}"


def test_doctor_says_which_healthy_example_is_not_shown(home: Home, run: Run) -> None:
    folder = home.path / "examples"
    folder.mkdir(exist_ok=True)
    (folder / "chest-pa.toml").write_text('modality = "DX"\n')
    checks = json.loads(run("doctor", "--json")[1])
    (told,) = [check for check in checks if check["name"] == "examples"]
    assert told["verdict"] == "warn"
    assert told["sentence"].startswith("The healthy example chest-pa.toml is not shown: body_part: ")
    assert "reload" in told["remedy"]


def test_doctor_says_every_mistake_in_the_settings(home: Home, run: Run) -> None:
    home.clinic_toml.write_text("[clinik]\nx = 1\n[ingest]\nbatch = 'many'\n")
    code, out, _ = run("doctor")
    assert code == Exit.FAILED
    assert "did you mean clinic?" in re.sub(r"\s+", " ", out)
    assert "ingest.batch" in out


# ---------------------------------------------------------------- help


def test_help_is_quick_and_every_verb_shows_an_example() -> None:
    code = """
import json, sys
sys.argv = ["clinic-ai", "--help"]
from clinic_ai.cli import main
try:
    main()
except SystemExit:
    print(json.dumps(sorted(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert not loaded & {"pydantic", "sqlalchemy", "fastapi", "httpx", "textual", "rich", "numpy"}

    from clinic_ai.cli.verbs import app

    commands = [*app.registered_commands]
    for part in app.registered_groups:
        assert part.typer_instance is not None
        commands += part.typer_instance.registered_commands
    assert len(commands) >= 28
    for command in commands:
        assert (command.epilog or "").startswith("Example: clinic-ai "), command.callback
        assert command.callback is not None
        assert command.callback.__doc__


def test_documented_exit_codes_are_the_real_ones() -> None:
    page = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
    documented = dict(re.findall(r"^\| (\d) \| (.+?) \|", page, flags=re.MULTILINE))
    assert {int(number) for number in documented} == {int(code) for code in Exit}


def test_policy_list_check_and_diff_read_packs_in_a_child(home: Home, run: Run, tmp_path: Path) -> None:
    code, out, _ = run("policy", "list")
    assert (code, "Packs beside it: strict" in out) == (Exit.DONE, True)
    assert re.search(r"^degenerate-text +block +", out, re.MULTILINE)
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = run("policy", "check", str(home.policies / "strict"))
    assert re.search(r"^urgent-words +\d\+\d\+\d +cases.toml \d", out, re.MULTILINE)
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = run("policy", "check", "--json")
    rules = {rule["rule"]: rule for rule in json.loads(out)["rules"]}
    assert code == Exit.DONE
    assert all(rule["firing"] and rule["non_firing"] and rule["mutations"] for rule in rules.values())
    assert rules["other-number"]["fires_on"]
    strict, default = home.policies / "strict", home.policies / "default"
    code, out, _ = run("policy", "diff", str(default), str(strict), "--json")
    told = json.loads(out)
    assert {"where": "rule contradiction", "what": "action: 'annotate' → 'hold'"} in told["changes"]
    assert {"where": "lexicons/alarming.txt", "what": "adds shadow on the lung"} in told["changes"]
    where = """'There is no pneumonia.' (case of contradiction; findings [{ condition = "pneumonia","""
    assert {o["what"] for o in told["outcomes"] if o["where"].startswith(where)} == {"annotate → hold"}
    code, out, _ = run("policy", "diff", str(default), str(default))
    assert out.startswith("0 changes; 0 of ")
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    (lonely / "policy.toml").write_text('name = "x"\nversion = "1"\nextends = "nowhere"\n')
    code, _, err = run("policy", "list", str(lonely))
    assert (code, "nowhere" in err) == (Exit.FAILED, True)
