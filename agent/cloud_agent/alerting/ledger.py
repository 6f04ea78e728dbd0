"""When what is told where. Pure: causes and time come in, the ledger goes out.

A cause is something that is so: a draft waits, the sync loop has stopped. It has a key that stays the same as long as
it is so, and a kind, which says how soon it is told:

| kind    | is                                         | told                           | in quiet time
| ---     | ---                                        | ---                            | ---
| draft   | a draft that waits                         | 15 minutes later, with others  | later
| person  | a mail that needs a person                 | likewise                       | later
| note    | a smaller fault: a file that is not synced | likewise                       | later
| urgent  | a draft or a mail of high priority         | at once; not two in 5 minutes* | (later)
| failure | what stops the work until somebody acts    | after 5 minutes                | (later)
| outage  | what stops it, and mostly mends itself     | after 30 minutes               | (later)
| stopped | a loop that gives no sign of life          | after 10 minutes               | (later)
| digest  | the day's digest                           | after a minute                 | later

(later): unless ALERT_URGENT_ALWAYS. Each channel is told by itself, once: what one could not take is still to be told
there when it works again, in one message, as far as it is still so. Nothing is queued, so nothing goes stale.

A cause that was away for less than OVER_SECONDS was never over. The first message on a channel is a digest of all that
is so, two minutes after it was set up: a ledger that was deleted repeats that, and no more.

*: for each that was told and still waits, and an hour at most: whoever writes mails can call them urgent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from cloud_agent.alerting.settings import Alerts, is_within

Kind = Literal["draft", "person", "note", "urgent", "failure", "outage", "stopped", "digest"]
Outcome = Literal["sent", "failed", "unsure"]

GRACE_SECONDS: dict[Kind, float] = {
    "draft": 900.0,
    "person": 900.0,
    "note": 900.0,
    "urgent": 0.0,
    "failure": 300.0,
    "outage": 1800.0,
    "stopped": 600.0,
    "digest": 60.0,
}
# What waits goes along with what is due; a failure that may yet mend itself does not.
_GOES_ALONG: Collection[Kind] = frozenset(("draft", "person", "note", "urgent"))
_URGENT: Collection[Kind] = frozenset(("urgent", "failure", "outage", "stopped"))

OVER_SECONDS = 600.0
# Before a channel's first message: by then each loop has given a sign of life, also where all have just been started.
SETTLE_SECONDS = 120.0
URGENT_SECONDS, LONGEST_URGENT_SECONDS = 300.0, 3600.0
FIRST_PAUSE, LONGEST_PAUSE = 60.0, 900.0  # seconds between tries on a channel that fails
FAILING = 5  # failures in a row, about half an hour, from which on a channel counts as broken
# So often a message goes out whose receipt is not known; then it counts as told.
MOST_UNSURE = 2


@dataclass(frozen=True)
class Told:
    """A cause: since when it is so, since when it is not any more (None: it is), and who was told.

    `told`: channel -> how often a message with it went out that may have arrived; MOST_UNSURE is told.
    """

    kind: Kind
    since: datetime
    gone: datetime | None = None
    told: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Channel:
    """How a channel fares: failures in a row and since when, no try before `until`, the last success.

    `first`: how often its first message, the digest of all that is so, went out and may have arrived.
    """

    first: int = 0
    failures: int = 0
    since: datetime | None = None
    until: datetime | None = None
    error: str = ""
    sent: datetime | None = None


@dataclass(frozen=True)
class Ledger:
    """What was told."""

    causes: Mapping[str, Told] = field(default_factory=dict)
    channels: Mapping[str, Channel] = field(default_factory=dict)


@dataclass(frozen=True)
class Delivery:
    """One message to be sent: the causes that it tells. `digest`: it says how everything is, too. `first`: it is the
    channel's first."""

    channel: str
    keys: tuple[str, ...]
    digest: bool = False
    first: bool = False


def observe(ledger: Ledger, so: Mapping[str, Kind], alerts: Alerts, now: datetime) -> Ledger:
    """Bring the ledger in step with what is so at the moment. Returns the same object where nothing changed."""
    so = {**so, **_of_channels(ledger), **_digest(alerts, now)}
    causes: dict[str, Told] = {}
    for key, told in ledger.causes.items():
        if key in so:
            # A clock that was set back makes nobody wait longer.
            causes[key] = replace(told, kind=so[key], since=min(told.since, now), gone=None)
        elif told.gone is None or told.gone > now:
            causes[key] = replace(told, gone=now)
        elif (now - told.gone).total_seconds() < OVER_SECONDS:
            causes[key] = told
    for key in so:
        if key not in causes:
            causes[key] = Told(so[key], now)
    new = Channel(until=now + timedelta(seconds=SETTLE_SECONDS))
    channels = {name: ledger.channels.get(name, new) for name in alerts.channels}
    if causes == ledger.causes and channels == ledger.channels:
        return ledger
    return Ledger(causes, channels)


def due(ledger: Ledger, alerts: Alerts, now: datetime) -> list[Delivery]:
    """The messages that are to be sent now, one a channel at most."""
    quiet = is_quiet(alerts, now)
    found = []
    for name, channel in ledger.channels.items():
        if _left(channel, now) > 0:
            continue
        waiting = untold(ledger, name)
        pause = _urgent_pause(ledger, name)
        ripe = [key for key in waiting if _is_ripe(ledger.causes[key], channel, now, pause)]
        keys = [key for key in waiting if key in ripe or ledger.causes[key].kind in _GOES_ALONG]
        if _is_new(channel):
            if not quiet:
                found.append(Delivery(name, tuple(keys), digest=True, first=True))
        elif quiet:
            urgent = [key for key in ripe if alerts.urgent_always and ledger.causes[key].kind in _URGENT]
            if urgent:
                found.append(Delivery(name, tuple(urgent)))
        elif ripe:
            found.append(Delivery(name, tuple(keys), any(ledger.causes[key].kind == "digest" for key in keys)))
    return found


def untold(ledger: Ledger, name: str) -> list[str]:
    """The causes that are so, and of which this channel was not told; the oldest first."""
    waiting = [
        key
        for key, told in ledger.causes.items()
        if told.gone is None and told.told.get(name, 0) < MOST_UNSURE and key != _key_of_channel(name)
    ]
    return sorted(waiting, key=lambda key: (ledger.causes[key].since, key))


def begun(ledger: Ledger, delivery: Delivery, now: datetime) -> Ledger:
    """The ledger while a message is on its way: written before it goes out, so that a kill repeats it once at most."""
    counted = _counted(ledger, delivery, +1)
    channel = counted.channels.get(delivery.channel, Channel())
    first = min(channel.first + 1, MOST_UNSURE)
    pausing = replace(channel, first=first, until=now + timedelta(seconds=_pause(channel.failures + 1)))
    return replace(counted, channels={**counted.channels, delivery.channel: pausing})


def ended(ledger: Ledger, delivery: Delivery, outcome: Outcome, error: str, now: datetime) -> Ledger:
    """The ledger after a message: `sent`, `failed` (it certainly did not arrive), or `unsure`.

    `ledger` is one that `begun` made, perhaps observed since.
    """
    name = delivery.channel
    channel = ledger.channels.get(name, Channel())
    if outcome == "sent":
        counted = _counted(ledger, delivery, MOST_UNSURE)
        return replace(counted, channels={**counted.channels, name: Channel(MOST_UNSURE, sent=now)})
    failures = channel.failures + 1
    until = now + timedelta(seconds=_pause(failures))
    failed = replace(channel, failures=failures, since=channel.since or now, until=until, error=error)
    if outcome == "failed":
        counted = _counted(ledger, delivery, -1)
        if delivery.first:
            failed = replace(failed, first=max(channel.first - 1, 0))
        return replace(counted, channels={**counted.channels, name: failed})
    return replace(ledger, channels={**ledger.channels, name: failed})


def works(ledger: Ledger, name: str) -> Ledger:
    """The ledger after a test message arrived: what waits for the channel need not wait for the next try."""
    channel = ledger.channels.get(name, Channel())
    if not channel.failures:
        return ledger
    again = replace(channel, failures=0, since=None, until=None, error="")
    return replace(ledger, channels={**ledger.channels, name: again})


def is_quiet(alerts: Alerts, now: datetime) -> bool:
    return alerts.quiet is not None and is_within(now.astimezone(alerts.zone).time(), alerts.quiet)


def is_failing(channel: Channel) -> bool:
    return channel.failures >= FAILING


def _is_new(channel: Channel) -> bool:
    """Whether its first message is still to come."""
    return channel.first < MOST_UNSURE


def _urgent_pause(ledger: Ledger, name: str) -> float:
    """Seconds from the last message to one of an urgent mail: more for each that was told and still waits."""
    told = ledger.causes.values()
    waiting = sum(1 for one in told if one.kind == "urgent" and one.gone is None and one.told.get(name, 0) > 0)
    return min(URGENT_SECONDS * max(waiting, 1), LONGEST_URGENT_SECONDS)


def _is_ripe(told: Told, channel: Channel, now: datetime, urgent_pause: float) -> bool:
    if told.kind == "urgent" and channel.sent is not None:
        return not timedelta() <= now - channel.sent < timedelta(seconds=urgent_pause)
    return (now - told.since).total_seconds() >= GRACE_SECONDS[told.kind]


def _counted(ledger: Ledger, delivery: Delivery, step: int) -> Ledger:
    causes = dict(ledger.causes)
    for key in delivery.keys:
        if key in causes:
            count = min(max(causes[key].told.get(delivery.channel, 0) + step, 0), MOST_UNSURE)
            causes[key] = replace(causes[key], told={**causes[key].told, delivery.channel: count})
    return replace(ledger, causes=causes)


def _pause(failures: int) -> float:
    return min(FIRST_PAUSE * 2.0 ** min(failures - 1, 10), LONGEST_PAUSE)


def _left(channel: Channel, now: datetime) -> float:
    """Seconds until the next try; a clock that was set back makes nobody wait longer than ever."""
    left = (channel.until - now).total_seconds() if channel.until is not None else 0.0
    return left if 0.0 < left <= LONGEST_PAUSE else 0.0


def _key_of_channel(name: str) -> str:
    return f"channel {name}"


def _of_channels(ledger: Ledger) -> dict[str, Kind]:
    """A channel that is broken is a failure, told on the others."""
    return {_key_of_channel(name): "failure" for name, channel in ledger.channels.items() if is_failing(channel)}


def _digest(alerts: Alerts, now: datetime) -> dict[str, Kind]:
    """The digest that was due last: from its time on until the next one's."""
    if alerts.digest is None:
        return {}
    day = now.astimezone(alerts.zone).date()
    # Compared as moments: in autumn an hour of the clock comes twice.
    if datetime.combine(day, alerts.digest, alerts.zone).astimezone(UTC) > now:
        day -= timedelta(days=1)
    return {f"digest {day.isoformat()}": "digest"}


# -- the ledger as JSON ------------------------------------------------------------------------------------------------


def dump(ledger: Ledger) -> dict[str, Any]:
    return {
        "causes": {
            key: {
                "kind": told.kind,
                "since": _iso(told.since),
                "gone": _iso(told.gone),
                "told": dict(told.told),
            }
            for key, told in ledger.causes.items()
        },
        "channels": {
            name: {
                "first": channel.first,
                "failures": channel.failures,
                "since": _iso(channel.since),
                "until": _iso(channel.until),
                "error": channel.error,
                "sent": _iso(channel.sent),
            }
            for name, channel in ledger.channels.items()
        },
    }


def load(data: Mapping[str, Any]) -> Ledger:
    """What `dump` gave. What is broken in it counts as not there: then a digest is told again, and nothing else."""
    try:
        causes = {
            key: Told(
                one["kind"] if one["kind"] in GRACE_SECONDS else "note",
                _moment(one["since"]) or datetime.now(UTC),
                _moment(one["gone"]),
                {name: int(count) for name, count in one["told"].items()},
            )
            for key, one in data["causes"].items()
        }
        channels = {
            name: Channel(
                int(one["first"]),
                int(one["failures"]),
                _moment(one["since"]),
                _moment(one["until"]),
                str(one["error"]),
                _moment(one["sent"]),
            )
            for name, one in data["channels"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return Ledger()
    return Ledger(causes, channels)


def _iso(moment: datetime | None) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds") if moment is not None else ""


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(text)
    return moment
