"""The draft pass: mails of the inbox become drafts, each at most once.

A pass looks at the vault (the only ledger), decides with `decide`, a pure function, what is to be done with each mail,
and does it. Calls to Claude run side by side outside the lock; before anything is written, the decision is taken again
under the lock, because a person may have moved things meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cloud_agent import approval, dashboard, frontmatter, gate, usage
from cloud_agent.claude import MAX_TOKENS, Answer, Drafter, Refused, TryLater, Unanswerable
from cloud_agent.config import Config
from cloud_agent.index import DraftState, Index
from cloud_agent.journal import Journal
from cloud_agent.mail import (
    MAIL_PREFIX,
    Envelope,
    Mail,
    UnreadableMail,
    addresses,
    decode,
    encode,
    envelope,
    is_mail_name,
    parse,
    shown,
    slug,
    stem_id,
)
from cloud_agent.state import Clock, Result, State
from cloud_agent.vault import (
    DONE,
    HANDBOOK,
    IN_PROGRESS,
    INBOX,
    NEEDS_ACTION,
    PENDING,
    SKIPPED,
    UNPARSEABLE,
    ForbiddenPath,
    Vault,
    lock,
)

if TYPE_CHECKING:
    from cloud_agent.claim import Claims

log = logging.getLogger("cloud_agent.draft")

MAX_TRIES = 3
TASK = "email_draft"
# A mail is left alone until it was still for so long: a script or an editor may be writing it.
SETTLE_SECONDS = 1.0
NO_SENDER = "it names nobody that can be replied to: write a line `from: ` between two lines `---` at its top"
ANNOTATIONS = ("decision", "reason", "drafted_as")
# From then on a mail that another agent claimed and has not drafted is an alert. Its age is that of the file in this
# clone: the time since this agent learned of the claim.
HELD_SECONDS = 3600.0

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
    if envelope(mail) is None:
        return Do("move", NEEDS_ACTION, "review", NO_SENDER)
    if mail.fields.get("decision"):
        return Do("draft")  # a person put it back into the inbox: the gate is overruled
    verdict = gate.judge(mail)
    if verdict.verdict == "skip":
        return Do("move", SKIPPED, "skip", verdict.reason)
    if verdict.verdict == "review":
        return Do("move", NEEDS_ACTION, "review", verdict.reason)
    return Do("draft")


def flags_of(mail: Mail, to: Envelope, reply: str, handbook: str) -> tuple[str, ...]:
    """What the owner should look at before approving. Pure."""
    flags = []
    sender, recipient = addresses(mail.sender), addresses(to.to)
    for _, address in recipient:
        if sender and _domain(sender[0][1]) != _domain(address):
            flags.append(f"the reply goes to {address}, another domain than the sender's")
    known = f"{mail.subject}\n{mail.sender}\n{shown(mail.body)}\n{handbook}".lower()
    for word in dict.fromkeys(shown(reply).split()):
        bare = word.strip("()<>[],.;:!?\"'*_`").lower()
        if ("://" in bare or bare.startswith("www.") or "@" in bare.strip("@")) and bare not in known:
            flags.append(f"the reply names {bare[:100]}, which is neither in the mail nor in the handbook")
    return tuple(flags)


class BudgetReached(Exception):
    """The next call could cost more than may still be spent."""


@dataclass
class Report:
    """What one pass did. `result` and `message` go into the beat."""

    claimed: int = 0
    answered: int = 0
    drafted: int = 0
    moved: int = 0
    refused: bool = False
    unavailable: bool = False  # Claude could not be used for a mail that it might answer later
    result: Result = "ok"
    message: str = ""

    def later(self, message: str) -> None:
        if self.result == "ok":
            self.result, self.message = "later", message


@dataclass
class Budget:
    """What may still be spent, US dollars; a call reserves its worst case before it is made."""

    left: float | None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reserve(self, worst: float) -> bool:
        with self.lock:
            if self.left is None:
                return True
            if worst > self.left:
                return False
            self.left -= worst
            return True

    def settle(self, worst: float, real: float) -> None:
        with self.lock:
            if self.left is not None:
                self.left += worst - real


class Orchestrator:
    """The draft loop's step. `drafter`, `clock` and the stop signal come from outside."""

    def __init__(
        self,
        config: Config,
        drafter: Drafter,
        state: State,
        clock: Clock,
        stop: threading.Event | None = None,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        self.settle_seconds = settle_seconds
        self.config = config
        self.drafter = drafter
        self.state = state
        self.clock = clock
        self.stop = stop or threading.Event()
        self.vault = Vault(config.vault_path, config.agent_name)
        self.index = Index(self.vault)
        self.journal = Journal(self.vault, config.agent_name, "audit", clock)
        self.claims: Claims | None = None
        if config.claim:
            from cloud_agent.claim import Claims

            self.claims = Claims(config, state, clock, self.stop)
        # Claude answered nothing the last time: what is claimed already is enough to find out when it does again.
        self.stuck = False
        # Answers that were paid for and could not be written down, by mail: a broken disk must not cost money for ever.
        self.unwritten: Counter[str] = Counter()

    def run_pass(self) -> Report:
        """Look at every open mail once. Ends early, with result `later` or `failed`, when Claude cannot be used."""
        report = Report()
        with lock(self.state.process_lock("draft")):
            self._let_mails_settle()
            with lock(self.state.tree_lock):
                if not self._look(report):
                    return report
                claimed = self._settle_open_mails(report)
                with self._isolated(IN_PROGRESS, report):
                    self._tell_held()
                to_draft = self._sort_inbox(claimed, report)
            waiting = bool(to_draft)
            if self.claims is not None and to_draft:
                to_draft = self._confirmed(self.claims, to_draft, report)
            if to_draft:
                self._draft_all(to_draft, report)
            elif not waiting:
                self.state.clear_alert("budget")  # nothing waits for it
            if report.answered and report.result == "ok":
                cleared = [self.state.clear_alert(key) for key in ("drafting", "budget")]
                if any(cleared):
                    self._tell_locked("Drafting works again.")
        return report

    def _look(self, report: Report) -> bool:
        """Read where everything lies. Where a folder cannot be read, nothing is drafted: it might be drafted twice."""
        try:
            self.index.refresh()
        except (OSError, ForbiddenPath) as error:
            message = f"the vault cannot be read: {error}: make it a folder that this user may read; drafting waits"
            report.result, report.message = "failed", message
            if self.state.raise_alert("vault", message, self.clock()):
                log.error("%s", message)
                self.journal.tell(dashboard.plain(shown(message), 300))
            return False
        self.state.clear_alert("vault")
        return True

    def _let_mails_settle(self) -> None:
        """Wait a moment for the youngest mail; what is still younger then is left to the next pass."""
        with contextlib.suppress(OSError, ForbiddenPath):
            names = [name for name in self.vault.names(INBOX) if is_mail_name(name)]
            ages = [self.vault.age(f"{INBOX}/{name}") for name in names]
            young = [age for age in ages if 0 <= age < self.settle_seconds]
            if young:
                self.stop.wait(self.settle_seconds - min(young))

    @contextlib.contextmanager
    def _isolated(self, path: str, report: Report) -> Iterator[None]:
        """One mail that cannot be handled never holds up the others."""
        try:
            yield
        except (OSError, ForbiddenPath) as error:
            report.result, report.message = "later", f"{path}: {error}"
            log.error("%s could not be handled: %s", path, error)
        except Exception as error:
            report.result, report.message = "failed", f"{path}: {type(error).__name__}: {error}"
            log.exception("%s could not be handled: this is a fault of the program", path)

    # -- what needs no model ---------------------------------------------------------------------------------------

    def _settle_open_mails(self, report: Report) -> dict[str, tuple[str, Mail]]:
        """Carry out what was decided about mails that were taken in; return those that are claimed and not drafted,
        by mail id."""
        claimed: dict[str, tuple[str, Mail]] = {}
        places: tuple[tuple[Literal["in progress", "needs action"], str], ...] = (
            ("in progress", self.vault.in_progress),
            ("needs action", NEEDS_ACTION),
        )
        for place, folder in places:
            for note in self.index.mails_in(folder):
                draft = self.index.draft_state(note.slug)
                waits = note.drafted and draft == "pending" and self.index.holder(note.slug) == note
                if waits if place == "in progress" else draft is None:
                    continue  # nothing to do, whatever the mail says: it need not be read
                try:
                    mail = parse(note.path.rpartition("/")[2], self.vault.read(note.path))
                except (OSError, UnreadableMail):
                    continue  # a person is looking after it already
                with self._isolated(note.path, report):
                    do = self._decide(note.path, mail, place)
                    if do.what == "draft":
                        claimed.setdefault(mail.slug, (note.path, mail))
                    else:
                        self._carry_out(do, note.path, mail, report)
        return claimed

    def _sort_inbox(self, claimed: dict[str, tuple[str, Mail]], report: Report) -> list[tuple[str, Mail]]:
        """Carry out what needs no call; return the mails that need one, one a mail id, `claimed` ones first."""
        to_draft: dict[str, tuple[str, Mail]] = {}
        may_claim = not (self.stuck and claimed)
        unreadable: dict[str, OSError] = {}
        for name in self.vault.names(INBOX):
            if not is_mail_name(name):
                continue  # no mail; or a draft that a person laid here: it was missed where it belongs, that was told
            path = f"{INBOX}/{name}"
            with self._isolated(path, report):
                if 0 <= self.vault.age(path) < self.settle_seconds:
                    continue
                try:
                    raw = self.vault.read(path)
                    mail = parse(name, raw)
                except UnreadableMail as fault:
                    self._set_aside(path, raw, str(fault), report)
                    continue
                except OSError as error:
                    unreadable[path] = error
                    continue
                if mail.slug in to_draft:
                    continue  # its twin is drafted first; the next pass knows what to do with this one
                do = self._decide(path, mail, "inbox")
                if do.what != "draft":
                    self._carry_out(do, path, mail, report)
                elif self.claims is None:
                    to_draft[mail.slug] = (path, mail)
                elif may_claim:
                    claimed[mail.slug] = self._claim(path, raw, mail, report)
        with self._isolated(INBOX, report):
            self._tell_unreadable(unreadable)
        return [*claimed.values(), *to_draft.values()]

    def _decide(self, path: str, mail: Mail, place: Place) -> Do:
        copy = "none" if place == "needs action" else self._copy_of(path, mail, place)
        return decide(mail, place, self.index.draft_state(mail.slug), copy, self.vault.in_progress)

    def _copy_of(self, path: str, mail: Mail, place: Place) -> Copy:
        """How the other files under the mail's id relate to it: in the inbox all of them; of a mail in progress the one
        that has the id (`Index.holder`), and an identical one that a cut-off move left behind."""
        others = [note for note in self.index.mails.get(mail.slug, ()) if note.path != path]
        rivals = others
        if place == "in progress":
            holder = self.index.holder(mail.slug)
            rivals = [note for note in others if note == holder]
            others = [*rivals, *(note for note in others if note.path.startswith((NEEDS_ACTION, SKIPPED)))]
        if not others:
            return "none"
        text = decode(self.vault.read(path))
        for other in others:
            other_text = decode(self.vault.read(other.path))
            fields, _ = frontmatter.read(other_text)
            noted = {key: fields[key] for key in ANNOTATIONS if key in fields}
            if other_text in (text, frontmatter.annotate(text, noted)):
                return "identical"
        if not rivals:
            return "none"
        return "same" if any(other.fingerprint == mail.fingerprint() for other in rivals) else "different"

    def _claim(self, path: str, raw: bytes, mail: Mail, report: Report) -> tuple[str, Mail]:
        """Move a mail, and change nothing in it, to our folder: under its id, so that two claims are seen by name."""
        target = self.vault.move(path, f"{self.vault.in_progress}/{MAIL_PREFIX}{mail.slug}.md", raw, was=raw)
        self.index.moved(path, target, mail, drafted=False)
        self.journal.record("mail_claimed", mail.email_id, to=target)
        log.info("%s -> %s (claimed)", path, target)
        report.claimed += 1
        return target, parse(target.rpartition("/")[2], raw)

    def _confirmed(self, claims: Claims, mails: list[tuple[str, Mail]], report: Report) -> list[tuple[str, Mail]]:
        """Those that may be drafted: the remote has our claim of them. Asks the sync loop for a cycle, and waits."""
        proven, why = claims.confirm(path for path, _ in mails)
        waiting = [path for path, _ in mails if path not in proven and self.vault.exists(path)]  # the others are lost
        if waiting:
            mails_said = f"{len(waiting)} mail{'' if len(waiting) == 1 else 's'}"
            message = f"{mails_said} claimed and not yet confirmed by the remote: {why}"
            report.later(message)
            log.warning("%s", message)
        return [(path, mail) for path, mail in mails if path in proven]

    def _carry_out(self, do: Do, path: str, mail: Mail, report: Report) -> None:
        """Do what was decided about a mail that needs no call. Runs under the tree lock."""
        if do.what == "leave":
            return
        if do.what == "drop":
            self._drop(path, mail, do.reason)
            return
        adopted = do.decision == "reply" and do.folder == self.vault.in_progress
        if adopted and self._draft_link(mail) not in self.vault.read_text(dashboard.PATH):
            self.journal.tell(self._draft_entry(mail))  # a kill came between the draft and its entry
        self._move(path, mail, do)
        report.moved += 1

    def _move(self, path: str, mail: Mail, do: Do) -> None:
        noted = {"decision": do.decision, "reason": do.reason}
        if do.decision == "reply" or mail.fields.get("drafted_as"):
            noted["drafted_as"] = mail.draft_name.removesuffix(".md")
        raw = self.vault.read(path)
        text = frontmatter.annotate(decode(raw), noted)
        if do.decision in ("skip", "review", "failed"):
            words = {"skip": "Skipped", "review": "Needs a person", "failed": "Could not be drafted"}[do.decision]
            self.journal.tell(
                f"{words}: “{dashboard.plain(shown(mail.subject))}” from "
                f"{dashboard.plain(shown(mail.sender), 80)}: {dashboard.plain(do.reason, 300)}"
            )
        target = self.vault.move(path, f"{do.folder}/{MAIL_PREFIX}{mail.slug}.md", encode(text), was=raw)
        self.index.moved(path, target, mail, drafted="drafted_as" in noted)
        self.journal.record("mail_moved", mail.email_id, to=target, decision=do.decision, reason=do.reason)
        log.info("%s -> %s (%s)", path, target, do.reason)

    def _drop(self, path: str, mail: Mail, reason: str) -> None:
        self.vault.remove(path, was=self.vault.read(path))
        self.journal.record("copy_removed", mail.email_id, path=path, reason=reason)
        log.info("%s removed: %s", path, reason)

    def _set_aside(self, path: str, raw: bytes, reason: str, report: Report) -> None:
        """An unreadable mail: its bytes are kept, a note in Needs_Action says where and why.

        Taken out of the inbox last: killed in between, all of it is done again and ends the same.
        """
        name = path.rpartition("/")[2]
        kept = self.vault.place(f"{UNPARSEABLE}/{slug(stem_id(name))}.md", raw)
        note = frontmatter.dump(
            {"decision": "review", "reason": f"this mail cannot be read: {reason}", "kept": kept},
            f"The mail `{dashboard.plain(shown(name))}` cannot be read: {reason}. Its bytes lie in `{kept}`.\n\n"
            "Mend the file and move it to `Inbox/`, or delete both.",
        )
        self.vault.place(f"{NEEDS_ACTION}/{MAIL_PREFIX}{slug(stem_id(name))}.md", encode(note))
        self.journal.tell(f"Needs a person: {dashboard.plain(shown(name))} cannot be read: {reason}")
        self.journal.record("mail_unreadable", stem_id(name), to=kept, reason=reason)
        self.vault.remove(path, was=raw)
        report.moved += 1

    def _tell_unreadable(self, files: dict[str, OSError]) -> None:
        """Raise an alert for each file of the inbox that cannot be opened."""
        self._tell_each(
            "file",
            {
                path: f"{path} cannot be opened ({error.strerror}): give it to this user, e.g. with chown and chmod"
                for path, error in files.items()
            },
        )

    def _tell_held(self) -> None:
        """Raise an alert for each mail that another agent has held for long without a draft. It is not taken over: the
        agent may come back with a draft that it could not push."""
        held = {}
        for note in self.index.claims_of_others():
            agent = note.path.split("/")[1]
            with contextlib.suppress(OSError, ForbiddenPath):  # it went away
                if self.vault.age(note.path) > HELD_SECONDS:
                    held[note.path] = (
                        f"{note.path} has been claimed by {agent} for more than an hour and has no draft: "
                        f"if {agent} is not running any more, move the file back to {INBOX}/"
                    )
        self._tell_each("claim", held)

    def _tell_each(self, kind: str, messages: dict[str, str]) -> None:
        """Raise an alert for each path, tell each once, and clear those of an earlier pass."""
        for path, message in messages.items():
            if self.state.raise_alert(f"{kind} {path}", message, self.clock()):
                log.warning("%s", message)
                self.journal.tell(f"{dashboard.plain(shown(message), 300)}")
        for key in self.state.alerts():
            if key.startswith(f"{kind} ") and key.removeprefix(f"{kind} ") not in messages:
                self.state.clear_alert(key)

    # -- what needs the model --------------------------------------------------------------------------------------

    def _draft_all(self, mails: list[tuple[str, Mail]], report: Report) -> None:
        handbook = self.vault.read_text(HANDBOOK)
        budget = Budget(self._budget_left())
        pool = ThreadPoolExecutor(self.config.draft_concurrency, thread_name_prefix="claude")
        halt = threading.Event()
        futures: dict[Future[Answer | None], tuple[str, Mail]] = {
            pool.submit(self._call, mail, handbook, budget, halt): (path, mail) for path, mail in mails
        }
        log.info("%d mail%s to draft", len(futures), "" if len(futures) == 1 else "s")
        waiting = set(futures)
        while waiting and not self.stop.is_set():
            done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in done:
                self._finish(*futures[future], future, handbook, report)
        if waiting:
            # Asked to stop: calls in hand may still end; their mails stay where they are otherwise.
            report.result, report.message = "later", "the pass was stopped before its end"
            halt.set()
            done, _ = wait(waiting, timeout=15)
            for future in done:
                self._finish(*futures[future], future, handbook, report)
        pool.shutdown(wait=False, cancel_futures=True)
        self.stuck = report.unavailable and not report.answered

    def _call(self, mail: Mail, handbook: str, budget: Budget, halt: threading.Event) -> Answer | None:
        """One call, in a thread of the pool. None when the pass was halted before it."""
        if halt.is_set():
            return None
        if self.unwritten[mail.try_key()] >= MAX_TRIES:
            raise TryLater(
                "its answers could not be written down; see the log, and restart the agent once that is mended"
            )
        worst = self._worst_case(mail, handbook)
        if worst is None and budget.left is not None:
            raise Refused(
                f"{self.config.claude_model} has no known price, so no budget can be kept: choose another CLAUDE_MODEL"
            )
        if not budget.reserve(worst or 0.0):
            raise BudgetReached("The budget is reached: raise BUDGET_USD_PER_DAY or BUDGET_USD_PER_WEEK, or wait.")
        try:
            answer = self.drafter.draft(mail, handbook)
        except Refused:
            halt.set()  # no other call can fare better
            raise
        budget.settle(worst or 0.0, usage.cost(answer.model, answer.usage, self.clock().date()) or 0.0)
        return answer

    def _finish(self, path: str, mail: Mail, future: Future[Answer | None], handbook: str, report: Report) -> None:
        try:
            answer = future.result()
        except TryLater as error:
            report.unavailable = True
            report.result = "later" if report.result == "ok" else report.result
            report.message = f"Claude's API cannot answer now: {error}"
            log.warning("%s stays where it is: %s", path, error)
        except Refused as error:
            report.unavailable = True
            report.result, report.message, report.refused = "failed", str(error), True
            if self.state.raise_alert("drafting", str(error), self.clock()):
                log.error("drafting has stopped: %s", error)
                self._tell_locked(f"Drafting has stopped: {dashboard.plain(str(error), 300)}")
        except BudgetReached as error:
            report.unavailable = True
            report.result, report.message = "later", str(error)
            if self.state.raise_alert("budget", str(error), self.clock()):
                log.warning("%s", error)
                self._tell_locked(str(error))
        except Unanswerable as error:
            with lock(self.state.tree_lock), self._isolated(path, report):
                self._count_failure(path, mail, f"Claude's API does not take it ({error})", report)
        except Exception as error:
            log.exception("the call for %s failed: this is a fault of the program", path)
            with lock(self.state.tree_lock), self._isolated(path, report):
                self._count_failure(path, mail, f"the call failed ({type(error).__name__})", report)
        else:
            if answer is not None:
                report.answered += 1
                self.unwritten[mail.try_key()] += 1
                with lock(self.state.tree_lock), self._isolated(path, report):
                    self._record(path, mail, answer, handbook, report)
                    del self.unwritten[mail.try_key()]

    def _record(self, path: str, mail: Mail, answer: Answer, handbook: str, report: Report) -> None:
        """Write down what a call brought, money first. Runs under the tree lock."""
        now = self.clock()
        row = usage.row(now, self.config.agent_name, answer.model, answer.usage, TASK)
        self.vault.append(usage.path(now.date()), row.encode(), usage.header(now.date()).encode())
        self.index.refresh()
        asked = mail.fingerprint()
        try:
            mail = parse(path.rpartition("/")[2], self.vault.read(path))
        except (OSError, UnreadableMail):
            log.info("%s was moved meanwhile; its answer is dropped", path)
            return
        if mail.fingerprint() != asked:
            log.info("%s was edited meanwhile; its answer is dropped, the next pass asks again", path)
            return
        do = self._decide(path, mail, "inbox" if path.startswith(f"{INBOX}/") else "in progress")
        to = envelope(mail)
        if do.what != "draft" or to is None:
            self._carry_out(do, path, mail, report)
            return
        reply = answer.reply
        if reply is None:
            self._count_failure(path, mail, answer.fault, report)
            return
        overruled = bool(mail.fields.get("decision"))
        if reply.decision == "review" and not (overruled and reply.body.strip()):
            reason = f"Claude asks for a person: {shown(reply.reason)}"
            self._move(path, mail, Do("move", NEEDS_ACTION, "review", reason))
            report.moved += 1
            return
        draft = approval.Draft(
            body=reply.body,
            reason=shown(reply.reason),
            confidence=reply.confidence,
            missing_facts=tuple(shown(fact) for fact in reply.missing_facts),
            flags=flags_of(mail, to, reply.body, handbook),
            model=answer.model,
        )
        text = approval.render(mail, to, draft, now)
        written = self.vault.write_numbered(f"{PENDING}/{mail.draft_name}", text.encode())  # never over a file
        self.journal.tell(self._draft_entry(mail))
        self.journal.record("draft_created", mail.email_id, draft=written, model=answer.model, to=to.to)
        log.info("draft %s", written)
        self._move(path, mail, Do("move", self.vault.in_progress, "reply", "its draft waits for a decision"))
        self.state.forget_tries(mail.try_key())
        report.drafted += 1

    def _count_failure(self, path: str, mail: Mail, reason: str, report: Report) -> None:
        tries = self.state.count_try(mail.try_key())
        log.warning("%s: try %d of %d failed: %s", path, tries, MAX_TRIES, reason)
        if tries >= MAX_TRIES:
            self._move(path, mail, Do("move", NEEDS_ACTION, "failed", f"{reason}, {tries} times"))
            self.state.forget_tries(mail.try_key())
            report.moved += 1
        else:
            report.later(f"{path}: {reason}")

    def _budget_left(self) -> float | None:
        today = self.clock().date()
        limits = []
        if self.config.budget_usd_per_day is not None:
            limits.append(self.config.budget_usd_per_day - usage.spent_on([today], self.vault.read_text))
        if self.config.budget_usd_per_week is not None:
            week = usage.week_of(today)
            limits.append(self.config.budget_usd_per_week - usage.spent_on(week, self.vault.read_text))
        return min(limits) if limits else None

    def _worst_case(self, mail: Mail, handbook: str) -> float | None:
        """Dollars that a call may cost at most: three bytes a token, the longest answer."""
        tokens = usage.Usage(input=(len(f"{mail.body}{handbook}".encode()) + 8000) // 3, output=MAX_TOKENS)
        return usage.cost(self.config.claude_model, tokens, self.clock().date())

    # -- what the owner reads --------------------------------------------------------------------------------------

    def _draft_entry(self, mail: Mail) -> str:
        return (
            f"Email draft ready: {self._draft_link(mail)} for "
            f"{dashboard.plain(shown(mail.sender), 80)}, “{dashboard.plain(shown(mail.subject))}”"
        )

    def _draft_link(self, mail: Mail) -> str:
        return f"[[{mail.draft_name.removesuffix('.md')}]]"

    def _tell_locked(self, entry: str) -> None:
        with lock(self.state.tree_lock):
            self.journal.tell(entry)


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower()
