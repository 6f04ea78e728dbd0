"""The tables of docs/variables.md, out of each role's argument_specs and defaults.

python -m tests.variables     writes the file anew
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs/variables.md"
HEAD = """\
# Variables

<!-- Made by `python -m tests.variables` from roles/*/meta/argument_specs.yml and roles/*/defaults. Change those. -->

What can be set, by role. Yours go into `inventories/production/group_vars/cloud/`; a secret into a file there that
`ansible-vault` encrypts. Beside these, `network_environment` holds the proxies and registries that the machine is to
use. A name that nothing knows is an error before anything is changed, and so is one of `.env.cloud`.
"""
# The order in which site.yml runs them says more than the alphabet; what it does not name comes last.
SITE = ROOT / "ansible/site.yml"


def roles() -> list[Path]:
    order = list(dict.fromkeys(re.findall(r"role: (\w+)", SITE.read_text())))
    found = sorted(path for path in (ROOT / "ansible/roles").iterdir() if (path / "meta/argument_specs.yml").exists())
    return sorted(found, key=lambda role: order.index(role.name) if role.name in order else len(order))


def text(description: str | list[str]) -> str:
    """A description in one line of Markdown: C(x) and V(x) are code."""
    joined = description if isinstance(description, str) else " ".join(description)
    return re.sub(r"\b[CVI]\(([^)]*)\)", r"`\1`", " ".join(joined.split())).replace("|", "\\|")


def shown(option: dict[str, Any], default: Any) -> str:
    """A default in one cell; an expression is not for readers, the description says what it comes to."""
    if isinstance(default, str) and "{{" in default:
        inner = re.fullmatch(r"{{ (\w+) }}", default)
        return f"that of `{inner[1]}`" if inner else "see there"
    if default in ("", [], None):
        return "none"
    value = (
        str(default).lower()
        if isinstance(default, bool)
        else ", ".join(map(str, default))
        if isinstance(default, list)
        else str(default)
    )
    return f"`{value}`"


def table(role: Path) -> str:
    main = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text()) or {}
    lines = [f"## {role.name}", "", text(main["description"]), ""]
    if main["options"]:
        lines += ["| variable | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, option in main["options"].items():
        kind = option["type"] if option["type"] != "raw" else "number"
        lines.append(f"| `{name}` | {kind} | {shown(option, defaults[name])} | {text(option['description'])} |")
    return "\n".join(lines) + "\n"


def render() -> str:
    return "\n".join([HEAD, *map(table, roles())])


if __name__ == "__main__":
    FILE.write_text(render())
    sys.stdout.write(f"{FILE.relative_to(ROOT)}: written\n")
