"""Labels of reports by rules: denials, doubts, sections and other times; and that no report breaks it."""

from __future__ import annotations

import csv
import runpy
import sys
from pathlib import Path

import chests
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinic_ai.domain import Presence
from clinic_ai_ct.label_sets import label_sets
from clinic_ai_ct.labeller import labels, rules
from clinic_ai_ct.report import report_text, write_report
from clinic_ai_ct.sections import sections

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "ct_labeller.py"


def found(report: str, label_set: str = "ct_rate") -> set[str]:
    return {name for name, there in labels(report, label_set).items() if there}


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("A 6 mm nodule is seen in the left lung.", {"Lung nodule"}),
        ("No nodule is seen.", set()),
        ("Pleural effusion was not detected.", set()),
        ("No pleural effusion, pneumothorax or consolidation.", set()),
        ("No effusion is seen but there is consolidation on the left.", {"Consolidation"}),
        ("There is consolidation, and no pleural effusion was detected.", {"Consolidation"}),
        ("Pericardial effusion measuring 9 mm.", {"Pericardial effusion"}),
        ("Pleural and pericardial effusion was not observed.", set()),
        ("Findings may be compatible with emphysema.", {"Emphysema"}),
        ("Emphysema is unlikely.", set()),
        ("The scan likely shows a hiatal hernia, but none was outlined.", {"Hiatal hernia"}),
        ("History of consolidation.", set()),
        ("The consolidation has completely resolved.", set()),
        ("A thyroid nodule is seen.", set()),
        ("Subcutaneous emphysema is present.", set()),
        ("Heart size is normal.", set()),
        ("Heart size has increased.", {"Cardiomegaly"}),
        ("Calcified plaques in the coronary arteries.", {"Coronary artery wall calcification"}),
        ("Lymph nodes that did not reach pathological size are observed.", {"Lymphadenopathy"}),
        ("There was no increase in the size of the nodule.", {"Lung nodule"}),
        ("Fibroatelectatic changes on the right.", {"Pulmonary fibrotic sequela"}),
    ],
)
def test_what_a_report_affirms(report: str, expected: set[str]) -> None:
    assert found(report) == expected


def test_lymph_nodes_of_normal_size_are_none_where_the_label_means_enlarged_ones() -> None:
    assert found("Lymph nodes that did not reach pathological size are observed.", "vlm3d") == set()
    assert found("Enlarged mediastinal lymph nodes.", "vlm3d") == {"Lymphadenopathy"}
    assert found("Ground-glass areas and a rib fracture.", "vlm3d") == {"Ground-glass opacity", "Fracture"}


def test_each_set_has_its_18_labels() -> None:
    assert len(rules("ct_rate")) == len(rules("vlm3d")) == 18
    shared = {name for name, rule in rules("vlm3d").items() if rule in rules("ct_rate").values()}
    assert len(shared) == 8


@pytest.mark.parametrize("label_set", ["ct_rate", "vlm3d"])
def test_the_labels_are_those_of_the_classifier_in_its_order(label_set: str) -> None:
    assert list(rules(label_set)) == [label.name for label in label_sets()[label_set].labels]


def test_what_stands_under_other_headings_is_not_seen_on_these_images() -> None:
    report = "INDICATION: emphysema?\nFINDINGS:\nNodule on the left.\nRECOMMENDATIONS:\nExclude consolidation."
    assert found(report) == {"Lung nodule"}
    parts = sections(report)
    assert (parts.findings, parts.aside) == ("Nodule on the left.", "emphysema?")
    assert parts.recommendations == "Exclude consolidation."


@pytest.mark.parametrize(
    ("report", "impression"),
    [
        ("Findings: clear. Impression: Normal.", "Normal."),
        ("**Findings**\nclear\n**Impression**\nNormal.", "Normal."),
        ("Clear lungs.\nCONCLUSION:\nNormal.", "Normal."),
        ("The impression: is that of a word in a sentence", ""),
    ],
)
def test_headings_as_people_and_models_write_them(report: str, impression: str) -> None:
    assert sections(report).impression == impression


@given(st.text(max_size=60), st.text(alphabet="abc ,.", max_size=30))
@settings(max_examples=25, deadline=None)
def test_any_text_has_sections_and_labels_and_none_of_it_is_lost(text: str, later: str) -> None:
    assert set(labels(text)) == set(rules("ct_rate"))
    assert sections(later).findings == later.strip()
    parts = sections(f"{later}\nIMPRESSION: {later}")
    assert (parts.findings, parts.impression) == (later.strip(), later.strip())


def test_the_labeller_reads_out_of_our_own_reports_what_was_written_into_them() -> None:
    hits = wrong = 0
    for seed in range(40):
        findings, lesions = chests.evidence(seed)
        report = report_text(write_report(findings, lesions))
        there = {f.condition for f in findings if f.probability >= 0.5} | {x.name for x in lesions if x.pieces}
        unsure = {f.condition for f in findings if f.presence is Presence.UNCERTAIN}  # a report may say either of them
        for name, called in labels(report, "vlm3d").items():
            condition = rules("vlm3d")[name].condition
            if condition and condition != "lung_mass" and condition not in unsure:
                hits += called is (condition in there)
                wrong += called is not (condition in there)
    assert wrong <= 0.01 * hits


def test_the_benchmark_prints_the_macro_f1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = list(rules("ct_rate"))
    with (tmp_path / "reports.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["report_text", *names])
        writer.writerow(["Nothing.", *[0] * 18])
        writer.writerow(["There is a lung nodule.", *[int(n == "Lung nodule") for n in names]])
    monkeypatch.setattr(sys, "argv", ["ct_labeller.py", str(tmp_path / "reports.csv")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(BENCHMARK), run_name="__main__")
    assert ended.value.code == 1
    assert "macro-F1 0.056" in capsys.readouterr().out
