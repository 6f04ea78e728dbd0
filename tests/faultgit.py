"""A `git` that fails on purpose, for the tests of the sync loop; and cycles that die as `kill -9` lets them die.

The wrapper stands first on PATH, counts the calls of one cycle, and does to the Nth (or to the first `push`) what it
is told to. What git itself starts is not counted: git finds its own parts first.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

REAL_GIT = shutil.which("git") or "git"

# How a call goes wrong:
BEFORE = "before"  # the syncing process is killed before it
AFTER = "after"  # ... after it
DURING = "during"  # git is killed in the middle of a write, and the syncing process with it
FULL = "full"  # writing fails, as on a full disk
BETWEEN = "between"  # somebody else does something first: a shell command
KILLS = (BEFORE, AFTER, DURING)

# A write beyond a limit of so many blocks of 512 bytes kills git (SIGXFSZ), at the same point in every run; with the
# signal ignored it is an error of that write, and only its text (EFBIG's) is changed to that of a full disk. A push is
# killed by the clock instead: the limit would hold for the remote too, and that is another machine.
_WRAPPER = """#!/bin/sh
here={here}
real={real}
echo $$ >> "$here/calls"
count=0
while read -r pid; do
  count=$((count + 1))
  [ "$pid" = $$ ] && break
done < "$here/calls"
command= skip=
for word; do
  if [ "$skip" ]; then skip=; continue; fi
  case $word in -c|-C) skip=1 ;; -*) ;; *) command=$word; break ;; esac
done
echo "$count $command" >> "$here/log"
while read -r call what more <&3; do
  [ "$call" = "$count" ] || [ "$call" = "$command" ] || continue
  echo "$what $command" >> "$here/done"
  case $what in
    before) kill -9 $PPID $$ ;;
    after) "$real" "$@"; kill -9 $PPID $$ ;;
    during)
      if [ "$command" = push ]; then
        "$real" "$@" <&0 & sleep "0.00$more"; kill -9 $!
      else
        (ulimit -c 0; ulimit -f "$more"; exec "$real" "$@")
      fi
      kill -9 $PPID $$ ;;
    full)
      (trap '' XFSZ; ulimit -f "$more"; exec "$real" "$@") 2> "$here/stderr.$$"
      status=$?
      sed 's/File too large/No space left on device/' "$here/stderr.$$" >&2
      exit $status ;;
    between) sh -c "$more" >/dev/null 2>&1 </dev/null ;;
  esac
done 3< "$here/plan"
exec 3<&-
exec "$real" "$@"
"""


@dataclass(frozen=True)
class Fault:
    """What happens to a call (its number from 1, or its command): one of the words above, and what that takes."""

    call: int | str
    what: str
    more: str = "0"

    def __str__(self) -> str:
        return f"{self.call} {self.what} {self.more}\n"


class FaultGit:
    """The wrapper, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "bin").mkdir()
        wrapper = folder / "bin" / "git"
        wrapper.write_text(_WRAPPER.format(here=folder, real=REAL_GIT))
        wrapper.chmod(0o755)
        self.arm()

    def arm(self, *faults: Fault) -> None:
        """Set what happens in the next cycle, and forget the last one's calls."""
        for name in ("calls", "log", "done"):
            (self.folder / name).write_bytes(b"")
        (self.folder / "plan").write_text("".join(map(str, faults)))

    @property
    def path(self) -> str:
        return f"{self.folder / 'bin'}:{os.environ['PATH']}"

    def calls(self) -> list[str]:
        """The commands of the last cycle, in their order."""
        return [line.partition(" ")[2] for line in (self.folder / "log").read_text().splitlines()]

    def done(self) -> list[str]:
        """The faults that came to be: "before push"."""
        return (self.folder / "done").read_text().splitlines()

    def run(self, step: Callable[[], object], kill_at_event: int | None = None, vault: Path | None = None) -> bool:
        """Run a step in a process of its own, under the wrapper; False when it was killed.

        With `kill_at_event` it is also killed before the Nth thing that Python itself does in the vault. Raises what
        the step raised. When this returns, no git of the step is left.
        """
        failure = self.folder / "failure"
        failure.unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.environ["PATH"] = self.path
                if kill_at_event is not None and vault is not None:
                    left = kill_at_event

                    def count(_: str) -> None:
                        nonlocal left
                        left -= 1
                        if left < 0:
                            os.kill(os.getpid(), signal.SIGKILL)

                    watch(vault, count)
                step()
                status = 0
            except BaseException:
                failure.write_text(traceback.format_exc())
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        self.end()
        assert not failure.exists(), failure.read_text()
        return not os.WIFSIGNALED(status)

    def end(self) -> None:
        """Wait until no git of the last cycle is at work: what the kill left behind ends as its pipes do, or never."""
        for line in (self.folder / "calls").read_text().split():
            until = time.monotonic() + 5
            while _lives(int(line)):
                if time.monotonic() > until:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(int(line), signal.SIGKILL)
                    break
                time.sleep(0.002)


def _lives(group: int) -> bool:
    """Whether a process group has a member that is no zombie."""
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, _, member = Path(entry.path, "stat").read_text().rpartition(")")[2].split()[:3]
                if int(member) == group and state != "Z":
                    return True
    return False


# -- points between what Python does -----------------------------------------------------------------------------------

_CHANGES = (
    "open",
    "os.rename",
    "os.remove",
    "os.link",
    "os.mkdir",
    "os.rmdir",
    "os.scandir",
    "os.chmod",
    "os.truncate",
)
_hook: Callable[[str, str], None] | None = None
_installed = False


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    global _hook  # noqa: PLW0603
    if _hook is None or event not in (*_CHANGES, "subprocess.Popen"):
        return
    hook, _hook = _hook, None  # what the hook does itself is not an event
    try:
        subject = arguments[0]
        hook(event, os.fsdecode(subject) if isinstance(subject, str | bytes | os.PathLike) else str(subject))
    finally:
        _hook = hook


def watch(vault: Path, step: Callable[[str], None], *, dot_git: bool = True) -> None:
    """Call `step` before each program that is started, and before each file of the vault (and of `.git`) that Python
    opens, renames, removes or lists, until `unwatch`. Python's audit events; an exception of `step` comes out of what
    it came before.
    """
    global _hook, _installed  # noqa: PLW0603
    root = str(vault)

    def hook(event: str, subject: str) -> None:
        inside = subject.startswith(root) and (dot_git or not subject.startswith(f"{root}/.git"))
        if event == "subprocess.Popen" or inside:
            step(f"{event} {subject.removeprefix(root)}")

    if not _installed:
        sys.addaudithook(_audit)  # for good: there is no removing it
        _installed = True
    _hook = hook


def unwatch() -> None:
    global _hook  # noqa: PLW0603
    _hook = None


@contextlib.contextmanager
def watched(vault: Path, step: Callable[[str], None]) -> Iterator[None]:
    """`watch` without `.git`, for a block."""
    watch(vault, step, dot_git=False)
    try:
        yield
    finally:
        unwatch()
