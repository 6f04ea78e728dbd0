"""Front matter: read as people and scripts write it, written as strict YAML.

Reading never fails. `subject: [URGENT] x`, `from: "Bob" <b@x>`, `subject: Re: x`, tabs, CRLF, a BOM and a missing
closing `---` are ordinary input, and every value is text (`email_id: 007` is not seven). So the header is read line by
line; YAML's own rules are used only for a value that is quoted from end to end.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import yaml

FENCE = "---"
_FIELD = re.compile(r"[ \t]*([A-Za-z][A-Za-z0-9_-]*)[ \t]*:(?!//)[ \t]*(.*)")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")  # with its end; str.splitlines would split at U+2028 too
_END = ("---", "...")
_MORE = (" ", "\t", "-")  # what a line that belongs to the one above begins with


def read(text: str) -> tuple[dict[str, str], str]:
    """Split a note into its fields and its body. Keys come in lower case with `_` for `-`; the first of two wins."""
    header, body = _parts(text)
    return _fields(header), body


def fields(text: str, names: Collection[str]) -> dict[str, str]:
    """Those of a note's fields that have these names, as `read` gives them. What follows the first fence after the
    opening one makes no difference."""
    return _fields(_parts(text)[0], names)


def items(text: str, name: str) -> tuple[str, ...]:
    """The entries of a field that is a list, one by one; `read` gives them in one text."""
    for key, _, more in _entries(_parts(text)[0]):
        if key == name:
            return tuple(_unquote(line.strip()[2:].strip()) for line in more if line.strip().startswith("- "))
    return ()


def dump(fields: Mapping[str, Any], body: str) -> str:
    """Write a note: strict YAML between two fences, a blank line, the body, one newline at the end."""
    return f"{FENCE}\n{_yaml(fields)}{FENCE}\n\n{body.rstrip()}\n"


def annotate(text: str, fields: Mapping[str, str]) -> str:
    """Set fields at the top of a note and leave every other byte as it was."""
    newline = "\r\n" if "\r\n" in text else "\n"
    bom = "\ufeff" if text.startswith("\ufeff") else ""
    lines = _LINE.findall(text.removeprefix("\ufeff"))
    start = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
    ours = [line + newline for line in _yaml(fields).splitlines()]
    if start == len(lines) or lines[start].rstrip() != FENCE:
        return bom + "".join([FENCE + newline, *ours, FENCE + newline, newline, *lines])
    if not lines[start].endswith(("\r", "\n")):
        lines[start] += newline
    head, rest = lines[: start + 1], lines[start + 1 :]
    while rest and (match := _FIELD.fullmatch(rest[0].rstrip("\r\n"))) and _key(match[1]) in fields:
        rest = rest[1:]  # an earlier annotation of ours
    return bom + "".join([*head, *ours, *rest])


def _parts(text: str) -> tuple[list[str], str]:
    """The lines of the header, and the body."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    start = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
    if start == len(lines) or lines[start].rstrip() != FENCE:
        return [], "\n".join(lines)
    header, body = _split(lines[start + 1 :])
    return header, "\n".join(body).lstrip("\n")


def _split(lines: list[str]) -> tuple[list[str], list[str]]:
    end = next((number for number, line in enumerate(lines) if line.rstrip() in _END), None)
    if end is not None:
        blank = next((number for number, line in enumerate(lines[:end]) if not line.strip()), end)
        # What stands after a blank line is the body, also where it looks like `Reply-To: x`: a later `---` is a rule or
        # a signature's line in it, and closes nothing.
        if not any(line.strip() for line in lines[blank:end]):
            return lines[:end], lines[end + 1 :]
    # No closing fence: the header ends at the first line that can be no part of one.
    for number, line in enumerate(lines):
        if not line.strip() or not _can_be_header(line):
            return lines[:number], lines[number:]
    return lines, []


def _can_be_header(line: str) -> bool:
    return line.startswith((" ", "\t", "- ", "#")) or _FIELD.fullmatch(line) is not None


def _fields(lines: list[str], names: Collection[str] | None = None) -> dict[str, str]:
    fields: dict[str, str] = {}
    for key, text, more in _entries(lines):
        if key not in fields and (names is None or key in names):
            fields[key] = _value(text, more)
    return fields


def _entries(lines: list[str]) -> Iterator[tuple[str, str, list[str]]]:
    """Key, text and further lines of each field of a header."""
    position = 0
    while position < len(lines):
        line = lines[position]
        position += 1
        match = _FIELD.fullmatch(line)
        if match is None:
            continue
        more = []
        while position < len(lines) and lines[position][:1] in _MORE and _continues(lines[position]):
            more.append(lines[position])
            position += 1
        yield _key(match[1]), match[2].strip(), more


def _continues(line: str) -> bool:
    if line.startswith("- "):
        return True
    return line.startswith((" ", "\t")) and _FIELD.fullmatch(line.strip()) is None


def _key(text: str) -> str:
    return text.lower().replace("-", "_")


def _value(text: str, more: list[str]) -> str:
    if re.fullmatch(r"[|>][+-]?\d?", text):
        joiner = "\n" if text[0] == "|" else " "
        return joiner.join(line.strip() for line in more).strip()
    if not text and more and all(line.strip().startswith("- ") for line in more if line.strip()):
        return ", ".join(_unquote(line.strip()[2:].strip()) for line in more if line.strip())
    if text in ("[]", "{}", "~", "null"):
        return ""
    return " ".join([_unquote(text), *(line.strip() for line in more if line.strip())])


def _unquote(text: str) -> str:
    if len(text) < 2 or text[0] not in "\"'" or text[-1] != text[0]:
        return text
    plain = text[1:-1]
    if plain.isprintable() and text[0] not in plain and "\\" not in plain:
        return plain  # no escape in it: nothing for YAML to do, which is slow
    try:
        value = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506  (BaseLoader makes strings, lists and dicts only)
    except (yaml.YAMLError, ValueError, OverflowError):  # the last two: "\UFFFFFFFF"
        return text
    return value if isinstance(value, str) else text


class _Dumper(yaml.SafeDumper):
    """Strings on one line: those that YAML would spread over several are quoted with escapes."""


def inert(value: str) -> str:
    """A value that Templater, a plugin of Obsidian, does not run: it does so wherever in a file `<% … %>` stands."""
    return value.replace("<%", "< %")


def _represent_str(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    value = inert(value)
    style = None if value.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _represent_str)


def _yaml(fields: Mapping[str, Any]) -> str:
    return yaml.dump(dict(fields), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**31)
