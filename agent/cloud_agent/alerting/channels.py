"""Sending one message on one channel. Heavy libraries: imported only by the process that sends, and by `check`."""

from __future__ import annotations

import logging
import os
import resource
import shutil
from typing import Any
from urllib.parse import unquote, urlsplit

from cloud_agent import __version__
from cloud_agent.alerting.ledger import Outcome
from cloud_agent.alerting.settings import INSTALL, Alerts, Mcp, words_of
from cloud_agent.alerting.text import Message, harmless

# For one message on one channel; a server that `npx` has to fetch first takes its time.
SECONDS = 45.0
# How the server's tools are listed before one is called: pages at most.
MOST_PAGES = 20
ERROR = 300  # characters


def send(name: str, alerts: Alerts, message: Message, seconds: float = SECONDS) -> tuple[Outcome, str]:
    """Send a message; returns what became of it, and why. Never raises, and never gives a secret away."""
    target = alerts.channels[name]
    try:
        outcome, why = (
            _send_mcp(target, str(message), seconds)
            if isinstance(target, Mcp)
            else _send_apprise(target, alerts, message, seconds)
        )
    except ModuleNotFoundError as error:
        outcome, why = "failed", f"the library {error.name} is not installed: {INSTALL}"
    except Exception as error:  # a channel that breaks in whatever way is one that did not take the message
        outcome, why = "failed", f"{type(error).__name__}: {error}"
    return outcome, redacted(why, alerts)


def redacted(why: str, alerts: Alerts) -> str:
    """An error without anything of the channels' addresses that could be a key. Pure."""
    for secret in sorted(_secrets(alerts), key=len, reverse=True):
        why = why.replace(secret, "…")
    return harmless(why, ERROR)


def _secrets(alerts: Alerts) -> set[str]:
    """Every word of the channels' addresses: Apprise has keys in all places of a URL. A host's name may be shown."""
    found, hosts = set(), {"localhost"}
    for target in alerts.channels.values():
        url = target.url if isinstance(target, Mcp) else target
        found.add(target.token if isinstance(target, Mcp) else url)
        if isinstance(target, Mcp):
            options = [word.rpartition("=")[2] for word in target.command[1:]]
            found.update(option for option in options if not option.startswith(("-", "/")))
        found.update(form for word in words_of(url) for form in (word, unquote(word)))
        host = urlsplit(url).hostname or ""
        hosts |= {host} if "." in host else set()
    return {word for word in found if len(word) >= 5 and word.lower() not in hosts}


# -- WhatsApp, and whatever else an MCP server sends -------------------------------------------------------------------


class _Refused(Exception):
    """The server does not take the message; the text says why."""


def arguments(mcp: Mcp, text: str) -> dict[str, str]:
    """What the tool is called with: the one recipient, and the text. Pure."""
    return {mcp.to_argument: mcp.number, mcp.text_argument: text}


def _send_mcp(mcp: Mcp, text: str, seconds: float) -> tuple[Outcome, str]:
    import anyio

    logging.getLogger("mcp").setLevel(logging.CRITICAL + 1)  # it logs what a server says, and addresses
    reached: list[str] = []  # how far it got: "called", "HTTP 401"
    try:
        anyio.run(_call, mcp, text, seconds, reached)
    except BaseException as error:
        cause = _first(error)
        if not isinstance(cause, Exception):
            raise
        called = "called" in reached
        # Of the last answer: earlier ones are of a newer protocol that is tried first. A 405 is about a stream that a
        # server need not have.
        answers = [step for step in reached if step.startswith("HTTP ")][-1:]
        refused = [step for step in answers if step >= "HTTP 4" and step != "HTTP 405"]
        if isinstance(cause, _Refused):
            return "failed", str(cause)
        if isinstance(cause, TimeoutError):
            return ("unsure" if called else "failed"), f"the MCP server gave no answer within {seconds:g} s"
        if isinstance(cause, FileNotFoundError | PermissionError) and not called:
            return "failed", f"ALERT_MCP_COMMAND cannot be started ({cause.strerror}): correct it"
        why = ", ".join([*refused, str(cause) or type(cause).__name__])
        look = "the server's own log" if called else "ALERT_MCP_COMMAND" if mcp.command else "ALERT_MCP_URL"
        return ("unsure" if called else "failed"), f"the MCP server could not be used ({why}): look at {look}"
    return "sent", ""


async def _call(mcp: Mcp, text: str, seconds: float, reached: list[str]) -> None:
    import anyio
    import httpx2
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client
    from mcp.client.streamable_http import streamable_http_client
    from mcp.types import Implementation, TextContent

    me = Implementation(name="cloud-agent", version=__version__)
    with anyio.fail_after(seconds), open(os.devnull, "w", encoding="utf-8") as nowhere:
        if mcp.command:
            command = _leashed(mcp.command)
            server = StdioServerParameters(command=command[0], args=list(command[1:]))
            transport: Any = stdio_client(server, errlog=nowhere)
            client = Client(transport, client_info=me)
            async with client:
                await _use(client, mcp, text, reached, TextContent)
            return
        headers = {"Authorization": f"Bearer {mcp.token}"} if mcp.token else None

        async def note(response: httpx2.Response) -> None:
            reached.append(f"HTTP {response.status_code}")

        async with httpx2.AsyncClient(headers=headers, timeout=seconds, event_hooks={"response": [note]}) as http:
            client = Client(streamable_http_client(mcp.url, http_client=http), client_info=me)
            async with client:
                await _use(client, mcp, text, reached, TextContent)


def _leashed(command: tuple[str, ...]) -> tuple[str, ...]:
    """The command, to be killed by the kernel (prctl(2), PR_SET_PDEATHSIG) where we are killed and cannot end it, and
    without our bound on memory, which is none for a server with a browser in it."""
    if shutil.which(command[0]) is None:
        raise _Refused("ALERT_MCP_COMMAND cannot be started (No such file or directory): correct it")
    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    soft = "unlimited" if most == resource.RLIM_INFINITY else most
    # Both of util-linux.
    for wrapper, *options in (("prlimit", f"--data={soft}:"), ("setpriv", "--pdeathsig", "KILL")):
        path = shutil.which(wrapper)
        command = (path, *options, "--", *command) if path else command
    return command


async def _use(client: Any, mcp: Mcp, text: str, reached: list[str], text_type: Any) -> None:
    names, cursor = {}, None
    for _ in range(MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        names.update({tool.name: tool for tool in page.tools})
        cursor = page.next_cursor
        if mcp.tool in names or not cursor:
            break
    if mcp.tool not in names:
        raise _Refused(f"the MCP server has no tool {mcp.tool}: set ALERT_MCP_TOOL to one of {', '.join(names)}")
    takes = (names[mcp.tool].input_schema or {}).get("properties", {})
    missing = [name for name in (mcp.to_argument, mcp.text_argument) if name not in takes]
    if missing:
        raise _Refused(
            f"the tool {mcp.tool} has no argument {' and '.join(missing)}: set ALERT_MCP_TO_ARGUMENT and "
            f"ALERT_MCP_TEXT_ARGUMENT to two of {', '.join(takes)}"
        )
    reached.append("called")
    result = await client.call_tool(mcp.tool, arguments(mcp, text))
    if result.is_error:
        said = " ".join(part.text for part in result.content if isinstance(part, text_type))
        raise _Refused(f"the tool {mcp.tool} says: {said or 'an error, and nothing more'}")


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


# -- everything else, by Apprise ---------------------------------------------------------------------------------------


def problems(alerts: Alerts) -> list[str]:
    """What Apprise itself says against the URLs, for `check`: without their values."""
    found = []
    urls = [target for target in alerts.channels.values() if not isinstance(target, Mcp)]
    for number, url in enumerate(urls, 1):
        try:
            _service(url, alerts)
        except _Refused as error:
            found.append(f"ALERT_URLS, entry {number}: {error}")
    return found


def _service(url: str, alerts: Alerts) -> Any:
    """The service of a URL. Raises _Refused where there is none, or an e-mail would go to others than the owner."""
    import apprise

    # What it logs is kept in its result, to be read with care, and goes nowhere else.
    logger = logging.getLogger("apprise")
    logger.propagate = False
    logger.handlers[:] = [logging.NullHandler()]
    from apprise.plugins.email.base import NotifyEmail

    bundle = os.environ.get("SSL_CERT_FILE")
    if bundle:
        os.environ.setdefault("REQUESTS_CA_BUNDLE", bundle)  # that is what Apprise's HTTP library reads
    asset = apprise.AppriseAsset(app_id="cloud-agent", app_desc="cloud-agent", async_mode=False)
    service = apprise.Apprise.instantiate(url, asset=asset)
    if service is None:
        raise _Refused("is no URL that Apprise understands: see its documentation of that service")
    if isinstance(service, NotifyEmail):
        # As settings.mail_faults read it, but in the words of who sends.
        receivers = {address for _, address in service.targets} | {*service.cc, *service.bcc}
        if not receivers or not {address.lower() for address in receivers} <= alerts.owner_addresses:
            raise _Refused("writes to others than you: name one or more of OWNER_ADDRESSES after the relay's name")
        if {str(service.from_addr[1]).lower(), str(service.user).lower()} & alerts.owner_addresses:
            raise _Refused("writes as you: add ?from=ADDRESS, and log in as somebody who is not you")
        if service.password and service.secure_mode == "insecure":
            raise _Refused("sends a password without TLS: write mailtos://, and no mode=insecure")
    if not service.verify_certificate:
        raise _Refused("turns off the check of certificates: remove verify=, and add your CA to the system's")
    if "overflow=" not in url:
        service.overflow_mode = apprise.OverflowMode.SPLIT
    return service


def _send_apprise(url: str, alerts: Alerts, message: Message, seconds: float) -> tuple[Outcome, str]:
    try:
        service = _service(url, alerts)
    except _Refused as error:
        return "failed", str(error)
    import apprise

    everything = apprise.Apprise()
    everything.add(service)
    result = everything.notify(
        title=message.title,
        body=message.body or message.title,
        body_format=apprise.NotifyFormat.TEXT,
        timeout=seconds,
        log_level=logging.WARNING,
    )
    if result:
        return "sent", ""
    if result.status == apprise.AppriseResultStatus.TIMEOUT:
        return "unsure", f"no answer within {seconds:g} s"
    said = [entry.message for entry in result.logs()]
    return "failed", said[-1] if said else "it did not take the message"
