"""Fixtures of the sync tests; the kit is tests/gitkit.py."""

from pathlib import Path

import pytest

from tests.gitkit import World

SEED: dict[str, str | bytes] = {
    "Dashboard.md": "# Dashboard\n\nMine.\n\n## Updates\n\n- old\n",
    "Company_Handbook.md": "# Handbook\n\nBe kind.\n",
    ".gitignore": ".obsidian/workspace*.json\n.env*\n",
    "Inbox/.gitkeep": "",
    "note.md": "one\ntwo\nthree\nfour\nfive\n",
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Cloud, Local and the remote, level with each other."""
    made = World(tmp_path)
    made.seed(SEED)
    return made


@pytest.fixture
def empty_world(tmp_path: Path) -> World:
    """An empty remote, and two plain folders."""
    return World(tmp_path)
