"""The lab's part of Oracle: what its machines write on the console, and whose process is ended."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests import ansible_module
from tests.lab.launcher import console
from tests.lab.oracle import Api

KEYS = [
    "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBF1rwcS72QHqYMFOTnPbN84gGmByzxDHX3oZ"
    "9v4boERqslg35GjMg1TsvRz6ls0RZFpOOULML//YteoxwsV1jqE=",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAII04fEMyEUjhnCy2lyh8JYOJPBg2dh2WruUMnHWOy+SF",
]


def test_a_console_of_the_lab_has_the_keys_where_oracles_have_them() -> None:
    pytest.importorskip("oci")
    ansible_module.find_shared()
    module = ansible_module.load("oracle_instance", "oracle_host_keys")
    shown = console("".join(f"{key} root@target\n" for key in KEYS), "target", datetime.now(UTC))
    assert module.host_keys(shown) == KEYS
    assert module.host_keys(shown.replace("END SSH HOST KEY KEYS", "")) == []


def test_a_process_that_has_the_number_by_chance_is_left_alone(tmp_path: Path) -> None:
    api = Api(tmp_path, 0)
    assert not api.runs()
    api.pid_file.write_text(f"{os.getpid()}\n")
    assert not api.runs()
    api.stop()  # or there would be nobody to see the end of this test
