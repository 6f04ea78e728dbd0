"""The command `cloud-agent`: check, draft, sync, status."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ParamSpec

from cloud_agent import __version__, config, loop, models, status
from cloud_agent.state import Result, State, utc_now

# sysexits.h
EX_OK = 0
EX_TEMPFAIL = 75
EX_CONFIG = 78

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
    try:
        settings = config.load(env_file, os.environ)
    except config.ConfigError as error:
        for problem in error.problems:
            print(f"cloud-agent: {problem}", file=sys.stderr)
        return EX_CONFIG
    for warning in config.warnings(env_file):
        log.info("%s", warning)
    if options.command == "draft":
        return _draft(settings, once=options.once)
    if options.command == "sync":
        if options.now:
            return _sync_now(settings)
        return _sync(settings, once=options.once, allow_deletions=options.allow_deletions)
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
    show = commands.add_parser("status", help="the loops' last beat, queues, spend, alerts")
    show.add_argument("--json", action="store_true", help="for a program")
    for command in commands.choices.values():
        # also accepted after the command; SUPPRESS keeps what stood before it
        command.add_argument("--env-file", metavar="PATH", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _check(env_file: Path) -> int:
    settings, problems = config.inspect(env_file, os.environ)
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
    return models.warnings(settings.claude_model, budgeted, utc_now().date())


def _draft(settings: config.Config, *, once: bool) -> int:
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


def _sync(settings: config.Config, *, once: bool, allow_deletions: bool) -> int:
    signals = loop.Signals()
    signals.install()
    from cloud_agent.sync import Syncer

    state = State(settings.state_path)
    syncer = Syncer(settings, state, utc_now, sleep=signals.sleep, watching=not once, stopping=signals.stop.is_set)
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
        statuses[:] = [_exit_status(result)]

    if once:
        step(1)
        return statuses[0]
    log.info("git_sync_cloud started: a cycle every %g s", settings.sync_interval_seconds)
    loop.run(step, settings.sync_interval_seconds, signals)
    return EX_OK


def _sync_now(settings: config.Config) -> int:
    fault = status.ask_for_cycle(State(settings.state_path))
    if fault:
        print(f"cloud-agent: {fault}")
        return EX_TEMPFAIL
    return EX_OK


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
    logging.getLogger("httpx2").setLevel(logging.WARNING)
