"""Messages a second through intake, against the bare parser of the same library. `make bench-intake`.

The messages of the corpus, one after the other in one process. Bare is `email.message_from_bytes` (policy compat32, as
message.py calls it), which leaves encodings, character sets and HTML as they are. The contenders take turns in random
order; before the first turn each message's file is checked to say what the message says. Beside it, what a process
for one message takes, as procmail starts it, and 50 MB messages: time and memory.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from email import message_from_bytes
from functools import partial
from pathlib import Path

from cloud_agent import frontmatter, message
from cloud_agent.config import inspect
from cloud_agent.intake import Intake, Taken, convert
from cloud_agent.mail import parse, shown
from cloud_agent.state import State, utc_now

from benchmarks.sync import machine, table

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpora" / "mail"
ROUNDS = 15
STARTS = 15
LARGE = 50_000_000
BASE64 = b"Content-Type: application/pdf; name=x.pdf\nContent-Transfer-Encoding: base64\n\n"
LARGE_KINDS = {
    "an attachment in base64": BASE64 + (b"QUJD" * 19 + b"\n") * (LARGE // 77),
    "plain text": b"\n" + b"some words of a line\n" * (LARGE // 21),
    "HTML in one line": b"Content-Type: text/html\n\n" + b"<p>words<b>of" * (LARGE // 13),
}
# In a process of its own: the memory of a large process that starts another counts as the other's.
MEASURE = """
import resource, subprocess, sys, time
began = time.perf_counter()
ended = subprocess.run(sys.argv[1:], stdout=sys.stderr, check=True)
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6)
"""


def main() -> int:
    raws = [path.read_bytes() for path in sorted(CORPUS.glob("*.eml"))]
    if not raws:
        print(f"bench: no messages in {CORPUS}: lay the corpora beside the repository", file=sys.stderr)
        return 1
    check(raws)
    began = machine()
    with tempfile.TemporaryDirectory(prefix="bench-intake-", dir=os.environ.get("BENCH_DIR")) as folder:
        seconds = rounds(raws, Path(folder))
        starts = [start(raw, Path(folder)) for raw in raws[:STARTS]]
        large = {kind: large_message(kind, Path(folder)) for kind in LARGE_KINDS}
    size = sum(map(len, raws)) / len(raws)
    print(began)
    print(
        f"{len(raws)} messages of {size / 1000:.1f} kB on average; medians of {ROUNDS} rounds ({utc_now():%Y-%m-%d}).\n"
    )
    names = {
        "bare": "`email.message_from_bytes` alone",
        "read": "what a person sees of it: encodings, character sets, HTML as text, hidden text (message.content)",
        "convert": "… and the file's bytes: header fields, gate's fields, hash, strict YAML (intake.convert)",
        "known": "a message that was taken before: its id, and a look where it lies (Intake.take)",
        "take": "one that is new, with the writing: under the lock, whole, synced to disk (Intake.take)",
    }
    medians = {key: statistics.median(seconds[key]) for key in names}
    rows = [(names[key], f"{len(raws) / one:,.0f}", f"{one / medians['bare']:.2f} x") for key, one in medians.items()]
    print(f"{table(('what', 'messages a second', 'over the bare parser'), rows)}\n")
    middle, most = statistics.median(one for one, _ in starts), max(memory for _, memory in starts)
    figures = {"one message, one process (`cloud-agent intake -`)": (middle, most)}
    figures |= {f"a message of 50 MB: {kind}": one for kind, one in large.items()}
    rows = [(name, f"{took:.2f} s", f"{memory:.0f} MB") for name, (took, memory) in figures.items()]
    print(table(("what", "time", "memory at most"), rows))
    return 0


def check(raws: Sequence[bytes]) -> None:
    """A fast intake of another text would be none."""
    for raw in raws:
        entry = convert(raw)
        mail = parse(entry.name, entry.note())
        assert mail.content.text == frontmatter.inert(shown(message.content(raw).text)), entry.email_id
        assert mail.subject == frontmatter.inert(str(entry.fields.get("subject", ""))), entry.email_id


def rounds(raws: Sequence[bytes], folder: Path) -> dict[str, list[float]]:
    """Seconds for all messages, of each contender and round."""
    vaults = iter(range(10**6))

    def fresh() -> Intake:
        return intake(folder / str(next(vaults)))

    def take(into: Intake) -> None:
        assert all(isinstance(into.take(raw), Taken) for raw in raws)

    full = fresh()
    take(full)

    def known() -> None:
        assert not any(isinstance(full.take(raw), Taken) for raw in raws)

    contenders: dict[str, Callable[[], object]] = {
        "bare": lambda: [message_from_bytes(raw) for raw in raws],
        "read": lambda: [message.content(raw) for raw in raws],
        "convert": lambda: [convert(raw).note() for raw in raws],
        "known": known,
        "take": lambda: None,
    }
    seconds: dict[str, list[float]] = {key: [] for key in contenders}
    for number in range(ROUNDS + 1):
        for key in random.sample(list(contenders), len(contenders)):
            step = partial(take, fresh()) if key == "take" else contenders[key]
            began = time.perf_counter()
            step()
            if number:  # the first one is for the caches
                seconds[key].append(time.perf_counter() - began)
    return seconds


def intake(folder: Path) -> Intake:
    """Intake into a new vault."""
    settings, _ = inspect(env_file(folder), {})
    assert settings is not None
    return Intake(settings, State(settings.state_path), utc_now)


def env_file(folder: Path) -> Path:
    (folder / "vault" / "Inbox").mkdir(parents=True, exist_ok=True)
    path = folder / ".env.cloud"
    path.write_text(f"VAULT_PATH={folder}/vault\nGIT_REMOTE_URL={folder}/r.git\nCLAUDE_API_KEY=none\n")
    path.chmod(0o600)
    return path


def start(raw: bytes, folder: Path) -> tuple[float, float]:
    """Seconds and megabytes of a process that takes one message."""
    path = folder / "message.eml"
    path.write_bytes(raw)
    command = [
        sys.executable,
        "-m",
        "cloud_agent",
        "--env-file",
        str(env_file(folder / "started")),
        "intake",
        str(path),
    ]
    done = subprocess.run([sys.executable, "-c", MEASURE, *command], check=True, capture_output=True)
    seconds, memory = map(float, done.stdout.split())
    return seconds, memory


def large_message(kind: str, folder: Path) -> tuple[float, float]:
    return start(b"From: a@b.org\nSubject: large\n" + LARGE_KINDS[kind], folder)


if __name__ == "__main__":
    sys.exit(main())
