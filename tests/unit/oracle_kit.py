"""The real modules for Oracle Cloud and the real SDK, against the stand-in of Oracle's API."""

from __future__ import annotations

import contextlib
import functools
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from ansible.module_utils.common import warnings
from ansible.module_utils.testing import patch_module_args

from ansible.module_utils import _internal
from tests import ansible_module
from tests.standins import serving

if TYPE_CHECKING:  # the SDK takes a second to import: only whoever uses the fixture pays
    from tests.standins.oracle_api import OracleApi

NAME = "test"


@functools.cache
def account() -> tuple[dict[str, str], dict[str, str]]:
    """One API key for all tests, because making one takes a while."""
    from tests.standins.oracle_api import make_account

    return make_account()


@functools.cache
def load_key() -> Any:
    """The SDK's own function, with a memory: each client loads the key, and that takes longer than a module's work."""
    import oci.signer

    return functools.cache(oci.signer.load_private_key)


@functools.cache
def load(name: str) -> Any:
    role = next(ansible_module.ROLES.glob(f"*/library/{name}.py")).parents[1].name
    return ansible_module.load(role, name)


@dataclass
class Oracle:
    """A running stand-in with an empty account, and an API key for it."""

    api: OracleApi
    endpoint: str
    api_key: dict[str, str]
    _account: Any = None

    def call(self, module: str, *, check: bool = False, fails: bool = False, **params: Any) -> dict[str, Any]:
        """Run a module as Ansible does; its result. `fails`: whether it is to fail. Warnings are plain text."""
        given = {"api_key": self.api_key, "endpoint": self.endpoint, "name": NAME, **params}
        given |= {"_ansible_check_mode": check, "_ansible_diff": True}
        warnings._global_warnings.clear()  # they are kept for a process, which is one module elsewhere
        output = io.StringIO()
        with (
            patch_module_args(given),
            # Another test may have imported Ansible's own side of things, which has warnings go to the screen.
            mock.patch.object(_internal, "is_controller", False),
            contextlib.redirect_stdout(output),
            pytest.raises(SystemExit),
        ):
            load(module).main()
        result: dict[str, Any] = json.loads(output.getvalue())
        assert bool(result.get("failed")) is fails, result.get("msg", result)
        result["warnings"] = [text_of(warning) for warning in result.get("warnings", [])]
        return result

    def account(self) -> Any:
        """The SDK's clients as the modules have them: .compute, .network, .identity, …"""
        if self._account is None:
            from ansible.module_utils.oracle import Account

            self._account = Account(self.api_key, self.endpoint)
        return self._account

    def client(self, kind: str) -> Any:
        return getattr(self.account(), kind)


def text_of(warning: Any) -> str:
    return warning if isinstance(warning, str) else str(warning["event"]["msg"])


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> Iterator[Oracle]:
    import oci.signer
    from oci.retry import retry_sleep_utils

    from tests.standins.oracle_api import OracleApi, Server

    ansible_module.find_shared()
    shared = pytest.importorskip("ansible.module_utils.oracle")
    monkeypatch.setattr(shared, "POLL", 0.001)
    for name in vars(retry_sleep_utils):
        if name.startswith("get_"):
            monkeypatch.setattr(retry_sleep_utils, name, lambda *_: 0.001)
    monkeypatch.setattr(oci.signer, "load_private_key", load_key())
    api_key, public_keys = account()
    server = Server(("127.0.0.1", 0), OracleApi(public_keys))
    with serving(server):
        yield Oracle(server.api, server.endpoint, api_key)
    assert not server.api.broken, server.api.broken[0]
