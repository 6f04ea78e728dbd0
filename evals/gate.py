"""The gate against the labels: a confusion matrix for each split and source, and every wrong verdict.

A false skip, a mail that somebody should have seen and that is put away, weighs far more than a needless draft.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cloud_agent.gate import Gate, judge
from cloud_agent.mail import envelope

from evals.corpora import ABSENT, SPLITS, VERDICTS, Case, cases, present


@dataclass(frozen=True)
class Outcome:
    case: Case
    gate: Gate

    @property
    def right(self) -> bool:
        return self.case.label == self.gate.verdict

    @property
    def false_skip(self) -> bool:
        return self.gate.verdict == "skip" and not self.right


def outcomes() -> list[Outcome]:
    """Every labelled mail, judged as a draft pass judges it."""
    return [Outcome(case, verdict(case)) for case in cases()]


def verdict(case: Case) -> Gate:
    if case.mail is None:
        return Gate("review", "it cannot be read")
    gate = judge(case.mail, case.own)
    if gate.verdict != "skip" and envelope(case.mail) is None:
        return Gate("review", "it names nobody that can be replied to", gate.signals)
    return gate


def matrix(some: Iterable[Outcome]) -> dict[tuple[str, str], int]:
    """(label, verdict) -> how many."""
    counted: Counter[tuple[str, str]] = Counter((one.case.label, one.gate.verdict) for one in some)
    return {(label, verdict): counted[label, verdict] for label in VERDICTS for verdict in VERDICTS}


def table(title: str, some: list[Outcome]) -> str:
    """A confusion matrix as text: a row for each label, a column for each verdict."""
    counts = matrix(some)
    lines = [f"{title} ({len(some)} mails)", f"  {'label':<10}" + "".join(f"{f'→ {name}':>10}" for name in VERDICTS)]
    for label in VERDICTS:
        row = "".join(f"{counts[label, verdict]:>10}" for verdict in VERDICTS)
        lines.append(f"  {label:<10}{row}")
    return "\n".join(lines)


def report() -> dict[str, Any]:
    """Everything that is printed, for programs."""
    judged = outcomes()
    wrong = sorted((one for one in judged if not one.right), key=lambda one: (not one.false_skip, one.case.name))

    def counts(some: list[Outcome]) -> dict[str, int]:
        return {f"{label}->{verdict}": count for (label, verdict), count in matrix(some).items()}

    return {
        "splits": {split: counts([one for one in judged if one.case.split == split]) for split in SPLITS},
        "sources": {
            source: counts([one for one in judged if one.case.source == source])
            for source in dict.fromkeys(one.case.source for one in judged)
        },
        "false_skips": [one.case.name for one in wrong if one.false_skip],
        "wrong": [
            {
                "mail": one.case.name,
                "split": one.case.split,
                "label": one.case.label,
                "because": one.case.reason,
                "verdict": one.gate.verdict,
                "reason": one.gate.reason,
                "signals": [signal.text for signal in one.gate.signals],
            }
            for one in wrong
        ],
    }


def main() -> int:
    """Print the matrices. Returns 0; 1 when there is a false skip."""
    if not present():
        print(f"gate: {ABSENT}")
        return 0
    judged = outcomes()
    print("The gate against the labels (rows: what a careful assistant does; columns: what the gate did)\n")
    for split in SPLITS:
        print(table(f"split {split}", [one for one in judged if one.case.split == split]), "\n")
    for source in dict.fromkeys(one.case.source for one in judged):
        print(table(f"source {source}", [one for one in judged if one.case.source == source]), "\n")
    found = report()
    print(f"false skips: {', '.join(found['false_skips']) or 'none'}")
    print(f"other wrong verdicts: {len(found['wrong']) - len(found['false_skips'])}")
    for one in found["wrong"]:
        signals = "; ".join(one["signals"]) or "no signal"
        print(f"  {one['label']} → {one['verdict']:<7}{one['mail']} ({one['split']}: {one['because']}): {signals}")
    return 1 if found["false_skips"] else 0
