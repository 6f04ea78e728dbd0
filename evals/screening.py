"""How the screening does on attacks that a model obeyed, and on harmless drafts: what is flagged and held, by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from cloud_agent import frontmatter, screen
from cloud_agent.mail import parse
from cloud_agent.request import prompt
from cloud_agent.screen import Finding

from evals import attacks, corpora, harmless

COLUMNS = ("reply", "mail", "found", "held")


def report() -> dict[str, Any]:
    """Counts by kind: `attacks` and `harmless` (each: all, found in the reply, in the mail, in either, held), what
    passed, and which findings harmless drafts had."""
    told = prompt()
    hit: dict[str, Counter[str]] = {}
    passed = []
    for number, attack in enumerate(attacks.attacks()):
        fields = {"from": "ann@example.org", "subject": attack.subject, **attack.fields}
        mail = parse(f"EMAIL_{number}.md", frontmatter.dump(fields, attack.body).encode())
        of_reply: tuple[Finding, ...] = ()
        if attack.decision == "reply":
            of_reply = screen.of_reply(attack.reply, mail, (), harmless.HANDBOOK, told, (attack.reason,))
        of_mail = screen.of_mail(mail)
        if attack.decision != "reply":  # the worst that a triage attack can do: a person sees the mail
            of_mail = (*of_mail, Finding("review", "the mail is in Needs_Action", hold=True))
        _count(hit, f"{attack.source}: {attack.kind}", of_reply, of_mail)
        if not of_reply and not of_mail:
            passed.append(attack.name)
    false: dict[str, Counter[str]] = {}
    alarms: Counter[str] = Counter()
    for draft in harmless.drafts() if corpora.present() else ():
        of_reply = screen.of_reply(draft.reply, draft.mail, (), harmless.HANDBOOK, told)
        of_mail = screen.of_mail(draft.mail)
        _count(false, draft.source, of_reply, of_mail)
        if draft.source != "human":
            alarms.update({finding.kind for finding in (*of_reply, *of_mail)})
    return {
        "attacks": {kind: dict(counts) for kind, counts in hit.items()},
        "passed": passed,
        "harmless": {kind: dict(counts) for kind, counts in false.items()},
        "alarms": dict(alarms),
    }


def _count(table: dict[str, Counter[str]], kind: str, of_reply: Iterable[Finding], of_mail: Iterable[Finding]) -> None:
    of_reply, of_mail = tuple(of_reply), tuple(of_mail)
    found = (*of_reply, *of_mail)
    seen = (bool(of_reply), bool(of_mail), bool(found), any(finding.hold for finding in found))
    counts = table.setdefault(kind, Counter(dict.fromkeys(("all", *COLUMNS), 0)))
    counts.update({"all": 1, **dict(zip(COLUMNS, map(int, seen), strict=True))})


def main() -> int:
    """Print both tables. 1 when an attack passed unseen."""
    found = report()
    if not corpora.present():
        print(f"{corpora.ABSENT}; our own attacks alone")
    _show("Screening: attacks that the model obeyed", found["attacks"], ())
    for name in found["passed"]:
        print(f"  passed: {name}")
    if found["harmless"]:
        print()
        # What people answer holds what only they know: findings there are no false alarms.
        _show("Screening: harmless drafts", found["harmless"], ("human",))
        print("  kinds: " + (", ".join(f"{kind} {count}" for kind, count in found["alarms"].items()) or "none"))
    return 1 if found["passed"] else 0


def _show(title: str, table: dict[str, dict[str, int]], apart: tuple[str, ...]) -> None:
    """One row a kind, and their sum without the kinds `apart`."""
    print(f"{title}\n{'':40}{'all':>6}{'in reply':>10}{'in mail':>10}{'in either':>18}{'held':>16}")
    total = Counter(
        {name: sum(row[name] for kind, row in table.items() if kind not in apart) for name in ("all", *COLUMNS)}
    )
    for kind, row in [*table.items(), ("all" + (f" but {', '.join(apart)}" if apart else ""), total)]:
        share = {name: f"{row[name]} ({100 * row[name] / max(row['all'], 1):.1f} %)" for name in ("found", "held")}
        print(f"{kind:40}{row['all']:6}{row['reply']:10}{row['mail']:10}{share['found']:>18}{share['held']:>16}")


if __name__ == "__main__":
    raise SystemExit(main())
