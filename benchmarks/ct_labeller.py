"""How well the rule-based labeller of chest CT reports agrees with labels that came with the reports.

    python benchmarks/ct_labeller.py PATH [--half even|odd]

PATH is a CSV with a column ``report_text`` and one column of 0 and 1 for each of CT-RATE's 18 labels. The rules were
written looking at the even rows only; the odd ones say what they are worth. The floor is a labeller that finds every
label whose name stands in the report; its figure is printed in the same run.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

from clinic_ai_ct.labeller import labels, rules

GOAL = 0.75


def f1(truth: list[bool], called: list[bool]) -> tuple[float, float, float]:
    """Return precision, recall and F1."""
    hits = sum(t and c for t, c in zip(truth, called, strict=True))
    precision = hits / max(1, sum(called))
    recall = hits / max(1, sum(truth))
    return precision, recall, 2 * precision * recall / (precision + recall) if hits else 0.0


def main() -> int:
    """Print the figures; return 1 if the macro-F1 is below the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--half", choices=("even", "odd", "all"), default="odd")
    parser.add_argument("--wrong", metavar="LABEL", help="print the row numbers that come out wrong for a label")
    asked = parser.parse_args()
    with asked.path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows = {"even": rows[::2], "odd": rows[1::2], "all": rows}[asked.half]
    names = list(rules("ct_rate"))
    start = time.perf_counter()
    called = [labels(row["report_text"]) for row in rows]
    took = time.perf_counter() - start
    scores, floors = [], []
    print(f"{len(rows)} reports ({asked.half} rows), {1000 * took / len(rows):.2f} ms a report\n")
    print(f"{'label':36}{'n':>5}{'precision':>11}{'recall':>9}{'F1':>7}{'floor':>8}")
    for name in names:
        truth = [float(row[name]) > 0 for row in rows]
        precision, recall, score = f1(truth, [c[name] for c in called])
        floor = f1(truth, [name.lower() in row["report_text"].lower() for row in rows])[2]
        scores.append(score)
        floors.append(floor)
        print(f"{name:36}{sum(truth):5}{precision:11.3f}{recall:9.3f}{score:7.3f}{floor:8.3f}")
        if asked.wrong == name:
            for kind, want in (("missed", True), ("false", False)):
                print(kind, [n for n, (t, c) in enumerate(zip(truth, called, strict=True)) if t is want is not c[name]])
    macro = sum(scores) / len(scores)
    print(f"\nmacro-F1 {macro:.3f} (goal {GOAL}); floor {sum(floors) / len(floors):.3f}")
    return int(macro < GOAL)


if __name__ == "__main__":
    raise SystemExit(main())
