"""The modules of our roles, as Python to test."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import ansible.module_utils

ROLES = Path(__file__).resolve().parents[1] / "ansible" / "roles"


def find_shared() -> None:
    """Have what the roles' modules share found in ansible.module_utils, as on a machine."""
    for shared in (*ROLES.glob("*/module_utils"), ROLES.parent / "module_utils"):
        if str(shared) not in ansible.module_utils.__path__:
            ansible.module_utils.__path__.append(str(shared))


def load(role: str, name: str) -> ModuleType:
    """The module `name` of a role."""
    find_shared()
    spec = importlib.util.spec_from_file_location(name, ROLES / role / "library" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module
