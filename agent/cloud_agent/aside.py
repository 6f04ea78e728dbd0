"""A mail that cannot be read: its bytes are kept, and a note for a person says where and why."""

from __future__ import annotations

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
