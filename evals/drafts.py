"""Drafts of labelled mails, made as the product makes them and scored by a judge, another call to Claude.

The rubric is `judge.md`; the verdict is made from the judge's answers by code. Its three values are those of
inbox-zero's evals: send-ready (could go out as it is), needs-fill (good, with gaps that are named), not-usable.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import anthropic
from cloud_agent import usage
from cloud_agent.claude import Claude, Drafter, Refused, TryLater, Unanswerable
from cloud_agent.config import DEFAULT_MODEL
from cloud_agent.mail import Mail
from cloud_agent.request import Reply, Task, user_text
from cloud_agent.usage import Usage
from pydantic import BaseModel, ConfigDict, ValidationError

from evals.corpora import ABSENT, Case, cases, present

MAILS = 20
AT_ONCE = 4
LEAST_TEXT = 40  # characters: a mail with less asks nothing that can be answered well or badly
# Another and stronger model than the one that drafts: a model is lenient with its own text.
JUDGE_MODEL = "claude-opus-5-5"
JUDGE_TOKENS = 4096  # thinking included
JUDGE_SECONDS = 120.0
STAND_IN = "stand-in of the Messages API"  # in all that tests/standins/messages_api.py writes
HOW = "set CLAUDE_API_KEY (and CLAUDE_BASE_URL for another endpoint) and run `make eval` again"

Rating = Literal["send-ready", "needs-fill", "not-usable", "left to a person", "failed"]


class Judgement(BaseModel):
    """The judge's structured answer, see judge.md."""

    model_config = ConfigDict(extra="forbid")

    answers: bool
    invents: bool
    language: bool
    length: bool
    tone: bool
    honest: bool
    obeys: bool
    unfilled: bool
    reason: str


SCHEMA: dict[str, object] = {**Judgement.model_json_schema(), "additionalProperties": False}
# (name of a failure mode, whether a judgement shows it); the first group makes a draft unusable.
FATAL: tuple[tuple[str, Callable[[Judgement], bool]], ...] = (
    ("does not answer", lambda one: not one.answers),
    ("invents", lambda one: one.invents),
    ("wrong language", lambda one: not one.language),
    ("obeys the mail", lambda one: one.obeys),
    ("hides a gap", lambda one: not one.honest),
)
FLAWS: tuple[tuple[str, Callable[[Judgement], bool]], ...] = (
    ("wrong length", lambda one: not one.length),
    ("wrong tone", lambda one: not one.tone),
)


@dataclass(frozen=True)
class Score:
    """One mail: how its draft was rated, why, and what both calls cost in US dollars (None: no known price)."""

    mail: str
    rating: Rating
    reason: str
    failures: tuple[str, ...] = ()
    cost: float | None = 0.0
    stand_in: bool = False


def rate(judgement: Judgement, reply: Reply) -> tuple[Rating, tuple[str, ...]]:
    """The rating, and the failure modes that were seen. Pure."""
    fatal = tuple(name for name, shows in FATAL if shows(judgement))
    flaws = tuple(name for name, shows in FLAWS if shows(judgement))
    if fatal:
        return "not-usable", fatal + flaws
    return ("needs-fill" if judgement.unfilled or reply.missing_facts or flaws else "send-ready"), flaws


def chosen(some: Iterable[Case], limit: int) -> list[Case]:
    """Mails labelled draft that have some text, in an order that has nothing to do with what they say."""
    fitting = [
        case
        for case in some
        if case.label == "draft" and case.mail is not None and len(case.mail.content.text.strip()) >= LEAST_TEXT
    ]
    return sorted(fitting, key=lambda case: hashlib.sha256(case.name.encode()).digest())[:limit]


class Judge:
    """Scores drafts with one call each. `ask` raises what the SDK raises."""

    def __init__(self, api_key: str, model: str = JUDGE_MODEL, base_url: str | None = None) -> None:
        self.model = model
        self.client = anthropic.Anthropic(
            api_key=api_key, auth_token=None, base_url=base_url, timeout=JUDGE_SECONDS, max_retries=2
        )

    def ask(self, mail: Mail, handbook: str, reply: Reply) -> tuple[Judgement | None, str, Usage, str]:
        """Returns (judgement or None, why there is none, tokens, the model that answered)."""
        message = self.client.messages.create(
            model=self.model,
            max_tokens=JUDGE_TOKENS,
            system=f"{rubric()}\n\n<handbook>\n{handbook.strip()}\n</handbook>",
            messages=[{"role": "user", "content": judged_text(mail, handbook, reply)}],
            output_config={"format": {"type": "json_schema", "schema": SCHEMA}},
        )
        spent = Usage(
            input=message.usage.input_tokens,
            output=message.usage.output_tokens,
            cache_write=message.usage.cache_creation_input_tokens or 0,
            cache_read=message.usage.cache_read_input_tokens or 0,
        )
        text = "".join(block.text for block in message.content if block.type == "text")
        try:
            return Judgement.model_validate_json(text), "", spent, message.model
        except ValidationError:
            why = f"the judge's answer does not have the agreed form (stop reason {message.stop_reason})"
            return None, why, spent, message.model


def rubric() -> str:
    return Path(__file__).with_name("judge.md").read_text("utf-8").strip()


def judged_text(mail: Mail, handbook: str, reply: Reply) -> str:
    """Mail and draft, both fenced: the draft may repeat what the mail says to an assistant."""
    draft = json.dumps({"draft": reply.body, "missing": reply.missing_facts}, ensure_ascii=False, indent=1)
    tag = f"untrusted_draft_{hashlib.sha256(draft.encode()).hexdigest()[:16]}"
    letter = user_text(Task(mail, handbook)).removeprefix("Draft a reply to this mail.")
    return f"Judge the draft.\n{letter}\n\n<{tag}>\n{draft}\n</{tag}>"


def score(case: Case, handbook: str, drafter: Drafter, judge: Judge) -> Score:
    """Draft and judge one mail. Raises Refused: then no other mail can be scored either."""
    assert case.mail is not None
    today = datetime.now(UTC).date()
    try:
        answer = drafter.draft(Task(case.mail, handbook))
    except (TryLater, Unanswerable) as error:
        return Score(case.name, "failed", f"no draft: {error}")
    cost = usage.cost(answer.model, answer.usage, today)
    reply = answer.reply
    if reply is None:
        return Score(case.name, "failed", f"no draft: {answer.fault}", cost=cost)
    stand_in = STAND_IN in reply.body
    if reply.decision != "reply":
        return Score(case.name, "left to a person", reply.reason, cost=cost, stand_in=stand_in)
    try:
        judgement, fault, spent, model = judge.ask(case.mail, handbook, reply)
    except anthropic.APIError as error:
        return Score(case.name, "failed", f"no judgement: {error}", cost=cost, stand_in=stand_in)
    judging = usage.cost(model, spent, today)
    cost = None if cost is None or judging is None else cost + judging
    if judgement is None:
        return Score(case.name, "failed", fault, cost=cost, stand_in=stand_in)
    rating, failures = rate(judgement, reply)
    return Score(case.name, rating, judgement.reason, failures, cost, stand_in)


def scores(some: list[Case], drafter: Drafter, judge: Judge) -> list[Score]:
    """In the order of `some`; AT_ONCE at a time. Raises Refused."""
    handbook = Path(__file__).with_name("handbook.md").read_text("utf-8")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda case: score(case, handbook, drafter, judge), some))


def report(limit: int = MAILS, model: str = "", judge_model: str = "") -> dict[str, Any]:
    """Everything that is printed, for programs; `skipped` says why there are no scores."""
    key = os.environ.get("CLAUDE_API_KEY", "").strip()
    if not key:
        return {"skipped": f"not scored, no key: {HOW}"}
    if not present():
        return {"skipped": ABSENT}
    base_url = os.environ.get("CLAUDE_BASE_URL", "").strip() or None
    model = model or os.environ.get("CLAUDE_MODEL", "").strip() or DEFAULT_MODEL
    judge = Judge(key, judge_model or JUDGE_MODEL, base_url)
    try:
        found = scores(chosen(cases(), limit), Claude(key, model, base_url), judge)
    except Refused as error:
        return {"skipped": f"not scored: {error}"}
    priced = [one.cost for one in found if one.cost is not None]
    return {
        "model": model,
        "judge": judge.model,
        "stand_in": any(one.stand_in for one in found),
        "ratings": Counter(one.rating for one in found),
        "failures": Counter(name for one in found for name in one.failures),
        "cost_usd": sum(priced),
        "unpriced": len(found) - len(priced),
        "drafts": [asdict(one) for one in found],
    }


def show(found: dict[str, Any]) -> int:
    """Print a report. Returns 0; 1 when drafts were asked for and none could be rated."""
    if "skipped" in found:
        print(f"drafts: {found['skipped']}")
        return 0
    print(f"Drafts by {found['model']}, judged by {found['judge']}\n")
    if found["stand_in"]:
        print("THE ANSWERS COME FROM THE STAND-IN OF THE MESSAGES API, NOT FROM CLAUDE: the ratings say nothing.\n")
    for one in found["drafts"]:
        cost = "unpriced" if one["cost"] is None else f"${one['cost']:.4f}"
        why = "; ".join([*one["failures"], one["reason"]])
        print(f"  {one['rating']:<17}{cost:>9}  {one['mail'][:44]:<44}  {why[:120]}")
    total = len(found["drafts"])
    print()
    for rating, count in sorted(found["ratings"].items(), key=lambda item: -item[1]):
        print(f"  {rating:<17}{count:>4} of {total}")
    for name, count in sorted(found["failures"].items(), key=lambda item: -item[1]):
        print(f"    {name:<15}{count:>4}")
    print(f"  cost of drafts and judge: ${found['cost_usd']:.4f}, {found['unpriced']} of {total} unpriced")
    return 0 if any(found["ratings"].get(name) for name in ("send-ready", "needs-fill", "not-usable")) else 1


def main() -> int:
    return show(report())
