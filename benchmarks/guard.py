"""How long the guard takes for 2 kB of text, against a bare scan of the same text by the pack's longest lexicon.

    python benchmarks/guard.py [--reports FOLDER] [--repeat 2000]

``--reports`` is a folder of real reports (see ``parts/reports.py``). Then their texts are timed, and it prints how
often each clinician rule fires on them, and how many contradictions put into sentences are flagged. Exit code 1 if
the rule for degenerate text fires on more than 0.5 %. Else text is made from the pack's own cases and words.
The floor is the cheapest thing a guard could do: cut the text into tokens and look each up in one word list.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from clinic_ai.domain import Audience, Finding, PatientIdentity, Presence, Statement, StudyFacts
from clinic_ai.guard.engine import judge
from clinic_ai.guard.lexicon import Lexicon, parse_lexicon
from clinic_ai.guard.packs import shipped_pack
from clinic_ai.guard.policy import Policy
from clinic_ai.guard.proof import load_policy
from clinic_ai.guard.text import Text
from clinic_ai.tasks import GuardSubject, GuardTask

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.parts.reports import Injector, Report, firing, read_reports

SIZE = 2000
BUDGET_MS = 2.0
ROUNDS = 7

MOST_DEGENERATE = 0.005


def drafts(policy: Policy, real: list[str]) -> list[str]:
    """Return texts of about 2 kB: real ones, or sentences of the pack's long case in random order."""
    if real:
        return [text[:SIZE] for text in real if len(text) >= SIZE]
    sentences = [s.strip() + "." for c in policy.cases if c.rule == "too-long" for s in c.text.split(".") if s.strip()]
    rng = random.Random(1)
    texts = []
    for _ in range(200):
        rng.shuffle(sentences)
        texts.append(" ".join(sentences)[:SIZE])
    return texts


def task_of(policy: Policy, text: str) -> GuardTask:
    """Return the text as a clinician's draft beside one finding and an identity to look for."""
    finding = Finding(
        condition="pneumonia",
        label="Pneumonia",
        probability=0.82,
        threshold=0.5,
        presence=Presence.PRESENT,
        instance_sha256="0" * 64,
    )
    identity = PatientIdentity(patient_id="HX209311", patient_name="Example^Mary", birth_date="19611105")
    subject = GuardSubject(facts=StudyFacts(), identity=identity, findings=(finding,))
    statement = Statement(statement_id="a_1", kind="answer", text=text)
    return GuardTask(audience=Audience.CLINICIAN, subject=subject, statements=(statement,), policy_hash=policy.digest)


def milliseconds(repeat: int, work: list[Callable[[], object]]) -> list[float]:
    """Return the sorted times of ``repeat`` calls, going round ``work``; CPU time, so a busy machine does not count."""
    times = []
    for n in range(repeat):
        started = time.thread_time()
        work[n % len(work)]()
        times.append(1000 * (time.thread_time() - started))
    return sorted(times)


def fastest(work: list[Callable[[], object]]) -> list[float]:
    """Return the sorted times of each work, the fastest of several: what it costs, and not what runs beside it."""
    rounds = [[milliseconds(1, [one])[0] for one in work] for _ in range(ROUNDS)]
    return sorted(map(min, zip(*rounds, strict=True)))


def report(name: str, times: list[float]) -> float:
    """Print median and 99th percentile; return the median."""
    median = statistics.median(times)
    print(f"{name:<34} p50 {median:6.3f} ms   p99 {times[int(len(times) * 0.99)]:6.3f} ms")
    return median


def print_real(policy: Policy, directory: Path, by_file: dict[str, list[Report]]) -> bool:
    """Print firing rates and what became of contradictions; return whether degenerate text is rare enough."""
    lexicons = {p.stem: parse_lexicon(p.stem, p.read_text()) for p in (directory / "lexicons").glob("*.txt")}
    injector = Injector(lexicons)
    degenerate = 0.0
    for name, reports in by_file.items():
        rates = firing(policy, reports)
        degenerate += rates.get("degenerate-text", 0.0) * len(reports)
        print(f"\n{name}: {len(reports)} reports; share on which each clinician rule fires")
        for rule, rate in sorted(rates.items(), key=lambda item: -item[1]):
            print(f"  {rule:<30} {rate:7.2%}")
        for kind in ("presence", "side", "size"):
            score = injector.score(kind, reports)
            if score.injected:
                share, wrong = score.flagged / score.injected, score.false_flags / score.untouched
                print(f"  {kind + ' contradicted':<30} {share:7.2%} of {score.injected} flagged")
                print(f"  {kind + ' left alone':<30} {wrong:7.2%} of {score.untouched} flagged all the same")
    total = sum(len(reports) for reports in by_file.values())
    print(f"\ndegenerate-text fires on {degenerate / total:.2%} of {total} real reports, at most {MOST_DEGENERATE:.1%}")
    return degenerate <= MOST_DEGENERATE * total


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--reports", type=Path)
    parser.add_argument("--repeat", type=int, default=2000)
    options = parser.parse_args()
    directory = shipped_pack("default")
    policy = load_policy(directory)
    names = parse_lexicon("findings", (directory / "lexicons" / "findings.txt").read_text())
    by_file = dict(read_reports(options.reports, names)) if options.reports else {}
    texts = drafts(policy, [report.text for reports in by_file.values() for report in reports])
    files = {path.stem: path.read_text() for path in (directory / "lexicons").glob("*.txt")}
    name = max(files, key=lambda stem: len(files[stem].splitlines()))
    lexicon: Lexicon = parse_lexicon(name, files[name])

    tasks = [task_of(policy, text) for text in texts]
    judging: list[Callable[[], object]] = [lambda task=task: judge(policy, task) for task in tasks]
    scanning: list[Callable[[], object]] = [lambda text=text: lexicon.find(Text(text)) for text in texts]
    first = milliseconds(len(tasks), judging)
    judged, bare = milliseconds(options.repeat, judging), milliseconds(options.repeat, scanning)
    least, least_bare = fastest(judging), fastest(scanning)
    print(f"{len(texts)} texts of {SIZE} characters, {len(policy.rules)} rules, {len(lexicon.terms)} terms in {name}")
    report("judge, texts not seen before", first)
    ratio = report("judge", judged) / report(f"bare scan by the lexicon {name}", bare)
    print(f"ratio to the bare scan             {ratio:.1f}")
    report(f"judge, fastest of {ROUNDS} for each text", least)
    report(f"bare scan, fastest of {ROUNDS} for each", least_bare)
    tail = least[int(len(least) * 0.99)]
    print(f"budget {BUDGET_MS} ms for the 99th percentile: {'kept' if tail <= BUDGET_MS else 'missed'} ({tail:.2f} ms)")
    return 0 if not by_file or print_real(policy, directory, by_file) else 1


if __name__ == "__main__":
    sys.exit(main())
