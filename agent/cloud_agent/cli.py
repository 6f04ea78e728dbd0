"""The command `cloud-agent`: check, draft, sync, intake, watch, status, alert."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import itertools
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from cloud_agent import __version__, config, loop, models, status
from cloud_agent.alerting import settings as alerting
from cloud_agent.state import Result, State, iso, utc_now

if TYPE_CHECKING:
    from cloud_agent.watching import Report

# sysexits.h
EX_OK = 0
EX_DATAERR = 65
EX_TEMPFAIL = 75
EX_CONFIG = 78

# What stands for standard input among file names.
STDIN = "-"

# What procmail and maildrop tell every program that they start: where sendmail is. The loops refuse it.
DELIVERY_AGENTS_OWN = frozenset(("SENDMAIL", "SENDMAILFLAGS"))

# Between two passes, however much arrives: what cannot be settled must not keep a core busy.
PAUSE_SECONDS = 0.05
# A step that takes long beats so often meanwhile, and the first step of a loop as soon as it is known to work: neither
# `status` nor an upgrade has to wait for Claude, or for a remote that cannot be reached.
BEAT_SECONDS = 30.0

log = logging.getLogger("cloud_agent")
_P = ParamSpec("_P")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status (DESIGN §4)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "sync" and options.allow_deletions and not options.once:
        parser.error("--allow-deletions goes with --once: a person says so for one cycle")
    env_file = config.env_file_path(options.env_file, os.environ)
    if options.command == "check":
        return _check(env_file)
    _log_to_console()
    environ: Mapping[str, str] = os.environ
    if options.command == "intake":
        environ = {name: value for name, value in environ.items() if name not in DELIVERY_AGENTS_OWN}
    try:
        settings = config.load(env_file, environ)
    except config.ConfigError as error:
        for problem in error.problems:
            print(f"cloud-agent: {problem}", file=sys.stderr)
        # A mail server bounces what ends with 78, and tries again what ends with 75 (sysexits.h).
        return EX_TEMPFAIL if options.command == "intake" and STDIN in options.files else EX_CONFIG
    if options.command == "intake":
        return _intake(settings, options.files)
    for warning in config.warnings(env_file):
        log.info("%s", warning)
    if options.command == "draft":
        return _draft(settings, env_file, once=options.once)
    if options.command == "sync":
        if options.now:
            return _sync_now(settings)
        return _sync(settings, env_file, once=options.once, allow_deletions=options.allow_deletions)
    if options.command == "watch":
        return _watch(settings, env_file, once=options.once)
    if options.command == "alert":
        return _alert(settings, test=options.test)
    return _status(settings, as_json=options.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cloud-agent",
        description="Turns mail in a git-synced vault into reply drafts. It can draft and can never send.",
    )
    parser.add_argument("--version", action="version", version=f"cloud-agent {__version__}")
    parser.add_argument(
        "--env-file", metavar="PATH", help="the settings (default: ./.env.cloud, else $CLOUD_AGENT_ENV_FILE)"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("check", help="validate the settings and print every problem with its mend")
    draft = commands.add_parser("draft", help="draft replies to the mails in the inbox, for ever")
    draft.add_argument("--once", action="store_true", help="one pass over the inbox")
    sync = commands.add_parser("sync", help="keep the vault in step with its git remote, for ever")
    which = sync.add_mutually_exclusive_group()
    which.add_argument("--once", action="store_true", help="one cycle: commit, merge, push")
    which.add_argument("--now", action="store_true", help="ask the running loop for a cycle at once")
    sync.add_argument("--allow-deletions", action="store_true", help="with --once: a mass deletion is meant")
    intake = commands.add_parser("intake", help="take messages (RFC 5322) into the inbox")
    intake.add_argument("files", nargs="+", metavar="FILE", help="a message, an mbox, a Maildir; - for standard input")
    watch = commands.add_parser("watch", help="take what arrives in a mailbox into the inbox, for ever; only reads it")
    watch.add_argument("--once", action="store_true", help="one look at the mailbox")
    alert = commands.add_parser("alert", help="tell the owner what is due; the loops start this by themselves")
    alert.add_argument("--test", action="store_true", help="send a test message on each channel, and say what happened")
    show = commands.add_parser("status", help="the loops' last beat, queues, spend, alerts")
    show.add_argument("--json", action="store_true", help="for a program")
    for command in commands.choices.values():
        # also accepted after the command; SUPPRESS keeps what stood before it
        command.add_argument("--env-file", metavar="PATH", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _check(env_file: Path) -> int:
    settings, problems = config.inspect(env_file, os.environ)
    if settings is not None and settings.alerts is not None and not problems:
        from cloud_agent.alerting import channels  # heavy, and what Apprise says is worth it here alone

        problems += channels.problems(settings.alerts)
    for warning in [*config.warnings(env_file), *_warnings(settings)]:
        print(f"warning: {warning}")
    for problem in problems:
        print(f"problem: {problem}")
    print(f"{env_file}: {'ready' if not problems else f'{len(problems)} to mend'}")
    return EX_CONFIG if problems else EX_OK


def _warnings(settings: config.Config | None) -> list[str]:
    if settings is None:
        return []
    budgeted = settings.budget_usd_per_day is not None or settings.budget_usd_per_week is not None
    return [
        *config.mailbox_warnings(settings),
        *models.warnings(settings.claude_model, budgeted, utc_now().date()),
        *(alerting.warnings(settings.alerts) if settings.alerts is not None else []),
    ]


def _draft(settings: config.Config, env_file: Path, *, once: bool) -> int:
    signals = loop.Signals()
    signals.install()  # first: what comes now takes a second, and a stop in it is a stop as any
    _share_one_arena()
    from cloud_agent.arrivals import Arrivals
    from cloud_agent.claude import Claude
    from cloud_agent.drafting import Orchestrator, Report
    from cloud_agent.vault import UNSURE_SECONDS

    state = State(settings.state_path)
    drafter = Claude(settings.claude_api_key, settings.claude_model, settings.claude_base_url, sleep=signals.sleep)
    orchestrator = Orchestrator(settings, drafter, state, utc_now, signals.stop)
    log.info("cloud_orchestrator initialised: vault %s, model %s", settings.vault_path, settings.claude_model)
    look = _look(settings, env_file, state, once)
    statuses: list[int] = []

    def step(cycle: int) -> float | None:
        started = utc_now()
        result: Result
        refused = False
        report = Report()

        def beat(report: Report) -> None:
            _beat(state, "draft", cycle, started, report.result, once, message=report.message, underway=True)

        try:
            report = orchestrator.run_pass(_now_and_then(beat, at_once=cycle == 1))
            result, message, refused = report.result, report.message, report.refused
            if report.drafted or report.moved or result != "ok":
                log.info("pass %d: %d drafted, %d moved, %s", cycle, report.drafted, report.moved, result)
        except Exception as error:  # a loop that dies drafts nothing more; the beat tells
            log.exception("the pass failed")
            result, message = "failed", f"{type(error).__name__}: {error}"
        _beat(state, "draft", cycle, started, result, once, message=message)
        look()
        if cycle == 1 or report.answered or report.moved:
            _give_memory_back()
        statuses[:] = [EX_CONFIG if refused else _exit_status(result)]
        return report.retry_in

    if once:
        again = step(1)
        if again is not None and again <= UNSURE_SECONDS and not signals.sleep(again):
            step(2)  # what was just written, and may be whole by now
        ended = statuses[0]
    else:
        arrivals = Arrivals(settings.vault_path, signals.wake)
        arrivals.start()
        log.info("cloud_orchestrator started: a pass at each arrival, and every %g s", settings.draft_interval_seconds)
        loop.run(step, settings.draft_interval_seconds, signals, PAUSE_SECONDS)
        arrivals.close()
        ended = EX_OK
    logging.shutdown()
    sys.stdout.flush()
    os._exit(ended)  # a call to Claude that is still open would hold the exit up; its mail is in the inbox


def _sync(settings: config.Config, env_file: Path, *, once: bool, allow_deletions: bool) -> int:
    signals = loop.Signals()
    signals.install()
    from cloud_agent.sync import Syncer

    state = State(settings.state_path)
    syncer = Syncer(settings, state, utc_now, sleep=signals.sleep, watching=not once, stopping=signals.stop.is_set)
    look = _look(settings, env_file, state, once)
    statuses: list[int] = []

    def step(cycle: int) -> None:
        started = utc_now()
        result: Result
        held = 0

        def beat() -> None:
            waits = "what is new is committed; the remote is asked"
            _beat(state, "sync", cycle, started, "later", once, message=waits, underway=True)

        try:
            outcome = syncer.cycle(allow_deletions=allow_deletions, underway=_now_and_then(beat, at_once=cycle == 1))
            result, message, held = outcome.result, outcome.message, len(outcome.held)
            if once and message:
                log.warning("%s", message)
        except Exception as error:  # as in the draft loop
            log.exception("the cycle failed")
            result, message = "failed", f"{type(error).__name__}: {error}"
        _beat(state, "sync", cycle, started, result, once, message=message, held=held)
        look()
        statuses[:] = [_exit_status(result)]

    if once:
        step(1)
        return statuses[0]
    log.info("git_sync_cloud started: a cycle every %g s", settings.sync_interval_seconds)
    loop.run(step, settings.sync_interval_seconds, signals)
    return EX_OK


def _watch(settings: config.Config, env_file: Path, *, once: bool) -> int:
    if settings.mailbox is None:
        print("cloud-agent: no mailbox is set: IMAP_HOST, or MAILDIR_PATH (docs/mailbox.md)", file=sys.stderr)
        return EX_CONFIG
    signals = loop.Signals()
    signals.install()
    _share_one_arena()
    from cloud_agent import watching

    state = State(settings.state_path)
    ended = _ended_before_watching(state, signals, once)
    if ended is not None:
        return ended
    source = watching.source_of(settings.mailbox, settings, utc_now)
    watcher = watching.make(settings, source, _own_command(env_file, "intake", STDIN), state, utc_now, signals.stop)
    bell = watching.Bell(signals.wake)
    log.info("mail_watcher initialised: %s", source.name)
    look = _look(settings, env_file, state, once)
    statuses: list[int] = []
    mailbox = _Mailbox(state, source.name)

    def step(cycle: int) -> float | None:
        started = utc_now()

        def beat(report: watching.Report, result: Result = "later", *, underway: bool = False) -> None:
            more = {"message": report.message, "underway": underway, **mailbox.about(report)}
            _beat(state, "watch", cycle, started, result, once, **more)

        report, listening = watching.Report("failed"), False
        try:
            bell.disarm()
            if cycle == 1:
                beat(watching.Report(message="the mailbox is asked"), underway=True)
            report = watcher.run_pass(_now_and_then(lambda report: beat(report, underway=True), at_once=False))
            if report.taken or report.known or report.missed:
                log.info("%d taken, %d known already, %d left there", report.taken, report.known, report.missed)
            if not once and not signals.stop.is_set():
                descriptor = watcher.listen()
                listening = descriptor is not None
                bell.arm(descriptor)
        except Exception as error:  # as in the draft loop
            log.exception("the pass failed")
            source.close()
            report.result, report.message = "failed", f"{type(error).__name__}: {error}"
        beat(report, report.result)
        look()
        mailbox.repeat(report, once)
        if report.taken or report.known:
            _give_memory_back()
        statuses[:] = [EX_CONFIG if report.refused else _exit_status(report.result)]
        return watching.next_look(report.retry_in, listening)

    if once:
        step(1)
    else:
        log.info("mail_watcher started: a look when something arrives, and every %g s", settings.watch_interval_seconds)
        loop.run(step, settings.watch_interval_seconds, signals, PAUSE_SECONDS)
    bell.disarm()
    source.leave()
    return statuses[0] if once else EX_OK


class _Mailbox:
    """What is known of the mailbox from one pass to the next, and from the process before this one."""

    def __init__(self, state: State, name: str) -> None:
        earlier = state.read_beat("watch")
        self._name = name
        self._last_mail = str(earlier.get("last_mail", "")) if earlier.get("mailbox") == name else ""
        self._said = str(state.alerts().get("mailbox", {}).get("message", ""))

    def about(self, report: Report) -> dict[str, Any]:
        """What a beat says of a pass, and when a mail came last."""
        if report.taken:
            self._last_mail = iso(utc_now())
        counts = {"taken": report.taken, "missed": report.missed, "refused": report.refused}
        return {**counts, "mailbox": self._name, "last_mail": self._last_mail}

    def repeat(self, report: Report, once: bool) -> None:
        """Say to who waits at a terminal what an alert has said before: it is logged once only."""
        if once and report.message and self._said.endswith(report.message):
            log.warning("%s", report.message)


def _ended_before_watching(state: State, signals: loop.Signals, once: bool) -> int | None:
    """Wait until no other process watches: one at a time, and the one before may be about to end. None, or the exit
    status where it does not come to that."""
    from cloud_agent.vault import hold

    while hold(state.process_lock("watch")) is None:
        if once:
            print("cloud-agent: mail_watcher is running: it looks at the mailbox by itself", file=sys.stderr)
            return EX_TEMPFAIL
        if signals.sleep(0.2):
            return EX_OK
    return None


def _sync_now(settings: config.Config) -> int:
    fault = status.ask_for_cycle(State(settings.state_path))
    if fault:
        print(f"cloud-agent: {fault}")
        return EX_TEMPFAIL
    return EX_OK


def _intake(settings: config.Config, names: Sequence[str]) -> int:
    """Take messages in, each told in a line. Whatever goes wrong with the vault ends with 75: who brought the mail
    keeps it then, and brings it again."""
    ended = EX_OK
    from cloud_agent.intake import Intake, Known, NoMessage, SetAside, Taken, messages, read
    from cloud_agent.vault import ForbiddenPath

    try:
        intake = Intake(settings, State(settings.state_path), utc_now)
        for name in names:
            said = "standard input" if name == STDIN else name
            found = iter([read(sys.stdin.buffer)]) if name == STDIN else messages(Path(name))
            for number in itertools.count(1):
                where = said if number == 1 else f"{said}, message {number}"
                try:
                    raw = next(found, None)
                except OSError as error:
                    if isinstance(error, FileNotFoundError) and Path(name).is_dir():
                        why, mend = "is a folder, and no Maildir", "name the files in it"
                    else:
                        why, mend = f"cannot be read ({error.strerror})", "name a message, an mbox or a Maildir"
                    _say(f"{where}: {why}: {mend}", wrong=True)
                    ended = EX_DATAERR
                    break
                if raw is None:
                    break
                if isinstance(raw, OSError):
                    _say(f"{where}: cannot be read ({raw}): give it to this user, or bring all again", wrong=True)
                    ended = EX_DATAERR
                    continue
                try:
                    outcome = intake.take(raw)
                except NoMessage as reason:
                    _say(f"{where}: no message: {reason}", wrong=True)
                    ended = EX_DATAERR
                    continue
                what = {Taken: "taken", Known: "known", SetAside: "set aside"}[type(outcome)]
                _say(f"{where}: {what}, {outcome.path}")
    except Exception as error:
        if not isinstance(error, OSError | ForbiddenPath):
            log.exception("intake stopped: this is a fault of the program")
        _say(f"the vault cannot be written ({error}): what was not taken is to be brought again", wrong=True)
        return EX_TEMPFAIL
    return ended


def _say(text: str, *, wrong: bool = False) -> None:
    """Print a line, if anybody listens: whether a mail was taken does not hang on it."""
    line = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    stream = sys.stderr if wrong else sys.stdout
    try:
        print(f"cloud-agent: {line}" if wrong else line, file=stream, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # Python flushes it again at its end


def _alert(settings: config.Config, *, test: bool) -> int:
    if settings.alerts is None:
        print(
            "cloud-agent: nothing to tell the owner by: set ALERT_URLS or ALERT_MCP_… (docs/operations.md, Being told)",
            file=sys.stderr,
        )
        return EX_CONFIG
    from cloud_agent.alerting import teller

    state = State(settings.state_path)
    teller.confine()
    if test:
        good = teller.test(settings, state, lambda line: print(line, flush=True))
    else:
        teller.become_sender()
        good = teller.send_due(settings, state, utc_now)
    teller.leave(EX_OK if good else EX_TEMPFAIL)
    raise AssertionError("it left")


def _look(settings: config.Config, env_file: Path, state: State, once: bool) -> Callable[[], None]:
    """What a loop does after each step: have told what is due. A step by hand tells nobody: its person is there."""
    if settings.alerts is None or once:
        return lambda: None
    from cloud_agent.alerting.teller import Teller

    return Teller(settings, state, utc_now, _own_command(env_file, "alert")).look


def _own_command(env_file: Path, *arguments: str) -> list[str]:
    """This program once more, with the same settings."""
    # -P: a folder that the loop happens to stand in is no place to import from.
    return [sys.executable, "-P", "-m", "cloud_agent", "--env-file", str(env_file.absolute()), *arguments]


def _status(settings: config.Config, *, as_json: bool) -> int:
    report = status.collect(settings, utc_now())
    print(json.dumps(report, indent=1, ensure_ascii=False) if as_json else status.render(report))
    return 0 if report["healthy"] else 1


def _beat(state: State, name: str, cycle: int, started: datetime, result: Result, once: bool, **more: Any) -> None:
    if once and status.is_loop_process(state.read_beat(name).get("pid"), name):
        return  # the running loop's beat is the one that counts: `status` and `sync --now` go by its pid
    try:
        state.beat(name, cycle, started, utc_now(), result, **more)
    except OSError as error:  # a full disk: the loop goes on, and works again once there is room
        log.error("the beat cannot be written: %s", error)


def _now_and_then(beat: Callable[_P, None], *, at_once: bool) -> Callable[_P, None]:
    """`beat`, however often it is called, every BEAT_SECONDS: for the first time `at_once`, or after as long."""
    due = 0.0 if at_once else time.monotonic() + BEAT_SECONDS

    def called(*arguments: _P.args, **named: _P.kwargs) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + BEAT_SECONDS
            beat(*arguments, **named)

    return called


def _share_one_arena() -> None:
    """Have all threads take memory from one place (mallopt(3)): one of their own for each costs more than it brings."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(-8, 1)  # M_ARENA_MAX


def _give_memory_back() -> None:
    """To the system, what was needed for a while, and what glibc keeps of it: 3 MB after the start."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _exit_status(result: Result) -> int:
    return EX_OK if result == "ok" else EX_TEMPFAIL


def _log_to_console() -> None:
    """What happens goes to standard output, what is wrong to standard error, so that PM2 keeps them apart."""
    form = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    normal, wrong = logging.StreamHandler(sys.stdout), logging.StreamHandler(sys.stderr)
    normal.addFilter(lambda record: record.levelno < logging.WARNING)
    wrong.setLevel(logging.WARNING)
    for handler in (normal, wrong):
        handler.setFormatter(form)
    logging.basicConfig(level=logging.INFO, handlers=[normal, wrong])
    for library in ("httpx2", "imapclient"):
        logging.getLogger(library).setLevel(logging.WARNING)
