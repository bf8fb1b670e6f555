"""The settings: the model says everything, mistakes are all said at once, the sample file cannot lag behind."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.errors import SettingsError
from clinic_ai.settings import Settings, load_settings, parse_settings, render_default, render_table
from clinic_ai.settings.checks import OWN_FOLDERS
from clinic_ai.settings.describe import tables
from clinic_ai.settings.lines import key_lines

ROOT = Path(__file__).resolve().parents[2]


def problems(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse_settings(text)
    return list(caught.value.problems)


def refused(text: str) -> list[str] | None:
    """Return the problems of a text, or None if it gives settings."""
    try:
        parse_settings(text)
    except SettingsError as error:
        return list(error.problems)
    return None


def problem(text: str) -> str:
    (only,) = problems(text)
    return only.removeprefix("clinic.toml ")


# ------------------------------------------------------------ the model


def test_an_empty_file_gives_the_defaults() -> None:
    settings = parse_settings("")
    assert settings == Settings()
    assert [i.name for i in settings.inbox] == ["inbox"]
    assert settings.ingest.settle_s == 1.0


def test_every_key_has_a_comment_and_every_size_and_time_its_unit() -> None:
    for table in tables():
        assert table.comment, table.name
        for key in table.plain_keys():
            assert key.comment.endswith((".", "…")), f"{table.name}.{key.name}"
            suffix = key.name.rpartition("_")[2]
            expected = {"s": "seconds", "seconds": "seconds", "mb": "MiB"}.get(suffix, key.unit)
            assert key.unit == expected, f"{table.name}.{key.name}"


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse_settings("").ingest.batch = 3  # type: ignore[misc]


# ------------------------------------------------------------ the sample file and the docs


def test_the_sample_file_holds_every_key_at_its_default() -> None:
    assert parse_settings(render_default()) == Settings()
    text = render_default()
    for table in tables():
        for key in table.plain_keys():
            assert re.search(rf"^#?{key.name} = ", text, re.MULTILINE), f"{table.name}.{key.name}"


def test_the_sample_file_is_valid_with_everything_switched_on() -> None:
    switched_on = re.sub(r"^#(?=[a-z\[])", "", render_default(), flags=re.MULTILINE)
    (rule,) = parse_settings(switched_on).routing.rule
    assert rule.plugins == ("xray",)
    assert rule.when.max_slices == 1


def test_the_committed_sample_is_the_rendered_one() -> None:
    assert (ROOT / "deploy" / "clinic.toml").read_text() == render_default(), (
        "run: python -m clinic_ai.settings sample > deploy/clinic.toml"
    )


def test_the_docs_hold_the_rendered_table() -> None:
    _, _, table = (ROOT / "docs" / "settings.md").read_text().partition("<!-- keys -->\n\n")
    assert table == render_table(), "put the output of `python -m clinic_ai.settings table` below the mark"


def test_the_messages_in_the_docs_are_real() -> None:
    text = "\n" * 10 + "[ingest]\nsettle_s = 'abc'\n\nsettle_seconds = 1\n"
    docs = (ROOT / "docs" / "settings.md").read_text()
    for sentence in problems(text):
        assert sentence in docs


def test_the_rule_in_the_docs_is_valid() -> None:
    docs = (ROOT / "docs" / "settings.md").read_text()
    (example,) = re.findall(r"^```toml\n(.*?)^```$", docs, re.MULTILINE | re.DOTALL)
    (rule,) = parse_settings(example).routing.rule
    assert rule.when.body_part == ("CHEST", "THORAX")


# ------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("clinik = 1", "line 1: clinik: there is no such key; did you mean clinic?"),
        (
            "[ingest]\n\nsettle_seconds = 1",
            "line 3: ingest.settle_seconds: there is no such key; did you mean settle_s?",
        ),
        (
            '"a\\nb" = 1',
            'line 1: "a\\nb": there is no such key; remove it; the file has ' + ", ".join(Settings.model_fields),
        ),
        ("[log]\nx = 1", "line 2: log.x: there is no such key; remove it; log has level, format"),
        (
            "[ingest]\nsettle_s = 'abc'",
            "line 2: ingest.settle_s: 'abc' is not a number; write a number of seconds such as 1.0",
        ),
        (
            "[ingest]\nsettle_s = '2'",
            "line 2: ingest.settle_s: '2' is not a number; write a number of seconds such as 1.0",
        ),
        (
            "[ingest]\nsettle_s = nan",
            "line 2: ingest.settle_s: NaN is not a number; write a number of seconds such as 1.0",
        ),
        ("[ingest]\nbatch = true", "line 2: ingest.batch: true is not a whole number; write a whole number such as 50"),
        ("[ingest]\nbatch = 1.5", "line 2: ingest.batch: 1.5 is not a whole number; write a whole number such as 50"),
        ("[ingest]\nbatch = 0", "line 2: ingest.batch: 0 is too small; write a whole number of 1 or more"),
        ("ingest.batch = 1001", "line 1: ingest.batch: 1001 is too large; write a whole number of 1000 or less"),
        (
            "[ingest]\nignore = '*.x'",
            "line 2: ingest.ignore: '*.x' is not a list of texts; write it in brackets: [\"*.x\"]",
        ),
        ("ingest = 3", "line 1: ingest: 3 is not a table; write [ingest] on a line of its own"),
        ("inbox = 'x'", "line 1: inbox: 'x' is not a table; write [[inbox]] on a line of its own"),
        ("inbox = [7]", "line 1: inbox[1]: 7 is not a table; write [[inbox]] on a line of its own"),
        ("inbox = []", "line 1: inbox: the list is empty; write a table headed [[inbox]], or leave the key out"),
        (
            "routing.mode = 'frist'",
            "line 1: routing.mode: 'frist' is not one of first, all, priority; did you mean first?",
        ),
        (
            "routing.use_claims = 'yes'",
            "line 1: routing.use_claims: 'yes' is not true or false; write true or false",
        ),
        ("[clinic]\nname = 3", "line 2: clinic.name: 3 is not a text; write a text"),
        (f"clinic.name = '{'x' * 201}'", "line 1: clinic.name: it is too long; write at most 200 characters"),
        (
            "execution.backoff_s = [1, 'x']",
            "line 1: execution.backoff_s[2]: 'x' is not a number; write a number of seconds such as 5.0",
        ),
        (
            "execution.backoff_s = []",
            "line 1: execution.backoff_s: the list is empty; write a list of numbers of seconds such as "
            "[5.0, 30.0, 120.0]",
        ),
        (
            "[control]\nclinicians = ['an na']",
            "line 2: control.clinicians[1]: 'an na' is not the name of a Unix user, as `id -un` shows it; "
            'write for example "anna"',
        ),
        (
            "disk.reserve_mb = 2000\nretention.when_free_below_mb = 1500",
            "line 2: retention.when_free_below_mb: 1500 is not more than disk.reserve_mb, where new files wait "
            "already; write more than 2000",
        ),
        (
            "ingest.quiet_period_s = 60\ningest.deadline_s = 30",
            "line 2: ingest.deadline_s: 30 is shorter than ingest.quiet_period_s; write 60 or more",
        ),
        (
            "[[training.window]]\nstart = '22:00'\nend = '22:00'",
            "line 3: training.window[1].end: a window from 22:00 to 22:00 has no length; write another end, and for "
            "the whole day two windows, such as 00:00 to 12:00 and 12:00 to 00:00",
        ),
        (
            "[[training.window]]\nstart = '24:00'",
            "line 2: training.window[1].start: '24:00' is not a time of day from 00:00 to 23:59; "
            'write for example "22:00"',
        ),
        (
            "[[training.window]]\ndays = ['holiday']",
            "line 2: training.window[1].days: the window never opens, for training.holidays has no day; "
            "write weekdays here, or holidays there",
        ),
        (
            "training.holidays = ['2026-12-25', '2026-02-30']",
            "line 1: training.holidays[2]: no calendar has '2026-02-30'; write for example \"2026-12-25\"",
        ),
        (
            "[training.budget]\nhottest_c = 70",
            "line 1: training.budget.resume_below_c: 75 is not cooler than training.budget.hottest_c; "
            "write less than 70, such as 60",
        ),
        (
            "[training.budget]\nmoney_per_year = 100\nprice_per_kwh = 0",
            "line 3: training.budget.price_per_kwh: energy that costs nothing never reaches "
            "training.budget.money_per_year; write what a kilowatt-hour costs",
        ),
        (
            "[[training.plan]]\nplugin = 'xray'\n[[training.plan]]\nplugin = 'xray'\nmin_new = 5",
            "line 3: training.plan[2]: training.plan[1] trains the same already; take one out, "
            "or name another condition or category",
        ),
        (
            "[[training.plan]]\nrecipe = ['epochs=2', 'rank=8', 'epochs=3']",
            "line 2: training.plan[1].recipe[3]: epochs stands in the recipe twice; take one out",
        ),
    ],
)
def test_a_mistake_says_where_it_is_and_what_to_write(text: str, expected: str) -> None:
    assert problem(text) == expected


def test_all_mistakes_are_said_at_once_in_the_order_of_the_lines() -> None:
    found = problems(
        """
        clinik = 1
        [ingest]
        settle_s = "abc"
        deadline_s = 2
        [[inbox]]
        name = "A"
        path = "one"
        priority = "high"
        [[inbox]]
        name = "a"
        path = "one/two"
        [[routing.rule]]
        plugins = ["xray"]
        when = { min_slices = 5, max_slices = 2 }
        [[routing.rule]]
        name = "second"
        [routing.rule.when]
        modality = "CT"
        """
    )
    assert [re.sub(r"clinic.toml (line \d+: [^:]*):.*", r"\1", p) for p in found] == [
        "line 2: clinik",
        "line 4: ingest.settle_s",
        "line 5: ingest.deadline_s",
        "line 9: inbox[1].priority",
        "line 11: inbox[2].name",
        "line 12: inbox[2].path",
        "line 13: routing.rule[1].name",
        "line 15: routing.rule[1].when.max_slices",
        "line 16: routing.rule[2].plugins",
        "line 19: routing.rule[2].when.modality",
    ]


def test_a_wrong_key_is_not_also_blamed_for_its_default() -> None:
    assert len(problems("[ingest]\nquiet_period_s = 'x'\ndeadline_s = 1\n")) == 1


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        ("inbox = [{path = '.'}]", "inbox and the outbox overlap"),
        ("inbox = [{path = 'state/in'}]", "this inbox and state/ of the home directory overlap"),
        ("inbox = [{path = 'x/../outbox/y'}]", "this inbox and the outbox overlap"),
        ("results.outbox = '/srv/home/inbox/results'", "this inbox and the outbox overlap"),
        ("results.outbox = 'models'", "the outbox and models/ of the home directory overlap"),
        ("inbox = [{name = 'a'}, {name = 'b'}]", "this inbox and inbox[1] overlap"),
        ("inbox = [{path = '/srv/home/labels'}]", "this inbox and labels/ of the home directory overlap"),
    ],
)
def test_folders_that_would_feed_each_other_are_refused(folders: str, words: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(words)):
        parse_settings(folders, home=PurePath("/srv/home"))


def test_folders_side_by_side_are_fine() -> None:
    text = "inbox = [{name = 'a', path = 'in-a'}, {name = 'b', path = '/mnt/b'}]\nresults.outbox = '/mnt/out'"
    assert [i.path for i in parse_settings(text).inbox] == ["in-a", "/mnt/b"]


PEER = "name = 'ct', ae_title = 'CT'"


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("bind = 'here'", "network.bind: 'here' is not an address"),
        ("tls_key = 'k'", "network.tls_certificate: TLS needs certificate, key and authority"),
        ("peer = [{ae_title = 'CT'}]", "network.peer[1].name: the peer has no name"),
        ("peer = [{name = 'ct'}]", "network.peer[1].ae_title: the peer has no AE title"),
        (f"peer = [{{{PEER}}}, {{name = 'CT', ae_title = 'B'}}]", "network.peer[1] is named 'CT' too"),
        ("peer = [{name = 'Inbox', ae_title = 'B'}]", "inbox[1] is named 'Inbox' too"),
        (f"peer = [{{{PEER}}}, {{name = 'b', ae_title = 'CT'}}]", "network.peer[1] has this title and host too"),
        (f"peer = [{{{PEER}, host = 'ct.example'}}]", "network.peer[1].host: 'ct.example' is not an address"),
        ("peer = [{name = '../ct', ae_title = 'CT'}]", "network.peer[1].name: '../ct' is not a name of letters"),
        ("peer = [{name = '.arriving', ae_title = 'CT'}]", "network.peer[1].name: '.arriving' is not a name"),
        ("ae_title = 'SEVENTEEN LETTERS'", "network.ae_title: 'SEVENTEEN LETTERS' is not an AE title"),
    ],
)
def test_mistakes_in_who_may_send_are_told(network: str, words: str) -> None:
    assert words in problem(f"[network]\n{network}")


def test_a_name_of_a_peer_fits_into_a_folder_name() -> None:
    longest = "𝔸" * 63  # letters of four bytes each
    (peer,) = parse_settings(f"[network]\npeer = [{{name = '{longest}', ae_title = 'CT'}}]").network.peer
    assert len(peer.name.encode()) <= 255


@pytest.mark.parametrize(
    ("text", "line"),
    [("a = = 2", "line 1, column 5"), ("\n[x", "line 2"), ('a = 1\nb = """\n', "line 2"), ("a = 1\na = 2\n", "line 2")],
)
def test_what_is_not_toml_says_its_line(text: str, line: str) -> None:
    assert problem(text).startswith(f"{line}: this is not TOML: ") or problem(text).startswith(f"{line}, column")


def test_deep_nesting_is_a_sentence_and_not_a_crash() -> None:
    assert "nested too deeply" in problem("x = " + "[" * 5000)


def test_a_number_without_end_is_a_sentence_and_not_a_crash() -> None:
    assert "this is not TOML" in problem("x = " + "9" * 5000)


def test_a_file_that_is_not_utf8_or_not_there_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "clinic.toml"
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(path)
    path.write_bytes(b"[clinic]\nname = '\xe4'\n")
    with pytest.raises(SettingsError, match=r"clinic\.toml line 2: this is not UTF-8"):
        load_settings(path)
    path.write_bytes("\ufeff[clinic]\r\nname = 'ä'\r\n".encode())
    assert load_settings(path).clinic.name == "ä"


# ------------------------------------------------------------ lines


def test_lines_of_arrays_tables_and_texts_over_several_lines() -> None:
    text = '''
# [not.a.table]
top = 1
long = """
[no.table]
key = 2
"""
list = [
  1,  # ]
  "]",
]
[[a]]
x = 1
[a.inner]
"quoted key" = 1
[[a]]
x.y = { z = 1 }
[[a.b]]
[[a.b]]
c = [{d = 1}, {d = 2}]
'''
    assert key_lines(text) == {
        ("top",): 3,
        ("long",): 4,
        ("list",): 8,
        ("list", 0): 8,
        ("list", 1): 8,
        ("a", 0): 12,
        ("a", 0, "x"): 13,
        ("a", 0, "inner"): 14,
        ("a", 0, "inner", "quoted key"): 15,
        ("a", 1): 16,
        ("a", 1, "x"): 17,
        ("a", 1, "x", "y"): 17,
        ("a", 1, "x", "y", "z"): 17,
        ("a", 1, "b", 0): 18,
        ("a", 1, "b", 1): 19,
        ("a", 1, "b", 1, "c"): 20,
        ("a", 1, "b", 1, "c", 0): 20,
        ("a", 1, "b", 1, "c", 0, "d"): 20,
        ("a", 1, "b", 1, "c", 1): 20,
        ("a", 1, "b", 1, "c", 1, "d"): 20,
    }


plain = st.one_of(
    st.integers(-5, 5), st.booleans(), st.text('aä"\\\n', max_size=5), st.floats(-2, 2), st.just([]), st.just({})
)
names = st.sampled_from(["clinic", "inbox", "ingest", "routing", "rule", "when", "settle_s", "name", "path", "x"])
documents = st.dictionaries(
    names,
    st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)),
    max_size=4,
)


def as_toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(c):08x}" for c in value) + '"'
    if isinstance(value, list):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {as_toml(v)}" for k, v in value.items()) + "}"
    return repr(value)


@given(documents)
def test_any_toml_gives_settings_or_sentences(document: dict[str, object]) -> None:
    text = "\n".join(f"{key} = {as_toml(value)}" for key, value in document.items())
    assert tomllib.loads(text) is not None
    found = refused(text)
    assert found is None or found
    for sentence in found or ():
        assert re.match(r"clinic\.toml line [1-4]: \S", sentence)


@given(st.text("[]{}=.#,\"'\\\n\r\t ab1-\ufeff"))
def test_any_text_gives_settings_or_sentences(text: str) -> None:
    assert refused(text) != []


@given(documents)
def test_every_key_of_any_toml_has_its_line(document: dict[str, object]) -> None:
    blocks = [(key, f"{key} = {as_toml(value)}") for key, value in document.items()]
    text = "\n# comment\n\n".join(block for _, block in blocks)
    found = key_lines(text)
    for index, (key, _) in enumerate(blocks):
        assert found[key,] == 1 + 3 * index
    assert {path[0] for path in found} == set(document)


def test_names_may_be_in_any_language() -> None:
    assert parse_settings("[[routing.rule]]\nname = 'Thorax Röntgen'\nplugins = ['xray']").routing.rule[0].name


def test_own_folders_are_not_offered_as_inbox_or_outbox() -> None:
    defaults = Settings()
    assert not {defaults.inbox[0].path, defaults.results.outbox} & set(OWN_FOLDERS)
