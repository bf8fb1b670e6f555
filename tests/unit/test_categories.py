"""Which category an image is of: names, sources and what stands above what."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.categories import Clue, Names, categorise, decide
from clinic_ai.contract import Condition
from clinic_ai.domain import Code, FileKind, Instance, InstanceHeader, Study, StudyFacts, StudyState
from clinic_ai.settings import CategoryRule
from clinic_ai.store.categories import Told
from clinic_ai_ultrasound.plugin import describe_plugin

MANIFEST = describe_plugin()
NAMES = Names(MANIFEST.categories)
SPELT = [(name, c.key) for c in MANIFEST.categories for name in (c.key, c.label, *c.aliases)]
SHA = "0" * 64
NT = Code(scheme="LN", value="33069-6")
FEMUR = Code(scheme="SCT", value="71341001")
ABDOMEN = Code(scheme="SRT", value="T-D4000")


def found(
    *,
    path: str = "",
    source: str = "inbox",
    rules: tuple[CategoryRule, ...] = (),
    chosen: str = "",
    kind: FileKind = FileKind.DICOM,
    **header: object,
) -> tuple[str, str]:
    """Return the category of one image of the study S-1, and the note."""
    facts = StudyFacts(source=source, modalities=("US",), stations=("ROOM_2",))
    study = Study(
        study_id="S-1",
        state=StudyState.ROUTED,
        study_instance_uid="1.2",
        pseudonym="P",
        source=source,
        facts=facts,
        opened_at=0.0,
        last_instance_at=0.0,
    )
    image = Instance(sha256=SHA, size_bytes=1, header=InstanceHeader.model_validate({"kind": kind, **header}))
    told = Told(chosen=chosen, folders={SHA: path})
    one = categorise(MANIFEST, rules, study, [image], told)[SHA]
    return one.category, one.note


# ------------------------------------------------------------ names


@given(st.sampled_from(SPELT), st.data())
def test_a_name_is_found_however_it_is_written(spelt: tuple[str, str], data: st.DataObject) -> None:
    name, key = spelt
    written = "".join(
        data.draw(st.sampled_from(("", " ", "_", "-", "."))) + data.draw(st.sampled_from((c.upper(), c.lower())))
        for c in name
    )
    assert NAMES.called(written) == (key,)


@given(st.sampled_from(SPELT), st.sampled_from(("", "US ", "left ")), st.sampled_from(("", " view", ", 2nd try")))
def test_a_name_is_found_among_the_words_of_a_text(spelt: tuple[str, str], before: str, behind: str) -> None:
    name, key = spelt
    assert {keys for _, keys in NAMES.within(f"{before}{name}{behind}")} == {(key,)}


@given(st.sampled_from(SPELT), st.sampled_from("abcxyz0"))
def test_part_of_a_word_is_no_name(spelt: tuple[str, str], letter: str) -> None:
    assert NAMES.within(f"{letter}{spelt[0]}{letter}") == []


@given(st.text(max_size=80))
def test_any_text_is_read_and_what_is_found_stands_in_it(text: str) -> None:
    for name, keys in NAMES.within(text):
        assert NAMES.called(name) == keys


# ------------------------------------------------------------ sources


@pytest.mark.parametrize(
    ("said", "category", "by"),
    [
        ({"path": "US/Abodomen/scan.png", "kind": FileKind.PNG}, "abdomen", "folder “Abodomen”"),
        ({"path": "US/2026/Trans-cerebellum/a/scan.png", "kind": FileKind.PNG}, "trans_cerebellum", "folder"),
        ({"path": "US/Non_standard_NT/scan.png", "kind": FileKind.PNG}, "non_standard_nt", "folder"),
        ({"path": "femur/scan.dcm"}, "femur", "folder “femur”"),
        ({"path": "THIGH/scan.dcm"}, "femur", "folder “THIGH”"),
        ({"path": "scan.png", "kind": FileKind.PNG, "body_part": "CERVIX"}, "cervix", "its body part CERVIX"),
        ({"source": "Trans thalamic"}, "trans_thalamic", "its inbox “Trans thalamic”"),
        ({"view_codes": (FEMUR,)}, "femur", "its view code SCT 71341001"),
        ({"anatomy_codes": (ABDOMEN,)}, "abdomen", "its anatomy code SRT T-D4000"),
        ({"anatomy_codes": (Code(scheme="SNM3", value="T-12710"),)}, "femur", "SNM3 T-12710"),
        ({"body_part": "CHEST"}, "thorax", "its body part CHEST"),
        ({"view_name": "FL"}, "femur", "“FL” in its view name"),
        ({"series_description": "Trans Cerebellar plane, 2nd try"}, "trans_cerebellum", "series description"),
        ({"study_description": "US fetal femur"}, "femur", "study description"),
        ({"protocol_name": "OB non-standard NT"}, "non_standard_nt", "protocol name"),
    ],
)
def test_each_source_says_a_category_and_the_note_says_which_it_was(
    said: dict[str, object], category: str, by: str
) -> None:
    key, note = found(**said)  # type: ignore[arg-type]
    assert (key, by in note) == (category, True), note


def test_the_nearest_folder_counts_and_the_note_tells_of_the_others() -> None:
    key, note = found(path="US/HEAD/Trans-thalamic/2/x.png", kind=FileKind.PNG, body_part="HEAD")
    assert key == "trans_thalamic"
    assert "the folder “HEAD” it came in says Fetal head" in note


def test_the_name_of_the_file_itself_says_nothing() -> None:
    assert found(path="US/femur")[0] == ""


def test_the_first_rule_that_fits_counts() -> None:
    rules = (
        CategoryRule(plugin="xray", category="cervix"),
        CategoryRule(category="thorax", when=Condition(station=("ROOM_1",))),
        CategoryRule(category="femur", when=Condition(station=("ROOM_2",))),
        CategoryRule(category="abdomen"),
    )
    assert found(rules=rules) == ("femur", "Femur, by category[3] of clinic.toml.")


def test_a_rule_or_choice_of_no_category_is_told_and_decides_nothing() -> None:
    key, note = found(rules=(CategoryRule(category="femr"),), chosen="gone", path="femur/x.dcm")
    assert key == "femur"
    assert "femr, which is no category" in note
    assert "gone, which is no category any more" in note


# ------------------------------------------------------------ what stands above what

SOURCES: list[tuple[dict[str, object], dict[str, object]]] = [
    # Each says Femur in the first form and Abdomen in the second, from the strongest to the weakest.
    ({"chosen": "femur"}, {"chosen": "abdomen"}),
    ({"rules": (CategoryRule(category="femur"),)}, {"rules": (CategoryRule(category="abdomen"),)}),
    ({"path": "Femurs/x"}, {"path": "Abodomen/x"}),
    ({"source": "femur"}, {"source": "abdomen"}),
    ({"view_codes": (FEMUR,)}, {"view_codes": (ABDOMEN,)}),
    ({"anatomy_codes": (FEMUR,)}, {"anatomy_codes": (ABDOMEN,)}),
    ({"series_description": "femur"}, {"series_description": "abdomen"}),
]


@pytest.mark.parametrize(("strong", "weak"), list(combinations(range(len(SOURCES)), 2)))
def test_the_stronger_source_counts_and_the_note_tells_of_the_weaker(strong: int, weak: int) -> None:
    key, note = found(**{**SOURCES[strong][0], **SOURCES[weak][1]})  # type: ignore[arg-type]
    assert key == "femur"
    assert note.startswith("Femur, by ")
    assert "says Abdomen; the stronger counts." in note


@pytest.mark.parametrize(
    "said",
    [
        {"series_description": "femur and abdomen"},
        {"series_description": "femur", "study_description": "fetal abdomen"},
        {"body_part": "FEMUR", "protocol_name": "AC"},
        {"view_codes": (FEMUR, ABDOMEN)},
    ],
)
def test_sources_of_one_strength_that_differ_leave_it_open(said: dict[str, object]) -> None:
    key, note = found(**said)  # type: ignore[arg-type]
    assert key == ""
    assert note.startswith("Ambiguous: ")
    assert "says Femur" in note
    assert "says Abdomen" in note
    assert "`clinic-ai study category S-1 femur`" in note or "`clinic-ai study category S-1 abdomen`" in note


def test_a_code_that_two_share_leaves_it_open_and_names_both() -> None:
    key, note = found(view_codes=(NT,))
    assert key == ""
    assert "says Non-standard NT or Standard NT" in note


def test_of_what_a_shared_code_leaves_open_a_weaker_source_may_tell() -> None:
    key, note = found(view_codes=(NT,), series_description="standard NT")
    assert (key, note) == (
        "standard_nt",
        "Standard NT, by its view code LN 33069-6, “standard NT” in its series description.",
    )


def test_what_contradicts_a_shared_code_keeps_no_other_from_telling() -> None:
    key, note = found(view_codes=(NT,), body_part="CHEST", series_description="standard NT")
    assert key == "standard_nt"
    assert "its body part CHEST says Thorax; the stronger counts" in note


def test_what_says_nothing_of_the_open_ones_does_not_close_it() -> None:
    assert found(view_codes=(NT,), series_description="femur")[0] == ""


def test_nothing_known_says_what_to_do() -> None:
    key, note = found(path="US/Smith_John/x.png", kind=FileKind.PNG, body_part="SMITH_JOHN")
    assert key == ""
    assert "`clinic-ai study category S-1 CATEGORY`" in note
    assert "Smith" not in note


KEYS = ("a", "b", "c")
LABELS = {key: key.upper() for key in KEYS}
CLUES = st.lists(
    st.lists(
        st.builds(
            Clue, st.lists(st.sampled_from(KEYS), min_size=1, unique=True).map(tuple), st.sampled_from(("x", "y"))
        ),
        max_size=3,
    ),
    max_size=4,
)


@given(CLUES)
def test_the_strongest_clues_are_never_overruled_and_two_answers_are_none(levels: list[list[Clue]]) -> None:
    key = decide(levels, LABELS, "S-1").category
    strongest = next((level for level in levels if level), [])
    common = set.intersection(*(set(clue.keys) for clue in strongest)) if strongest else set()
    assert key == "" or key in common
    if len(common) == 1:
        assert key == common.pop()


@given(CLUES, st.data())
def test_within_one_strength_order_does_not_matter(levels: list[list[Clue]], data: st.DataObject) -> None:
    shuffled = [data.draw(st.permutations(level)) for level in levels]
    assert decide(levels, LABELS, "S-1").category == decide(shuffled, LABELS, "S-1").category
