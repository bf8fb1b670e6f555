"""The page for clinicians is followed to the letter: what it tells to write makes a pack that loads and works."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from clinic_ai.cli import main
from clinic_ai.cli.output import Exit
from clinic_ai.domain import Audience, GuardAction, Statement, StudyFacts
from clinic_ai.errors import PolicyError
from clinic_ai.guard.engine import judge
from clinic_ai.guard.packs import shipped_pack
from clinic_ai.guard.policy import Policy
from clinic_ai.guard.proof import load_policy
from clinic_ai.home import init_home
from clinic_ai.tasks import GuardSubject, GuardTask

PAGE = Path(__file__).resolve().parents[3] / "docs" / "guard.md"
STEPS = {"policy.toml": 1, "lexicons/alarming.txt": 2, "templates/en.toml": 3, "cases.toml": 4}


def write_pack(packs: Path) -> Path:
    """Write the files of the page into a folder of packs."""
    page = PAGE.read_text()
    for name, step in STEPS.items():
        block = re.search(rf"^{step}\. .*?^   ```\w*\n(.*?)^   ```$", page, re.MULTILINE | re.DOTALL)
        assert block is not None, f"step {step} shows no file"
        path = packs / "our-clinic" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(re.sub(r"^ {3}", "", block[1], flags=re.MULTILINE))
    return packs / "our-clinic"


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """Write the files of the page beside the default pack."""
    shutil.copytree(shipped_pack("default"), tmp_path / "default")
    return write_pack(tmp_path)


def read(policy: Policy, text: str) -> tuple[GuardAction, list[str]]:
    subject = GuardSubject(facts=StudyFacts(), validated=True, reference=False, signed_by="a person")
    said = Statement(statement_id="a_1", kind="answer", text=text)
    task = GuardTask(audience=Audience.PATIENT, subject=subject, statements=(said,), policy_hash=policy.digest)
    verdict = judge(policy, task)
    return verdict.action, [released.text for released in verdict.released]


def test_the_word_and_the_template_of_the_page_work(policy: Policy, pack: Path) -> None:
    ours = load_policy(pack)
    text = "There is a sarcoidosis of the lung."
    assert read(policy, text)[0] is GuardAction.REPLACE
    assert read(ours, text) == (GuardAction.HOLD, [])
    assert read(ours, "There is no cancer.")[0] is GuardAction.HOLD  # the words of the default pack are taken in
    assert read(ours, "The heart is seen.")[1] == ["Nurse Kim from your care team will answer this with you."]
    assert len(ours.intents) == len(policy.intents)


def test_a_case_whose_word_is_not_listed_is_named(pack: Path) -> None:
    (pack / "lexicons" / "alarming.txt").unlink()
    with pytest.raises(PolicyError, match=r"rule alarming-diagnosis \(firing\): the rule does not fire and should"):
        load_policy(pack)


def test_a_mistake_is_named_by_file_and_place(pack: Path) -> None:
    path = pack / "templates" / "en.toml"
    path.write_text(path.read_text().replace(" from your care team", ""))
    with pytest.raises(PolicyError, match=r"templates/en.toml: \[patient\] answer does not say who explains next"):
        load_policy(pack)
    path.write_text('[patient]\nanswer = "Your care team sees a malignant tumor."\n')
    with pytest.raises(PolicyError, match=r"templates/en.toml \[patient\] answer breaks rule alarming-diagnosis"):
        load_policy(pack)


def test_the_commands_of_the_page_work_as_they_stand_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = init_home(tmp_path / "home")
    write_pack(home.policies)
    monkeypatch.setenv("CLINIC_AI_HOME", str(home.path))
    monkeypatch.chdir(tmp_path)  # the page does not ask anybody to be in a certain folder

    def run(line: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), " ".join((out + err).split())

    steps = PAGE.read_text().partition("## Change a template")[2].partition("7. Name the pack")[0]
    lines = re.findall(r"clinic-ai (?:policy|guard) [^`\n]*(?=`|\n)", steps)
    seen = {line: run(line) for line in lines}
    tested, differs, held, released, asked = seen.values()
    assert tested[0] == Exit.DONE
    assert "Pack our-clinic 2026.1 would load" in tested[1]
    assert differs[0] == Exit.DONE
    assert "sarcoidosis" in differs[1]
    assert held[0] == Exit.FAILED
    assert "Text: hold." in held[1]
    assert released[0] == Exit.DONE
    assert "What patients read: Nurse Kim from your care team will answer this with you." in released[1]
    assert asked[0] == Exit.DONE
    assert "This picture does not tell how big things are." in asked[1]
    settings = home.clinic_toml
    settings.write_text(re.sub(r"^#? ?pack = .*$", 'pack = "our-clinic"', settings.read_text(), flags=re.MULTILINE))
    assert "Pack our-clinic 2026.1 would load" in run("clinic-ai policy test")[1]
