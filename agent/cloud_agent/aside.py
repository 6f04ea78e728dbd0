"""A mail that cannot be read, or not be had: a note for a person says where it is, and why."""

from __future__ import annotations

import hashlib

from cloud_agent import dashboard, frontmatter
from cloud_agent.journal import Journal
from cloud_agent.mail import MAIL_PREFIX, encode, shown, slug, stem_id
from cloud_agent.vault import NEEDS_ACTION, UNPARSEABLE, Vault


def keep(vault: Vault, journal: Journal, name: str, raw: bytes, reason: str) -> str:
    """Set the mail aside that came as the file `name`; returns the path of the note. Done again, it ends the same.

    The caller holds the tree lock.
    """
    kept = vault.place(f"{UNPARSEABLE}/{slug(stem_id(name))}.md", raw)
    note = frontmatter.dump(
        {"decision": "review", "reason": f"this mail cannot be read: {reason}", "kept": kept},
        f"The mail {dashboard.plain(shown(name))} cannot be read: {reason}. Its bytes lie in `{kept}`.\n\n"
        "Mend the file and move it to `Inbox/`, or delete both.",
    )
    path = vault.place(f"{NEEDS_ACTION}/{MAIL_PREFIX}{slug(stem_id(name))}.md", encode(note))
    journal.tell(f"Needs a person: {dashboard.plain(shown(name))} cannot be read: {reason}")
    journal.record("mail_unreadable", stem_id(name), to=kept, reason=reason)
    return path


def leave(vault: Vault, journal: Journal, mailbox: str, message: str, reason: str) -> None:
    """Have a note of a message that stays in its mailbox alone. A line on the Dashboard goes as others come; this stays
    until a person is done with it. Done again, it ends the same. The caller holds the tree lock."""
    words = dashboard.plain(f"A message was left in the mailbox, {message} of {mailbox}: {reason}. Read it there.", 500)
    digest = hashlib.sha256(f"{mailbox}\0{message}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    note = frontmatter.dump(
        {"decision": "review", "reason": shown(f"this message was left in the mailbox: {reason}")},
        f"{words}\n\nThen delete this note.",
    )
    vault.place(f"{NEEDS_ACTION}/{MAIL_PREFIX}left-{digest}.md", encode(note))
    journal.tell(words)
    journal.record("mail_missed", mailbox, result="failure", message=message, reason=reason)
