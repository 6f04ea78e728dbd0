"""Fixtures that the tests share; what they are made of is in helpers.py."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cloud_agent.config import Config
from cloud_agent.vault import Vault

from tests.helpers import Clock, Desk, make_config


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Config]:
    """Valid settings; keyword arguments change single ones."""

    def make(**changes: Any) -> Config:
        return make_config(tmp_path, **changes)

    return make


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    (tmp_path / "vault").mkdir()
    return Vault(tmp_path / "vault")


@pytest.fixture
def command() -> list[str]:
    """The installed command."""
    return [str(Path(sys.executable).parent / "cloud-agent")]
