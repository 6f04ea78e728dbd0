"""What of a conversation the model is shown with a mail. Pure.

A mail names what it answers in References, and anybody can name anything there. So a message is shown only when
everyone whom the reply goes to has it already: nobody gets at a conversation by naming it, whatever the model writes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cloud_agent import approval
from cloud_agent.index import is_draft
from cloud_agent.mail import Envelope, UnreadableMail, bare_addresses, decode, parse, read_note, shown
from cloud_agent.request import Earlier


def earlier(path: str, raw: bytes, to: Envelope, own: Collection[str] = ()) -> Earlier | None:
    """A mail or a draft of the vault as part of the thread; None when it is not for those whom the reply goes to.

    None, too, for a mail that calls itself the owner's, whose `own` addresses are lower case: anybody can write that,
    and what the owner said before binds. The owner's own words are known from the drafts.
    """
    fields, _ = read_note(raw)
    if is_draft(path, fields):
        if not is_shared(fields, to):
            return None
        return Earlier("draft", fields.get("to", ""), fields.get("created", ""), approval.reply_of(shown(decode(raw))))
    try:
        mail = parse(path.rpartition("/")[2], raw)
    except UnreadableMail:
        return None
    if not is_shared(mail.fields, to) or not bare_addresses(mail.sender).isdisjoint(own):
        return None
    return Earlier("mail", mail.sender, mail.fields.get("date") or mail.fields.get("received", ""), mail.content.text)


def is_shared(fields: Mapping[str, str], to: Envelope) -> bool:
    """Whether all whom a reply goes to wrote this message or got it."""
    had = bare_addresses(*(fields.get(name, "") for name in ("from", "reply_to", "to", "cc")))
    return bare_addresses(to.to, to.cc) <= had
