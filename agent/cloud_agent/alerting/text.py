"""The words of an alert. Pure.

What a mail says is shown in single lines of bounded length, and does nothing: no control or invisible character, no
markup, nobody is mentioned (`@everyone`), and what a messenger would make a link of is broken visibly, the way people
write of addresses that are not to be clicked: `example[.]org`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cloud_agent.mail import Mail, addresses, one_line, shown
from cloud_agent.marks import visible

SENDER, SUBJECT, REASON, BODY = 80, 120, 200, 500  # characters at most
MOST = 5  # mails that are named; of the others it says how many
LONGEST = 3500  # characters of a message

_TRANSLATED = str.maketrans(
    {"<": "‹", ">": "›", "`": "'", "．": ".", "\u2024": ".", "｡": "。", "：": ":", "／": "/", "＠": "@"}
)
_SCHEME = re.compile(r":(?=//|\\\\)")
_BARE_SCHEME = re.compile(r"\b(mailto|tel|sms|javascript|data|whatsapp|tg|intent|file):(?=\S)", re.I)
# A dot between what could be two labels of a host's name (RFC 3490 3.1 takes an ideographic stop for one, too); and an
# address in numbers.
_HOST_DOT = re.compile(r"(?<=\w)\.(?=[^\W\d_]{2})|(?<=[A-Za-z0-9])。(?=[A-Za-z]{2})")
_IP = re.compile(r"(?<![\d.])(\d+)\.(\d+)\.(\d+)\.(\d+)(?!\d|\.\d)")
# What is left whole is the address of a mailbox: between a letter or digit and a host's name, broken by now. But not
# where a messenger that does not look at what stands before it would call all members.
_MENTION = re.compile(
    r"@(?!(?<=\[@)\])(?:(?=everyone|here|channel|all|online|room)|(?<![^\W_]@)|(?![\w-]{1,63}\[\.\]))", re.I
)


@dataclass(frozen=True)
class Message:
    """A line that says how many of what, and the lines below it."""

    title: str
    body: str

    def __str__(self) -> str:
        return f"{self.title}\n{self.body}".strip()


def harmless(text: str, limit: int) -> str:
    """One line of at most `limit` characters (before what breaks links is added) that does nothing anywhere."""
    line = visible(shown(one_line(text)))
    line = "".join(letter if letter.isprintable() else " " for letter in line).translate(_TRANSLATED)
    line = " ".join(line.split())
    if len(line) > limit:
        line = f"{line[: limit - 1].rstrip()}…"
    line = _SCHEME.sub("[:]", line)
    line = _BARE_SCHEME.sub(r"\1[:]", line)
    line = _IP.sub(r"\1[.]\2[.]\3[.]\4", _HOST_DOT.sub("[.]", line))
    # Markdown's link to `//2130706433`, and what hides all up to the next of its kind, in another's mail.
    return _MENTION.sub("[@]", line).replace("](", "]（").replace("||", "¦¦")


def sender(mail: Mail) -> str:
    """Who wrote a mail: the name and the address, as the name alone can be anybody's."""
    for name, address in addresses(mail.sender)[:1]:
        shown_name, shown_address = harmless(name, SENDER // 2), harmless(address, SENDER)
        return f"{shown_name} ({shown_address})" if shown_name else shown_address
    return harmless(mail.sender, SENDER) or "an unknown sender"


def item(who: str, subject: str, reason: str, body: str = "") -> str:
    """A mail in an alert: sender, subject and reason, one line each; the body, one line too, where it is wanted."""
    lines = [f"• {who}", f"  {harmless(subject, SUBJECT) or '(no subject)'}", f"  {harmless(reason, REASON)}"]
    lines += [f"  “{harmless(body, BODY)}”"] if body.strip() else []
    return "\n".join(line for line in lines if line.strip())


def message(agent: str, parts: Sequence[tuple[str, Sequence[str]]], below: Sequence[str] = ()) -> Message:
    """A message of parts, each a headline and its items, and of lines `below`. The headlines make the title."""
    title = f"{agent}: {', '.join(headline for headline, _ in parts) or 'all is well'}"
    blocks = []
    for headline, items in parts:
        # A part that stands alone is named by the title.
        head = [f"{headline[:1].upper()}{headline[1:]}:"] if len(parts) > 1 else []
        blocks += ["\n".join([*head, *_bounded(items)])] if items else []
    blocks += ["\n".join(below)] if below else []
    body = "\n\n".join(blocks)
    return Message(title, body if len(body) <= LONGEST else f"{body[: LONGEST - 1]}…")


def counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _bounded(items: Iterable[str]) -> list[str]:
    items = list(items)
    more = len(items) - MOST
    return items if more <= 1 else [*items[:MOST], f"… and {more} more"]
