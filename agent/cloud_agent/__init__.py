"""Cloud agent: turns mail in a git-synced markdown vault into reply drafts. It drafts and can never send."""

__version__ = "0.1.0"
