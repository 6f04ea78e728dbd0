"""The settings of the alerts, and everything that can be wrong with them. Pure, but for asking whether a library is
installed.

A channel may reach the owner and nobody else. So there is a list of Apprise's services, and not all 173 of them: pushes
to the owner's own devices, bots and webhooks that write to one chat under a name of their own, the owner's own HTTP
endpoints, and e-mail to the owner's own addresses by a relay that is not the owner's account. What logs in as the owner
(WhatsApp, Signal, Matrix, Office 365, X …), and what reaches any number or address (SMS, mail services), is no channel:
it belongs behind an Apprise API server elsewhere (`apprises://`).
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shlex
from dataclasses import dataclass, field
from datetime import UTC, time, tzinfo
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from cloud_agent.mail import bare_addresses

if TYPE_CHECKING:
    from collections.abc import Collection

    from cloud_agent.config import Reader

_DEVICES = (
    "ntfy ntfys gotify gotifys pover prowl spush simplepush bark barks join pushdeer pushdeers psafer psafers"
    " notica noticas"
).split()
_CHATS = "tgram discord slack workflow workflows gchat mmost mmosts zulip guilded synology synologys".split()
_ENDPOINTS = "json jsons form forms apprise apprises".split()
_MAIL = ("mailto", "mailtos")
SCHEMAS = frozenset((*_DEVICES, *_CHATS, *_ENDPOINTS, *_MAIL))

_NUMBER = re.compile(r"\+?[0-9]{6,15}(?:@s\.whatsapp\.net)?")
_CLOCK = r"([01]?\d|2[0-3]):([0-5]\d)"
# What Apprise takes from the query of a mailto URL and we can answer for.
_MAIL_OPTIONS = frozenset("to cc bcc from name reply smtp mode user pass format overflow rto cto verify".split())
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
INSTALL = "install what agent/requirements-alerts.lock pins (Ansible does where alerts are set)"


@dataclass(frozen=True)
class Mcp:
    """An MCP server that sends WhatsApp messages: a command (stdio) or a URL (streamable HTTP)."""

    number: str  # the only recipient
    command: tuple[str, ...] = ()
    url: str = ""
    token: str = field(default="", repr=False)
    tool: str = "send_message"
    to_argument: str = "recipient"
    text_argument: str = "message"


@dataclass(frozen=True)
class Alerts:
    """Where the owner is told, and when. `channels`: name -> an Apprise URL, or the MCP server."""

    channels: dict[str, str | Mcp] = field(repr=False)
    zone: tzinfo = UTC
    quiet: tuple[time, time] | None = None  # from, to; over midnight where from is the later
    digest: time | None = None
    urgent_always: bool = False  # also in quiet time
    body: bool = False
    owner_addresses: frozenset[str] = frozenset()

    @property
    def secrets(self) -> list[str]:
        """What must never stand in a log, a status or a commit."""
        found = []
        for target in self.channels.values():
            if isinstance(target, Mcp):
                found += [secret for secret in (target.token, _secret_part(target.url)) if secret]
            else:
                found += [target, target.partition("://")[2], *_keys(target)]
        return found


def read(reader: Reader, owner_addresses: frozenset[str]) -> Alerts | None:
    """The settings of the alerts, None where there is no channel. What is wrong is noted in `reader.problems`."""
    problems = reader.problems
    channels: dict[str, str | Mcp] = {}
    mcp = _mcp(reader)
    if mcp is not None:
        channels["whatsapp"] = mcp
    urls = reader.text("ALERT_URLS", "").split()
    for number, url in enumerate(urls, 1):
        faults = url_faults(url, owner_addresses)
        problems += [f"ALERT_URLS, entry {number}: {fault}" for fault in faults]
        if not faults:
            channels[channel_name(url)] = url
    for library, name, wanted in (("mcp", "ALERT_MCP_…", mcp is not None), ("apprise", "ALERT_URLS", bool(urls))):
        if wanted and importlib.util.find_spec(library) is None:
            problems.append(f"{name} needs the library {library}, which is not installed: {INSTALL}")
    quiet = _quiet(reader)
    digest = _digest(reader, quiet)
    zone = _zone(reader)
    urgent_always, body = reader.flag("ALERT_URGENT_ALWAYS"), reader.flag("ALERT_BODY")
    if channels:
        return Alerts(channels, zone, quiet, digest, urgent_always, body, owner_addresses)
    if urls:
        return None  # all of them are wrong
    for name in ("ALERT_QUIET", "ALERT_DIGEST", "ALERT_TIMEZONE", "ALERT_URGENT_ALWAYS", "ALERT_BODY"):
        if reader.text(name, ""):
            problems.append(f"{name} is set, but nothing to tell it by: set ALERT_URLS or ALERT_MCP_…, or remove it")
    return None


def can_be_split(url: str) -> bool:
    """Whether `urlsplit` takes it. Else its error would name the host's part, with the password in it."""
    try:
        urlsplit(url)
    except ValueError:
        return False
    return True


def channel_name(url: str) -> str:
    """How logs and `status` call an Apprise URL: its service, and a mark that tells two of them apart."""
    return f"{url.partition('://')[0]}-{hashlib.sha256(url.encode()).hexdigest()[:4]}"


def url_faults(url: str, owner_addresses: Collection[str]) -> list[str]:
    """What is wrong with an Apprise URL, without its value. Pure."""
    schema, found, rest = url.partition("://")
    if not found or not rest or not re.fullmatch(r"[a-z0-9]+", schema) or not can_be_split(url):
        return ["is no Apprise URL: e.g. ntfys://ntfy.sh/TOPIC, entries separated by spaces"]
    if re.search(r",(?:$|[a-z0-9]+://)", url):
        return ["holds a comma between two URLs: separate the entries by spaces alone"]
    if schema in ("http", "https"):
        return ["is a web address: write it as Apprise does, e.g. ntfys://ntfy.sh/TOPIC, jsons://HOST/PATH"]
    if schema not in SCHEMAS:
        return [
            "is of a service that could write to others or as you: use one of "
            f"{', '.join(sorted(SCHEMAS))}; any other behind an Apprise API server of yours (apprises://)"
        ]
    if schema == "slack" and "xoxp" in rest.lower():
        return ["is a Slack user's token, which writes as you: make a webhook or a bot"]
    if schema in ("ntfy", "ntfys") and re.search(r"[?&]\s*email\s*=", unquote(rest), re.I):
        return ["has ntfy forward to an address: remove email=, and use mailtos:// for e-mail"]
    return mail_faults(url, owner_addresses) if schema in _MAIL else []


def mail_faults(url: str, owner_addresses: Collection[str]) -> list[str]:
    """Why a mailto URL is no relay that writes to the owner alone, and not in the owner's name. Pure.

    Strict: what is not understood is refused, so that nothing is understood differently by Apprise.
    """
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        return ["is no URL that can be read: mailtos://USER:PASSWORD@RELAY/you@example.org?from=alerts@example.net"]
    options = {name.lower(): value for name, value in pairs}
    if len(options) < len(pairs) or not options.keys() <= _MAIL_OPTIONS:
        return [f"has options twice, or others than {', '.join(sorted(_MAIL_OPTIONS))}: remove them"]
    if not owner_addresses:
        return ["is e-mail, which goes to your own addresses alone: set OWNER_ADDRESSES"]
    faults = []
    own = set(owner_addresses)
    paths = [unquote(part) for part in parts.path.split("/") if part]
    receivers = [part for text in (*paths, *map(options.get, ("to", "cc", "bcc"))) for part in _listed(text)]
    if not receivers or not all(receiver.lower() in own for receiver in receivers):
        faults.append("writes to others than you: name one or more of OWNER_ADDRESSES after the relay's name")
    sender = bare_addresses(options.get("from", ""))
    if len(sender) != 1:
        faults.append("does not say who writes: add ?from=ADDRESS, an address that is not yours")
    login = [unquote(parts.username or ""), options.get("user", "")]
    logins = {name.lower() for name in login if name}
    # A name alone is one of the relay's domain: `you` at smtp.example.org is you@example.org.
    domains = {domain for host in (parts.hostname or "", options.get("smtp", "")) for domain in _domains(host.lower())}
    logins |= {f"{name}@{domain}" for name in logins if "@" not in name for domain in domains}
    if (sender | logins) & own:
        faults.append("writes as you, and what it logs in with could write to anybody in your name: use another relay")
    is_plain = parts.scheme == "mailto" or options.get("mode", "").strip().lower().startswith("i")  # insecure
    if is_plain and (parts.password or options.get("pass")):
        faults.append("sends a password without TLS: write mailtos://, and no mode=insecure")
    return faults


def warnings(alerts: Alerts) -> list[str]:
    """What is worth a thought, but stops nothing."""
    found = []
    for target in alerts.channels.values():
        if isinstance(target, Mcp):
            host = urlsplit(target.url).hostname or ""
            if target.command:
                found.append(
                    "ALERT_MCP_COMMAND runs a server on this machine: whatever it logs in with lies here and could "
                    "write to others (docs/security.md, Alerts)"
                )
            elif target.url.startswith("http://") and host not in _LOOPBACK:
                found.append("ALERT_MCP_URL is not encrypted: who listens reads the alerts and the token; use https")
            continue
        schema = target.partition("://")[0]
        if f"{schema}s" in SCHEMAS and (urlsplit(target).hostname or "") not in _LOOPBACK:
            found.append(f"ALERT_URLS has {schema}://, which is not encrypted to a server of yours: use {schema}s://")
        if schema in _MAIL and (urlsplit(target).password or "pass=" in target.lower()):
            found.append(
                "ALERT_URLS holds a relay's password: let that relay deliver to you alone (docs/security.md, Alerts)"
            )
    return found


def _domains(host: str) -> list[str]:
    labels = host.split(".")
    return [".".join(labels[begin:]) for begin in range(len(labels))]


def _listed(text: str | None) -> list[str]:
    return [part for part in re.split(r"[\s,;]+", text or "") if part]


def words_of(url: str) -> list[str]:
    """The parts of a URL, each of which may be a key: Apprise has them in all places."""
    return re.split(r"[/&=?#:@,]", url.partition("://")[2])


def _keys(url: str) -> list[str]:
    """What of an Apprise URL is a key by itself, as somebody may write it down: a password, and what looks random."""
    password = urlsplit(url).password
    random = [word for word in map(unquote, words_of(url)) if re.fullmatch(r"(?=\D*\d)(?=.*[A-Za-z])[\w-]{16,}", word)]
    return [*random, *([unquote(password)] if password else [])]


def _secret_part(url: str) -> str:
    """What of a URL may be a key: all behind the host, where there is a query or a user."""
    parts = urlsplit(url)
    return url.partition("://")[2] if parts.query or parts.username or len(parts.path) > 20 else ""


def _mcp(reader: Reader) -> Mcp | None:
    problems = reader.problems
    command, url = reader.text("ALERT_MCP_COMMAND", ""), reader.text("ALERT_MCP_URL", "")
    names = {
        "token": reader.text("ALERT_MCP_TOKEN", ""),
        "tool": reader.text("ALERT_MCP_TOOL", Mcp.tool),
        "to_argument": reader.text("ALERT_MCP_TO_ARGUMENT", Mcp.to_argument),
        "text_argument": reader.text("ALERT_MCP_TEXT_ARGUMENT", Mcp.text_argument),
    }
    if names["token"] and not url:
        problems.append("ALERT_MCP_TOKEN is set, and ALERT_MCP_URL is not: set it, or remove the token")
    if not command and not url:
        problems += [
            f"{name} is set, and no server for it: set ALERT_MCP_URL or ALERT_MCP_COMMAND, or remove it"
            for name in ("ALERT_MCP_TOOL", "ALERT_MCP_TO_ARGUMENT", "ALERT_MCP_TEXT_ARGUMENT")
            if reader.text(name, "")
        ]
        return None
    if command and url:
        problems.append("ALERT_MCP_COMMAND and ALERT_MCP_URL are both set: keep one")
    if names["to_argument"] == names["text_argument"]:
        problems.append("ALERT_MCP_TO_ARGUMENT and ALERT_MCP_TEXT_ARGUMENT are the same: name the tool's two arguments")
    words: tuple[str, ...] = ()
    try:
        words = tuple(shlex.split(command))
    except ValueError:
        problems.append("ALERT_MCP_COMMAND is no command line: close its quotes")
    if url and not (re.match(r"https?://[^/\s]", url) and can_be_split(url)):
        url = ""
        problems.append("ALERT_MCP_URL is no http(s) URL: e.g. ALERT_MCP_URL=https://mcp.example.org/mcp")
    if not names["token"].isascii() or not names["token"].isprintable():
        problems.append("ALERT_MCP_TOKEN holds characters that no token has: copy it again")
    number = re.sub(r"[\s()/-]", "", reader.text("WHATSAPP_NOTIFICATION_NUMBER", ""))
    if not _NUMBER.fullmatch(number):
        problems.append(
            "WHATSAPP_NOTIFICATION_NUMBER is no telephone number, and alerts on WhatsApp need one: "
            "e.g. WHATSAPP_NOTIFICATION_NUMBER=+491701234567"
        )
    return Mcp(number, words, url, **names)


def _quiet(reader: Reader) -> tuple[time, time] | None:
    text = reader.text("ALERT_QUIET", "")
    match = re.fullmatch(rf"{_CLOCK}\s*-\s*{_CLOCK}", text)
    if match is None:
        if text:
            reader.problems.append("ALERT_QUIET is not two times of day: e.g. ALERT_QUIET=22:00-07:00")
        return None
    begin, end = time(int(match[1]), int(match[2])), time(int(match[3]), int(match[4]))
    if begin == end:
        reader.problems.append("ALERT_QUIET ends when it begins, so it would never end: e.g. ALERT_QUIET=22:00-07:00")
    return begin, end


def _digest(reader: Reader, quiet: tuple[time, time] | None) -> time | None:
    text = reader.text("ALERT_DIGEST", "")
    match = re.fullmatch(_CLOCK, text)
    if match is None:
        if text:
            reader.problems.append("ALERT_DIGEST is no time of day: e.g. ALERT_DIGEST=08:00")
        return None
    digest = time(int(match[1]), int(match[2]))
    if quiet is not None and is_within(digest, quiet):
        reader.problems.append("ALERT_DIGEST lies in ALERT_QUIET: move one of the two")
    return digest


def _zone(reader: Reader) -> tzinfo:
    name = reader.text("ALERT_TIMEZONE", "UTC")
    if name == "UTC":
        return UTC  # needs no time zone data
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        reader.problems.append(
            "ALERT_TIMEZONE is no time zone of this machine: e.g. ALERT_TIMEZONE=Europe/Berlin (from tzdata)"
        )
        return UTC


def is_within(moment: time, quiet: tuple[time, time]) -> bool:
    """Whether a time of day is in a quiet time, whose end is not part of it."""
    begin, end = quiet
    return begin <= moment < end if begin < end else moment >= begin or moment < end
