"""When what is told where: examples, and a state machine over causes, time, quiet hours and channels that fail."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cloud_agent.alerting import ledger
from cloud_agent.alerting.ledger import (
    GRACE_SECONDS,
    LONGEST_PAUSE,
    LONGEST_URGENT_SECONDS,
    MOST_UNSURE,
    OVER_SECONDS,
    SETTLE_SECONDS,
    URGENT_SECONDS,
    Delivery,
    Kind,
    Ledger,
    Outcome,
)
from cloud_agent.alerting.settings import Alerts
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

NOON = datetime(2026, 2, 16, 12, 0, tzinfo=UTC)
NIGHT = (time(22), time(7))


def alerts(*names: str, **changes: Any) -> Alerts:
    return Alerts(**{"channels": {name: f"json://{name}" for name in names or ("a",)}, **changes})


class Told:
    """One owner, told by channels that always take it; `tell` looks once and returns what went out."""

    def __init__(self, settings: Alerts, now: datetime = NOON) -> None:
        self.settings = settings
        self.now = now
        self.kept = Ledger()
        self.so: dict[str, Kind] = {}
        self.outcome: Outcome = "sent"

    def tell(self, **later: float) -> list[Delivery]:
        self.now += timedelta(**later)
        self.kept = ledger.load(json.loads(json.dumps(ledger.dump(self.kept))))
        self.kept = ledger.observe(self.kept, self.so, self.settings, self.now)
        deliveries = ledger.due(self.kept, self.settings, self.now)
        for delivery in deliveries:
            self.kept = ledger.begun(self.kept, delivery, self.now)
            self.kept = ledger.ended(self.kept, delivery, self.outcome, "no", self.now)
        return deliveries

    def keys(self, **later: float) -> list[tuple[str, ...]]:
        return [delivery.keys for delivery in self.tell(**later)]


@pytest.fixture
def told() -> Told:
    """An owner who had the first message, a while ago."""
    return begun(alerts())


def begun(settings: Alerts, now: datetime = NOON) -> Told:
    found = Told(settings, now)
    assert found.tell() == []
    assert [delivery.first for delivery in found.tell(seconds=SETTLE_SECONDS)] == [True] * len(settings.channels)
    found.now += timedelta(hours=1)
    return found


def test_drafts_are_told_together_some_minutes_after_the_first(told: Told) -> None:
    told.so["draft x"] = "draft"
    assert told.keys() == []
    told.so["draft y"] = "draft"
    assert told.keys(minutes=14) == []
    assert told.keys(minutes=1) == [("draft x", "draft y")]
    assert told.keys(hours=5) == []


def test_an_urgent_one_is_told_at_once_and_takes_along_what_waits(told: Told) -> None:
    told.so |= {"draft x": "draft", "alert outage": "outage"}
    told.tell()
    told.so["draft y"] = "urgent"
    assert told.keys(minutes=1) == [("draft x", "draft y")], "an outage that may be over in a minute waits"


def test_urgent_mails_in_a_row_are_no_flood(told: Told) -> None:
    """Anybody can write [URGENT]; an owner who sees to them hears of the next one at once."""
    times = []
    for number in range(24 * 12):
        told.so[f"draft {number}"] = "urgent"
        times += [told.now for _ in told.tell(minutes=5)]
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
    assert gaps[0] == URGENT_SECONDS and max(gaps) == LONGEST_URGENT_SECONDS
    assert len(times) < 30, "in a day"
    told.so.clear()
    told.tell()
    told.so["draft x"] = "urgent"
    assert told.keys(seconds=URGENT_SECONDS) == [("draft x",)]


def test_loops_that_were_just_started_have_not_stopped() -> None:
    told = Told(alerts())
    told.so = {"stopped sync": "stopped", "draft x": "draft"}
    told.tell()
    assert told.keys(seconds=SETTLE_SECONDS) == [("draft x",)]
    assert told.keys(minutes=8) == [("stopped sync",)]


def test_a_failure_that_ends_soon_is_not_told(told: Told) -> None:
    told.so["alert sync offline"] = "outage"
    assert told.keys() == []
    assert told.keys(minutes=29) == []
    told.so.clear()
    assert told.keys(minutes=2) == []


def test_a_cause_that_is_away_for_a_moment_is_the_same_and_later_another(told: Told) -> None:
    told.so["disk 1"] = "failure"
    assert told.keys() == []
    assert told.keys(minutes=5) == [("disk 1",)]
    for _ in range(20):  # it flaps
        del told.so["disk 1"]
        assert told.keys(minutes=4) == []
        told.so["disk 1"] = "failure"
        assert told.keys(minutes=4) == []
    del told.so["disk 1"]
    told.tell()
    told.tell(seconds=OVER_SECONDS)
    told.so["disk 1"] = "failure"
    assert told.keys() == []
    assert told.keys(minutes=5) == [("disk 1",)]


def test_quiet_time_holds_everything_to_its_end_as_far_as_it_is_still_so() -> None:
    told = begun(alerts(quiet=NIGHT, zone=ZoneInfo("Europe/Berlin")))
    told.now = datetime(2026, 2, 16, 21, 0, tzinfo=UTC)  # 22:00 in Berlin
    told.so |= {"draft x": "urgent", "alert budget": "failure", "stopped sync": "stopped"}
    for _ in range(16):
        assert told.keys(minutes=30) == []  # until 06:00
    del told.so["stopped sync"]
    assert told.keys(minutes=59) == []
    assert told.keys(minutes=1) == [("alert budget", "draft x")]


def test_urgent_things_break_the_quiet_time_where_the_owner_says_so() -> None:
    told = begun(alerts(quiet=NIGHT, urgent_always=True))
    told.now = datetime(2026, 2, 16, 23, 0, tzinfo=UTC)
    told.so |= {"draft x": "urgent", "draft y": "draft", "alert budget": "failure"}
    assert told.keys() == [("draft x",)]
    assert told.keys(minutes=20) == [("alert budget",)]
    assert told.keys(hours=8) == [("draft y",)]


def test_a_digest_a_day_at_its_time_also_on_the_days_the_clock_is_changed() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    told = begun(alerts(digest=time(8), zone=berlin), datetime(2026, 3, 27, 12, 0, tzinfo=UTC))
    assert told.keys() == [], "the first message was one"
    seen = []
    for _ in range(4 * 24 * 60):
        seen += [(told.now.astimezone(berlin), delivery.keys) for delivery in told.tell(minutes=1) if delivery.digest]
    assert [(moment.strftime("%m-%d %H:%M"), keys) for moment, keys in seen] == [
        ("03-28 08:01", ("digest 2026-03-28",)),
        ("03-29 08:01", ("digest 2026-03-29",)),  # the night was an hour shorter
        ("03-30 08:01", ("digest 2026-03-30",)),
        ("03-31 08:01", ("digest 2026-03-31",)),
    ]


@pytest.mark.parametrize(("month", "day", "hours"), [(10, 25, 2), (3, 29, 3)])
def test_a_digest_in_the_hour_that_comes_twice_or_not_at_all_is_told_once(month: int, day: int, hours: int) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    told = begun(alerts(digest=time(2, 30), zone=berlin), datetime(2026, month, day - 1, 12, 0, tzinfo=UTC))
    seen = []
    while told.now < datetime(2026, month, day, 12, 0, tzinfo=UTC):
        seen += [(told.now.astimezone(berlin), delivery.keys) for delivery in told.tell(minutes=1) if delivery.digest]
    assert [(f"{when:%d %H:%M}", keys) for when, keys in seen] == [
        (f"{day} {hours:02}:31", (f"digest 2026-{month:02}-{day}",))
    ]


def test_a_machine_that_was_off_at_the_time_of_the_digest_sends_it_late_and_once() -> None:
    told = begun(alerts(digest=time(8)))
    assert told.keys(days=3) == []
    assert told.keys(minutes=1) == [("digest 2026-02-19",)]
    assert told.keys(hours=1) == []


def test_a_ledger_that_is_deleted_repeats_one_digest_and_nothing_else(told: Told) -> None:
    told.so = {f"draft {number}": "draft" for number in range(100)} | {"alert budget": "failure"}
    assert len(told.keys()) == 0
    assert len(told.keys(minutes=15)) == 1
    told.kept = Ledger()
    assert told.tell(minutes=1) == []
    again = told.tell(minutes=5)
    assert [(delivery.digest, len(delivery.keys)) for delivery in again] == [(True, 101)]
    assert told.keys(minutes=1) == told.keys(days=1) == []


@pytest.mark.parametrize(
    "broken", [{}, {"causes": 1}, {"causes": {"x": {}}, "channels": {}}, {"causes": [], "channels": 1}]
)
def test_a_broken_ledger_is_none(broken: Any) -> None:
    assert ledger.load(broken) == Ledger()


def test_a_channel_that_is_added_is_told_how_things_are_by_itself() -> None:
    told = begun(alerts("a"))
    told.so["draft x"] = "draft"
    told.tell()
    assert told.keys(hours=1) == [("draft x",)]
    told.settings = alerts("a", "b")
    assert told.tell() == []
    assert told.tell(seconds=SETTLE_SECONDS) == [Delivery("b", ("draft x",), digest=True, first=True)]
    told.settings = alerts("b")
    told.tell(minutes=1)
    assert list(told.kept.channels) == ["b"]


def test_a_failing_channel_waits_longer_and_longer_and_tells_all_at_once_in_the_end(told: Told) -> None:
    told.so["draft x"] = "urgent"
    told.outcome = "failed"
    tries = [told.now for _ in range(240) if told.tell(seconds=30)]
    pauses = [(later - earlier).total_seconds() for earlier, later in pairwise(tries)]
    assert pauses == [60, 120, 240, 480, *[LONGEST_PAUSE] * 6]
    told.so["draft y"] = "urgent"
    told.outcome = "sent"
    assert told.keys(seconds=LONGEST_PAUSE) == [("draft x", "draft y")]
    assert told.keys(days=1) == []
    assert told.kept.channels["a"].failures == 0


def test_what_may_have_arrived_is_repeated_once(told: Told) -> None:
    """A slow server, or a kill between the message and its note."""
    told.so["draft x"] = "urgent"
    told.outcome = "unsure"
    assert [keys for _ in range(100) for keys in told.keys(minutes=30)] == [("draft x",)] * MOST_UNSURE


def test_a_first_message_that_may_have_arrived_is_repeated_once() -> None:
    told = Told(alerts())
    told.tell()
    told.outcome = "unsure"
    assert [delivery.first for _ in range(100) for delivery in told.tell(minutes=30)] == [True] * MOST_UNSURE


def test_a_channel_that_is_broken_is_told_on_the_others() -> None:
    told = begun(alerts("a", "b"))
    told.so["draft x"] = "urgent"
    seen = []
    for _ in range(120):
        told.now += timedelta(minutes=1)
        told.kept = ledger.observe(told.kept, told.so, told.settings, told.now)
        for delivery in ledger.due(told.kept, told.settings, told.now):
            told.kept = ledger.begun(told.kept, delivery, told.now)
            outcome: Outcome = "failed" if delivery.channel == "a" else "sent"
            told.kept = ledger.ended(told.kept, delivery, outcome, "401", told.now)
            seen += [(delivery.channel, key) for key in delivery.keys if key.startswith("channel ")]
    assert seen == [("b", "channel a")]


def test_a_test_message_that_arrives_ends_the_pause(told: Told) -> None:
    told.so["draft x"] = "urgent"
    told.outcome = "failed"
    for _ in range(20):
        told.tell(minutes=10)
    told.outcome = "sent"
    assert told.keys(seconds=1) == []
    told.kept = ledger.works(told.kept, "a")
    assert told.keys(seconds=1) == [("draft x",)]


def test_a_clock_that_is_set_back_delays_nothing_for_long(told: Told) -> None:
    told.so["draft x"] = "draft"
    told.tell()
    told.now -= timedelta(days=30)
    assert told.keys() == []
    assert told.keys(minutes=15) == [("draft x",)]


def test_nothing_changed_is_the_same_object(told: Told) -> None:
    """So that an idle look writes nothing."""
    told.so["draft x"] = "draft"
    kept = ledger.observe(told.kept, told.so, told.settings, told.now)
    assert ledger.observe(kept, told.so, told.settings, told.now + timedelta(minutes=1)) is kept


# -- the state machine -------------------------------------------------------------------------------------------------

NAMES = ("a", "b")
KINDS: tuple[Kind, ...] = ("draft", "person", "note", "urgent", "failure", "outage", "stopped")


class Alerting(RuleBasedStateMachine):
    """The world: causes that come and go, a clock, two channels. The ledger goes through JSON at each look.

    Kept beside it: for each life of a cause, how often each channel has had it.
    """

    @initialize(
        quiet=st.sampled_from((None, NIGHT, (time(12), time(14)))),
        digest=st.booleans(),
        always=st.booleans(),
        zone=st.sampled_from(("UTC", "Europe/Berlin", "Pacific/Apia")),
        start=st.integers(0, 400),
    )
    def begin(self, quiet: Any, digest: bool, always: bool, zone: str, start: int) -> None:
        self.settings = alerts(
            *NAMES, quiet=quiet, digest=time(8) if digest else None, urgent_always=always, zone=ZoneInfo(zone)
        )
        self.now = NOON + timedelta(days=start)
        self.kept = Ledger()
        self.so: dict[str, Kind] = {}
        self.away: dict[str, datetime] = {}  # seen to be gone since
        self.life: Counter[str] = Counter()
        self.sent: Counter[tuple[str, str]] = Counter()  # (channel, life): arrived for sure
        self.went: Counter[tuple[str, str]] = Counter()  # ... or perhaps
        self.behave: dict[str, Outcome | str] = dict.fromkeys(NAMES, "sent")
        self.last_try: dict[str, datetime] = {}
        self.deleted = 0
        self.digests: Counter[tuple[str, str]] = Counter()
        self.firsts: Counter[str] = Counter()
        self.perhaps = False

    @rule(number=st.integers(0, 5), kind=st.sampled_from(KINDS))
    def appears(self, number: int, kind: Kind) -> None:
        self.so[f"x {number}"] = kind

    @precondition(lambda self: self.so)
    @rule(data=st.data())
    def ends(self, data: st.DataObject) -> None:
        del self.so[data.draw(st.sampled_from(sorted(self.so)))]

    @rule(name=st.sampled_from(NAMES), outcome=st.sampled_from(("sent", "failed", "unsure", "killed")))
    def channel_is(self, name: str, outcome: str) -> None:
        self.behave[name] = outcome

    @rule(seconds=st.sampled_from((1.0, 30.0, 301.0, 901.0, 1801.0, 7200.0, 40000.0)))
    def passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.look()

    @rule()
    def ledger_is_deleted(self) -> None:
        self.kept = Ledger()
        self.deleted += 1
        self.sent.clear()
        self.went.clear()
        self.away.clear()
        self.digests.clear()
        self.firsts.clear()

    def identity(self, key: str) -> str:
        return f"{key} #{self.life[key]}"

    def look(self) -> list[Delivery]:
        for key in [*self.away]:
            if key in self.so:
                del self.away[key]
            elif (self.now - self.away[key]).total_seconds() >= OVER_SECONDS:
                self.life[key] += 1
                del self.away[key]
        for key in self.kept.causes:
            if key.startswith("x ") and key not in self.so:
                self.away.setdefault(key, self.now)
        self.kept = ledger.observe(self.kept, self.so, self.settings, self.now)
        deliveries = ledger.due(self.kept, self.settings, self.now)
        assert len({delivery.channel for delivery in deliveries}) == len(deliveries)
        for delivery in deliveries:
            self.deliver(delivery)
        self.kept = ledger.load(json.loads(json.dumps(ledger.dump(self.kept))))
        return deliveries

    def deliver(self, delivery: Delivery) -> None:
        name = delivery.channel
        if ledger.is_quiet(self.settings, self.now):
            assert self.settings.urgent_always and not delivery.first
            kinds = {self.kept.causes[key].kind for key in delivery.keys}
            assert kinds <= {"urgent", "failure", "outage", "stopped"}
        assert delivery.keys or delivery.first, "no empty message"
        for key in delivery.keys:
            told = self.kept.causes[key]
            assert told.gone is None, "what is over is not told"
            if key.startswith("x "):
                assert key in self.so
                assert self.sent[name, self.identity(key)] == 0, "never twice for one cause"
                if told.kind in ("failure", "outage", "stopped"):
                    assert (self.now - told.since).total_seconds() >= GRACE_SECONDS[told.kind]
        outcome = self.behave[name]
        self.kept = ledger.begun(self.kept, delivery, self.now)
        if outcome != "killed":
            self.kept = ledger.ended(self.kept, delivery, outcome, "no", self.now)  # type: ignore[arg-type]
        if outcome != "failed":
            for key in delivery.keys:
                self.went[name, self.identity(key)] += 1
                if outcome == "sent":
                    self.sent[name, self.identity(key)] += 1
                if key.startswith("digest "):
                    self.digests[name, key] += 1
            self.firsts[name] += delivery.first

    @invariant()
    def nothing_is_repeated_for_ever(self) -> None:
        assert all(count <= MOST_UNSURE for count in self.went.values())
        assert all(count <= MOST_UNSURE for count in self.digests.values())
        assert all(count <= MOST_UNSURE for count in self.firsts.values())

    @invariant()
    def the_ledger_stays_small(self) -> None:
        assert len(self.kept.causes) <= 6 + len(NAMES) + 3
        assert set(self.kept.channels) <= set(NAMES)

    @precondition(lambda self: "sent" in self.behave.values())
    @rule()
    def a_channel_that_works_is_told_everything_in_the_end(self) -> None:
        """Whatever happened before: nothing that is still so gets lost, and no other channel holds it up."""
        for _ in range(int(2 * 86400 / 600)):
            self.now += timedelta(seconds=600)
            self.look()
        for name, outcome in self.behave.items():
            if outcome == "sent":
                waiting = [key for key in ledger.untold(self.kept, name) if not key.startswith(("digest", "channel"))]
                assert waiting == []
                assert self.kept.channels[name].failures == 0


Alerting.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestAlerting = Alerting.TestCase


def test_the_machine_would_notice_a_ledger_that_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that cannot fail is none: `ended` that does not count what was sent."""
    whole = ledger.ended

    def forgets(kept: Ledger, delivery: Delivery, outcome: Outcome, error: str, now: datetime) -> Ledger:
        after = whole(kept, delivery, outcome, error, now)
        return replace(after, causes={key: replace(told, told={}) for key, told in after.causes.items()})

    monkeypatch.setattr(ledger, "ended", forgets)
    with pytest.raises(AssertionError, match="never twice"):
        told = Alerting()
        told.begin(None, False, False, "UTC", 0)
        told.appears(0, "urgent")
        for _ in range(9):
            told.passes(301.0)
