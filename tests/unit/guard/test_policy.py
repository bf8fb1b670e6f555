"""A pack that is not whole, or whose own cases fail, does not load, and says everything that is wrong with it."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from clinic_ai.errors import PolicyError
from clinic_ai.guard.packfiles import MAX_FILE_BYTES, pack_digest, read_pack_files
from clinic_ai.guard.packs import shipped_pack
from clinic_ai.guard.policy import Policy
from clinic_ai.guard.proof import check_pack, load_policy


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return shutil.copytree(shipped_pack("default"), tmp_path / "trial")


@pytest.fixture
def edit(pack: Path) -> Callable[[str, str, str], None]:
    def change(name: str, old: str, new: str) -> None:
        content = (pack / name).read_text()
        assert old in content
        (pack / name).write_text(content.replace(old, new))

    return change


Edit = Callable[[str, str, str], None]


def refusal(pack: Path) -> str:
    with pytest.raises(PolicyError) as caught:
        load_policy(pack)
    assert caught.value.remedy
    return caught.value.message


def test_the_shipped_pack_covers_the_rows_it_claims(policy: Policy) -> None:
    rows = {rule.entry.row for rule in policy.rules} | {intent.entry.row for intent in policy.intents}
    assert rows >= {*range(1, 13), *range(14, 18)}
    readme = (shipped_pack("default") / "README.md").read_text()
    for row in set(range(1, 18)) - rows:
        assert re.search(rf"^\| {row} \|", readme, re.MULTILINE), f"row {row} is neither covered nor explained"


def test_every_rule_needs_all_three_kinds_of_cases(pack: Path, edit: Edit) -> None:
    edit("cases.toml", 'rule = "markup"\nkind = "mutation"', 'rule = "markup"\nkind = "firing"')
    edit("cases.toml", 'rule = "instructions"\nkind = "non_firing"', 'rule = "instructions"\nkind = "firing"')
    message = refusal(pack)
    assert "rule markup has no mutation case" in message
    assert "rule instructions has no non-firing case" in message


def test_a_case_that_fails_is_named(pack: Path, edit: Edit) -> None:
    edit("lexicons/alarming.txt", "carcinom*\nadenocarcinom*\n", "")
    edit("lexicons/alarming.txt", "lymphom*\n", "")
    edit("lexicons/alarming.txt", "metasta*\n", "")
    (pack / "lexicons" / "alarming-de.txt").write_text("bösartig*\n")  # the German words are near to the English ones
    message = refusal(pack)
    assert re.search(r"case \d+ of rule alarming-diagnosis \(mutation\): the rule does not fire and should", message)


def test_a_template_that_breaks_the_packs_own_rules_is_refused(pack: Path, edit: Edit) -> None:
    edit(
        "templates/en.toml",
        'generic = "Your care team will explain this to you."',
        'generic = "No cancer, says your care team."',
    )
    assert "[patient] generic breaks rule alarming-diagnosis" in refusal(pack)


def test_a_patient_template_cannot_carry_a_plugins_label(pack: Path, edit: Edit) -> None:
    edit("templates/en.toml", 'generic = "Your care team', 'generic = "{label}: your care team')
    assert "[patient] generic has the slot {label}" in refusal(pack)


def test_every_problem_is_told_at_once(pack: Path, edit: Edit) -> None:
    edit("policy.toml", 'when = { detector = "markup" }', 'when = { detector = "marrkup" }')
    edit("policy.toml", 'lexicon = "treatment"', 'lexicon = "tretment"')
    edit("policy.toml", "(?:%|per ?cent)", "(?=%|per ?cent)")
    edit("templates/en.toml", 'finding = "A computer', 'fnding = "A computer')
    edit("lexicons/findings.txt", "arthritis: arthritis,", "arthritis: ,")
    message = refusal(pack)
    for part in ("rule markup: there is no detector 'marrkup'", "[patient] lacks finding", "findings.txt line"):
        assert part in message
    assert "treatment-or-prognosis" in message


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("policy.toml", "name = ", "policy.toml is not TOML"),
        ("policy.toml", 'name = "x"\nversion = "1"\nrules = []\n', "rules: there is no such key"),
        ("cases.toml", "", "cases.toml: case: it is missing"),
        ("cases.toml", '[case]\nrule = "markup"\n', "cases.toml: case: write [[case]] before each, in two brackets"),
        ("cases.toml", '[[case]]\nrule = "markup"\n', "cases.toml: [[case]] 1, kind: it is missing"),
        ("questions.toml", "case = []\n[intent]\n", "questions.toml: intent: write [[intent]] before each"),
        ("templates/en.toml", "\x00", "templates/en.toml is not TOML"),
    ],
)
def test_files_that_are_wrong_are_named(pack: Path, name: str, content: str, problem: str) -> None:
    (pack / name).write_text(content)
    assert problem in refusal(pack)


def test_bytes_that_are_no_text_are_named(pack: Path) -> None:
    (pack / "lexicons" / "alarming.txt").write_bytes(b"canc\xff")
    assert "lexicons/alarming.txt is not UTF-8" in refusal(pack)


def test_links_special_files_and_large_ones_are_refused(pack: Path) -> None:
    (pack / "link.txt").symlink_to("/etc/hostname")
    assert "link.txt" in refusal(pack)
    (pack / "link.txt").unlink()
    os.mkfifo(pack / "pipe")
    assert "pipe, which is not a regular file" in refusal(pack)
    (pack / "pipe").unlink()
    (pack / "large").write_bytes(bytes(MAX_FILE_BYTES + 1))
    assert "large is larger" in refusal(pack)
    (pack / "large").unlink()
    (pack / "folder").symlink_to(pack / "lexicons")
    assert "a link, folder" in refusal(pack)


def test_a_folder_that_is_no_pack_says_so(tmp_path: Path) -> None:
    assert "no policy.toml" in refusal(tmp_path)
    assert "cannot be read" in refusal(tmp_path / "nowhere")
    with pytest.raises(PolicyError, match="default"):
        shipped_pack("../default")


def test_the_digest_covers_names_and_bytes(pack: Path) -> None:
    before = pack_digest(read_pack_files(pack))
    assert before == load_policy(shipped_pack("default")).digest
    note = pack / "lexicons" / "note.md"
    note.write_text("")
    with_empty_file = pack_digest(read_pack_files(pack))
    note.rename(pack / "note.md")
    moved = pack_digest(read_pack_files(pack))
    assert len({before, with_empty_file, moved}) == 3


def test_a_text_that_many_templates_share_with_a_list_is_told_once(pack: Path, edit: Edit) -> None:
    with (pack / "lexicons" / "banned-wording.txt").open("a") as words:
        words.write("care team\n")
    told = [p for p in check_pack(pack).problems if p.startswith("templates/en.toml")]
    assert len(told) == len(set(told)) <= 2
    assert all("break rule " in problem for problem in told)


def test_a_language_without_a_formula_is_told_in_one_sentence(pack: Path, edit: Edit) -> None:
    shutil.copy(pack / "templates" / "en.toml", pack / "templates" / "fr.toml")
    assert check_pack(pack).problems == (
        "templates/fr.toml: the reading level of 'fr' cannot be measured, and rule patient-reading-level asks for it; "
        "there are formulas for en and de only",
    )


def test_another_language_loads_as_the_page_says(tmp_path: Path) -> None:
    shutil.copytree(shipped_pack("default"), tmp_path / "default")
    ours = tmp_path / "ours"
    (ours / "templates").mkdir(parents=True)
    (ours / "policy.toml").write_text(
        'name = "ours"\nversion = "1"\nextends = "default"\nwithout = ["patient-reading-level"]\n'
    )
    (ours / "cases.toml").write_text("case = []\n")
    shutil.copy(tmp_path / "default" / "templates" / "en.toml", ours / "templates" / "fr.toml")
    assert load_policy(ours).language_of("fr-CA") == "fr"


def test_checking_tells_of_every_case(pack: Path, edit: Edit) -> None:
    assert all(o.passed for o in check_pack(pack).outcomes)
    edit("lexicons/instructions.txt", "ignore previous instructions\n", "")
    report = check_pack(pack)
    (failed,) = [o for o in report.outcomes if not o.passed]
    assert (failed.rule, failed.kind) == ("instructions", "mutation")
    cases = tomllib.loads((pack / "cases.toml").read_text())["case"]
    assert cases[failed.number - 1]["text"] == failed.text
    assert failed.failure.startswith(f"cases.toml, case {failed.number} of rule instructions (mutation): the rule does")
    assert failed.text[:40] in failed.failure
