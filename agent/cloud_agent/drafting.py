"""The draft pass: mails of the inbox become drafts, each at most once.

A pass looks at the vault (the only ledger), decides with `decide`, a pure function, what is to be done with each mail,
and does it. Calls to Claude run side by side outside the lock; before anything is written, the decision is taken again
under the lock, because a person may have moved things meanwhile. Mails that arrive while calls are in hand join them.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import cache
from typing import TYPE_CHECKING, Literal

from cloud_agent import approval, aside, dashboard, frontmatter, request, screen, thread, usage
from cloud_agent.backoff import Backoff
from cloud_agent.calls import Call, Calls, Ended
from cloud_agent.claude import Answer, Drafter, Refused, TryLater, Unanswerable
from cloud_agent.config import Config
from cloud_agent.decision import Copy, Do, Place, answered, decide, flags_of, is_drafted
from cloud_agent.index import Index
from cloud_agent.journal import Journal
from cloud_agent.mail import (
    MAIL_PREFIX,
    Mail,
    UnreadableMail,
    decode,
    encode,
    envelope,
    is_mail_name,
    message_ids,
    parse,
    read_note,
    shown,
)
from cloud_agent.request import Earlier, Reply, Task
from cloud_agent.state import Clock, Result, State
from cloud_agent.usage import Usage
from cloud_agent.vault import (
    DONE,
    HANDBOOK,
    IN_PROGRESS,
    INBOX,
    LOCAL,
    NEEDS_ACTION,
    PENDING,
    SKIPPED,
    STILL_SECONDS,
    ForbiddenPath,
    Vault,
    lock,
)

if TYPE_CHECKING:
    from cloud_agent.claim import Claims

log = logging.getLogger("cloud_agent.draft")

MAX_TRIES = 3
TASK = "email_draft"
# What the Dashboard calls the decisions that it tells.
WORDS = {
    "skip": "Skipped",
    "review": "Needs a person",
    "notify": "For your information",
    "failed": "Could not be drafted",
}
ANNOTATIONS = ("decision", "reason", "drafted_as")
# So often new mails are looked for while calls are in hand.
LOOK_SECONDS = 0.25
# So many mails in a row that get no answer are an outage; a single one may be the mail's own fault.
OUTAGE_MAILS = 2
# From so many outages in a row on, the owner is told: about five minutes.
OUTAGE_TOLD = 5
# When a mail is tried again whose answer was unusable.
RETRY_SECONDS = 30.0
# A thread is given to the model up to so many messages; claude.py bounds their length.
MAX_EARLIER = 20
# From then on a mail that another agent claimed and has not drafted is an alert. Its age is that of the file in this
# clone: the time since this agent learned of the claim.
HELD_SECONDS = 3600.0


@dataclass
class Report:
    """What one pass did. `result` and `message` go into the beat; `retry_in`: seconds to the next pass, None for the
    usual interval."""

    claimed: int = 0
    called: int = 0
    answered: int = 0
    drafted: int = 0
    moved: int = 0
    refused: bool = False
    halted: bool = False  # no further call is begun in this pass
    short: bool = False  # of money, for one mail at least
    result: Result = "ok"
    message: str = ""
    retry_in: float | None = None
    unreadable: dict[str, OSError] = field(default_factory=dict)  # files of the inbox, by path

    def later(self, message: str, retry_in: float | None = None) -> None:
        if self.result == "ok":
            self.result, self.message = "later", message
        if retry_in is not None:
            self.again_in(retry_in)

    def again_in(self, seconds: float) -> None:
        self.retry_in = seconds if self.retry_in is None else min(seconds, self.retry_in)


@dataclass
class Budget:
    """What may still be spent, US dollars, None for no limit. A call reserves its worst case before it is made."""

    left: float | None

    def holds(self, worst: float) -> bool:
        return self.left is None or worst <= self.left

    def reserve(self, worst: float) -> bool:
        if not self.holds(worst):
            return False
        self.release(-worst)
        return True

    def release(self, dollars: float) -> None:
        if self.left is not None:
            self.left += dollars


@dataclass
class _Taken:
    """What one pass has looked at: file names of the inbox; ids and messages of which one mail is drafted."""

    names: set[str] = field(default_factory=set)
    mails: set[str] = field(default_factory=set)


@dataclass
class _Work:
    """The drafting of one pass. `unanswered` are the calls that got no answer since the last answer of any."""

    handbook: str
    budget: Budget
    queue: deque[tuple[str, Mail]]
    careful: bool  # one call first: Claude was not to be reached
    caching: bool
    unanswered: list[tuple[Call, TryLater]] = field(default_factory=list)


class Orchestrator:
    """The draft loop's step. `drafter`, `clock` and the stop signal come from outside."""

    def __init__(
        self,
        config: Config,
        drafter: Drafter,
        state: State,
        clock: Clock,
        stop: threading.Event | None = None,
        settle_seconds: float = STILL_SECONDS,
    ) -> None:
        self.settle_seconds = settle_seconds
        self.config = config
        self.drafter = drafter
        self.state = state
        self.clock = clock
        self.stop = stop or threading.Event()
        self.vault = Vault(config.vault_path, config.agent_name)
        self.index = Index(self.vault)
        self.journal = Journal(self.vault, config.agent_name, "audit", clock, state)
        self.claims: Claims | None = None
        if config.claim:
            from cloud_agent.claim import Claims

            self.claims = Claims(config, state, clock, self.stop)
        # Claude answered nothing the last time: what is claimed already is enough to find out when it does (_room).
        self.stuck = False
        self.backoff = Backoff()
        self.cached_at: datetime | None = None
        self.told_on: date | None = None  # the day of the spend line on the Dashboard
        # How often each mail went without an answer: the others come first.
        self.unanswered: Counter[str] = Counter()
        # Answers that were paid for and could not be written down, by mail: a broken disk must not cost money for ever.
        self.unwritten: Counter[str] = Counter()

    def run_pass(self, underway: Callable[[Report], object] = lambda _: None) -> Report:
        """Look at every open mail once. Ends early, with result `later` or `failed`, when Claude cannot be used.

        While it waits for others, `underway` is called again and again with what it did so far.
        """
        report = Report()
        with lock(self.state.process_lock("draft")):
            self._let_mails_settle()
            with lock(self.state.tree_lock):
                if not self._look(report):
                    return report
                claimed = self._settle_open_mails(report)
                with self._isolated(IN_PROGRESS, report):
                    self._tell_held()
                taken = _Taken()
                to_draft = self._sort_inbox(claimed, taken, report)
            waiting = bool(to_draft)
            if waiting:
                underway(report)
            if self.claims is not None and to_draft:
                to_draft = self._confirmed(self.claims, to_draft, report)
            if to_draft:
                self._draft_all(to_draft, taken, report, underway)
            elif not waiting:
                self._clear("budget")  # nothing waits for it
            if report.answered:
                over = {"outage": True, "drafting": not report.halted, "budget": not (report.halted or report.short)}
                cleared = [self._clear(key) for key, ended in over.items() if ended]
                if any(cleared):
                    with lock(self.state.tree_lock):
                        self.journal.tell("Drafting works again.")
            self._tell_spend(report)
            with lock(self.state.tree_lock), self._isolated(INBOX, report):
                self._tell_unreadable(report.unreadable)
        return report

    def _look(self, report: Report) -> bool:
        """Read where everything lies. Where a folder cannot be read, nothing is drafted: it might be drafted twice."""
        try:
            self.index.refresh()
            self.vault.names(INBOX)
        except (OSError, ForbiddenPath) as error:
            message = f"the vault cannot be read: {error}: make it a folder that this user may read; drafting waits"
            report.result, report.message = "failed", message
            if self._raise("vault", message):
                log.error("%s", message)
                self.journal.tell(dashboard.plain(shown(message), 300))
            return False
        self._clear("vault")
        return True

    def _let_mails_settle(self) -> None:
        """Wait a moment for mails that were just written; what somebody still writes is left to another pass."""
        with contextlib.suppress(OSError, ForbiddenPath):
            waits = [self._unfinished(f"{INBOX}/{name}") for name in self.vault.names(INBOX) if is_mail_name(name)]
            self.stop.wait(max((wait for wait in waits if wait <= STILL_SECONDS), default=0.0))

    def _unfinished(self, path: str) -> float:
        """Seconds until a mail may be taken in; 0.0 for one that went away."""
        if not self.settle_seconds:
            return 0.0
        try:
            return self.vault.unfinished(path, self.settle_seconds)
        except OSError:
            return 0.0

    @contextlib.contextmanager
    def _isolated(self, path: str, report: Report) -> Iterator[None]:
        """One mail that cannot be handled never holds up the others."""
        try:
            yield
        except (OSError, ForbiddenPath) as error:
            if report.result != "failed":  # that stopped drafting, and says more
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

    def _sort_inbox(
        self, claimed: dict[str, tuple[str, Mail]], taken: _Taken, report: Report
    ) -> list[tuple[str, Mail]]:
        """Carry out what needs no call about the files that were not `taken` yet; return the mails that need one, one a
        mail id and message, `claimed` ones first."""
        to_draft = list(claimed.values())
        room = self._room(claimed)
        for name in self.vault.names(INBOX):
            if not is_mail_name(name) or name in taken.names:
                continue  # no mail; or a draft that a person laid here: it was missed where it belongs, that was told
            path = f"{INBOX}/{name}"
            with self._isolated(path, report):
                if (wait := self._unfinished(path)) > 0:
                    report.again_in(wait)
                    continue
                taken.names.add(name)
                try:
                    raw = self.vault.read(path)
                    mail = parse(name, raw)
                except UnreadableMail as fault:
                    self._set_aside(path, raw, str(fault), report)
                    continue
                except OSError as error:
                    report.unreadable[path] = error
                    continue
                if taken.mails.intersection(_keys(mail)):
                    continue  # its twin is drafted first; the next pass knows what to do with this one
                do = self._decide(path, mail, "inbox")
                if do.what != "draft":
                    self._carry_out(do, path, mail, report)
                    continue
                if self.claims is None:
                    taken.mails.update(_keys(mail))
                    to_draft.append((path, mail))
                elif report.claimed < room:  # where it lies then tells its twins
                    to_draft.append(self._claim(path, raw, mail, report))
        return to_draft

    def _room(self, claimed: dict[str, tuple[str, Mail]]) -> float:
        """How many mails may be claimed beside those that are. An agent that cannot draft gathers none; but where each
        mail that it holds went without an answer, those may be the cause, and another one tells."""
        if not (self.stuck and claimed):
            return math.inf
        return float(all(self.unanswered[mail.try_key()] >= MAX_TRIES for _, mail in claimed.values()))

    def _decide(self, path: str, mail: Mail, place: Place) -> Do:
        copy = "none" if place == "needs action" else self._copy_of(path, mail, place)
        state = self.index.draft_state(mail.slug)
        return decide(mail, place, state, copy, self.vault.in_progress, self.config.owner_addresses)

    def _copy_of(self, path: str, mail: Mail, place: Place) -> Copy:
        """How the other files under the mail's id relate to it: in the inbox all of them; of a mail in progress the one
        that has the id (`Index.holder`), and an identical one that a cut-off move left behind."""
        others = [note for note in self.index.mails_of(mail.slug) if note.path != path]
        rivals = others
        if place == "in progress":
            holder = self.index.holder(mail.slug)
            rivals = [note for note in others if note == holder]
            others = [*rivals, *(note for note in others if note.path.startswith((NEEDS_ACTION, SKIPPED)))]
        text = decode(self.vault.read(path))
        for other in others:
            other_text = decode(self.vault.read(other.path))
            fields, _ = frontmatter.read(other_text)
            noted = {key: fields[key] for key in ANNOTATIONS if key in fields}
            if other_text in (text, frontmatter.annotate(text, noted)):
                return "identical"
        if not rivals:
            twin = None if mail.put_back else self.index.same_message(mail)
            return "same" if twin is not None and place == "inbox" else "none"
        return "same" if any(self.index.fingerprint(other) == mail.fingerprint() for other in rivals) else "different"

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
        if adopted and not self.journal.told(self._draft_link(mail)):
            self.journal.tell(self._draft_entry(mail))  # a kill came between the draft and its entry
        self._move(path, mail, do)
        report.moved += 1

    def _move(self, path: str, mail: Mail, do: Do) -> None:
        noted = {"decision": do.decision, "reason": do.reason}
        if do.decision == "reply" or mail.fields.get("drafted_as"):
            noted["drafted_as"] = mail.draft_name.removesuffix(".md")
        raw = self._as_decided(path, mail)
        text = frontmatter.annotate(decode(raw), noted)
        if do.decision in WORDS:
            words = WORDS[do.decision]
            sender = dashboard.plain(shown(mail.sender), 80).strip() or "an unknown sender"
            self.journal.tell(
                f"{words}: “{dashboard.plain(shown(mail.subject))}” from {sender}: {dashboard.plain(do.reason, 300)}"
            )
        target = self.vault.move(path, f"{do.folder}/{MAIL_PREFIX}{mail.slug}.md", encode(text), was=raw)
        self.index.moved(path, target, mail, drafted="drafted_as" in noted)
        decided = self._decision_of(mail) if do.folder == DONE else {}
        result = "failure" if do.decision == "failed" else "success"
        self.journal.record(
            "mail_moved", mail.email_id, result=result, to=target, decision=do.decision, reason=do.reason, **decided
        )
        log.info("%s -> %s (%s)", path, target, do.reason)

    def _decision_of(self, mail: Mail) -> dict[str, str]:
        """What a person decided about the draft of a mail, for the record: approved, or rejected and why."""
        for path in self.index.drafts_of(mail.slug):
            folder = path.split("/")[0]
            if folder in ("Approved", "Rejected", "Done"):
                status = "rejected" if folder == "Rejected" else "approved"
                with contextlib.suppress(OSError, ForbiddenPath):
                    fields, _ = read_note(self.vault.read(path))
                    said = fields.get("reason", "") if status == "rejected" else ""
                    return {"approval_status": status, "approved_by": LOCAL, "draft": path, "said": said}
        return {}

    def _drop(self, path: str, mail: Mail, reason: str) -> None:
        self.vault.remove(path, was=self._as_decided(path, mail))
        self.index.refresh()  # another mail of the id is looked at in this pass
        self.journal.record("copy_removed", mail.email_id, path=path, reason=reason)
        log.info("%s removed: %s", path, reason)

    def _as_decided(self, path: str, mail: Mail) -> bytes:
        """The bytes of a mail that was decided about. Raises OSError when another mail stands there by now."""
        raw = self.vault.read(path)
        with contextlib.suppress(UnreadableMail):
            if parse(path.rpartition("/")[2], raw) == mail:
                return raw
        raise OSError(errno.EBUSY, "it was written to meanwhile: it stays, the next pass looks again", path)

    def _set_aside(self, path: str, raw: bytes, reason: str, report: Report) -> None:
        """Taken out of the inbox last: killed in between, all of it is done again and ends the same."""
        aside.keep(self.vault, self.journal, path.rpartition("/")[2], raw, reason)
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
            if self._raise(f"{kind} {path}", message):
                log.warning("%s", message)
                self.journal.tell(f"{dashboard.plain(shown(message), 300)}")
        for key in self.state.alerts():
            if key.startswith(f"{kind} ") and key.removeprefix(f"{kind} ") not in messages:
                self._clear(key)

    # -- what needs the model --------------------------------------------------------------------------------------

    def _draft_all(
        self,
        mails: list[tuple[str, Mail]],
        taken: _Taken,
        report: Report,
        underway: Callable[[Report], object],
    ) -> None:
        """Have these mails drafted, and those that arrive meanwhile, a bounded number at a time."""
        if (pause := self.backoff.left(self.clock())) > 0:
            report.later(f"Claude's API could not answer; it is asked again in {pause:.0f} s", pause)
            return
        try:
            handbook, left = self.vault.read_text(HANDBOOK), self._budget_left()
            with lock(self.state.tree_lock):
                self._write_usage("")  # before anything is paid for that could not be written down
        except (OSError, ForbiddenPath) as error:
            self._refused(f"{error}: make it a plain file that this user may read and write", report)
            return
        since = self._since_cached()
        at_once = self.config.draft_concurrency
        caching = request.cacheable(handbook, self.config.claude_model) and request.pays(len(mails), since, at_once)
        work = _Work(
            handbook=handbook,
            budget=Budget(left),
            queue=deque(sorted(mails, key=self._turn)),
            careful=self.backoff.failures > 0 or self.stuck,
            caching=caching,
        )
        log.info("%d mail%s to draft", len(mails), "" if len(mails) == 1 else "s")
        calls = Calls(self.drafter, self.config.draft_concurrency)
        answers: deque[tuple[Call, Answer]] = deque()
        self._begin(work, calls, report)
        while (calls.running or answers) and not self.stop.is_set():
            underway(report)
            answers.extend(self._settle(work, calls.ended(0.0 if answers else LOOK_SECONDS), report))
            self._begin(work, calls, report)  # first: while an answer is written down, others are waited for
            if answers:
                self._record(*answers.popleft(), report)
            if self.claims is None and not report.halted:
                with contextlib.suppress(OSError, ForbiddenPath):  # the next pass tells of it
                    work.queue.extend(self._newcomers(taken, report))
                self._begin(work, calls, report)
        if self.stop.is_set() and (calls.running or work.queue):
            report.result, report.message = "later", "the pass was stopped before its end"
        answers.extend(self._settle(work, calls.close(15.0 if calls.running else 0.0), report))
        for call, answer in answers:
            self._record(call, answer, report)
        for call in calls.running.values():  # it went out, and nobody waits for its answer any more
            self._may_be_paid(call, report)
        self._judge_outage(work, report)

    def _turn(self, entry: tuple[str, Mail]) -> tuple[int, bool, str]:
        """Whose turn it is: mails that never went unanswered, then urgent ones, then by name."""
        path, mail = entry
        urgent = mail.fields.get("priority", "").strip().lower() in ("high", "urgent")
        return self.unanswered[mail.try_key()], not urgent, path

    def _newcomers(self, taken: _Taken, report: Report) -> list[tuple[str, Mail]]:
        """Mails that came into the inbox since; what needs no call is settled at once."""
        new = (name for name in self.vault.names(INBOX) if is_mail_name(name) and name not in taken.names)
        if all(self._unfinished(f"{INBOX}/{name}") for name in new):
            return []
        with lock(self.state.tree_lock):
            return self._sort_inbox({}, taken, report) if self._look(report) else []

    def _begin(self, work: _Work, calls: Calls, report: Report) -> None:
        """Begin as many calls of the queue as may run, each if its worst case may still be spent."""
        most = 1 if work.careful and not report.answered else self.config.draft_concurrency
        while work.queue and len(calls.running) < most and not report.halted and not self.stop.is_set():
            path, mail = work.queue.popleft()
            if self.unwritten[mail.try_key()] >= MAX_TRIES:
                said = "its answers could not be written down; see the log, and restart the agent once that is mended"
                report.later(f"{path}: {said}")
                continue
            try:
                task = Task(mail, work.handbook, self._earlier(mail), work.caching)
                call = Call(path, task, usage.cost(self.config.claude_model, request.worst_case(task), self._today()))
            except Exception as error:
                log.exception("%s cannot be asked about: this is a fault of the program", path)
                self._fault(path, mail, f"it cannot be asked about ({type(error).__name__})", report)
                continue
            if calls.running and not work.budget.holds(call.worst or 0.0):
                work.queue.appendleft((path, mail))
                break  # the calls in hand have reserved their worst case, and give back what they do not cost
            if self._may_cost(call, work.budget, report):
                report.called += 1
                calls.begin(call)

    def _may_cost(self, call: Call, budget: Budget, report: Report) -> bool:
        """Whether the worst case of a call may still be spent; it is reserved then."""
        if call.worst is None:
            unpriced = f"{self.config.claude_model} has no known price"
            if budget.left is not None:
                self._refused(f"{unpriced}, so no budget can be kept: choose another CLAUDE_MODEL", report)
                return False
            self._alert("price", f"{unpriced}: what it costs is not counted. Choose another CLAUDE_MODEL to have it so")
        if budget.reserve(call.worst or 0.0):
            return True
        # A long mail waits alone: a shorter one may do with what is left, as long as an answer does.
        report.short = True
        least = usage.cost(self.config.claude_model, Usage(output=request.MAX_TOKENS), self._today())
        report.halted = report.halted or not budget.holds(least or 0.0)
        message = "The budget is reached: raise BUDGET_USD_PER_DAY or BUDGET_USD_PER_WEEK, or wait."
        report.later(f"{message} The next draft may cost ${call.worst:.2f}, and ${budget.left:.2f} are left.")
        self._alert("budget", message)
        return False

    def _settle(self, work: _Work, ended: Ended, report: Report) -> list[tuple[Call, Answer]]:
        """See to the calls that failed, and to the money of all; return those that were answered."""
        answers = []
        for call, outcome in ended:
            if isinstance(outcome, Answer):
                cost = usage.cost(outcome.model, outcome.usage, self._today())
                paid = cost if cost is not None else call.worst or 0.0
                answers.append((call, outcome))
            else:
                paid = self._failed(work, call, outcome, report)
            work.budget.release((call.worst or 0.0) - paid)
        if answers:
            report.answered += len(answers)
            if work.caching:
                self.cached_at = self.clock()
            self._blame(work, report)
        return answers

    def _failed(self, work: _Work, call: Call, error: BaseException, report: Report) -> float:
        """See to a call without an answer; returns the US dollars that it may have cost."""
        path, mail = call.path, call.mail
        if isinstance(error, Refused):
            self._refused(str(error), report)
            return 0.0
        if not isinstance(error, TryLater):
            if isinstance(error, Unanswerable):
                self._fault(path, mail, f"Claude's API does not take it ({error})", report)
                return 0.0
            log.error("the call for %s failed: this is a fault of the program", path, exc_info=error)
            self._fault(path, mail, f"the call failed ({type(error).__name__})", report)
            return self._may_be_paid(call, report)
        work.unanswered.append((call, error))
        self.unanswered[mail.try_key()] += 1
        report.halted = report.halted or error.overload or len(work.unanswered) >= OUTAGE_MAILS
        report.later(f"Claude's API cannot answer now: {error}")
        log.log(logging.DEBUG if self.backoff.failures else logging.WARNING, "%s stays where it is: %s", path, error)
        return self._may_be_paid(call, report) if error.sent else 0.0

    def _may_be_paid(self, call: Call, report: Report) -> float:
        """Write down a call of which nobody knows what it cost; returns its worst case, US dollars."""
        paid = call.worst or 0.0
        with self._isolated(call.path, report), lock(self.state.tree_lock):
            agent, model = self.config.agent_name, self.config.claude_model
            self._write_usage(usage.unknown_row(self.clock(), agent, model, paid, TASK))
        return paid

    def _fault(self, path: str, mail: Mail, reason: str, report: Report) -> None:
        """Count a failed try of a mail, if it is to be drafted still."""
        with self._isolated(path, report), lock(self.state.tree_lock):
            if self._is_to_draft(path, mail, report):
                self._count_failure(path, mail, reason, report)

    def _blame(self, work: _Work, report: Report) -> None:
        """Claude does answer: mails that got no answer before are counted as failed, each by its own fault."""
        for call, error in work.unanswered:
            if not error.overload:
                self._fault(call.path, call.mail, f"Claude's API gave no answer ({error})", report)
        work.unanswered[:] = [(call, error) for call, error in work.unanswered if error.overload]

    def _judge_outage(self, work: _Work, report: Report) -> None:
        """What the pass as a whole says about Claude's API: back off, or go on as usual."""
        if report.answered and len(work.unanswered) == 1:
            self._blame(work, report)
        self.stuck = not report.answered and bool(report.halted or work.unanswered)
        if report.answered:
            self.backoff = Backoff()  # a rate limit is no outage: the next pause is a short one again
        if not work.unanswered:
            return
        errors = [error for _, error in work.unanswered]
        self.backoff = self.backoff.after_failure(self.clock(), max(error.retry_after for error in errors))
        report.retry_in = self.backoff.left(self.clock())
        if self.backoff.failures >= OUTAGE_TOLD:
            self._alert(
                "outage", f"Claude's API has not answered for a while: mails wait in {INBOX}/ and are tried again"
            )
        log.info("the next call to Claude is made in %.0f s", report.retry_in)

    def _refused(self, message: str, report: Report) -> None:
        """Key, money or model: nothing can be drafted until a person mends it."""
        report.result, report.message, report.refused, report.halted = "failed", message, True, True
        self._alert("drafting", message, told=f"Drafting has stopped: {dashboard.plain(message, 300)}")

    def _alert(self, key: str, message: str, told: str = "") -> None:
        """Raise an alert, and tell it once."""
        if self._raise(key, message):
            log.error("%s", message)
            with lock(self.state.tree_lock):
                self.journal.tell(told or dashboard.plain(message, 300))

    def _raise(self, key: str, message: str) -> bool:
        """Note an alert; True when it is new. A state folder that takes nothing holds no mail up."""
        try:
            return self.state.raise_alert(key, message, self.clock())
        except OSError as error:
            log.error("an alert cannot be kept (%s): %s", error, message)
            return False

    def _clear(self, key: str) -> bool:
        """End an alert; True when there was one."""
        try:
            return self.state.clear_alert(key)
        except OSError as error:
            log.error("the alert %s cannot be ended: %s", key, error)
            return False

    def _earlier(self, mail: Mail) -> tuple[Earlier, ...]:
        """The thread so far, oldest first: mails of the same conversation, and what was drafted to them."""
        own = self.config.owner_addresses
        to = envelope(mail, own)
        if to is None:
            return ()
        found: list[Earlier | None] = []
        for path in self.index.thread(mail)[-MAX_EARLIER:]:
            with contextlib.suppress(OSError, ForbiddenPath):
                found.append(thread.earlier(path, self.vault.read(path), to, own))
        return tuple(one for one in found if one is not None)

    def _record(self, call: Call, answer: Answer, report: Report) -> None:
        """Write down what a call brought."""
        key = call.mail.try_key()
        del self.unanswered[key]
        self.unwritten[key] += 1
        findings: tuple[screen.Finding, ...] = ()
        try:
            findings = self._screen(call, answer.reply)  # takes its time: outside the lock
        except Exception as error:
            log.exception("the answer to %s cannot be screened: this is a fault of the program", call.path)
            answer = replace(answer, reply=None, fault=f"its draft cannot be screened ({type(error).__name__})")
        with self._isolated(call.path, report), lock(self.state.tree_lock):
            # Money first; while it cannot be written down, no more of it is spent.
            halted, report.halted = report.halted, True
            agent = self.config.agent_name
            self._write_usage(usage.row(self.clock(), agent, answer.model, answer.usage, TASK, call.worst))
            report.halted = halted
            self._file(call, answer, findings, report)
            del self.unwritten[key]

    def _screen(self, call: Call, reply: Reply | None) -> tuple[screen.Finding, ...]:
        """What is remarkable in what the owner is to read: the draft and the notes on it, or the reason for none."""
        if reply is None:
            return ()
        # No more of it than the model may have seen: whoever writes mails can make a thread of any length.
        earlier = [request.shortened(one.text, request.MAX_EARLIER_CHARACTERS) for one in call.task.earlier]
        if not is_drafted(call.mail, reply):
            return screen.of_notes((reply.reason,), call.mail, earlier, call.task.handbook)
        beside = (reply.reason, *reply.missing_facts)
        found = screen.of_reply(reply.body, call.mail, earlier, call.task.handbook, request.prompt(), beside)
        return (*found, *screen.of_mail(call.mail))

    def _file(self, call: Call, answer: Answer, findings: tuple[screen.Finding, ...], report: Report) -> None:
        """Put an answer where it belongs: a draft that waits, or a mail that a person must look at."""
        path, mail, reply = call.path, call.mail, answer.reply
        to = envelope(mail, self.config.owner_addresses)
        if not self._is_to_draft(path, mail, report) or to is None:
            return
        if reply is None:
            self._count_failure(path, mail, answer.fault, report)
            return
        do = answered(mail, reply, findings)
        if do.what != "draft":
            self._carry_out(do, path, mail, report)
            return
        draft = approval.Draft(
            body=reply.body,
            reason=shown(reply.reason),
            confidence=reply.confidence,
            missing_facts=tuple(shown(fact) for fact in reply.missing_facts),
            flags=flags_of(mail, findings, self.config.owner_addresses),
            model=answer.model,
            prompt=request.PROMPT_VERSION,
        )
        text = approval.render(mail, to, draft, self.clock())
        written = self.vault.write_numbered(f"{PENDING}/{mail.draft_name}", text.encode())  # never over a file
        self.journal.tell(self._draft_entry(mail, len(draft.flags)))
        self.journal.record(
            "draft_created",
            mail.email_id,
            approval_status="pending",
            draft=written,
            model=answer.model,
            prompt=request.PROMPT_VERSION,
            to=to.to,
            flags="; ".join(draft.flags),
        )
        log.info("draft %s", written)
        self._move(path, mail, Do("move", self.vault.in_progress, "reply", "its draft waits for a decision"))
        self.state.forget_tries(mail.try_key())
        report.drafted += 1

    def _is_to_draft(self, path: str, mail: Mail, report: Report) -> bool:
        """Decide again about a mail that Claude was asked about: a person may have moved things meanwhile. What is
        decided now is done."""
        self.index.refresh()
        try:
            now = parse(path.rpartition("/")[2], self.vault.read(path))
        except (OSError, UnreadableMail):
            log.info("%s was moved meanwhile; its answer is dropped", path)
            return False
        if now != mail:
            log.info("%s was edited meanwhile; its answer is dropped, the next pass asks again", path)
            report.later(f"{path} was edited while it was drafted", 0.0)
            return False
        do = self._decide(path, mail, "inbox" if path.startswith(f"{INBOX}/") else "in progress")
        if do.what != "draft":
            self._carry_out(do, path, mail, report)
        return do.what == "draft"

    def _count_failure(self, path: str, mail: Mail, reason: str, report: Report) -> None:
        tries = self.state.count_try(mail.try_key())
        log.warning("%s: try %d of %d failed: %s", path, tries, MAX_TRIES, reason)
        if tries >= MAX_TRIES:
            self._carry_out(Do("move", NEEDS_ACTION, "failed", f"{reason}, {tries} times"), path, mail, report)
            self.state.forget_tries(mail.try_key())
            del self.unanswered[mail.try_key()]
        else:
            report.later(f"{path}: {reason}", RETRY_SECONDS)

    # -- money -----------------------------------------------------------------------------------------------------

    def _write_usage(self, row: str) -> None:
        today = self._today()
        self.vault.append(usage.path(today), row.encode(), usage.header(today).encode())

    def _budget_left(self) -> float | None:
        today, read = self._today(), cache(self.vault.read_text)
        day = usage.left(self.config.budget_usd_per_day, [today], read)
        week = usage.left(self.config.budget_usd_per_week, usage.week_of(today), read)
        return min((left for left in (day, week) if left is not None), default=None)

    def _tell_spend(self, report: Report) -> None:
        """Have the Dashboard say what was spent, when that may have changed: after a call, and once a day."""
        today = self._today()
        if not report.called and today == self.told_on:
            return
        self.told_on = today
        if usage.cost(self.config.claude_model, Usage(), today) is not None:
            self._clear("price")  # another model was set
        week, read = usage.week_of(today), cache(self.vault.read_text)
        with lock(self.state.tree_lock), self._isolated(usage.FOLDER, report):
            line = dashboard.spend_line(
                self.config.agent_name,
                today,
                usage.spent_on([today], read),
                usage.spent_on(week, read),
                usage.unpriced_on(week, read),
                self.config.budget_usd_per_day,
                self.config.budget_usd_per_week,
            )
            self.journal.spend(line)

    def _today(self) -> date:
        return self.clock().date()

    def _since_cached(self) -> float | None:
        """Seconds since an answer that wrote or read the prompt cache, None when there was none."""
        return None if self.cached_at is None else (self.clock() - self.cached_at).total_seconds()

    # -- what the owner reads --------------------------------------------------------------------------------------

    def _draft_entry(self, mail: Mail, flags: int = 0) -> str:
        flagged = f" ({flags} flag{'' if flags == 1 else 's'})" if flags else ""
        return (
            f"Email draft ready: {self._draft_link(mail)} for "
            f"{dashboard.plain(shown(mail.sender), 80)}, “{dashboard.plain(shown(mail.subject))}”{flagged}"
        )

    def _draft_link(self, mail: Mail) -> str:
        return f"[[{mail.draft_name.removesuffix('.md')}]]"


def _keys(mail: Mail) -> list[str]:
    """What two mails of one pass may not share: the id, in whatever case, and the message."""
    own = message_ids(mail.fields.get("message_id", ""))[:1]
    return [mail.slug.casefold(), *(f"{one} {mail.fingerprint()}" for one in own)]
