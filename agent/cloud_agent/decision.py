"""What is to be done with a mail: decided from where it lies, where its draft lies, and what the model said. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from cloud_agent import gate, screen
from cloud_agent.index import DraftState
from cloud_agent.mail import MAX_COPIES, Mail, envelope, one_line, others_of, shown
from cloud_agent.request import Reply
from cloud_agent.vault import DONE, NEEDS_ACTION, SKIPPED

NO_SENDER = "it names nobody that can be replied to: write a line `from: ` between two lines `---` at its top"

Place = Literal["inbox", "in progress", "needs action"]
Copy = Literal["none", "identical", "same", "different"]


@dataclass(frozen=True)
class Do:
    """What is to be done with one mail: nothing, a call to Claude, a move with its reason, or removing a copy."""

    what: Literal["leave", "draft", "move", "drop"]
    folder: str = ""
    decision: str = ""
    reason: str = ""


LEAVE = Do("leave")


def decide(
    mail: Mail,
    place: Place,
    draft: DraftState | None,
    copy: Copy,
    in_progress: str,
    own: Collection[str] = (),
) -> Do:
    """Decide about one mail. Pure.

    A mail is open in the inbox, and in our folder of In_Progress as long as it was never drafted: it is claimed there.

    | the mail lies in     | its draft | another file of its id   | then
    | open                 | any       | identical                | drop this one: nothing is lost
    | open                 | any       | the same mail            | Done/Skipped
    | open                 | any       | a different mail         | Needs_Action: the id is taken
    | open                 | waits     | none                     | In_Progress
    | open                 | decided   | none                     | Done/Email
    | inbox                | none      | none, was drafted before | Needs_Action: its draft is gone
    | open                 | none      | none                     | the gate decides, or the person who put it back
    | in progress, drafted | any       | identical                | drop this one: another agent has it, or Done/Email
    | in progress, drafted | waits     |                          | leave
    | in progress, drafted | decided   |                          | Done/Email
    | in progress, drafted | none      |                          | Needs_Action: its draft is gone
    | needs action         | waits     | (only a drafted mail)    | In_Progress: the draft came back
    | needs action         | decided   | (only a drafted mail)    | Done/Email
    """
    drafted = bool(mail.fields.get("drafted_as"))
    is_open = place == "inbox" or (place == "in progress" and not drafted)
    if place == "needs action" and (draft is None or not drafted):
        return LEAVE
    if place != "needs action" and copy == "identical":
        return Do("drop", reason="an identical file was already taken in")
    if place == "in progress" and drafted and draft == "pending":
        return LEAVE
    if is_open and copy == "same":
        return Do("move", SKIPPED, "skip", "this mail was taken in before")
    if is_open and copy == "different":
        return Do(
            "move",
            NEEDS_ACTION,
            "review",
            "its email_id belongs to another mail: give it an email_id of its own and move it back to Inbox/",
        )
    if draft == "pending":
        return Do("move", in_progress, "reply", "its draft waits for a decision")
    if draft == "decided":
        return Do("move", DONE, "reply", "its draft was decided")
    if drafted:
        return Do(
            "move",
            NEEDS_ACTION,
            "review",
            "its draft is gone without a decision; for a new one remove the line drafted_as and move it to Inbox/",
        )
    verdict = gate.judge(mail, own)
    if not mail.put_back and verdict.verdict == "skip":
        return Do("move", SKIPPED, "skip", verdict.reason)
    if envelope(mail) is None:
        return Do("move", NEEDS_ACTION, "review", NO_SENDER)
    if not mail.put_back and verdict.verdict == "review":
        return Do("move", NEEDS_ACTION, "review", verdict.reason)
    return Do("draft")


def flags_of(mail: Mail, findings: Collection[screen.Finding], own: Collection[str]) -> tuple[str, ...]:
    """What the owner should look at before approving. Pure."""
    flags = [finding.text for finding in findings]
    others = others_of(mail, own)
    if len(others) > (MAX_COPIES if own else 1):  # without `own`, one of them is the owner
        advice = "" if own else "; for replies to all set OWNER_ADDRESSES"
        flags.append(f"the mail went to {len(others)} people, the reply goes to its sender alone{advice}")
    return tuple(dict.fromkeys(flags))


def is_drafted(mail: Mail, reply: Reply) -> bool:
    """Whether an answer becomes a draft: Claude says so, or a person who put the mail back wants one all the same."""
    return reply.decision == "reply" or (mail.put_back and bool(reply.body.strip()))


def answered(mail: Mail, reply: Reply, findings: Collection[screen.Finding]) -> Do:
    """Decide where an answer goes: a draft, or a mail that a person must look at. Pure."""
    if not is_drafted(mail, reply):
        return for_a_person(reply, findings)
    held = [finding.text for finding in findings if finding.hold]
    if held and not mail.put_back:
        return Do("move", NEEDS_ACTION, "review", f"its draft was held back: {'; '.join(held)}")
    return Do("draft")


def for_a_person(reply: Reply, findings: Collection[screen.Finding] = ()) -> Do:
    """A mail that the model does not want to answer by itself; `findings` are those of its reason."""
    reason = one_line(shown(reply.reason))  # it is logged as well
    if findings:
        reason += f" (Beware: {'; '.join(finding.text for finding in findings)})"
    if reply.decision == "notify":
        return Do("move", NEEDS_ACTION, "notify", f"Claude sees nothing to answer: {reason}")
    return Do("move", NEEDS_ACTION, "review", f"Claude asks for a person: {reason}")
