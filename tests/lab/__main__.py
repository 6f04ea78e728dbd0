"""python -m tests.lab up|down|status|logs [--name NAME]"""

from __future__ import annotations

import argparse
import sys

from tests.lab import lab
from tests.lab.host import LabError


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.lab", description="Containers for the demo and the tests.")
    commands = parser.add_subparsers(dest="command", required=True)
    for command, purpose in (
        ("up", "make the lab, or what is missing of it"),
        ("down", "remove the lab; its images stay"),
        ("status", "print the state of the labs"),
        ("logs", "print the end of the machines' journals"),
    ):
        one = commands.add_parser(command, help=purpose)
        one.add_argument("--name", choices=lab.LABS, default=None if command == "status" else "demo")
    given = parser.parse_args()
    try:
        match given.command:
            case "up":
                lab.up(given.name)
            case "down":
                lab.down(given.name)
            case "logs":
                print(lab.Lab(given.name).logs())
            case "status":
                for name in [given.name] if given.name else lab.LABS:
                    print(name, *(f"{part}: {state}" for part, state in lab.status(name).items()), sep="\n  ")
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"lab: interrupted; run 'python -m tests.lab {given.command}' again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
