"""`python -m evals`: the gate, the screening and, with a key, the drafts, each measured on labelled mail."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
from types import ModuleType
from typing import Any

from evals import drafts, gate
from evals.corpora import ABSENT, present

PARTS = ("gate", "screening", "drafts")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m evals", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"which to run: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--limit", type=int, default=drafts.MAILS, help="drafts to score (default: %(default)s)")
    parser.add_argument("--model", default="", help="model that drafts (default: CLAUDE_MODEL, or the agent's own)")
    parser.add_argument("--judge-model", default=drafts.JUDGE_MODEL, help="model that judges (default: %(default)s)")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    parts = options.parts or PARTS
    screening = _screening() if "screening" in parts else None

    if options.json:
        found: dict[str, Any] = {}
        if "gate" in parts:
            found["gate"] = gate.report() if present() else {"skipped": ABSENT}
        if screening is not None and hasattr(screening, "report"):
            found["screening"] = screening.report()
        if "drafts" in parts:
            found["drafts"] = drafts.report(options.limit, options.model, options.judge_model)
        json.dump(found, sys.stdout, indent=1, ensure_ascii=False)
        print()
        return 1 if found.get("gate", {}).get("false_skips") else 0

    worst = 0
    if "gate" in parts:
        worst = max(worst, gate.main())
        print()
    if screening is not None:
        worst = max(worst, screening.main())
        print()
    if "drafts" in parts:
        worst = max(worst, drafts.show(drafts.report(options.limit, options.model, options.judge_model)))
    return worst


def _screening() -> ModuleType | None:
    name = "evals.screening"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


if __name__ == "__main__":
    sys.exit(main())
