"""Action that has the module oracle_instance ask again for as long as Oracle has no room."""

from __future__ import annotations

import datetime
import random
import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

SHORTEST = 60.0  # seconds; Oracle throttles accounts, and is said to have closed some, that ask twice a minute
LONGEST = 600.0
# No connection at all, throttling, a server that is out of order: a night of waiting outlasts them.
PASSING = (0, 429, 500, 502, 503, 504)


def pause(tries: int, chance: float) -> float:
    """Seconds after the given number of tries; `chance`, from 0 to 1, keeps many who wait out of step."""
    return min(LONGEST, SHORTEST * 2.0 ** min(tries - 1, 10)) * (1 + chance / 2)


def duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if seconds >= 90 else f"{seconds:.0f} s"


def what_it_said(result: dict[str, Any]) -> str | None:
    """Why to ask again, in words; None for a result that is one."""
    if result.get("out_of_capacity"):
        domains = result["domains"]
        by_answer = {answer: [each for each in domains if domains[each] == answer] for answer in domains.values()}
        return "; ".join(f"{answer}: {', '.join(which)}" for answer, which in by_answer.items())
    if result.get("failed") and result.get("status") in PASSING:
        return str(result["msg"])
    return None


class ActionModule(ActionBase):
    """Runs the module until it has an answer."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        del tmp
        result: dict[str, Any] = super().run(None, task_vars)
        arguments = dict(self._task.args)
        patience = float(arguments.pop("capacity_patience", 0))
        name = arguments.get("name")
        deadline = time.monotonic() + patience
        tries, was_full = 0, False
        while True:
            answer = self._execute_module(
                module_name="oracle_instance", module_args=arguments, task_vars=task_vars or {}
            )
            tries += 1
            said = what_it_said(answer)
            was_full = was_full or bool(answer.get("out_of_capacity"))
            # What cannot be reached at the first try is a setting, and not the weather.
            if said is None or (answer.get("failed") and answer["status"] != 429 and not was_full):
                return {**result, **answer}
            left = deadline - time.monotonic()
            if left <= 0:
                return {**result, **answer, "failed": True, "msg": given_up(name, said, tries, patience)}
            wait = min(pause(tries, random.random()), left)  # noqa: S311
            at = datetime.datetime.now().astimezone() + datetime.timedelta(seconds=wait)
            Display().display(
                f"{name}: {said}. Try {tries + 1} at {at:%H:%M:%S}, in {duration(wait)}; patience for {duration(left)}."
            )
            time.sleep(wait)


def given_up(name: object, said: str, tries: int, patience: float) -> str:
    return (
        f"Oracle had no room for {name} at {tries} tries in {duration(patience)}. The last time: {said}. Mend: run this"
        " again, it goes on from here (more patience: oracle_instance_patience_hours); ask for less"
        " (oracle_instance_ocpus, oracle_instance_memory_gb); or change the account to Pay As You Go, which is given"
        " machines first, and pays nothing within the free allowance."
    )
